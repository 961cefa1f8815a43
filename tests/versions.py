"""Versions of a small bundle, as an update brings them; and the rules that some of them call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.types import AnyArray
from tests import tiny
from tests.networks import NODE, network

_calls = [0]


def version(path: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """Write the tiny bundle with a stage more, which counts the pictures it has seen, and what is given.

    Args:
        path: Where to.
        files: Members in place of its own.
        **changes: Keys of the manifest in place of its own.
    """
    members = tiny.members()
    members["clock.onnx"] = network(
        [
            NODE("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
            NODE("Reshape", ["m", "shape"], ["r"]),
            NODE("Mul", ["r", "zero"], ["z"]),
            NODE("Add", ["z", "n"], ["s"]),
            NODE("Add", ["s", "one"], ["count"]),
        ],
        {"x": [1, 1, 4, 4], "n": [1, 1]},
        {"count": [1, 1]},
        axes=np.array([1, 2, 3]),
        shape=np.array([1, 1]),
        zero=np.float32([[0]]),
        one=np.float32([[1]]),
    ).SerializeToString()
    grey = np.full((1, 1, 8, 8, 1), 51, np.uint8)
    members["golden/clock.npz"] = tiny._npz(in__x=grey, in__n=np.float32([[[2]]]), out__count=np.float32([[[3]]]))
    members |= files or {}
    clock = {"inputs": {"x": "image", "n": "@state:count"}, "outputs": {"count": ["batch", 1]}}
    document = tiny.manifest(members)
    document["stages"] = {**document["stages"], "clock": clock}
    variant = {**document["variants"][0], "stage": "clock", "file": "clock.onnx", "golden": "golden/clock.npz"}
    document["variants"] = [*document["variants"], variant]
    document["outputs"] = ["clock.count"]
    document |= changes
    called = {name for name, stage in document["stages"].items() if "callable" in stage}
    document["variants"] = [v for v in document["variants"] if v["stage"] not in called]
    return write_archive(path, msgspec.convert(document, Manifest), members)


def turned() -> dict[str, bytes]:
    """Return a fusion network that says dark where the other one says bright."""
    model = onnx.load_from_string(tiny.networks()["join"])
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "b"):
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    f = np.float32
    golden = tiny._npz(
        in__bright=f([[[1.0]]]), in__loud=f([[[0.5]]]), in__present=f([[[1, 1]]]),
        out__scene=f([[[10, -10]]]), out__same=f([[[0.0]]]),
    )  # fmt: skip
    return {"join.onnx": model.SerializeToString(), "golden/join.npz": golden}


def ruled(function: str) -> dict[str, Any]:
    """Return stages whose fusion is a rule of this module."""
    join = {**tiny.MANIFEST["stages"]["join"], "callable": f"tests.versions:{function}", "timeout_ms": 60_000.0}
    clock = {"inputs": {"x": "image", "n": "@state:count"}, "outputs": {"count": ["batch", 1]}}
    return {**tiny.MANIFEST["stages"], "join": join, "clock": clock}


def fails_at_the_fourth(bright: AnyArray, loud: AnyArray, present: AnyArray) -> dict[str, AnyArray]:
    """Answer three times."""
    _calls[0] += 1
    if _calls[0] % 4 == 0:
        raise ValueError("the fourth")
    return {"scene": np.float32([[9, -9]]), "same": np.float32([[0]])}


def fails_at_once(bright: AnyArray, loud: AnyArray, present: AnyArray) -> dict[str, AnyArray]:
    """Answer nothing."""
    raise ValueError("the first")
