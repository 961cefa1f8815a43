"""Results of steps in the user's cache: found by what went in, whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmedge.errors import ConfigError
from mmedge.files import file_hash, scratch, user_cache
from mmedge.learn import learn

_NOTES = "step.json"
DRAFT = ".new-"
_log = logging.getLogger(__name__)


class StepNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a result: ``files`` gives name -> SHA-256; ``warnings`` are those of the run that made it."""

    step: str
    files: dict[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A result on the disk."""

    folder: Path
    notes: StepNotes

    @property
    def digest(self) -> str:
        """The hash of its files: what the steps behind it depend on."""
        return hashlib.sha256(repr(sorted(self.notes.files.items())).encode()).hexdigest()


class Store:
    """A folder of results, ``STEP-KEY`` each.

    Args:
        folder: Where; ``$XDG_CACHE_HOME/mmedge/export`` by default.

    Raises:
        ConfigError: If it cannot be made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_cache("export") if folder is None else folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def get(self, step: str, key: str) -> Stored | None:
        """Return a result; None if there is none, or if what is there is not what was written."""
        folder = self.folder / f"{step}-{key}"
        try:
            notes = msgspec.json.decode((folder / _NOTES).read_bytes(), type=learn(StepNotes))
            whole = all(file_hash(folder / name) == wanted for name, wanted in notes.files.items())
        except FileNotFoundError:
            whole = False
            if not folder.exists():
                return None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            whole = False
        if whole:
            return Stored(folder=folder, notes=notes)
        _log.warning("the cached result of step '%s' is damaged and is made again", step)
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def put(
        self,
        step: str,
        key: str,
        write: Callable[[Path], object],
        warnings: tuple[str, ...] = (),
        *,
        anew: bool = False,
    ) -> Stored:
        """Store a result: it appears in one step, on the disk, or not at all.

        Args:
            step: Its step.
            key: What went in.
            write: Writes the files into the folder it is given.
            warnings: To be told again when the result is taken from here.
            anew: Replace a result that is there; else that one stays, which is equal.

        Raises:
            ConfigError: If it cannot be written.
        """
        final = self.folder / f"{step}-{key}"
        try:
            with scratch(self.folder, DRAFT) as draft:
                write(draft)
                files = {str(f.relative_to(draft)): file_hash(f) for f in sorted(draft.rglob("*")) if f.is_file()}
                notes = StepNotes(step=step, files=files, warnings=warnings)
                (draft / _NOTES).write_bytes(msgspec.json.format(msgspec.json.encode(notes)))
                for path in [*(path for path in draft.rglob("*")), draft]:
                    _sync(path)
                if anew:
                    shutil.rmtree(final, ignore_errors=True)
                _rename(draft, final)
                _sync(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return Stored(folder=final, notes=notes)


def unwritable(folder: Path, error: OSError) -> ConfigError:
    """Return the error of a cache that cannot be written."""
    return ConfigError(
        f"cannot write the export cache: {error.strerror or error}",
        where=str(folder),
        fix="free space there, or set XDG_CACHE_HOME to a writable folder",
    )


def _rename(draft: Path, final: Path) -> None:
    try:
        draft.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
