"""What a trigger cost."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct):
    """Nanoseconds that one trigger spent in preprocessing and in engines."""

    preprocess_ns: int = 0
    infer_ns: int = 0
