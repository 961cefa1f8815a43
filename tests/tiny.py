"""A tiny bundle whose answers can be computed by hand: brightness and loudness, then their comparison."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest

WINDOW = 800
MANIFEST: dict[str, Any] = {
    "schema": "mmedge.bundle/1",
    "name": "tiny",
    "licence": "Apache-2.0",
    "inputs": {
        "image": {"modality": "image", "size": [4, 4], "color": "gray", "mean": [0.0], "std": [1.0], "frame": [8, 8]},
        "audio": {"modality": "audio", "sample_rate_hz": 8000, "window_ms": 100},
    },
    "stages": {
        "eye": {"inputs": {"x": "image"}, "outputs": {"y": ["batch", 1]}},
        "ear": {"inputs": {"x": "audio"}, "outputs": {"y": ["batch", 1]}},
        "join": {
            "inputs": {"bright": "eye.y", "loud": "ear.y", "present": "@present"},
            "outputs": {"scene": ["batch", 2], "same": ["batch", 1]},
        },
    },
    "tasks": {
        "scene": {"kind": "classification", "output": "join.scene", "labels": "labels/scene.txt", "threshold": 0.6},
        "same": {"kind": "verification", "output": "join.same", "labels": "labels/same.txt", "threshold": 0.5},
    },
    "missing": {"image": {"policy": "hold", "max_age_ms": 300}, "audio": {"policy": "zero"}},
    "validated_masks": [
        {"present": ["image", "audio"], "metric": "top1", "value": 1.0},
        {"present": ["image"], "metric": "top1", "value": 0.9},
        {"present": ["audio"], "metric": "top1", "value": 0.9},
    ],
    "sync": {"trigger": "image"},
    "provenance": {"seed": 0},
}


def _model(nodes: list[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]], **constants: Any) -> bytes:
    def infos(shapes: dict[str, list[int]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", infos(inputs), infos(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def networks() -> dict[str, bytes]:
    """Eye: mean of the picture (0..1). Ear: mean of |samples|. Join: scene logits (dark, bright), same."""
    flat = np.array([1, -1], np.int64)
    one = np.array([1], np.int64)
    eye = _model(
        [helper.make_node("Reshape", ["x", "flat"], ["r"]), helper.make_node("ReduceMean", ["r", "one"], ["y"])],
        {"x": [1, 1, 4, 4]},
        {"y": [1, 1]},
        flat=flat,
        one=one,
    )
    ear = _model(
        [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("ReduceMean", ["a", "one"], ["y"])],
        {"x": [1, WINDOW]},
        {"y": [1, 1]},
        one=one,
    )
    join = _model(
        [
            helper.make_node("Concat", ["bright", "loud"], ["both"], axis=1),
            helper.make_node("Mul", ["both", "present"], ["seen"]),
            helper.make_node("MatMul", ["seen", "w"], ["s"]),
            helper.make_node("Add", ["s", "b"], ["scene"]),
            helper.make_node("Sub", ["bright", "loud"], ["d"]),
            helper.make_node("Abs", ["d"], ["ad"]),
            helper.make_node("Sub", ["half", "ad"], ["h"]),
            helper.make_node("Mul", ["h", "ten"], ["same"]),
        ],
        {"bright": [1, 1], "loud": [1, 1], "present": [1, 2]},
        {"scene": [1, 2], "same": [1, 1]},
        w=np.array([[-10, 10], [-10, 10]], np.float32),
        b=np.array([[5, -5]], np.float32),
        half=np.array([[0.5]], np.float32),
        ten=np.array([[10]], np.float32),
    )
    return {"eye": eye, "ear": ear, "join": join}


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{key.replace("__", "."): np.asarray(value, None) for key, value in arrays.items()})
    return buffer.getvalue()


def members() -> dict[str, bytes]:
    files = {f"{stage}.onnx": raw for stage, raw in networks().items()}
    grey = np.full((1, 1, 8, 8, 1), 51, np.uint8)
    sound = np.full((1, 1, WINDOW), 0.25, np.float32)
    f = np.float32
    files["golden/eye.npz"] = _npz(in__x=grey, out__y=f([[[0.2]]]))
    files["golden/ear.npz"] = _npz(in__x=sound, out__y=f([[[0.25]]]))
    files["golden/join.npz"] = _npz(
        in__bright=f([[[1.0]]]),
        in__loud=f([[[0.5]]]),
        in__present=f([[[1, 1]]]),
        out__scene=f([[[-10, 10]]]),
        out__same=f([[[0.0]]]),
    )
    files["labels/scene.txt"] = b"dark\nbright\n"
    files["labels/same.txt"] = b"no\nyes\n"
    return files


def manifest(files: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    variants = [
        {
            "stage": stage,
            "target": "cpu",
            "precision": "fp32",
            "file": f"{stage}.onnx",
            "golden": f"golden/{stage}.npz",
            "tolerance": {},
        }
        for stage in ("eye", "ear", "join")
    ]
    listed = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()}
    return {**MANIFEST, "variants": variants, "files": listed, **changes}


def tiny_bundle(path: Path, **changes: Any) -> Path:
    """Write the bundle; ``changes`` replace top-level keys of the manifest."""
    files = members()
    return write_archive(path, msgspec.convert(manifest(files, **changes), Manifest), files)


def imu_bundle(path: Path, rule: str = "tests.entries:shaken", policy: str = "zero", **stage: Any) -> Path:
    """Write a bundle of a picture and an inertial sensor, joined by a rule: does the sensor say 2 x brightness?"""
    files = {"labels/same.txt": b"no\nyes\n"}
    inputs = {
        "image": MANIFEST["inputs"]["image"],
        "imu": {"modality": "tensor", "shape": [1, 6], "dtype": "float32", "rate_hz": 100},
    }
    changes = {
        "inputs": inputs,
        "stages": {
            "rule": {
                "callable": rule,
                "inputs": {"image": "image", "imu": "imu"},
                "outputs": {"same": ["batch", 1]},
                **stage,
            }
        },
        "tasks": {"same": {"kind": "verification", "output": "rule.same", "labels": "labels/same.txt"}},
        "missing": {"image": {"policy": policy}, "imu": {"policy": "hold", "max_age_ms": 100}},
        "validated_masks": [{"present": ["image"], "metric": "top1", "value": 1.0}],
    }
    return write_archive(path, msgspec.convert(manifest(files, **changes) | {"variants": []}, Manifest), files)
