"""Networks as a back end for CPUs has prepared them for this machine, kept beside the engines: verified, or made anew.

What a library makes of a network before its first run is the larger part of a start. An entry is a folder: what the
back end has written, and ``entry.json`` with the key and the hash of every file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from mmedge.engine.cache_folder import checked_cache
from mmedge.engine.cpu import cpu_name, instruction_sets
from mmedge.engine.cpu_engine import CpuEngine
from mmedge.errors import ConfigError, EngineError
from mmedge.files import engine_cache, file_hash, read_plain, replacing
from mmedge.learn import learn
from mmedge.version import __version__

_log = logging.getLogger(__name__)
_ENTRY, _NEW = "entry.json", "preparing-"
_ABANDONED_S = 3600.0
_MOST_BYTES = 1 << 20  # of what is said of an entry
LEAST_BYTES = 1 << 20
"""Networks below this size are loaded as fast from their own file."""
_E = TypeVar("_E", bound=CpuEngine)


class PreparedKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a prepared network depends on.

    Attributes:
        sha256: Hash of the ONNX file.
        backend: Who has prepared it.
        version: Of its library.
        shapes: Shapes given to inputs.
        constants: Numbers that fill inputs.
        cpu: Name of the processor.
        instructions: Instruction sets that kernels choose by.
        mmedge: Its version, which chooses the library's options.
    """

    sha256: str
    backend: str
    version: str
    shapes: dict[str, tuple[int, ...]] = {}
    constants: dict[str, float] = {}
    cpu: str = msgspec.field(default_factory=cpu_name)
    instructions: tuple[str, ...] = msgspec.field(default_factory=instruction_sets)
    mmedge: str = __version__

    @property
    def stem(self) -> str:
        """Name of the entry."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
        return f"{self.backend}-{self.sha256[:16]}-{digest[:24]}"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: str = "mmedge.prepared/1"
    key: PreparedKey
    files: dict[str, str]  # name -> SHA-256


def load_prepared(key: PreparedKey, take: Callable[[Path], _E], make: Callable[[Path | None], _E]) -> _E:
    """Load a network from what was prepared of it; else prepare it, and keep that for the next time.

    Args:
        key: What it depends on.
        take: Loads it from the folder of an entry, which stays as it is.
        make: Loads it from the ONNX file; writes what is to be kept into a folder, where it is given one.

    Returns:
        The engine; ``prepared`` of it is the key of the entry that it was taken from.

    Raises:
        EngineError: If it cannot be loaded from the ONNX file either.
    """
    folder = _verified(key)
    if folder is not None:
        try:
            engine = take(folder)
        except EngineError as error:
            _log.warning("what was prepared of %s is not used, it is made again: %s", error.where, error.message)
            discard_prepared(key)
        else:
            engine.prepared = key
            return engine
    with _preparing(key) as folder:
        return make(folder)


def discard_prepared(key: PreparedKey) -> bool:
    """Remove an entry that turned out to be wrong, and tell whether it is gone; idempotent."""
    with _cache_problem("a wrong entry cannot be removed from the engine cache"):
        _remove(checked_cache() / key.stem)
    return not (engine_cache() / key.stem).exists()


def _verified(key: PreparedKey) -> Path | None:
    """Return the folder of an entry whose every file is what was written, None if there is none."""
    with _cache_problem("nothing prepared is read"):
        folder = checked_cache() / key.stem
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)  # else nothing could ever be kept there
            return None
        try:
            entry = msgspec.json.decode(read_plain(folder / _ENTRY, _MOST_BYTES), type=learn(_Entry))
            there = {file.name for file in os.scandir(folder) if file.is_file(follow_symlinks=False)}
            is_whole = entry == _Entry(key=key, files=entry.files) and there == {*entry.files, _ENTRY}
            if is_whole and all(file_hash(folder / name) == sha for name, sha in entry.files.items()):
                return folder
            problem = "its key, its files or a hash differ"
        except (OSError, msgspec.MsgspecError) as error:
            problem = str(error)
        _log.warning("what was prepared in %s is damaged (%s): it is made again", folder, problem)
        discard_prepared(key)
    return None


@contextmanager
def _preparing(key: PreparedKey) -> Iterator[Path | None]:
    """Give a folder to write an entry into, and publish it at the end: readers see all of it or nothing."""
    folder = None
    with _cache_problem("nothing prepared is kept"):
        from tempfile import mkdtemp  # here: what was prepared needs none

        cache = checked_cache()
        for left in cache.glob(f"{_NEW}*"):  # by a process that was killed
            with suppress(FileNotFoundError):  # its process has just ended
                if time.time() - left.lstat().st_mtime > _ABANDONED_S:
                    _remove(left)
        folder = Path(mkdtemp(prefix=_NEW, dir=cache))
    try:
        yield folder
        if folder is not None and any(folder.iterdir()):
            with _cache_problem("nothing prepared is kept"):
                entry = _Entry(key=key, files={file.name: file_hash(file) for file in sorted(folder.iterdir())})
                with replacing(folder / _ENTRY) as file:
                    file.write(msgspec.json.format(msgspec.json.encode(entry), indent=1))
                folder.rename(folder.with_name(key.stem))  # fails where another process was faster
                _remove_superseded(key, folder.parent)
    finally:
        if folder is not None:
            _remove(folder)


def _remove_superseded(key: PreparedKey, cache: Path) -> None:
    """Remove what other versions of the library, or ours, have prepared of the same network for this machine."""
    for other in cache.glob(f"{key.backend}-{key.sha256[:16]}-*/{_ENTRY}"):
        with suppress(msgspec.MsgspecError):  # whoever needs it makes it again
            found = msgspec.json.decode(other.read_bytes(), type=learn(_Entry)).key
            if found != key and msgspec.structs.replace(found, version=key.version, mmedge=key.mmedge) == key:
                _remove(other.parent)


def _remove(folder: Path) -> None:
    from shutil import rmtree  # with all the formats of archives

    rmtree(folder, ignore_errors=True)


@contextmanager
def _cache_problem(what: str) -> Iterator[None]:
    """Log why the cache is not used: a start without it takes longer, and is as good."""
    try:
        yield
    except (ConfigError, OSError) as error:
        _log.info("%s: %s", what, error)
