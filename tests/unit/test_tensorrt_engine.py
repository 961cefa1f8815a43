"""What the TensorRT engine asks of TensorRT and of CUDA's driver, and in which order. Both are stand-ins: no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cuda_driver

ENGINE = """
import numpy as np
from types import SimpleNamespace as Of
import mmedge.engine.tensorrt as home
asked = []

class Context:
    def __init__(self, capturable, fails_at):
        self.runs, self.capturable, self.fails_at = 0, capturable, fails_at
    def set_tensor_address(self, name, address):
        asked.append((name, address > 0))
        return True
    def infer_shapes(self):
        return []
    def get_tensor_shape(self, name):
        return {"x": (1, 4), "y": (1, 2)}[name]
    def is_stream_capturable(self, stream):
        return self.capturable
    def execute_async_v3(self, stream):
        assert stream > 0
        self.runs += 1
        return self.runs != self.fails_at

def load(capturable=True, fails_at=0, runtime=None, **said):
    context = Context(capturable, fails_at)
    engine = Of(
        num_io_tensors=2, get_tensor_name=["x", "y"].__getitem__, get_tensor_mode={"x": 0, "y": 1}.__getitem__,
        get_tensor_shape=context.get_tensor_shape, get_tensor_location=lambda name: "device",
        get_tensor_dtype=lambda name: "float", create_execution_context=lambda: context,
    )
    module = Of(
        Runtime=runtime or (lambda logger: Of(deserialize_cuda_engine={b"plan": engine}.get)),
        TensorIOMode=Of(INPUT=0), TensorLocation=Of(HOST="host"), nptype=lambda kind: np.float32,
    )
    home.run_logger = lambda name: (None, Of(take=lambda: "its own words"))
    home.load_tensorrt = lambda name: TensorRT(module, "tensorrt", "10", frozenset({"stream_capturable"}))
    return context, lambda plan=b"plan": home.TensorRTEngine(plan, name="net", **said)
def TensorRT(module, name, version, caps):
    from mmedge.engine import tensorrt_loader
    return tensorrt_loader.TensorRT(module=module, name=name, version=version, caps=caps)
def counts():
    return driver.stand_in_launches(), driver.stand_in_copies()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cuda_driver.build(tmp_path_factory.mktemp("cuda"))


def test_after_the_warm_up_a_run_is_one_launch(driver: Path) -> None:
    said = cuda_driver.run(
        driver,
        ENGINE
        + """
context, make = load()
with make() as engine:
    print(engine.graph, context.runs, asked, engine.inputs["x"].shape, engine.outputs["y"].dtype)
    before = counts()
    for _ in range(10):
        engine.run()
    print([b - a for a, b in zip(before, counts())], context.runs, engine.native.captured)
print(driver.stand_in_live() > 0)
del engine
import gc
gc.collect()
print(driver.stand_in_live())
""",
    ).splitlines()
    assert said[0] == "captured 4 [('x', True), ('y', True)] (1, 4) float32"
    assert said[1] == "[10, 20] 4 True"
    assert said[-1] == "0"


@pytest.mark.parametrize(
    ("options", "graph", "warm_up"),
    [
        ("capturable=False", "none: TensorRT cannot capture this network as a CUDA graph", 4),
        ("fails_at=4", "none: TensorRT refused to run: its own words", 5),
        ("cuda_graph=False", "not asked for", 3),
    ],
)
def test_without_a_graph_its_kernels_are_launched_one_by_one(
    driver: Path, options: str, graph: str, warm_up: int
) -> None:
    said = cuda_driver.run(
        driver,
        ENGINE
        + f"""
context, make = load({options})
with make() as engine:
    runs, before = context.runs, counts()
    for _ in range(10):
        engine.run()
    print(engine.graph)
    print(runs, context.runs - runs, [b - a for a, b in zip(before, counts())], engine.native)
""",
    ).splitlines()
    assert said == [graph, f"{warm_up} 10 [0, 20] None"]


def test_what_cannot_be_loaded_leaves_nothing(driver: Path) -> None:
    said = cuda_driver.run(
        driver,
        ENGINE
        + """
def none(logger):
    raise TypeError("pybind11::init(): factory function returned nullptr")
for options, plan in (({}, b"junk"), ({"fails_at": 2}, b"plan"), ({"runtime": none}, b"plan")):
    context, make = load(**options)
    try:
        make(plan)
    except mmedge.errors.EngineError as error:
        print(error.message, "|", error.where)
        del error
import gc
gc.collect()
print(driver.stand_in_live())
""",
    ).splitlines()
    assert said == [
        "tensorrt 10 cannot load the plan: its own words | net",
        "TensorRT refused to run: its own words | net",
        "tensorrt cannot start on this GPU: its own words | net",
        "0",
    ]


SHARED = (
    ENGINE
    + """
import logging
from mmedge.engine.reach import EngineOptions
logging.basicConfig(format="%(message)s", stream=__import__("sys").stdout)
driver.stand_in_sms.argtypes = [ctypes.c_void_p]
def on(**options):
    context, make = load(options=EngineOptions(**options))
    return make()
def told(engine):
    engine.run()
    return engine.share, driver.stand_in_sms(engine._run.stream), engine.graph
with on(sms=4) as own, on(sms=4, reserved=False) as rest, on(sms=4) as second, on() as plain:
    for engine in (own, rest, second, plain):
        print(told(engine))
    print(own._share is second._share is rest._share)
del engine, own, rest, second, plain
import gc
gc.collect()
print(driver.stand_in_live())
"""
)


def test_a_stage_has_multiprocessors_of_its_own_and_the_others_share_the_rest(driver: Path) -> None:
    assert cuda_driver.run(driver, SHARED).splitlines() == [
        "('4 of 16 multiprocessors', 4, 'captured')",
        "('12 of 16 multiprocessors', 12, 'captured')",
        "('4 of 16 multiprocessors', 4, 'captured')",
        "('not asked for', 16, 'captured')",
        "True",
        "0",
    ]


def test_a_driver_that_cannot_split_a_gpu_is_said_and_the_stage_runs(
    driver: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    older = cuda_driver.build(tmp_path_factory.mktemp("older"), green=False)
    said = cuda_driver.run(older, SHARED)
    assert "net: no multiprocessors are reserved: the NVIDIA driver has no green contexts" in said
    assert (
        said.count("('none: the NVIDIA driver has no green contexts: libcuda.so.1 has no cuDeviceGetDevResource'") == 3
    )
    assert said.splitlines()[-1] == "0"
    too_many = cuda_driver.run(driver, SHARED.replace("sms=4", "sms=16"))
    assert "16 of 16 SMs leave nothing for one side" in too_many
