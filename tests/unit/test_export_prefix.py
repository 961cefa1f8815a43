"""The ONNX prefix equals the numpy oracle and the training module, and leaves the network behind it as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle.manifest import AudioInput, ImageInput, LogMel, TensorInput
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import ConfigError
from mmedge.export.onnx.lint import lint
from mmedge.export.preprocess.onnx_prefix import Preprocessor, merge_prefix
from mmedge.export.preprocess.torch_module import ImagePreprocess, LogMelPreprocess
from mmedge.preprocess import reference

GREY_LEVEL = 0.02
FEATURES = LogMel(
    n_fft=256, window_samples=200, hop_samples=125, n_mels=40, f_min_hz=20, f_max_hz=3800, mean=-6.0, std=4.0
)
SPEECH = AudioInput(sample_rate_hz=8000, window_ms=500, features=FEATURES)


def image_spec(**changes: object) -> ImageInput:
    fields: dict = {"size": (28, 30), "color": "gray", "frame": (60, 80), "mean": (0.45,), "std": (0.25,)}
    return ImageInput(**(fields | changes))


def grey_levels(a: np.ndarray, b: np.ndarray, spec: ImageInput) -> float:
    return float(np.abs((a - b) * np.reshape(spec.std, (1, -1, 1, 1))).max() * 255)


def frame_of(spec: ImageInput, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, spec.raw_shape, dtype=np.uint8)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    frame=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    fit=st.sampled_from(["stretch", "crop", "letterbox"]),
    color=st.sampled_from(["gray", "rgb"]),
    reduce=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_image_prefix_equals_the_oracle_and_the_torch_module(size, frame, fit, color, reduce):
    n = 1 if color == "gray" else 3
    spec = ImageInput(
        size=size, frame=frame, fit=fit, color=color, reduce=reduce, mean=(0.4, 0.5, 0.6)[:n], std=(0.2, 0.3, 0.25)[:n]
    )
    raw = frame_of(spec)
    got = Preprocessor({"image": spec})({"image": raw})["image"]
    assert got.shape == spec.tensor_shape
    assert got.dtype == np.float32
    assert grey_levels(got, reference.image(raw[0], spec), spec) <= GREY_LEVEL
    assert grey_levels(got, ImagePreprocess(spec)(torch.from_numpy(raw)).numpy(), spec) <= GREY_LEVEL


def test_image_prefix_at_the_size_of_a_camera():
    spec = image_spec(size=(112, 112), frame=(480, 640), reduce=4)
    raw = frame_of(spec)
    got = Preprocessor({"image": spec})({"image": raw})["image"]
    assert grey_levels(got, reference.image(raw[0], spec), spec) <= GREY_LEVEL


def sounds() -> dict[str, np.ndarray]:
    rng, t = np.random.default_rng(1), np.arange(SPEECH.samples) / SPEECH.sample_rate_hz
    return {
        "noise": rng.normal(0, 0.1, t.size),
        "full-scale tone": np.sin(2 * np.pi * 1000 * t),
        "two tones": 0.5 * np.sin(2 * np.pi * 437.3 * t) + 0.001 * np.sin(2 * np.pi * 2900 * t),
        "click": (np.arange(t.size) == 999) * 1.0,
        "whisper": rng.normal(0, 1e-4, t.size),
        "silence": np.zeros(t.size),
    }


@pytest.mark.parametrize("name", sounds())
def test_log_mel_prefix_equals_the_oracle_and_the_torch_module(name):
    pcm = sounds()[name].astype(np.float32)
    got = Preprocessor({"audio": SPEECH})({"audio": pcm[None]})["audio"]
    assert got.shape == SPEECH.tensor_shape
    power = reference.mel_power(pcm, SPEECH)
    audible = power >= 1e-6 * power.max(axis=1, keepdims=True)
    for want in (reference.log_mel(pcm, SPEECH), LogMelPreprocess(SPEECH)(torch.from_numpy(pcm[None])).numpy()):
        assert np.abs((got - want)[0][audible] * FEATURES.std).max() <= 1e-4


def conv_model(inputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A quantised-looking network: Q/DQ, then a product with a constant, then the sum over all inputs."""
    nodes, parts = [], []
    constants = [
        numpy_helper.from_array(np.float32(0.05), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    for name in inputs:
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"], name=f"{name}/q"),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"], name=f"{name}/dq"),
            helper.make_node("ReduceMean", [f"{name}_dq"], [f"{name}_mean"], name=f"{name}/mean", keepdims=0),
            helper.make_node("Reshape", [f"{name}_mean", "one"], [f"{name}_1"], name=f"{name}/reshape"),
        ]
        parts.append(f"{name}_1")
    nodes.append(helper.make_node("Sum", parts, ["y"], name="sum"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_merge_of_a_data_fusion_stage_gives_what_preprocessing_first_gives():
    camera, imu = image_spec(fit="letterbox", reduce=2), TensorInput(shape=(1, 6))
    seats = {"x": camera, "sound": SPEECH, "imu": imu}
    model = conv_model({"x": camera.tensor_shape, "sound": SPEECH.tensor_shape, "imu": (1, 6)})
    before = model.SerializeToString()
    merged = merge_prefix(model, seats)
    assert model.SerializeToString() == before
    assert lint(merged) == []
    assert [(v.name, v.type.tensor_type.elem_type) for v in merged.graph.input] == [
        ("x", TensorProto.UINT8),
        ("sound", TensorProto.FLOAT),
        ("imu", TensorProto.FLOAT),
    ]
    kept = {n.name: n.op_type for n in merged.graph.node}
    assert all(kept[n.name] == n.op_type for n in model.graph.node)

    raw = {
        "x": frame_of(camera),
        "sound": sounds()["two tones"][None].astype(np.float32),
        "imu": np.arange(6, dtype=np.float32)[None],
    }
    tensors = Preprocessor(seats)(raw)
    want = OnnxRuntimeEngine(model.SerializeToString())(tensors)["y"]
    got = OnnxRuntimeEngine(merged.SerializeToString())(raw)["y"]
    # One step of the quantiser in one of thousands of values is all that may differ.
    assert np.abs(got - want).max() < 1e-3


def test_stages_fed_by_embeddings_get_no_prefix():
    model = conv_model({"embedding": (1, 64)})
    assert merge_prefix(model, {}) == model


def test_sound_without_features_passes_as_it_is():
    seat = AudioInput(sample_rate_hz=8000, window_ms=100)
    pcm = np.random.default_rng(0).normal(size=(1, 800)).astype(np.float32)
    assert np.array_equal(Preprocessor({"a": seat})({"a": pcm})["a"], pcm)


def test_a_sample_that_lacks_an_input_is_refused_by_name():
    with pytest.raises(ConfigError, match="'audio'"):
        Preprocessor({"audio": SPEECH})({})
