"""A bundle that listens: a small recurrent network, and a plain loop over the same sound."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.types import FloatArray
from tests.tiny import MANIFEST

RATE, STEP, CONTEXT = 8000, 160, 40
WINDOW = STEP + CONTEXT
_RNG = np.random.default_rng(7)
_IN = (_RNG.standard_normal((WINDOW, 4)) / 8).astype(np.float32)
_BACK = (_RNG.standard_normal((4, 4)) / 2).astype(np.float32)


def listener() -> bytes:
    """h' = tanh(x W + h V); p = sigmoid(sum h'): its answer depends on every sample it ever heard."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["h", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Tanh", ["c"], ["h.next"]),
        helper.make_node("ReduceSum", ["h.next", "one"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["p"]),
    ]

    def info(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = {"w": _IN, "v": _BACK, "one": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "listener",
        [info("x", ["batch", "samples"]), info("h", ["batch", 4])],
        [info("p", ["batch", 1]), info("h.next", ["batch", "size"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def plain_loop(sound: FloatArray, before: FloatArray | None = None) -> list[float]:
    """Return the answer after each step of ``sound``; ``before`` was heard by nobody, but is there."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32) if before is None else before[-CONTEXT:], sound])
    state, answers = np.zeros((1, 4), np.float32), []
    for first in range(0, len(sound) - STEP + 1, STEP):
        state = np.tanh(padded[None, first : first + WINDOW] @ _IN + state @ _BACK)
        answers.append(1 / (1 + float(np.exp(-state.sum()))))
    return answers


def listening_bundle(path: Path, sync: dict[str, Any], network: bytes | None = None, **changes: Any) -> Path:
    """Write a bundle of a picture that is ignored and sound that is listened to; ``changes`` of the manifest."""
    buffer = io.BytesIO()
    zeros = {"in.x": np.zeros((1, 1, WINDOW), np.float32), "in.h": np.zeros((1, 1, 4), np.float32)}
    half = {"out.p": np.full((1, 1, 1), 0.5, np.float32), "out.h.next": np.zeros((1, 1, 4), np.float32)}
    np.savez(buffer, **zeros, **half)
    files = {
        "ear.onnx": listener() if network is None else network,
        "ear.npz": buffer.getvalue(),
        "voice.txt": b"silence\nvoice\n",
    }
    manifest: dict[str, Any] = {
        "schema": "mmedge.bundle/1",
        "name": "listener",
        "licence": "Apache-2.0",
        "inputs": {
            "image": MANIFEST["inputs"]["image"],
            "audio": {"modality": "audio", "sample_rate_hz": RATE, "window_ms": 1000 * WINDOW / RATE},
        },
        "stages": {
            "ear": {
                "inputs": {"x": "audio", "h": "@state:h.next"},
                "outputs": {"p": ["batch", 1], "h.next": ["batch", 4]},
                "every_ms": 1000 * STEP / RATE,
            },
            "join": {
                "callable": "tests.streams:pick",
                "inputs": {"p": "ear.p", "image": "image"},
                "outputs": {"p": ["batch", 2]},
            },
        },
        "variants": [
            {
                "stage": "ear",
                "target": "cpu",
                "precision": "fp32",
                "file": "ear.onnx",
                "golden": "ear.npz",
                "tolerance": {},
            }
        ],
        "tasks": {
            "voice": {
                "kind": "classification",
                "output": "join.p",
                "labels": "voice.txt",
                "scores": "probabilities",
                "top_k": 2,
            }
        },
        "missing": {"image": {"policy": "zero"}, "audio": {"policy": "zero"}},
        "validated_masks": [{"present": [name], "metric": "top1", "value": 1.0} for name in ("image", "audio")],
        "sync": sync,
        "files": {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()},
        **changes,
    }
    return write_archive(path, msgspec.convert(manifest, Manifest), files)


def pick(p: FloatArray, image: FloatArray) -> FloatArray:
    """Return the probabilities of silence and voice."""
    return np.concatenate([1 - p, p], axis=1)
