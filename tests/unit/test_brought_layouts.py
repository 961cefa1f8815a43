"""Pictures and sound for networks that lie otherwise or take whole numbers: equal to what the network itself gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from mmedge.bundle.manifest import AudioInput, ImageInput, Sync
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import ConfigError
from mmedge.export.brought.brought import bring
from mmedge.export.brought.outputs import run_network
from mmedge.export.preprocess.onnx_prefix import merge_prefix
from mmedge.export.recipe import Recipe, RecipeStage
from mmedge.preprocess import reference
from tests.networks import FLOAT, NODE, network

PERMS = {"nchw": (0, 1, 2, 3), "nhwc": (0, 2, 3, 1), "ncwh": (0, 1, 3, 2), "nwhc": (0, 3, 2, 1)}
UINT8, INT16 = TensorProto.UINT8, TensorProto.INT16


def recipe(folder, spec, model) -> Recipe:
    onnx.save(model, folder / "net.onnx")
    stage = RecipeStage(inputs={"x": "seat"}, onnx="net.onnx")
    sync = Sync(trigger="seat")
    return Recipe(
        name="r", licence="MIT", inputs={"seat": spec}, stages={"net": stage}, sync=sync, folder=folder, sha256=""
    )


def weighing(shape, kind=FLOAT, first=()) -> onnx.ModelProto:
    """A network in which each place of its input counts otherwise; ``first`` are operators in front."""
    names = ["x", *(f"t{k}" for k in range(len(first)))]
    nodes = [NODE(op, [names[k]], [names[k + 1]], **more) for k, (op, more) in enumerate(first)]
    size = int(np.prod([dim or 1 for dim in shape]))
    weight = np.random.default_rng(0).normal(0, 1, (size, 2)).astype(np.float32)
    nodes += [NODE("Reshape", [names[-1], "row"], ["r"]), NODE("MatMul", ["r", "w"], ["y"])]
    return network(nodes, {"x": (kind, shape)}, {"y": (FLOAT, [1, 2])}, w=weight, row=np.array([1, size]))


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(PERMS)),
    st.sampled_from(["rgb", "gray"]),
    st.integers(2, 9),
    st.integers(2, 9),
)
def test_every_layout_gets_its_picture_in_both_forms(tmp_path_factory, layout, color, height, width):
    channels = 1 if color == "gray" else 3
    mean, std = (0.4,) * channels, (0.3,) * channels
    spec = ImageInput(size=(height, width), color=color, frame=(16, 12), mean=mean, std=std, layout=layout)
    perm = PERMS[layout]
    own = weighing([spec.tensor_shape[axis] for axis in perm])
    folder = tmp_path_factory.mktemp("n")
    model = bring(recipe(folder, spec, own))[1]["net"]
    frame = np.random.default_rng(1).integers(0, 256, spec.raw_shape, dtype=np.uint8)
    planar = reference.image(frame[0], spec)
    want = run_network(own, {"x": planar.transpose(perm)}, "")[0]
    got = OnnxRuntimeEngine(model.SerializeToString())({"x": planar})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    raw = merge_prefix(model, {"x": spec})
    got = OnnxRuntimeEngine(raw.SerializeToString())({"x": frame})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("shape", [[6, 8, 3], [3, 6, 8]])
def test_a_picture_without_a_batch_is_not_read_across(tmp_path, shape):
    spec = ImageInput(size=(6, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    own = weighing(shape)
    model = bring(recipe(tmp_path, spec, own))[1]["net"]
    planar = np.random.default_rng(1).random((1, 3, 6, 8), dtype=np.float32)
    want = run_network(own, {"x": planar[0].transpose(1, 2, 0) if shape[2] == 3 else planar[0]}, "")[0]
    np.testing.assert_allclose(OnnxRuntimeEngine(model.SerializeToString())({"x": planar})["y"], want, rtol=1e-4)


def test_whole_numbers_are_rounded_and_not_wrapped(tmp_path):
    """Channels last in uint8, moved before they are cast; raw frames enter by the same nodes."""
    spec = ImageInput(size=(12, 16), frame=(12, 16), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    first = [("Transpose", {"perm": (0, 3, 1, 2)}), ("Cast", {"to": FLOAT})]
    own = weighing([1, 12, 16, 3], UINT8, first)
    model = bring(recipe(tmp_path, spec, own))[1]["net"]
    frame = np.random.default_rng(1).integers(0, 256, spec.raw_shape, dtype=np.uint8)
    want = run_network(own, {"x": frame}, "")[0]
    feeds = {"x": reference.image(frame[0], spec)}
    np.testing.assert_allclose(OnnxRuntimeEngine(model.SerializeToString())(feeds)["y"], want, rtol=1e-5)
    raw = merge_prefix(model, {"x": spec})
    np.testing.assert_allclose(OnnxRuntimeEngine(raw.SerializeToString())({"x": frame})["y"], want, rtol=1e-5)


def test_full_scale_of_int16_does_not_wrap_around(tmp_path):
    spec = AudioInput(sample_rate_hz=8000, window_ms=1, gain=32768.0)
    own = weighing([1, 8], INT16, [("Cast", {"to": FLOAT})])
    model = bring(recipe(tmp_path, spec, own))[1]["net"]
    pcm = np.float32([[1.0, -1.0, 0.5, 0.25, 0, 1e-5, -0.3, 0.99999]])
    whole = np.clip(np.round(pcm * 32768), -32768, 32767).astype(np.int16)
    want = run_network(own, {"x": whole}, "")[0]
    got = OnnxRuntimeEngine(model.SerializeToString())({"x": pcm * np.float32(32768)})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_layout_that_does_not_fit_is_refused(tmp_path):
    spec = ImageInput(size=(6, 8), mean=(0.0,) * 3, std=(1.0,) * 3, layout="ncwh")
    with pytest.raises(ConfigError, match=r"takes \[1, 3, 6, 8\], 'seat' gives \[1, 3, 6, 8\] as 'ncwh'"):
        bring(recipe(tmp_path, spec, weighing([1, 3, 6, 8])))
