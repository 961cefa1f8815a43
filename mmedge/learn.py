"""Types that are decoded, learned one at a time.

msgspec 0.22 works out what a struct holds when it is first decoded, and another thread that decodes the same type
meanwhile reads what is not there yet: the process ends by SIGSEGV. So whatever names a type to msgspec learns it first.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

T = TypeVar("T")
_lock = threading.Lock()
_learned: set[object] = set()


def learn(kind: T) -> T:
    """Return a type that msgspec knows from now on; any thread may call it at any time.

    Example:
        >>> msgspec.json.decode(b'["a"]', type=learn(list[str]))
        ['a']
    """
    if kind not in _learned:
        with _lock:
            msgspec.json.Decoder(kind)
            _learned.add(kind)
    return kind
