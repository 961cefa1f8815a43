"""What a build is given and may take: shapes, weights in files, time, memory, disk; what it says of INT8."""

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

from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import build_engine
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import CompiledEngine, compile_network
from mmedge.engine.layers import boundaries, parse_layers, split_int8
from mmedge.engine.network import Network
from mmedge.errors import ConfigError, EngineError
from tests.builds import RTX, Net, builders, image_net

pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")


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


def test_what_was_built_with_less_effort_is_built_again_where_that_is_asked_for(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    net = Network(name="n", model=image_net(), path=None, weights=(), sha256="0" * 64)

    def compiled(shoot: int, *, anew: bool) -> CompiledEngine:
        left = [shoot]

        def progress(phase: str, share: float) -> None:
            for pid in builders() if left[0] else []:
                left[0] -= 1
                os.kill(pid, signal.SIGKILL)

        return compile_network(net, "n", "int8", cache=cache, progress=progress, limits=BuildLimits(anew=anew), **RTX)

    assert compiled(1, anew=False).build.optimization_level == 1
    kept = compiled(0, anew=False)
    assert (kept.cached, kept.build.optimization_level) == (True, 1)
    whole = compiled(0, anew=True)
    assert (whole.cached, whole.build.optimization_level) == (False, None)
    assert compiled(0, anew=True).cached


def test_all_attempts_of_a_build_have_one_time(tmp_path: Path) -> None:
    """Each attempt takes most of the time and then dies for want of memory."""
    shot: list[int] = []

    def shoot(phase: str, share: float) -> None:
        for pid in builders():
            if pid not in shot:
                shot.append(pid)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.5)
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(EngineError, match="took longer than 4 s"):
        build_engine(
            image_net(), name="n", precision="int8", log_path=tmp_path / "l", progress=shoot,
            limits=BuildLimits(timeout_s=4), **RTX,
        )  # fmt: skip


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
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import CompiledEngine, compile_network
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
