"""Numbers in tensors: a constant that a dtype cannot hold is refused at load, an age that it cannot hold is cut."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mmedge
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest, TensorInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import EngineBase
from mmedge.errors import BundleError
from mmedge.fusion import StageRunner, load_graph
from mmedge.fusion.tensors import age_limit, fill
from tests.networks import FLOAT, NODE, network
from tests.tiny import MANIFEST

DTYPES = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]


def bundle_of(path: Path, dtype: str, constant: str) -> Path:
    """Write a bundle of one network: y = x * k, where k is a constant of ``dtype``."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [NODE("Cast", ["k"], ["c"], to=FLOAT), NODE("Mul", ["x", "c"], ["y"])]
    model = network(nodes, {"x": (FLOAT, [1, 2]), "k": (kind, [])}, {"y": (FLOAT, [1, 2])})
    golden = io.BytesIO()
    zeros = np.zeros((1, 1, 2), np.float32)
    np.savez(golden, **{"in.x": zeros, "in.k": np.zeros(1, dtype), "out.y": zeros})
    files = {"s.onnx": model.SerializeToString(), "s.npz": golden.getvalue(), "labels.txt": b"a\nb\n"}
    variant = {"stage": "s", "target": "cpu", "precision": "fp32", "file": "s.onnx", "golden": "s.npz", "tolerance": {}}
    manifest = {
        **MANIFEST,
        "inputs": {"imu": {"modality": "tensor", "shape": [1, 2], "dtype": "float32", "rate_hz": 50}},
        "stages": {"s": {"inputs": {"x": "imu", "k": f"@const:{constant}"}, "outputs": {"y": ["batch", 2]}}},
        "tasks": {"t": {"kind": "classification", "output": "s.y", "labels": "labels.txt"}},
        "variants": [variant],
        "missing": {},
        "validated_masks": [],
        "sync": {"trigger": "imu"},
        "files": {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()},
    }
    return write_archive(path, msgspec.convert(manifest, Manifest), files)


@pytest.mark.parametrize(
    ("dtype", "constant"),
    [
        ("uint8", "300"),
        ("uint8", "-1"),
        ("int8", "128"),
        ("int64", "9223372036854775807"),  # as a number of the manifest it is one more
        ("int64", "1e300"),
        ("int64", "16000.5"),
        ("float32", "1e300"),
        ("float32", "1e-60"),
        ("float16", "70000"),
        ("bool", "2"),
        ("bool", "0.5"),
    ],
)
def test_a_constant_that_its_tensor_cannot_hold_is_refused_at_load(tmp_path: Path, dtype: str, constant: str) -> None:
    path = bundle_of(tmp_path / "b.mmedge", dtype, constant)
    with mmedge.load(path) as bundle, pytest.raises(BundleError, match=f"into a tensor of {dtype}") as caught:
        load_graph(bundle, backend="onnxruntime")
    assert caught.value.where == "manifest.json: $.stages.s.inputs.k"


@pytest.mark.parametrize(
    ("dtype", "constant"),
    [("uint8", "255"), ("int64", "-9223372036854775808"), ("float16", "65504"), ("float32", "-0.0"), ("bool", "1")],
)
def test_a_constant_that_just_fits_is_fed(tmp_path: Path, dtype: str, constant: str) -> None:
    with mmedge.load(bundle_of(tmp_path / "b.mmedge", dtype, constant)) as bundle:
        graph = load_graph(bundle, backend="onnxruntime")
        assert graph.stages[0].engine.inputs["k"] == np.dtype(dtype).type(float(constant))
        graph.close()


@given(dtype=st.sampled_from(DTYPES), number=st.floats(allow_nan=False, allow_infinity=False))
@example(dtype="float32", number=3.5e38)
@example(dtype="float16", number=65520.0)
def test_what_is_filled_is_the_number_or_its_nearest(dtype: str, number: float) -> None:
    array = np.zeros(2, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fill(array, number, "k")
        except BundleError:
            assert array.dtype.kind == "f" or not number.is_integer() or beyond(dtype, int(number))
            return
    relative = 0.0 if array.dtype.kind in "biu" else float(np.finfo(dtype).eps)
    tiny = 0.0 if array.dtype.kind in "biu" else float(np.finfo(dtype).smallest_subnormal)
    assert float(array[1]) == pytest.approx(number, rel=relative, abs=tiny)


def beyond(dtype: str, number: int) -> bool:
    return number not in (0, 1) if dtype == "bool" else not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_age_is_the_largest_number_of_its_dtype(dtype: str) -> None:
    row = np.zeros(1, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row[0] = age_limit(row.dtype)
    assert float(row[0]) == age_limit(row.dtype)
    if row.dtype.kind in "iu":
        assert np.iinfo(dtype).max - int(row[0]) < 1024  # what a double can tell apart
    elif row.dtype.kind == "f":
        assert row[0] == np.finfo(dtype).max


class Ager(EngineBase):
    def __init__(self, dtype: str) -> None:
        super().__init__("test")
        self.inputs: dict[str, Any] = {"x": np.zeros((1, 2), np.float32), "age": np.zeros((1, 1), dtype)}
        self.outputs = {"y": np.zeros((1, 2), np.float32)}


@pytest.mark.parametrize("source", ["@age_ms", "@present"])
def test_an_age_is_no_truth_value_but_presence_may_be_any(source: str) -> None:
    spec = StageSpec(inputs={"x": "imu", "age": source}, outputs={"y": (1, 2)})
    seats = {"imu": TensorInput(shape=(1, 2))}
    for dtype in DTYPES[1:]:
        StageRunner("s", spec, seats, Ager(dtype), {}, raw=False)
    if source == "@present":
        StageRunner("s", spec, seats, Ager("bool"), {}, raw=False)
        return
    with pytest.raises(BundleError, match="'age' of the network is bool") as caught:
        StageRunner("s", spec, seats, Ager("bool"), {}, raw=False)
    assert caught.value.where == "manifest.json: $.stages.s.inputs.age"
