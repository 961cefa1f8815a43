"""A bundle whose networks do next to nothing: what a run of it costs is the runtime.

Seats and tasks are those of a real one: a gray camera picture of 640x480, a second of sound at 16 kHz as log-mel, two
encoders, a fusion and two smoothed tasks, all of them at every trigger.
"""

from __future__ import annotations

import hashlib
import io
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

import mmedge
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.types import AnyArray

WIDTH, TOKENS, FLOOR = 64, 24, 1e-6
SIZE, FRAME, RATE_HZ = (112, 112), (480, 640), 16000
FEATURES = {
    **{"kind": "log_mel", "n_fft": 512, "window_samples": 400, "hop_samples": 160},
    **{"n_mels": 64, "f_min_hz": 20.0, "f_max_hz": 7600.0, "floor": FLOOR},
}
LABELS = [str(number) for number in range(10)]
INPUTS = {"image": "test://?fps=30&jitter_ms=1", "audio": "test://?seed=7&jitter_ms=1"}


def network(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[str, int]]) -> bytes:
    """Return an ONNX file whose outputs are the first values of inputs.

    Args:
        inputs: Name -> shape; a seat of text is called ``ids``, whole numbers.
        outputs: Name -> (the input that it is taken of, how many values).
    """
    nodes, constants = [], {"flat": np.array([1, -1], np.int64), "zero": np.array([0]), "one": np.array([1])}
    for name, (source, count) in outputs.items():
        constants[f"{name}.n"] = np.array([count], np.int64)
        if source == "ids":
            nodes.append(helper.make_node("Cast", [source], [f"{name}.f"], to=TensorProto.FLOAT))
            source = f"{name}.f"
        nodes += [
            helper.make_node("Reshape", [source, "flat"], [f"{name}.flat"]),
            helper.make_node("Slice", [f"{name}.flat", "zero", f"{name}.n", "one"], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "null",
        [
            helper.make_tensor_value_info(n, TensorProto.INT64 if n == "ids" else TensorProto.FLOAT, shape)
            for n, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, count)) for n, (_, count) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _golden(inputs: dict[str, AnyArray], outputs: dict[str, AnyArray]) -> bytes:
    file = io.BytesIO()
    arrays = {f"in.{n}": v[None] for n, v in inputs.items()} | {f"out.{n}": v[None] for n, v in outputs.items()}
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def null_bundle(path: Path, *, further: int = 0, window_ms: float = 1000, text: bool = False) -> Path:
    """Write the bundle.

    Args:
        path: Where to.
        further: How many further stages follow each other between the fusion and a task.
        window_ms: How much sound is heard at once.
        text: Whether there is a text seat with an encoder, too.
    """
    inputs: dict[str, Any] = {
        "image": {"modality": "image", "size": SIZE, "color": "gray", "mean": [0.0], "std": [1.0], "reduce": 4},
        "audio": {"modality": "audio", "sample_rate_hz": RATE_HZ, "window_ms": window_ms, "features": FEATURES},
    }
    samples = round(window_ms * RATE_HZ / 1000)
    mels = (samples - 400) // 160 + 1, 64
    zeros, silence = np.zeros((1, WIDTH), np.float32), np.full((1, WIDTH), math.log(FLOOR), np.float32)
    files = {"digit.txt": "\n".join(LABELS).encode() + b"\n", "agreement.txt": b"no\nyes\n"}
    stages: dict[str, Any] = {}

    def add(
        name: str,
        sources: dict[str, str],
        shapes: dict[str, tuple[int, ...]],
        outputs: dict[str, tuple[str, int]],
        golden: tuple[dict[str, AnyArray], dict[str, AnyArray]],
        **rules: Any,
    ) -> None:
        files[f"{name}.onnx"], files[f"{name}.npz"] = network(shapes, outputs), _golden(*golden)
        shown = {output: ["batch", count] for output, (_, count) in outputs.items()}
        stages[name] = {"inputs": sources, "outputs": shown, **rules}

    embedding = {"embedding": ("x", WIDTH)}
    picture, sound = np.zeros((1, *FRAME, 1), np.uint8), np.zeros((1, samples), np.float32)
    add("image_encoder", {"x": "image"}, {"x": (1, 1, *SIZE)}, embedding, ({"x": picture}, {"embedding": zeros}))
    add("audio_encoder", {"x": "audio"}, {"x": (1, *mels)}, embedding, ({"x": sound}, {"embedding": silence}))
    sources = {"image": "image_encoder.embedding", "audio": "audio_encoder.embedding", "present": "@present"}
    shapes: dict[str, tuple[int, ...]] = {"image": (1, WIDTH), "audio": (1, WIDTH), "present": (1, 2 + text)}
    if text:
        inputs["text"] = {"modality": "text", "max_tokens": TOKENS, "tokenizer": "tokenizer.json"}
        files["tokenizer.json"] = (Path(mmedge.__file__).parent / "assets/digits/tokenizer.json").read_bytes()
        ids = np.zeros((1, TOKENS), np.int64)
        read = {"embedding": ("ids", TOKENS)}
        golden = {"ids": ids}, {"embedding": ids.astype(np.float32)}
        add("text_encoder", {"ids": "text"}, {"ids": (1, TOKENS)}, read, golden, on="change")
        sources["text"], shapes["text"] = "text_encoder.embedding", (1, TOKENS)
    fused = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    told = {"digit": ("image", len(LABELS)), "agreement": ("audio", 1)}
    nothing = {name: np.zeros((1, count), np.float32) for name, (_, count) in told.items()}
    add("fusion", sources, shapes, told, (fused, nothing))
    last = "fusion.digit"
    for number in range(further):
        same, value = {"y": ("x", len(LABELS))}, np.zeros((1, len(LABELS)), np.float32)
        add(f"further_{number}", {"x": last}, {"x": value.shape}, same, ({"x": value}, {"y": value}))
        last = f"further_{number}.y"

    smoothing = [{"kind": "ema", "tau_ms": 200.0}, {"kind": "hysteresis", "enter": 0.6, "leave": 0.5}]
    variant = {"target": "cpu", "precision": "fp32", "tolerance": {}}
    document = {
        "schema": "mmedge.bundle/1",
        "name": "null",
        "licence": "Apache-2.0",
        "inputs": inputs,
        "stages": stages,
        "variants": [
            {**variant, "stage": name, "file": f"{name}.onnx", "golden": f"{name}.npz"}
            for name, stage in stages.items()
        ],
        "tasks": {
            "digit": {"kind": "classification", "output": last, "labels": "digit.txt", "smoothing": smoothing},
            "agreement": {
                **{"kind": "verification", "output": "fusion.agreement", "labels": "agreement.txt"},
                "smoothing": smoothing[:1],
            },
        },
        "missing": {
            "image": {"policy": "hold", "max_age_ms": 300.0},
            **{name: {"policy": "zero"} for name in inputs if name != "image"},
        },
        "validated_masks": [
            {"present": list(names), "metric": "none", "value": 0.0}
            for count in range(1, len(inputs) + 1)
            for names in combinations(inputs, count)
        ],
        "sync": {"trigger": "image"},
        "files": {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()},
    }
    return write_archive(path, msgspec.convert(document, Manifest), files)
