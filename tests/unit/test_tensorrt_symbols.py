"""What mmedge asks of TensorRT exists in every version it is said to run on: API-checked, not tested."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mmedge.engine import build_child, parse_check, tensorrt_loader
from mmedge.engine.build_messages import BuildOptions, DoneMessage, FailedMessage
from mmedge.engine.build_parent import BuildReport
from mmedge.engine.low_precision import refuse_unused
from mmedge.engine.reach import EngineOptions
from mmedge.engine.tensorrt_loader import TensorRT
from mmedge.errors import EngineError
from tests.tensorrt_stand_in import TABLES, VERSIONS, AbsentError, stand_in

ENGINE = Path(tensorrt_loader.__file__).parent


def load(version: str, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    name = "tensorrt_rtx" if version.startswith("rtx-") else "tensorrt"
    monkeypatch.setitem(sys.modules, name, stand_in(version))
    trt = tensorrt_loader._load.__wrapped__(name)
    for module in (build_child, parse_check):
        monkeypatch.setattr(module, "load_tensorrt", lambda *_: trt)
    monkeypatch.setattr(build_child, "gpu_available", lambda: False)
    return trt


def test_the_stand_in_refuses_what_a_version_lacks() -> None:
    old = stand_in("10.3.0")
    config = old.Builder(None).create_builder_config()
    for absent in ("num_compute_capabilities", "no_such_thing"):
        with pytest.raises(AbsentError, match=r"TensorRT 10\.3\.0 has no IBuilderConfig\."):
            getattr(config, absent)
    with pytest.raises(AbsentError):
        config.no_such_thing = 1
    with pytest.raises(AbsentError):
        _ = old.IRuntimeConfig
    with pytest.raises(AbsentError):
        _ = old.BuilderFlag.NO_SUCH_FLAG
    assert hasattr(stand_in("10.13.3.9").ICudaEngine, "create_runtime_config")


@pytest.mark.parametrize("version", VERSIONS)
def test_capabilities_are_those_of_the_version(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = load(version, monkeypatch)
    rtx = version.startswith("rtx-")
    assert "strongly_typed_flag" in trt.caps
    assert ("timing_cache" in trt.caps, trt.ahead_of_time) == (not rtx, rtx)
    assert ("same_capability" in trt.caps) is (version != "10.3.0")
    assert ("weak_typing" in trt.caps) is version.startswith("10.")
    assert ("runtime_config" in trt.caps) is (version != "10.3.0")
    assert trt.weak_fallback is (version == "10.3.0")


@pytest.mark.parametrize(("version", "typing"), [*((version, "strong") for version in VERSIONS), ("10.3.0", "weak")])
def test_a_build_asks_only_for_what_the_version_has(
    version: str, typing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = load(version, monkeypatch)
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setattr(build_child, "without_false_names", lambda model, _: model)
    options = BuildOptions(
        module=trt.name,
        precision="int8",
        compute_capability="SM86" if trt.ahead_of_time else None,
        typing=typing,  # type: ignore[arg-type]
        workspace_bytes=1 << 20,
        shapes={"x": ((1, 3), (2, 3), (4, 3))},
        optimization_level=2,
        timing_cache="timing_cache" in trt.caps,
    )
    done = build_child.build(tmp_path, options, lambda *_: None)
    assert isinstance(done, DoneMessage)
    assert (tmp_path / "engine.plan").read_bytes() == b"plan"
    assert options.timing_cache is (tmp_path / "timing.new").exists()
    used = vars(trt.module)["used"]
    assert {"Builder.build_serialized_network", "IOptimizationProfile.set_shape", "ILayer.metadata"} <= used


def dla_build(
    version: str, folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], core: int = 1
) -> tuple[DoneMessage | FailedMessage, set[str]]:
    trt = load(version, monkeypatch)
    (folder / "model.onnx").write_bytes(b"")
    monkeypatch.setattr(build_child, "without_false_names", lambda model, _: model)

    class Log(build_child.BuildLog):
        def __init__(self) -> None:
            super().__init__()
            for line in said:
                self(3, line)

    monkeypatch.setattr(build_child, "BuildLog", Log)
    engine = EngineOptions(dla_core=core, newer_versions=True, gpus="ampere")
    options = BuildOptions(module=trt.name, precision="fp16", typing="strong", engine=engine, shapes={"x": (X, X, X)})
    done = build_child.build(folder, options, lambda *_: None)
    return done, vars(trt.module)["used"]


X = (2, 3)
ON_DLA, ON_GPU = "[DlaLayer] {ForeignNode[conv0...relu0]}", "[GpuLayer] SHUFFLE: reshape0"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla_and_a_wider_reach_ask_only_for_what_the_version_has(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, used = dla_build(version, tmp_path, monkeypatch, [ON_DLA, ON_GPU])
    assert isinstance(done, DoneMessage)
    assert done.dla_layers == ["{ForeignNode[conv0...relu0]}"]
    assert done.gpu_layers == ["SHUFFLE: reshape0"]
    asked = {"DLA_core", "default_device_type", "set_flag", "hardware_compatibility_level"}
    assert {f"IBuilderConfig.{name}" for name in asked} <= used


def test_a_dla_that_gets_nothing_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = dla_build("10.3.0", tmp_path, monkeypatch, [ON_GPU])
    assert isinstance(done, FailedMessage)
    assert "put none of the layers on the DLA" in done.message


def test_a_core_that_is_not_there_names_the_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        EngineError, match=r"tensorrt 10\.3\.0 has 2 DLA cores, so not core 2: .*AGX Orin.*Thor have none"
    ):
        dla_build("10.3.0", tmp_path, monkeypatch, [ON_DLA], core=2)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_check_of_the_parser_asks_only_for_what_the_version_has(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(version, monkeypatch)
    answer = parse_check.ask_here(b"")
    assert answer is not None
    assert (answer.version, answer.refused) == (version, ())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_runner_names_only_what_the_version_has_or_asks_first(version: str) -> None:
    text = (ENGINE / "tensorrt.py").read_text()
    asked = {
        "ICudaEngine.create_runtime_config",
        "Runtime.get_engine_validity",
        "IExecutionContext.is_stream_capturable",
    }
    seen = set()
    for variable, owner in (("engine", "ICudaEngine"), ("context", "IExecutionContext"), ("runtime", "Runtime")):
        for name in set(re.findall(rf"self\._{variable}\.(\w+)", text)):
            seen.add(f"{owner}.{name}")
            assert name in TABLES[version][owner].split() or f"{owner}.{name}" in asked, f"{owner}.{name}"
    assert {"IExecutionContext.execute_async_v3", "ICudaEngine.num_io_tensors"} <= seen


def report(low: int, asked: int, layers: int = 9) -> BuildReport:
    return BuildReport(
        module="tensorrt",
        version="10.13.3.9",
        compute_capability="SM110",
        typing="strong",
        seconds=1.0,
        layers=layers,
        quantized_layers=asked,
        int8_layers=low,
        int8_coverage=low / asked if asked else 0.0,
        log_path="",
        half_asked=asked,
        half_layers=low,
    )


@pytest.mark.parametrize("precision", ["int8", "fp8", "int4", "fp16"])
def test_a_precision_that_was_asked_for_and_is_not_used_fails_the_build(precision: str) -> None:
    with pytest.raises(EngineError, match=rf"built none of the 3 products in {precision.upper()}") as caught:
        refuse_unused(report(0, 3), precision, "encoder")
    assert "doctor" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("low", "asked", "layers", "precision"),
    [(1, 3, 9, "int8"), (0, 0, 9, "int8"), (0, 0, 0, "fp16"), (2, 3, 9, "fp16"), (0, 3, 9, "fp32")],
)
def test_what_is_used_in_part_or_was_not_asked_for_is_no_failure(
    low: int, asked: int, layers: int, precision: str
) -> None:
    refuse_unused(report(low, asked, layers), precision, "encoder")


@pytest.mark.parametrize("precision", ["fp8", "fp16"])
def test_what_cannot_be_checked_is_not_claimed(precision: str) -> None:
    with pytest.raises(EngineError, match=rf"whether it uses {precision.upper()} cannot be checked") as caught:
        refuse_unused(report(0, 3, 0), precision, "encoder")
    assert caught.value.where == "encoder"
    refuse_unused(report(0, 3, 0), "fp32", "encoder")
