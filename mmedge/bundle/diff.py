"""Where two documents differ: recipes, manifests, by key path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_MISSING = object()
# What names an entry of a list, so that one that was put in between moves no other.
_NAMES = (("stage", "target", "precision"), ("present",), ("name",))


class Differing(NamedTuple):
    """One key path whose values differ; a side without it has ``has_a`` or ``has_b`` false and None."""

    path: str
    a: Any
    b: Any
    has_a: bool = True
    has_b: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the side that does not have it."""
        return {"path": self.path, **({"a": self.a} if self.has_a else {}), **({"b": self.b} if self.has_b else {})}


def diff(a: Any, b: Any, path: str = "$") -> list[Differing]:
    """Return the key paths in which two documents differ, in the order of ``a``, then of ``b``.

    Args:
        a: Plain data: dicts with string keys, lists, scalars.
        b: The other one.
        path: What to call the whole.

    Example:
        >>> diff({"x": {"y": 1}}, {"x": {"y": 2}, "z": 3})[0]
        Differing(path='$.x.y', a=1, b=2, has_a=True, has_b=True)
    """
    ours, theirs = _entries(a, path), _entries(b, path)
    if ours is None or theirs is None or isinstance(a, Mapping) != isinstance(b, Mapping):
        same = type(a) is type(b) and (a == b or (a != a and b != b))
        return [] if same else [Differing(path, a, b)]
    found = []
    for key in (*ours, *(key for key in theirs if key not in ours)):
        left, right = ours.get(key, _MISSING), theirs.get(key, _MISSING)
        if left is _MISSING:
            found.append(Differing(key, None, right, has_a=False))
        elif right is _MISSING:
            found.append(Differing(key, left, None, has_b=False))
        else:
            found += diff(left, right, key)
    return found


def _entries(value: Any, path: str) -> dict[str, Any] | None:
    """Return key path -> value of what a container holds; None of a scalar."""
    if isinstance(value, Mapping):
        return {f"{path}.{key}": entry for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for names in _NAMES:
            if value and all(isinstance(entry, Mapping) and all(n in entry for n in names) for entry in value):
                keys = [" ".join(_text(entry[name]) for name in names) for entry in value]
                if len(set(keys)) == len(keys):
                    return {f"{path}[{key}]": entry for key, entry in zip(keys, value, strict=True)}
        return {f"{path}[{index}]": entry for index, entry in enumerate(value)}
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "+".join(map(str, value)) if isinstance(value, Sequence) else str(value)
