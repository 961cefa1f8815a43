"""Texts for a text seat: token numbers by the bundle's own ``tokenizer.json``."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError, EngineError
from mmedge.extras import require
from mmedge.learn import learn
from mmedge.types import AnyArray

MAX_BYTES = 1 << 26  # of a tokenizer.json
_MAX_ID = (1 << 63) - 1
# What is beyond this many letters for each token of the seat would be cut anyway: 64 KiB take 0.1 s to read.
_LETTERS = 256
_FIX = "export the bundle again, with the tokenizer.json of its network"
# This many times longer its normalizers and pre-tokenizers may make a text, with this many letters of added tokens.
_LONGER, _ADDED = 256, 1 << 24
# Most letters that these make of one: ByteLevel one of each byte, which may have an accent; the others put some in.
_GROWTH = {"ByteLevel": 8, "BertNormalizer": 3, "Metaspace": 2}
# Letters of one piece of a vocabulary, and of a word that WordPiece takes apart, which takes the cube of that: in
# networks that people use 16 to 100. Words of this length make 64 KiB take 0.5 s.
_PIECE = 256
# A vocabulary without a token for what it does not know fails at the first such text: better at once.
_PROBES = ("", "a \x00 \U0010ffff")


class Tokenizer:
    """Turns a text into token numbers, by the file alone: nothing is ever downloaded.

    Args:
        raw: The ``tokenizer.json`` of the library ``tokenizers``. Its own truncation and padding do not count.
        spec: The text seat.

    Attributes:
        size: One more than the highest token number, the padding included: the rows an embedding must have.

    Raises:
        BundleError: If it is damaged, too large, knows no token for unknown text, or does not fit the seat.
        MissingDependencyError: If ``tokenizers`` is not installed.

    Example:
        >>> tokenizer = Tokenizer(bundle.read("tokenizer/claim.json"), spec)  # doctest: +SKIP
        >>> out = np.empty(spec.tensor_shape, np.int64)  # doctest: +SKIP
        >>> tokenizer.ids("it's a seven", out); out  # doctest: +SKIP
        array([[12,  4, 31,  0,  0,  0,  0,  0]])
    """

    def __init__(self, raw: bytes, spec: TextInput) -> None:
        tokenizers = require("tokenizers", "turning text into tokens")
        self._where = spec.tokenizer or "tokenizer.json"
        self._shape = spec.tensor_shape
        self._pad = spec.pad
        if len(raw) > MAX_BYTES:
            raise self._damaged(f"the tokenizer has {len(raw)} bytes, the limit is {MAX_BYTES}")
        if spec.pad > _MAX_ID:
            raise self._damaged(f"pad {spec.pad} does not fit into int64")
        try:
            _check_growth(tokenizers, msgspec.json.decode(raw))
            _check_pieces(msgspec.json.decode(raw, type=learn(_Read)).model)
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(raw)
            special = int(self._tokenizer.num_special_tokens_to_add(False))
            if special > spec.max_tokens:
                raise ValueError(f"every text has {special} special tokens, the seat takes {spec.max_tokens}")
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(spec.max_tokens)
            known = self._tokenizer.get_vocab(with_added_tokens=True).values()
            probed = [token for text in _PROBES for token in self._tokenizer.encode(text).ids]
        except BaseException as error:
            raise self._damaged(f"not a tokenizer: {_reason(error)}") from error
        self.size = 1 + max((*known, *probed, spec.pad))

    def _damaged(self, message: str) -> BundleError:
        return BundleError(message, where=self._where, fix=_FIX)

    def ids(self, text: str, out: AnyArray) -> None:
        """Write the token numbers of ``text``, cut and padded.

        Args:
            text: Any text; what does not fit is cut off.
            out: int64 [1, max_tokens].

        Raises:
            ConfigError: If ``out`` does not fit the seat, or ``text`` is not valid Unicode.
            EngineError: If the tokenizer fails.
        """
        if out.shape != self._shape or out.dtype != np.int64:
            raise ConfigError(
                f"out must be int64 {list(self._shape)}, got {out.dtype} {list(out.shape)}",
                where=self._where,
                fix="pass an array of the seat's shape",
            )
        try:
            text.encode()
            found: Sequence[int] = self._tokenizer.encode(text[: _LETTERS * self._shape[1]]).ids
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the text is not Unicode: {error.reason}", where=self._where, fix="correct it"
            ) from error
        except BaseException as error:
            raise EngineError(
                f"the tokenizer fails on a text of {len(text)} characters: {_reason(error)}",
                where=self._where,
                fix="use a tokenizer with a token for unknown text",
            ) from error
        count = min(len(found), out.shape[1])
        out[0, :count] = found[:count]
        out[0, count:] = self._pad


def _check_growth(tokenizers: Any, document: dict[str, Any]) -> None:
    """Raise ValueError if a text may become much longer: two dozen parts that double it fill the memory."""
    # As the library has read them: it takes a part without a type, or as an array, too.
    bare = {key: document.get(key) for key in ("normalizer", "pre_tokenizer")}
    bare |= {"model": {"type": "WordLevel", "vocab": {}, "unk_token": ""}, "added_tokens": []}
    read = msgspec.json.decode(tokenizers.Tokenizer.from_buffer(msgspec.json.encode(bare)).to_str())
    waiting: list[dict[str, Any] | None] = [read["normalizer"], read["pre_tokenizer"]]
    longer = 1
    while waiting:
        part = waiting.pop() or {}
        waiting += part.get("normalizers") or part.get("pretokenizers") or ()
        longer *= _growth(part)
        if longer > _LONGER:
            raise ValueError(f"it can make a text more than {_LONGER} times longer")
    # They go through the normalizers when the tokenizer is made.
    added = sum(len(token["content"]) for token in document.get("added_tokens") or ())
    if added * longer > _ADDED:
        raise ValueError(f"its added tokens have {added} letters and may become {longer} times longer")


class _Model(msgspec.Struct):
    type: str | None = None
    vocab: dict[str, Any] | list[tuple[str, float]] = {}
    max_input_chars_per_word: int | None = None


class _Read(msgspec.Struct):
    model: _Model


def _check_pieces(model: _Model) -> None:
    """Raise ValueError if to take a text apart may take for ever: all pieces are tried at all places."""
    if (model.max_input_chars_per_word or 0) > _PIECE:
        raise ValueError(f"it takes words of {model.max_input_chars_per_word} letters apart, the limit is {_PIECE}")
    if isinstance(model.vocab, list):  # Unigram
        longest = max((len(piece) for piece, _ in model.vocab), default=0)
        if longest > _PIECE:
            raise ValueError(f"a piece of its vocabulary has {longest} letters, the limit is {_PIECE}")


def _growth(part: dict[str, Any]) -> int:
    """Return how many letters one may become, all of them decomposed: so NFKC and its like lengthen no text twice."""
    if part.get("type") == "Replace":
        pattern = part["pattern"].get("String")  # without one it may match between any two letters
        return max(-(-_letters(part["content"]) // len(pattern)), 1) if pattern else 1 + _letters(part["content"])
    if part.get("type") == "Prepend":
        return 1 + _letters(part["prepend"])
    if part.get("type") == "Precompiled":
        raw = base64.b64decode(part["precompiled_charsmap"])
        texts = raw[4 + int.from_bytes(raw[:4], "little") // 4 * 4 :]
        return max(_letters(text) for text in texts.decode("utf-8").split("\0"))
    return _GROWTH.get(part.get("type", ""), 1)


def _letters(text: str) -> int:
    return len(unicodedata.normalize("NFKD", text))


def _reason(error: BaseException) -> str:
    # A panic of the library is no Exception; an interrupt is none either, and is not the tokenizer's fault.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return str(error)
