"""What was decoded of files is kept on disk, so that no epoch decodes it again: bounded, keyed by content."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.errors import ConfigError
from mmedge.files import user_cache
from mmedge.types import AnyArray

_log = logging.getLogger("mmedge.export")
_FORM = 2  # raise it when what is decoded changes
_STALE_S = 3600.0  # a file that a process wrote and never finished


class DecodedCache:
    """Arrays of decoded files under the user's cache folder, mapped when they are read, each in a file of its own.

    Any number of processes may use it at once: a file appears whole or not at all, and one that is gone or damaged is
    decoded again. Which files are kept is decided before the first one is: they and what other data sets left behind
    fit within the limit, and what was used longest ago goes first.

    Args:
        limit_bytes: How large the whole cache may become; 0: nothing is kept.
        folder: Where it lies instead of the user's cache.
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None) -> None:
        self._limit = limit_bytes
        self._folder = folder
        self._kept: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder or user_cache("decoded")

    def plan(self, sizes: Mapping[str, int]) -> None:
        """Decide what is kept, and remove what was used longest ago to make room for it.

        Args:
            sizes: Key -> bytes of its array, the most wanted first.
        """
        self._kept = frozenset()
        if not self._limit or not sizes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, os.strerror(13))
            found = self._found()
            held = sum(size for key, (size, _) in found.items() if key in sizes)
            # A disk is shared: half of what is free is left alone.
            room = min(self._limit, held + shutil.disk_usage(self.folder).free // 2)
        except (OSError, ConfigError) as error:
            _log.warning("nothing decoded is kept, so each epoch decodes all files again: %s", error)
            return
        kept: dict[str, int] = {}
        for key, size in sizes.items():
            if size + 256 > room:
                _log.warning(
                    "the cache of decoded files holds %d of %d: raise data.cache_gb, or free space; the others are "
                    "decoded in each epoch",
                    len(kept),
                    len(sizes),
                )
                break
            kept[key] = size + 256
            room -= size + 256
        self._kept = frozenset(kept)
        self._trim(found, self._limit - sum(kept.values()))

    def _found(self) -> dict[str, tuple[int, float]]:
        """Return key -> size and time of last use, of what is there."""
        found: dict[str, tuple[int, float]] = {}
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.suffix == ".npy":
                    found[path.stem] = (stat.st_size, stat.st_mtime)
                elif time.time() - stat.st_mtime > _STALE_S:
                    path.unlink()
        return found

    def _trim(self, found: Mapping[str, tuple[int, float]], room: int) -> None:
        for key, (size, _) in sorted(found.items(), key=lambda item: -item[1][1]):
            with contextlib.suppress(OSError):
                if key in self._kept:
                    os.utime(self._path(key))
                elif size <= room:
                    room -= size
                else:
                    room = 0  # nothing older stays where something newer has gone
                    self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def __contains__(self, key: str) -> bool:
        return key in self._kept and self.get(key) is not None

    def get(self, key: str) -> AnyArray | None:
        """Return an array, mapped (what is written into it stays in this process); None if it is not there, or damaged.

        It has the shape [...] and dtype that ``put`` was given.
        """
        if key not in self._kept:
            return None
        path = self._path(key)
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                begin = file.tell()
            # Unlike numpy's, this mapping holds no descriptor: a large batch of them would run out.
            size = begin + math.prod(shape) * dtype.itemsize
            mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        except (OSError, ValueError, EOFError, RuntimeError):
            return None
        array: AnyArray = mapped.numpy()[begin:].view(dtype).reshape(shape)
        return array

    def put(self, key: str, array: AnyArray) -> None:
        """Keep an array, if the plan has room for it. It has any shape [...] and dtype."""
        if key not in self._kept:
            return
        path = self._path(key)
        part = path.with_name(f"{key}.{os.getpid()}-{time.monotonic_ns()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            part.replace(path)
        except OSError as error:  # the disk may be full by now
            self._kept = frozenset()
            _log.warning("nothing more that is decoded is kept: %s", error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def decoded_key(content: str, suffix: str, spec: Input, versions: Iterable[str]) -> str:
    """Return the key of a decoded file.

    Args:
        content: Its hash.
        suffix: Of its name, by which it is decoded.
        spec: The seat; what does not matter to raw samples is left out.
        versions: Of what decodes.
    """
    what: object = msgspec.structs.astuple(spec)
    if isinstance(spec, ImageInput):
        what = (spec.size, spec.color, spec.fit, spec.frame, spec.reduce)
    elif isinstance(spec, AudioInput):
        what = (spec.sample_rate_hz, spec.samples)
    text = repr((_FORM, content, suffix.lower(), type(spec).__name__, what, tuple(versions)))
    return hashlib.sha256(text.encode()).hexdigest()


def decoded_bytes(spec: Input) -> int:
    """Return how large one decoded sample of a seat is."""
    if isinstance(spec, ImageInput):
        return int(np.prod(spec.raw_shape))
    if isinstance(spec, AudioInput):
        return 4 * spec.samples
    raise TypeError(f"a {type(spec).__name__} is not decoded")
