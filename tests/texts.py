"""A bundle whose text stage can be computed by hand: which of two words was said more often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from tests.tiny import MANIFEST, _npz, manifest

WORDS = {"[PAD]": 0, "[UNK]": 1, "dark": 2, "bright": 3, "it": 4, "is": 5}
TOKENS = 6


def tokenizer_json(words: dict[str, int] = WORDS, **changes: Any) -> bytes:
    """Return a tokenizer of lower-case whole words."""
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    return json.dumps(document | changes).encode()


def reader_onnx(rows: int = len(WORDS)) -> bytes:
    """Return a network: the sum of the embeddings (dark, bright) of all tokens."""
    table = np.zeros((rows, 2), np.float32)
    table[WORDS["dark"], 0] = table[WORDS["bright"], 1] = 4
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["e"]),
            helper.make_node("ReduceSum", ["e", "one"], ["said"], keepdims=0),
        ],
        "reader",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, TOKENS])],
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def text_bundle(
    path: Path,
    *,
    tokenizer: bytes | None = None,
    ttl_ms: float | None = None,
    policy: str = "zero",
    trigger: str = "image",
) -> Path:
    """Write the bundle: pictures trigger, the task ``word`` is what the text says."""
    files = {
        "reader.onnx": reader_onnx(),
        "golden/reader.npz": _npz(
            in__ids=np.array([[[2, 1, 0, 0, 0, 0]]], np.int64), out__said=np.array([[[4, 0]]], np.float32)
        ),
        "labels/word.txt": b"dark\nbright\n",
        "tokenizer/text.json": tokenizer_json() if tokenizer is None else tokenizer,
    }
    seat = {"modality": "text", "max_tokens": TOKENS, "tokenizer": "tokenizer/text.json", "ttl_ms": ttl_ms}
    variant = {"stage": "reader", "target": "cpu", "precision": "fp32", "file": "reader.onnx"}
    changes: dict[str, Any] = {
        "inputs": {"image": MANIFEST["inputs"]["image"], "text": seat},
        "stages": {"reader": {"inputs": {"ids": "text"}, "outputs": {"said": ["batch", 2]}}},
        "variants": [{**variant, "golden": "golden/reader.npz", "tolerance": {}}],
        "tasks": {
            "word": {
                "kind": "classification",
                "output": "reader.said",
                "labels": "labels/word.txt",
                "threshold": 0.6,
            }
        },
        "missing": {"image": {"policy": "zero"}, "text": {"policy": policy}},
        "validated_masks": [{"present": [name], "metric": "top1", "value": 1.0} for name in ("image", "text")],
        "sync": {"trigger": trigger},
    }
    return write_archive(path, msgspec.convert(manifest(files, **changes), Manifest), files)
