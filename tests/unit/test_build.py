"""Engines built by tensorrt_rtx in a child process; no GPU is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmedge.engine.build_child import Phases
from mmedge.engine.build_errors import UnsupportedNodesError
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import build_engine, target_capability
from mmedge.engine.cuda import gpu_available
from mmedge.engine.layers import boundaries, count_int8, parse_layers, split_int8
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt
from mmedge.errors import ConfigError, DeviceError, EngineError

pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")
RTX = {"module": "tensorrt_rtx", "compute_capability": "SM86"}


class Net:
    """Puts an ONNX network together, node by node."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.constants: list = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(onnx.helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes))
        return output

    def quantize(self, tensor: str, scale) -> str:
        scale = np.asarray(scale, np.float32)
        pair = [self.constant(f"{tensor}_s", scale), self.constant(f"{tensor}_z", np.zeros(scale.shape, np.int8))]
        axis = {"axis": 0} if scale.ndim else {}
        self.node("QuantizeLinear", [tensor, *pair], f"{tensor}_q", **axis)
        return self.node("DequantizeLinear", [f"{tensor}_q", *pair], f"{tensor}_dq", **axis)

    def conv(self, data: str, shape: tuple[int, ...], output: str, *, int8: bool) -> str:
        weights = (self.random.standard_normal(shape) * 0.1).astype(np.float32)
        name = self.constant(f"{output}_w", weights)
        bias = self.constant(f"{output}_b", np.zeros(shape[0], np.float32))
        if int8:
            data = self.quantize(data, 0.02)
            name = self.quantize(name, np.abs(weights).reshape(shape[0], -1).max(axis=1) / 127)
        pads = [1] * (2 * (len(shape) - 2))
        return self.node("Conv", [data, name, bias], output, pads=pads)

    def model(self, inputs: dict, outputs: dict, opset: int = 20) -> bytes:
        def values(items):
            return [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in items.items()]

        graph = onnx.helper.make_graph(self.nodes, "net", values(inputs), values(outputs), self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
        return model.SerializeToString()


def image_net(*, int8: tuple[bool, bool, bool] = (True, True, True)) -> bytes:
    """Raw uint8 frame -> two convolutions -> fully connected, each in INT8 or not."""
    net = Net()
    net.node("Cast", ["x"], "float", to=1)
    net.node("Transpose", ["float"], "planar", perm=[0, 3, 1, 2])
    net.node("Mul", ["planar", net.constant("k", np.float32(1 / 255))], "scaled")
    net.node("Relu", [net.conv("scaled", (16, 3, 3, 3), "conv0", int8=int8[0])], "relu0")
    net.node("Relu", [net.conv("relu0", (16, 16, 3, 3), "conv1", int8=int8[1])], "relu1")
    net.node("Flatten", [net.node("GlobalAveragePool", ["relu1"], "mean")], "flat")
    weights = net.constant("fc_w", net.random.standard_normal((16, 10)).astype(np.float32))
    data = "flat"
    if int8[2]:
        data, weights = net.quantize("flat", 0.02), net.quantize("fc_w", 0.02)
    net.node("MatMul", [data, weights], "y")
    return net.model({"x": (onnx.TensorProto.UINT8, [1, 32, 32, 3])}, {"y": (onnx.TensorProto.FLOAT, [1, 10])})


def unsupported_net() -> bytes:
    net = Net()
    net.node("Relu", ["x"], "a")
    net.node("DFT", ["a"], "spectrum", axis=1)
    net.node("Unique", ["a"], "values")
    net.node("Sqrt", ["spectrum"], "y")
    free = (onnx.TensorProto.FLOAT, None)
    return net.model({"x": (onnx.TensorProto.FLOAT, [1, 16, 1])}, {"y": free, "values": free}, opset=17)


def builders() -> list[int]:
    """Processes of this test that build."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"build_child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


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
    assert count_int8(layers, asked) == 0
    assert asked[0] <= frozenset().union(*(layer.nodes for layer in layers))


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
    assert count_int8(layers, [frozenset(["conv0"]), frozenset(["conv1"])]) == 1


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
    assert time.monotonic() - started < 5
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
    deadline = time.monotonic() + 5
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


def test_what_runs_in_float_and_where_types_change_is_named(tmp_path: Path) -> None:
    built = build_engine(
        image_net(int8=(True, False, True)), name="n", precision="int8", log_path=tmp_path / "l", **RTX
    )
    assert built.int8_nodes == ("conv0_node", "y_node")
    # The float convolution between two in INT8 costs a way back: its mean is quantised again for the last product.
    assert any("flat_q_node" in line and line.endswith("float to int8") for line in built.boundaries)
    whole = build_engine(image_net(int8=(False,) * 3), name="n", precision="fp32", log_path=tmp_path / "m", **RTX)
    assert whole.boundaries == ()


def node(name: str) -> str:
    return f"Metadata: [ONNX Layer: {name}]"


def test_a_quantised_product_that_runs_in_float_is_named() -> None:
    line = "Name: {}, LayerType: {}, Inputs: [ {{ Datatype: Float }}], {}Outputs: [ {{ Datatype: {} }}], "
    text = "\n".join(
        [
            line.format("a", "correlation", "Constants: [ { Datatype: Float }], ", "Float") + node("conv0"),
            line.format("b", "reformat", "", "Int8") + node("conv0_q"),
        ]
    )
    layers = parse_layers(text)
    assert split_int8(layers, [frozenset(["conv0"])]) == ([], ["conv0"])
    assert boundaries(layers) == ["conv0_q: float to int8"]


def open_net() -> bytes:
    net = Net()
    net.node("Relu", ["x"], "y")
    shape = ["batch", 3, "height", "width"]
    return net.model({"x": (onnx.TensorProto.FLOAT, shape)}, {"y": (onnx.TensorProto.FLOAT, shape)})


def test_an_open_dimension_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 \('height'\), 3 \('width'\)") as caught:
        build_engine(open_net(), name="n", precision="fp32", log_path=tmp_path / "l", **RTX)
    assert "--shape x=1x3x<height>x<width>" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="cannot be"):
        build_engine(open_net(), name="n", precision="fp32", log_path=tmp_path / "l", shapes={"x": (1, 4, 8, 8)}, **RTX)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 3, 32, 32), "MinShape: [1,3,32,32], OptShape: [1,3,32,32], MaxShape: [1,3,32,32]"),
        (
            ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32)),
            "MinShape: [1,3,8,8], OptShape: [2,3,16,16], MaxShape: [4,3,32,32]",
        ),
    ],
)
def test_shapes_and_ranges_reach_the_builder(tmp_path: Path, shape, said: str) -> None:
    log = tmp_path / "l"
    build_engine(open_net(), name="n", precision="fp32", log_path=log, shapes={"x": shape}, **RTX)
    assert said in log.read_text()


def test_weights_beside_the_network_are_built_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    net = Net()
    net.node("MatMul", ["x", net.constant("w", random)], "y")
    kind = (onnx.TensorProto.FLOAT, [1, 64])
    model = onnx.load_from_string(net.model({"x": kind}, {"y": kind}))
    path = tmp_path / "m.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    beside = build_engine(path.read_bytes(), name="n", precision="fp32", log_path=tmp_path / "l", path=path, **RTX)
    assert len(beside.plan) > random.nbytes
    with pytest.raises(EngineError):  # without the path they cannot be found
        build_engine(path.read_bytes(), name="n", precision="fp32", log_path=tmp_path / "l", **RTX)


def test_a_build_that_holds_too_much_is_tried_with_less_effort_and_then_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match="more than the 80 MiB that it may") as caught:
        build_engine(
            image_net(),
            name="n",
            precision="int8",
            log_path=tmp_path / "l",
            limits=BuildLimits(memory_bytes=80 << 20),
            **RTX,
        )
    assert "--memory-mb" in str(caught.value.fix)
    assert [
        record.message.rsplit(" ", 1)[1] for record in caplog.records if "optimisation level" in record.message
    ] == [
        "1",
        "0",
    ]
    assert not builders()


def test_a_build_that_ran_out_of_memory_once_is_built_at_a_lower_level(tmp_path: Path) -> None:
    shot: list[int] = []

    def shoot(phase: str, share: float) -> None:
        for pid in [] if shot else builders():
            os.kill(pid, signal.SIGKILL)  # as the kernel does
            shot.append(pid)

    built = build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", progress=shoot, **RTX)
    assert built.optimization_level == 1
    assert built.plan


def test_a_build_that_is_no_longer_wanted_ends_at_once(tmp_path: Path) -> None:
    stop = threading.Event()

    def when(phase: str, share: float) -> None:
        stop.set()

    with pytest.raises(EngineError, match="was stopped"):
        build_engine(
            image_net(), name="n", precision="int8", log_path=tmp_path / "l", progress=when,
            limits=BuildLimits(stop=stop, nice=5), **RTX,
        )  # fmt: skip
    assert not builders()


def test_a_full_disk_is_an_error_with_a_fix(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the plan does not fit."""
    random = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    net = Net()
    net.node("MatMul", ["x", net.constant("w", random)], "y")
    kind = (onnx.TensorProto.FLOAT, [1, 600])
    (tmp_path / "net.onnx").write_bytes(net.model({"x": kind}, {"y": kind}))
    code = f"""
import resource
from pathlib import Path
from mmedge.engine.build_parent import build_engine
from mmedge.errors import EngineError
onnx = Path({str(tmp_path)!r}, "net.onnx").read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(onnx) // LESS, resource.RLIM_INFINITY))
try:
    build_engine(onnx, name="n", precision="fp32", log_path=Path({str(tmp_path)!r}, "l"), module="tensorrt_rtx",
                 compute_capability="SM86")
except EngineError as error:
    print(error)
"""
    for less in ("1 + 5000", "2"):  # the plan, the model itself
        done = subprocess.run(
            [sys.executable, "-c", code.replace("LESS", less)], capture_output=True, text=True, timeout=60, check=True
        )
        assert "cannot write its files" in done.stdout, done.stdout + done.stderr
        assert "free space" in done.stdout
