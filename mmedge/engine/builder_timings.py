"""What TensorRT's builder has timed, kept for the next build on the same device: read as a file of strangers."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from mmedge.files import read_plain, replacing

_log = logging.getLogger(__name__)
_MOST_BYTES = 256 << 20  # those of many networks are some MB
_DIGEST_BYTES = 32  # of sha256, in front of what TensorRT gave


def read_timings(path: Path) -> bytes | None:
    """Return what was kept; None, with the reason logged, where that is not what mmedge has written there.

    TensorRT parses it in the child that builds; nothing of it gets there that was damaged or put there by others.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        _log.warning("the builder's measurements %s are not used (%s): it measures anew", path, why)
        return None


def _read(path: Path) -> bytes:
    kept = read_plain(path, _MOST_BYTES)  # of a folder that others cannot write (EngineCache)
    digest, timings = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    if hashlib.sha256(timings).digest() != digest:
        raise ValueError("its hash differs")
    return timings


def keep_timings(path: Path, timings: bytes) -> None:
    """Write what the builder has timed; where that fails the log says so, and the engine is there all the same."""
    try:
        with replacing(path) as file:
            file.write(hashlib.sha256(timings).digest() + timings)
    except OSError as error:
        _log.warning("the builder's measurements are not kept: %s: %s", path, error)
