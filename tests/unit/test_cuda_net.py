"""How engines call CUDA's driver, against a stand-in that computes nothing: order, counts, errors, what is freed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput
from mmedge.engine.cuda import gpu_available
from mmedge.engine.cuda_net import CudaNet, kernels_problem
from mmedge.errors import ConfigError, DeviceError
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import Frame
from tests import cuda_driver

SPEC = ImageInput(size=(4, 4), color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3, frame=(8, 8))
needs_kernels = pytest.mark.skipif(not core.CudaKernels.built(), reason="mmedge was built without CUDA kernels")
NET = """
import sys
sys.path.insert(0, ".")
from tests.unit.test_cuda_net import SPEC, layers, frame
from mmedge.engine.cuda_net import CudaNet, kernels_problem
from mmedge.preprocess import ImagePreprocessor
table = ImagePreprocessor(SPEC).gpu_table(frame())
def net(**said):
    return CudaNet(table, (1, 8, 8, 3), (1, 3, 4, 4), layers(), name="net", **said)
"""


def frame() -> Frame:
    data = np.zeros((8, 8, 3), np.uint8)
    return Frame(stream="x", seq=0, capture_ns=0, arrive_ns=0, data=data, format="rgb24", width=8, height=8)


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.ones((n, m), np.float32), np.ones(n, np.float32)) for n, m in ((5, 48), (3, 5))]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cuda_driver.build(tmp_path_factory.mktemp("cuda"))


def test_a_gpu_is_described_through_the_driver(driver: Path) -> None:
    code = "from mmedge.engine.cuda import gpu_problem, gpu_info\nprint(gpu_problem(), gpu_info())"
    want = "Gpu(name='stand-in', compute_capability='SM87', memory_bytes=8589934592, integrated=False, cuda='13.0')"
    assert cuda_driver.run(driver, code).strip() == f"None {want}"


@needs_kernels
def test_a_run_is_one_launch_and_all_is_given_back(driver: Path) -> None:
    said = cuda_driver.run(
        driver,
        NET
        + """
with net() as engine:
    assert kernels_problem() is None and engine.backend == "cuda"
    assert engine.outputs["y"].shape == (1, 3) and engine.inputs["x"].shape == (1, 8, 8, 3)
    before = [driver.stand_in_launches(), driver.stand_in_kernels(), driver.stand_in_copies()]
    for _ in range(10):
        engine.run()
    after = [driver.stand_in_launches(), driver.stand_in_kernels(), driver.stand_in_copies()]
    view = engine.outputs["y"]
    engine.native.run()
    run = engine.native
print([b - a for a, b in zip(before, after)])
try:
    run.run()
except mmedge.errors.EngineError as error:
    print(error.message, "|", error.fix)
view += 1  # its memory is still there
print(driver.stand_in_live() > 0)
del view, run, engine
print(driver.stand_in_live())
""",
    ).splitlines()
    closed = "'net' has no CUDA graph: it is closed, or none was recorded | load the engine again"
    assert said == ["[10, 30, 20]", closed, "True", "0"]


@needs_kernels
def test_a_stage_runs_it_without_python(driver: Path) -> None:
    """The engine's Python would raise: C++ calls the graph by itself, and while it runs, other threads go on."""
    said = cuda_driver.run(
        driver,
        NET
        + """
import threading, time
from mmedge.bundle.manifest import Stage
from mmedge.fusion import StageGraph, StageRunner
from mmedge.types import Snapshot
engine = net()
def refuse():
    raise AssertionError("Python was called")
engine.run = engine._run_impl = refuse
spec = Stage(inputs={"x": "image"}, outputs={"y": ("batch", 3)})
stage = StageRunner("s", spec, {"image": SPEC}, engine, {}, raw=True)
graph = StageGraph([stage])
before = driver.stand_in_launches()
turns = 0
def count():
    global turns
    while not over:
        turns += 1
        time.sleep(0)
def shown(seq):
    t_ns, pixels = seq * 40_000_000, np.full((8, 8, 3), seq + 1, np.uint8)
    shot = Snapshot(t_ns=t_ns, seq=seq, present={"image": True}, epoch={"image": 0})
    shot.frames["image"] = mmedge.types.Frame(stream="image", seq=seq, capture_ns=t_ns, arrive_ns=t_ns,
        data=pixels, format="rgb24", width=8, height=8)
    return shot
over = False
driver.stand_in_busy(1 << 30)  # each run takes its millisecond of asking
thread = threading.Thread(target=count, daemon=True)
thread.start()
for seq in range(20):
    shot = shown(seq)
    graph.run(shot, print)
    assert (engine.inputs["x"] == seq + 1).all()
over = True
thread.join()
print(driver.stand_in_launches() - before, turns > 40, stage.took_ns > 500_000)
driver.stand_in_busy(0)
driver.stand_in_fail(1, 2)  # after the context is set, the launch
shot = shown(20)
try:
    graph.run(shot, print)
except mmedge.errors.EngineError as error:
    print(error.message)
graph.run(shot, print)  # and it goes on
graph.close()
""",
    ).splitlines()
    assert said[0] == "20 True True"
    assert "launching 'net' failed: out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)" in said[1]


@needs_kernels
def test_whatever_fails_while_it_is_loaded_is_told_and_nothing_is_left(driver: Path) -> None:
    said = cuda_driver.run(
        driver,
        NET
        + """
import gc
net().close()
driver.stand_in_fail(-1, 0)
net().close()
calls, told = driver.stand_in_calls(), 0
driver.stand_in_failed.restype = ctypes.c_char_p
for n in range(calls):
    before = driver.stand_in_live()
    driver.stand_in_fail(n, 2)
    try:
        net().close()
    except mmedge.errors.MmedgeError as error:
        told += 1
        del error
    gc.collect()
    call = driver.stand_in_failed().decode()
    gives_back = any(word in call for word in ("Free", "Destroy", "Unload", "Release", "Push"))
    assert driver.stand_in_live() == before or gives_back, call
print(calls > 60, told > 40)
""",
    )
    assert said.strip() == "True True"


@needs_kernels
def test_the_benchmark_runs_but_for_its_partner(driver: Path) -> None:
    said = cuda_driver.run(
        driver,
        """
import sys
sys.path.insert(0, ".")
from benchmarks import gpu
gpu.bare_gpu.build = lambda folder, architecture: print(architecture)
rows, targets = gpu.kernel_rows(gpu.gpu_info(), 2, 20)
print(len(rows), targets, rows[0].peers, driver.stand_in_launches())
""",
    ).splitlines()
    assert said == ["sm_87", "2 {} {'bare loop in C++': None} 89"]  # two ways, two rounds of 22, and the first one


@pytest.mark.skipif(gpu_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so() -> None:
    assert kernels_problem()
    table = ImagePreprocessor(SPEC).gpu_table(frame())
    with pytest.raises(DeviceError, match="no usable GPU"):
        CudaNet(table, (8, 8, 3), (1, 3, 4, 4), layers())
    wrong = [layers()[1], layers()[0]]
    with pytest.raises(ConfigError, match="layer 0") as caught:
        CudaNet(table, (8, 8, 3), (1, 3, 4, 4), wrong)
    assert "[outputs, 48]" in str(caught.value.fix)
