"""The inputs of networks that read tokens: which token is padding, and the mask that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError
from mmedge.extras import require
from mmedge.preprocess import Tokenizer

IDS = "input_ids"
MASKS = ("attention_mask", "input_mask")
TYPES = ("token_type_ids", "segment_ids")
_PADS = ("[PAD]", "<pad>", "<PAD>", "<|pad|>")


def padding_of(file: Path) -> int:
    """Return the number of the padding token of a ``tokenizer.json``; 0 where it names none.

    Raises:
        ConfigError: If it cannot be read or is no tokenizer.
        MissingDependencyError: If ``tokenizers`` is not installed.
    """
    fix = "give the tokenizer.json of the network, as the library tokenizers writes it"
    try:
        raw = file.read_bytes()
        Tokenizer(raw, TextInput(max_tokens=8192, tokenizer=file.name))  # bounded, and everything that may be damaged
    except OSError as error:
        raise ConfigError(f"cannot read the tokenizer: {error.strerror}", where=str(file), fix=fix) from error
    except BundleError as error:
        raise ConfigError(error.message, where=str(file), fix=fix) from error
    tokenizer = require("tokenizers", "turning text into tokens").Tokenizer.from_buffer(raw)
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    return next((int(number) for name in _PADS if (number := tokenizer.token_to_id(name)) is not None), 0)


def make_mask(model: onnx.ModelProto, name: str, text: TextInput) -> None:
    """Make the input ``name`` of a network, its attention mask, of its token numbers, in place.

    The first place always counts: a text of no tokens would leave a mean over nothing.

    Args:
        model: With the inputs ``input_ids`` and ``name``.
        name: 1 for a token, 0 for padding.
        text: What feeds the token numbers.
    """
    graph = model.graph
    own = next(value for value in graph.input if value.name == name)
    ids = next(value for value in graph.input if value.name == IDS)
    pad = np.array(text.pad, helper.tensor_dtype_to_np_dtype(ids.type.tensor_type.elem_type))
    first = np.arange(text.max_tokens)[None] == 0
    graph.initializer.extend(
        [numpy_helper.from_array(pad, f"{name}/pad"), numpy_helper.from_array(first, f"{name}/first")]
    )
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Equal", [IDS, f"{name}/pad"], f"{name}/padded", {}),
        ("Not", [f"{name}/padded"], f"{name}/tokens", {}),
        ("Or", [f"{name}/tokens", f"{name}/first"], f"{name}/counts", {}),
        ("Cast", [f"{name}/counts"], name, {"to": own.type.tensor_type.elem_type}),
    )
    made = [helper.make_node(op, inputs, [to], name=f"{name}/{op}", **more) for op, inputs, to, more in steps]
    nodes = [*made, *graph.node]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.input.remove(own)
