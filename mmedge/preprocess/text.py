"""Texts for a text seat: token numbers by the bundle's own ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError, EngineError
from mmedge.extras import require
from mmedge.types import AnyArray

MAX_BYTES = 1 << 26
_MAX_ID = (1 << 63) - 1
# What is beyond so many letters for each token of the seat would be cut anyway: 64 KiB take 0.1 s to read.
_LETTERS = 256
_FIX = "export the bundle again, with the tokenizer.json of its network"
# So many times longer its normalizers may make a text.
_LONGER = 256
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
            raise self._damaged(f"pad {spec.pad} is no int64")
        try:
            _check_growth(raw)
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(raw)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(spec.max_tokens)
            known = self._tokenizer.get_vocab(with_added_tokens=True).values()
            probed = [token for text in _PROBES for token in self._tokenizer.encode(text).ids]
            special = int(self._tokenizer.num_special_tokens_to_add(False))
        except BaseException as error:
            raise self._damaged(f"not a tokenizer: {_reason(error)}") from error
        if special > spec.max_tokens:
            raise self._damaged(f"every text has {special} special tokens, the seat takes {spec.max_tokens}")
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
                f"out is {out.dtype} {list(out.shape)}, not int64 {list(self._shape)}",
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


def _check_growth(raw: bytes) -> None:
    """Raise ValueError if normalizers may make a text much longer: nine that do so in a row fill the memory."""
    waiting: list[Any] = [msgspec.json.decode(raw).get("normalizer")]
    longer = 1
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        waiting += part.get("normalizers") or ()
        if part.get("type") in ("Replace", "Prepend"):
            longer *= max(len(str(part.get("content", part.get("prepend", "")))), 1)
    if longer > _LONGER:
        raise ValueError(f"its normalizers make a text {longer} times longer, the limit is {_LONGER}")


def _reason(error: BaseException) -> str:
    # A panic of the library is no Exception; an interrupt is none either, and is not the tokenizer's fault.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return str(error)
