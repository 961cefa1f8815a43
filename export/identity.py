"""What a network is, as a hash: parameters, buffers and whatever else its modules hold, wherever it came from."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec
import numpy as np

# Counts of what torch and Python keep for themselves: they differ between two equal networks.
_NOT_ITS_OWN = frozenset({"_flat_weight_refs", "_backward_hooks", "_compiled_call_impl", "__weakref__", "__dict__"})
# What lies deeper is looked at after all else: Python's own stack is not that deep.
_DEEPEST = 150


def digest_of(*values: object, folder: PurePath | None = None) -> bytes:
    """Return a hash that differs when any of the values does, and is the same in every process and folder.

    Tensors and arrays count by dtype, shape and bytes; modules and other objects by their class and attributes,
    buffers that are not saved included; functions by their code, defaults and closures.

    Args:
        *values: Anything.
        folder: Paths in texts are taken relative to it, so that nothing changes when it is moved.

    Example:
        >>> digest_of({"a": 1}) == digest_of({"a": 1}), digest_of(1) == digest_of(1.0)
        (True, False)
    """
    walk = _Walk("" if folder is None else str(folder))
    for value in values:
        walk.add(value, 0)
    while walk.later:
        walk.add(walk.later.popleft(), 0)
    return walk.digest.digest()


class _Walk:
    """One pass over values; what was seen already is referred to by its number."""

    def __init__(self, folder: str) -> None:
        self.digest = hashlib.sha256()
        self.later: deque[object] = deque()
        self._folder = folder
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # an object that is freed could give its id to another

    def add(self, value: Any, depth: int) -> None:
        depth += 1
        if depth > _DEEPEST:
            self.later.append(value)
        elif value is None or isinstance(value, (bool, int, float, complex, np.generic)):
            self._text(type(value).__name__, repr(value))
        elif isinstance(value, (str, PurePath)):
            text = str(value)
            self._text("text", text.replace(self._folder, ".") if self._folder else text)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            self._raw("bytes", bytes(value))
        elif id(value) in self._seen:
            self._text("again", str(self._seen[id(value)]))
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            self._object(value, depth)

    def _object(self, value: Any, depth: int) -> None:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                self._named("objects", value.tolist(), depth)
            else:
                self._raw(f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes())
        elif _is_tensor(value):
            self._tensor(value)
        elif isinstance(value, Mapping):
            self._text("mapping", str(len(value)))
            for key, held in value.items():
                self.add(key, depth)
                self.add(held, depth)
        elif isinstance(value, (set, frozenset)):
            self._text("set", str(sorted(digest_of(item).hex() for item in value)))
        elif isinstance(value, (list, tuple)):
            self._named(type(value).__name__, value, depth)
        elif isinstance(value, (FunctionType, MethodType, partial, CodeType)):
            self._function(value, depth)
        elif isinstance(value, (type, ModuleType, BuiltinFunctionType)):
            self._text("name", f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}")
            owner = getattr(value, "__self__", None) if isinstance(value, BuiltinFunctionType) else None
            if owner is not None and not isinstance(owner, (type, ModuleType)):
                self.add(owner, depth)  # tensor.mul, list.pop
        elif isinstance(value, weakref.ref):
            self._named("reference", (value(),), depth)
        elif isinstance(value, logging.Logger):  # it leads to all loggers of the process
            self._text("logger", value.name)
        elif isinstance(value, Enum):
            self._text(_class(value), value.name)
        else:
            self._attributes(value, depth)

    def _attributes(self, value: Any, depth: int) -> None:
        own = _own(value)
        self._text("object", _class(value))
        if own is not None:
            for key in sorted(own):
                if key.endswith("_hooks"):  # numbered by a counter of the process
                    self._named(key, own[key].values() if isinstance(own[key], Mapping) else (), depth)
                elif key not in _NOT_ITS_OWN:
                    self._text("attribute", key)
                    self.add(own[key], depth)
            return
        try:
            self._raw("pickled", pickle.dumps(value, 4))
        except Exception:  # a lock, a file, a generator: nothing that a network computes with
            return

    def _named(self, kind: str, items: Iterable[object], depth: int) -> None:
        held = list(items)
        self._text(kind, str(len(held)))
        for item in held:
            self.add(item, depth)

    def _function(self, value: Any, depth: int) -> None:
        if isinstance(value, CodeType):
            self._raw("code", value.co_code)
            self._named("constants", [*value.co_consts, *value.co_names], depth)
        elif isinstance(value, partial):
            self._named("partial", (value.func, value.args, value.keywords), depth)
        elif isinstance(value, MethodType):
            self._named("method", (value.__func__, value.__self__), depth)
        else:
            cells = [] if value.__closure__ is None else [_content(cell) for cell in value.__closure__]
            self._text("function", f"{value.__module__}.{value.__qualname__}")
            self._named("parts", (value.__code__, value.__defaults__, value.__kwdefaults__, cells), depth)

    def _tensor(self, value: Any) -> None:
        import torch

        plain = value.detach()
        if plain.layout == torch.strided and not plain.is_quantized and plain.device.type != "meta":
            flat = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            raw = memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
            self._raw(f"tensor {plain.dtype} {tuple(plain.shape)}", raw)
            return
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        self._raw(f"tensor {plain.dtype} {tuple(plain.shape)} {plain.layout}", buffer.getvalue())

    def _text(self, kind: str, text: str) -> None:
        self._raw(kind, text.encode("utf-8", "surrogatepass"))

    def _raw(self, kind: str, content: bytes | memoryview) -> None:
        self.digest.update(f"{kind} {len(content)}:".encode())
        self.digest.update(content)


def _is_tensor(value: object) -> bool:
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(value).__mro__)


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _own(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object; None where it has none that Python sees."""
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    slots = [slot for cls in type(value).__mro__ for slot in _slots(cls)]
    if not slots and not hasattr(value, "__dict__"):
        return None
    return {**{slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}, **getattr(value, "__dict__", {})}


def _slots(cls: type) -> tuple[str, ...]:
    named = cls.__dict__.get("__slots__", ())
    return (named,) if isinstance(named, str) else tuple(named)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
