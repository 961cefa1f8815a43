"""Our own CUDA kernels on a GPU: the bits of the CPU's kernel, dense layers against float64, a graph per engine."""

from __future__ import annotations

import gc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mmedge._native import core
from mmedge.bundle.manifest import ImageInput, Stage
from mmedge.engine.cuda_net import CudaNet, kernels_problem
from mmedge.fusion import StageGraph, StageRunner
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import Snapshot
from tests.unit.test_image import frames, make_frame, specs

PROBLEM = kernels_problem()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]


def layers(*sizes: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [
        ((random.standard_normal((n, m)) / m**0.5).astype(np.float32), random.standard_normal(n).astype(np.float32))
        for m, n in pairwise(sizes)
    ]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_picture_becomes_the_same_bits_as_on_the_cpu(data: st.DataObject) -> None:
    """Every format, matrix, range, turn, fit and area reduction."""
    spec = data.draw(specs())
    frame = data.draw(frames(spec))
    ours = ImagePreprocessor(spec)
    want = np.empty(spec.tensor_shape, np.float32)
    ours.tensor(frame, want)
    with CudaNet(ours.gpu_table(frame), frame.data.shape, spec.tensor_shape) as engine:
        got = engine({"x": frame.data})["tensor"]
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("sizes", [(48, 1), (48, 5, 3), (48, 129, 64, 10), (48, 2000, 7)])
def test_dense_layers_are_within_their_bound(sizes: tuple[int, ...]) -> None:
    spec = ImageInput(size=(4, 4), color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3, frame=(8, 8))
    frame, net = make_frame("rgb24", 8, 8), layers(*sizes)
    ours = ImagePreprocessor(spec)
    tensor = np.empty(spec.tensor_shape, np.float32)
    ours.tensor(frame, tensor)
    want, most = tensor.astype(np.float64).reshape(-1), np.abs(tensor.astype(np.float64)).reshape(-1)
    error = np.zeros_like(most)
    for at, (weights, bias) in enumerate(net):
        # What comes in wrong, and what this layer rounds.
        large = np.abs(weights) @ most + np.abs(bias)
        error = np.abs(weights) @ error + (weights.shape[1] + 1) * 6e-8 * large
        want, most = weights.astype(np.float64) @ want + bias, large
        if at + 1 < len(net):
            want = np.maximum(want, 0)
    with CudaNet(ours.gpu_table(frame), frame.data.shape, spec.tensor_shape, net) as engine:
        got = engine({"x": frame.data})["y"]
        assert np.all(np.abs(got[0] - want) <= error)
        np.testing.assert_array_equal(engine({"x": frame.data})["y"], got)  # the same bits again


def test_a_stage_runs_it_and_other_pictures_give_other_answers() -> None:
    spec = ImageInput(size=(32, 32), color="bgr", mean=(0.5,) * 3, std=(0.25,) * 3, frame=(64, 96))
    ours, net = ImagePreprocessor(spec), layers(3 * 32 * 32, 32, 4)
    table = ours.gpu_table(make_frame("bgr24", 64, 96))
    engine = CudaNet(table, (1, 64, 96, 3), spec.tensor_shape, net)

    def refuse() -> None:
        raise AssertionError("Python was called")

    engine.run = refuse  # type: ignore[method-assign]
    stage = Stage(inputs={"x": "image"}, outputs={"y": ("batch", 4)})
    graph = StageGraph([StageRunner("s", stage, {"image": spec}, engine, {}, raw=True)])
    for seq in range(5):
        frame = replace(make_frame("bgr24", 64, 96, seed=seq), seq=seq)
        shot = Snapshot(t_ns=seq * 40_000_000, seq=seq, present={"image": True}, epoch={"image": 0})
        shot.frames["image"] = frame
        graph.run(shot, _silent)
        tensor = np.empty(spec.tensor_shape, np.float32)
        ours.tensor(frame, tensor)
        hidden = np.maximum(net[0][0] @ tensor.reshape(-1) + net[0][1], 0)
        np.testing.assert_allclose(graph.output("s.y")[0], net[1][0] @ hidden + net[1][1], atol=1e-3)
    graph.close()


def _silent(*_: object) -> int:
    raise AssertionError("no sound here")


def test_memory_comes_back() -> None:
    spec = ImageInput(size=(64, 64), color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3, frame=(128, 128))
    table = ImagePreprocessor(spec).gpu_table(make_frame("rgb24", 128, 128))
    device, free = core.CudaDevice(), []
    for _ in range(12):
        CudaNet(table, (128, 128, 3), spec.tensor_shape, layers(3 * 64 * 64, 256, 10)).close()
        gc.collect()
        free.append(device.free_bytes)
    assert free[3] - free[-1] < 8 << 20  # bytes


def test_a_view_outlives_the_engine() -> None:
    spec = ImageInput(size=(4, 4), color="gray", mean=(0.5,), std=(0.25,), frame=(8, 8))
    frame = make_frame("gray8", 8, 8)
    engine = CudaNet(ImagePreprocessor(spec).gpu_table(frame), (8, 8), spec.tensor_shape)
    want = engine({"x": frame.data})["tensor"]
    view = engine.outputs["tensor"]
    engine.close()
    gc.collect()
    np.testing.assert_array_equal(view, want)
