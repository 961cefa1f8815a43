"""Inputs of networks that take tokens: the padding token and the attention mask."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError
from mmedge.extras import require
from mmedge.preprocess import Tokenizer

from .brought import MIN_IR

IDS = "input_ids"
MASKS = ("attention_mask", "input_mask")
TYPES = ("token_type_ids", "segment_ids")
_PADS = ("[PAD]", "<pad>", "<PAD>", "<|pad|>")


def padding_of(file: Path) -> tuple[int, str | None]:
    """Choose the number that fills up texts, by a ``tokenizer.json``.

    Returns:
        The padding token it names, else a number that no text gives, else the token for unknown text; and for
        this last one a hint, since a mask then leaves it out inside a text too.

    Raises:
        ConfigError: If it cannot be read or is not a tokenizer.
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
        return int(tokenizer.padding["pad_id"]), None
    named = [number for name in _PADS if (number := tokenizer.token_to_id(name)) is not None]
    free = named or _never_given(tokenizer, raw)
    if free:
        return int(free[0]), None
    pad = _unknown(tokenizer, raw) or 0
    return pad, (
        f"the tokenizer names no padding token and a text may give every token it has: texts are filled up with token "
        f"{pad} ('{tokenizer.id_to_token(pad)}'), which counts as padding inside a text too; name another one as "
        '"padding" in tokenizer.json, then make the project again'
    )


def _never_given(tokenizer: Any, raw: bytes) -> list[int]:
    """Return a number between those of the vocabulary, or a special token that is not put around texts."""
    known = set(tokenizer.get_vocab(with_added_tokens=True).values())
    gap = next(number for number in itertools.count() if number not in known)
    if gap < max(known, default=0):
        return [gap]
    tokenizer.no_truncation()
    given = {*tokenizer.encode("").ids, _unknown(tokenizer, raw)}
    added = tokenizer.get_added_tokens_decoder()
    return sorted(number for number, token in added.items() if token.special and number not in given)


def _unknown(tokenizer: Any, raw: bytes) -> int | None:
    model = msgspec.json.decode(raw)["model"]
    number = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else model.get("unk_id")
    return None if number is None else int(number)


def make_mask(model: onnx.ModelProto, name: str, text: TextInput) -> None:
    """Make the input ``name`` of a network, its attention mask, of its token numbers, in place.

    The first place always counts: a text of no tokens would leave a mean over nothing.

    Args:
        model: With the inputs ``input_ids`` and ``name``.
        name: 1 for a token, 0 for padding.
        text: What feeds the token numbers.
    """
    graph = model.graph
    model.ir_version = max(model.ir_version, MIN_IR)
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
