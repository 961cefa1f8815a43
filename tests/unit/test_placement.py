"""Where stages run, as a run asks for it: what is asked reaches the engine, and what cannot be is said before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.bundle import load
from mmedge.cli import run
from mmedge.cli.output import parse_places
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.reach import EngineOptions
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError
from mmedge.fusion import Upgrades, load_graph
from mmedge.fusion.compile import compile_bundle
from mmedge.fusion.doors import DOORS
from mmedge.fusion.placement import placements
from tests.doors import OrtDoor, twin_bundle, wait_for

DLA, OWN, REST = EngineOptions(dla_core=1), EngineOptions(sms=8), EngineOptions(sms=8, reserved=False)


class Noting(OrtDoor):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: dict[str, EngineOptions | None] = {}

    def build(self, bundle, variant, progress=None, limits=None, options=None):  # type: ignore[no-untyped-def]
        self.asked[variant.stage] = options
        return super().build(bundle, variant, progress, limits, options)


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    with load(twin_bundle(tmp_path / "twin.mmedge")) as opened:
        yield opened


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Noting:
    own = Noting(tmp_path / "cache")
    monkeypatch.setitem(DOORS, "tensorrt", own)
    return own


def test_what_is_asked_of_one_stage_leaves_the_rest_to_the_others(bundle: Any) -> None:
    assert placements(bundle.manifest, {}) == {}
    assert placements(bundle.manifest, {"eye": "dla:1"}) == {"eye": DLA}
    assert placements(bundle.manifest, {"join": "sms:8"}) == {"eye": REST, "ear": REST, "join": OWN}
    assert placements(bundle.manifest, {"join": "sms:8", "eye": "dla:1"}) == {"eye": DLA, "ear": REST, "join": OWN}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"nose": "dla:0"}, "'nose' is not a network"),
        ({"eye": "sms:4", "ear": "sms:8"}, "split once, not into 4 and 8"),
        *(
            ({"eye": wrong}, "is not a place")
            for wrong in ("", "dla", "dla:", "dla:-1", "sms:0", "sms:1e9", "gpu:0", "dla:²")
        ),
    ],
)
def test_what_is_no_place_is_said(bundle: Any, place: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        placements(bundle.manifest, place)
    assert caught.value.fix


@given(st.text(max_size=12))
def test_any_text_is_a_place_or_an_error(text: str) -> None:
    from mmedge.fusion.placement import _parse

    try:
        options = _parse("eye", text)
    except ConfigError:
        return
    assert options.is_placed
    assert text.partition(":")[2].isdigit()


def test_it_reaches_the_engines_of_a_run_and_of_a_build_beside_one(bundle: Any, door: Noting) -> None:
    place = {"join": "sms:8", "eye": "dla:1"}
    wanted = {"eye": DLA, "ear": REST, "join": OWN}
    load_graph(bundle, place=place).close()
    assert door.asked == wanted
    door.asked.clear()
    compile_bundle(bundle, None, lambda text, share: None, place=place)
    assert door.asked == wanted
    door.asked.clear()
    for path in door.cache.folder.glob("*.plan"):
        path.unlink()
    graph = load_graph(bundle, place=place, wait=False)
    # What has a place waits for its engine; the others start on the CPU and are built beside the run.
    assert set(door.asked) == {"eye", "join"}
    assert [item.stage for item in graph.pending] == ["ear"]
    upgrades = Upgrades(bundle, graph, graph.pending)
    wait_for(lambda: not upgrades.waiting)
    upgrades.close()
    graph.close()
    assert door.asked == wanted


def test_a_place_needs_tensorrt(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="stage 'eye' has a place, and 'onnxruntime' has none"):
        load_graph(bundle, place={"eye": "dla:0"}, backend="onnxruntime")
    if gpu_problem() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="TensorRT cannot run here") as caught:
        load_graph(bundle, place={"eye": "sms:8"})
    assert caught.value.fix == "leave the place of stage 'eye' out"


def test_a_pipeline_refuses_what_is_no_place_before_it_starts(bundle: Any) -> None:
    with pytest.raises(ConfigError, match="'nose' is not a network"):
        mmedge.Pipeline(bundle, {"image": "test://", "audio": "test://"}, place={"nose": "dla:0"})


def test_the_command_line() -> None:
    assert parse_places(["a=dla:0", "b=sms:4"]) == {"a": "dla:0", "b": "sms:4"}
    for wrong in (["a"], ["=dla:0"], ["a=dla:0", "a=dla:1"]):
        with pytest.raises(ConfigError):
            parse_places(wrong)


def test_compile_says_what_is_no_place_before_it_measures(
    bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object, **__: object) -> None:
        raise AssertionError("measured first")

    monkeypatch.setattr("mmedge.cli.compile.measure_cpu", measure)
    monkeypatch.setattr("mmedge.cli.compile.compile_onnx", measure)
    assert run(["compile", str(bundle.path), "--place", "nose=dla:0"]) == 2
    assert "'nose' is not a network" in capfd.readouterr().err
    assert run(["compile", str(tmp_path / "a.onnx"), "--place", "eye=dla:0"]) == 2
    assert "an ONNX file has no stages" in capfd.readouterr().err


@pytest.mark.parametrize("asked", [["--place", "eye=dla:0"], ["--gpus", "ampere"], ["--newer-versions"]])
def test_compile_without_tensorrt_passes_over_nothing_that_was_asked(
    bundle: Any, asked: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def build(*_: object, **__: object) -> None:
        raise MissingDependencyError("there is no TensorRT", where="tensorrt", fix="install it")

    monkeypatch.setattr("mmedge.cli.compile.measure_cpu", lambda *_, **__: [{}])
    monkeypatch.setattr("mmedge.cli.compile.no_engines", lambda bundle: "TensorRT is not installed")
    monkeypatch.setattr("mmedge.cli.compile.compile_bundle", build)
    assert run(["compile", str(bundle.path), "--json"]) == 0
    assert run(["compile", str(bundle.path), *asked, "--json"]) == MissingDependencyError.exit_code
    assert "there is no TensorRT" in capfd.readouterr().out
