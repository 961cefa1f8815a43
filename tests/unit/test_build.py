"""Engines built by tensorrt_rtx in a child process; no GPU is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmedge.engine.build_child import Phases
from mmedge.engine.build_errors import UnsupportedNodesError
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import build_engine, target_capability
from mmedge.engine.cuda import gpu_available
from mmedge.engine.layers import count_half, parse_layers, split_int8
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt
from mmedge.errors import ConfigError, DeviceError, EngineError
from tests.builds import RTX, Net, builders, image_net

pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")


def unsupported_net() -> bytes:
    net = Net()
    net.node("Relu", ["x"], "a")
    net.node("DFT", ["a"], "spectrum", axis=1)
    net.node("Unique", ["a"], "values")
    net.node("Sqrt", ["spectrum"], "y")
    free = (onnx.TensorProto.FLOAT, None)
    return net.model({"x": (onnx.TensorProto.FLOAT, [1, 16, 1])}, {"y": free, "values": free}, opset=17)


def test_int8_runs_in_int8_and_says_so(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    log = tmp_path / "build.log"
    built = build_engine(
        image_net(), name="encoder", precision="int8", log_path=log, progress=lambda *step: seen.append(step), **RTX
    )
    assert built.plan
    assert (built.module, built.compute_capability, built.typing) == ("tensorrt_rtx", "SM86", "strong")
    assert (built.quantized_layers, built.int8_layers, built.int8_coverage) == (3, 3, 1.0)
    assert built.int8_nodes == ("conv0_node", "conv1_node", "y_node")
    assert built.float_nodes == ()
    # The whole uint8 -> float -> planar -> scaled -> int8 prefix is one layer before the convolution.
    assert built.layers <= 8
    assert "Layers:" in log.read_text()
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


@pytest.mark.parametrize(("int8", "asked"), [((False, False, False), 0), ((True, False, False), 1)])
def test_coverage_counts_only_what_the_file_asks_for(tmp_path: Path, int8, asked: int) -> None:
    built = build_engine(image_net(int8=int8), name="n", precision="int8", log_path=tmp_path / "l", **RTX)
    assert (built.quantized_layers, built.int8_layers) == (asked, asked)
    assert built.int8_coverage == float(asked > 0)


def test_a_float_engine_shows_no_int8_layer(tmp_path: Path) -> None:
    log = tmp_path / "l"
    build_engine(image_net(int8=(False,) * 3), name="n", precision="fp32", log_path=log, **RTX)
    layers = parse_layers(log.read_text().split("] Layers:")[1])
    assert layers
    # The same network with Q/DQ asks for three operations: none of them is in INT8 here.
    asked = [frozenset([f"{name}_node"]) for name in ("conv0", "conv1", "y")]
    assert split_int8(layers, asked)[0] == []
    assert asked[0] <= frozenset().union(*(layer.nodes for layer in layers))


def half_net(data: int) -> bytes:
    net = Net()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data)
    weights = (net.random.standard_normal((16, 3, 3, 3)) * 0.1).astype(dtype)
    net.node("Cast", ["x"], "typed", to=data)
    net.node("Conv", ["typed", net.constant("w", weights)], "conv", pads=[1] * 4)
    net.node("Flatten", [net.node("GlobalAveragePool", ["conv"], "mean")], "flat")
    net.node("MatMul", ["flat", net.constant("fc_w", net.random.standard_normal((16, 10)).astype(dtype))], "product")
    net.node("Cast", ["product"], "y", to=onnx.TensorProto.FLOAT)
    return net.model({"x": (onnx.TensorProto.FLOAT, [1, 3, 32, 32])}, {"y": (onnx.TensorProto.FLOAT, [1, 10])})


def test_fp16_is_found_in_the_engine(tmp_path: Path) -> None:
    log = tmp_path / "l"
    built = build_engine(half_net(onnx.TensorProto.FLOAT16), name="n", precision="fp16", log_path=log, **RTX)
    assert (built.half_asked, built.half_layers) == (2, 2)
    # The engine of the same network in FP32 has none of what that file asks for.
    log = tmp_path / "l32"
    plain = build_engine(half_net(onnx.TensorProto.FLOAT), name="n", precision="fp32", log_path=log, **RTX)
    assert plain.half_asked == 0
    layers = parse_layers(log.read_text().split("] Layers:")[1])
    assert count_half(layers, [frozenset(["conv_node"]), frozenset(["product_node"])]) == 0


def fp4_net() -> bytes:
    """A product whose weights are NVFP4: blocks of 16 with scales in FP8, and these with one scale."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    net = Net()
    weights = net.random.standard_normal((4, 16, 32)).astype(np.float32)
    largest = np.float32(np.abs(weights).max() / (6 * 448))
    scales = (np.abs(weights).max(axis=1) / 6 / largest).astype(ml_dtypes.float8_e4m3fn)
    codes = (weights / (scales.astype(np.float32)[:, None] * largest)).clip(-6, 6).astype(ml_dtypes.float4_e2m1fn)
    net.node("DequantizeLinear", [net.constant("s", scales), net.constant("l", largest)], "scales")
    net.node("DequantizeLinear", [net.constant("w", codes.reshape(64, 32)), "scales"], "wide", axis=0, block_size=16)
    net.node("MatMul", ["x", "wide"], "y")
    return net.model({"x": (onnx.TensorProto.FLOAT, [8, 64])}, {"y": (onnx.TensorProto.FLOAT, [8, 32])}, opset=23)


def test_fp4_is_held_in_four_bits_where_the_gpu_has_it_and_refused_elsewhere(tmp_path: Path) -> None:
    where = {"module": "tensorrt_rtx", "log_path": tmp_path / "l", "name": "n", "precision": "fp32"}
    built = build_engine(fp4_net(), compute_capability="SM120", **where)
    assert (built.quantized_layers, built.int8_layers) == (1, 1)
    with pytest.raises(EngineError, match="HW-specific datatypes: fp4"):
        build_engine(fp4_net(), compute_capability="SM89", **where)


def test_layers_of_a_gpu_build_are_read() -> None:
    tensor = "{{ Name: {}, Location: Device, Dimensions: [1,16,8,8], Format/Datatype: {} }}"
    line = (
        "Name: conv + relu, LayerType: CaskConvolution, Inputs: [ {}], Outputs: [ {}], ParameterType: Convolution, "
        'Weights: {{"Type": "Int8", "Count": 2304}}, TacticName: t, StreamId: 0, Metadata: [ONNX Layer: {}]'
    )
    packed, linear = "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP32"
    text = "\n".join(
        [
            line.format(tensor.format("a", packed), tensor.format("b", linear), "conv0"),
            line.format(tensor.format("b", "UInt8"), tensor.format("c", packed), "conv1"),
        ]
    )
    layers = parse_layers(text)
    assert [layer.int8 for layer in layers] == [True, False]
    assert split_int8(layers, [frozenset(["conv0"]), frozenset(["conv1"])]) == (["conv0"], ["conv1"])


@pytest.mark.parametrize("channels", [4, 64])  # few: the correlation is inside a generated kernel
def test_conv1d_and_dynamic_batch(tmp_path: Path, channels: int) -> None:
    net = Net()
    net.conv("x", (8, channels, 3), "y", int8=True)
    model = net.model(
        {"x": (onnx.TensorProto.FLOAT, ["batch", channels, 64])}, {"y": (onnx.TensorProto.FLOAT, ["batch", 8, 64])}
    )
    built = build_engine(model, name="audio", precision="int8", log_path=tmp_path / "l", **RTX)
    assert (built.quantized_layers, built.int8_layers) == (1, 1)


def test_all_unsupported_operators_at_once_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedNodesError) as caught:
        build_engine(
            unsupported_net(),
            name="spectrum",
            precision="fp32",
            log_path=tmp_path / "l",
            sources={"spectrum_node": "model.py:41 (encoder.pre)"},
            **RTX,
        )
    assert [(node.index, node.op, node.name) for node in caught.value.nodes] == [
        (1, "DFT", "spectrum_node"),
        (2, "Unique", "values_node"),
    ]
    assert "#1 DFT 'spectrum_node' at model.py:41 (encoder.pre)" in caught.value.message
    assert "#2 Unique 'values_node'" in caught.value.message
    assert "log_mel" in str(caught.value.fix)


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        build_engine(b"no onnx \xff", name="n", precision="fp32", log_path=tmp_path / "l", **RTX)


def test_a_network_the_builder_gives_up_on(tmp_path: Path) -> None:
    net = Net()
    net.node("Attention", ["q", "k", "v"], "y")
    kind = (onnx.TensorProto.FLOAT, [1, 4, 16, 32])
    model = net.model(dict.fromkeys("qkv", kind), {"y": kind}, opset=23)
    with pytest.raises(EngineError) as caught:
        build_engine(model, name="attention", precision="fp32", log_path=tmp_path / "l", **RTX)
    assert "opset 20" in str(caught.value.fix)
    assert (tmp_path / "l").stat().st_size > 0


@pytest.mark.parametrize(
    ("number", "says", "fix"),
    [
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)", "report the log"),
        (signal.SIGKILL, "memory ran out", "close other programs"),
    ],
)
def test_a_builder_that_dies_is_an_error_here(tmp_path: Path, number: int, says: str, fix: str) -> None:
    def shoot(phase: str, share: float) -> None:
        for pid in builders():
            os.kill(pid, number)

    with pytest.raises(EngineError, match=says) as caught:
        build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", progress=shoot, **RTX)
    assert fix in str(caught.value.fix)


def test_timeout_kills_the_child(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"longer than 0\.05 s"):
        build_engine(
            image_net(), name="n", precision="int8", log_path=tmp_path / "l", limits=BuildLimits(timeout_s=0.05), **RTX
        )
    assert time.monotonic() - started < 60
    assert not builders()


def test_an_exception_of_the_caller_kills_the_child(tmp_path: Path) -> None:
    def stop(phase: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", progress=stop, **RTX)
    assert not builders()


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(image_net())
    code = f"""
import os, signal
from pathlib import Path
from mmedge.engine.build_parent import build_engine
def leave(phase, share):
    if phase == "loading TensorRT":
        children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGSTOP)  # busy for ever
        print(*children, flush=True)
        os._exit(0)
build_engine(Path({str(tmp_path)!r}, "net.onnx").read_bytes(), name="n", precision="int8",
             log_path=Path({str(tmp_path)!r}, "l"), progress=leave, module="tensorrt_rtx", compute_capability="SM86")
"""
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # the parent leaves without cleaning up
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=env)
    (pid,) = done.stdout.split()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the builder outlived its parent"
        time.sleep(0.02)


def test_files_beside_the_users_script_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", **RTX).plan


def test_targets() -> None:
    rtx = load_tensorrt("tensorrt_rtx")
    assert target_capability(rtx, "SM89") == "SM89"
    with pytest.raises(ConfigError, match="SM87") as caught:
        target_capability(rtx, "SM87")
    assert "SM86" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="weakly typed"):
        build_engine(b"", name="n", precision="int8", log_path=Path("l"), typing="weak", **RTX)


def test_a_module_without_a_gpu_says_what_does_build() -> None:
    if gpu_available():
        pytest.skip("this machine has a GPU")
    full = TensorRT(module=None, name="tensorrt", version="10.16.2", caps=frozenset({"weak_typing"}))
    with pytest.raises(DeviceError, match="needs a GPU to build") as caught:
        target_capability(full)
    assert "MMEDGE_TENSORRT=tensorrt_rtx" in str(caught.value.fix)


def test_progress_of_nested_phases_never_falls() -> None:
    seen: list[float] = []
    phases = Phases(lambda phase, share: seen.append(share))
    phases.start("all", "", 2)
    for _ in range(2):
        phases.start("part", "all", 4)
        for step in range(4):
            phases._reported_s = 0.0  # every step is told
            phases.step("part", step)
        phases.finish("part")
        phases.step("all", len(seen) // 5)
    assert seen == sorted(seen)
    assert seen[:4] == [0.125, 0.25, 0.375, 0.5]
    assert seen[-1] == 1.0


def test_dimensions_that_share_a_name_and_differ_are_two(tmp_path: Path) -> None:
    net = Net()
    net.conv("x", (8, 3, 3), "y", int8=False)
    model = net.model({"x": (onnx.TensorProto.FLOAT, ["?", 3, "?"])}, {"y": (onnx.TensorProto.FLOAT, ["?", 8, "?"])})
    shapes = {"x": ((1, 3, 64), (1, 3, 64), (1, 3, 64))}
    built = build_engine(model, name="net", precision="fp32", shapes=shapes, log_path=tmp_path / "l", **RTX)
    assert built.plan
