"""Atomic files (written to a temporary file, then renamed), private files, hashes, folders of cache and settings."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from mmedge.errors import ConfigError


def user_cache(*parts: str) -> Path:
    """Return ``$XDG_CACHE_HOME/mmedge``, else ``~/.cache/mmedge``, and below it ``parts``; nothing is created.

    Raises:
        ConfigError: If no folder is set and there is no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache").joinpath("mmedge", *parts)
    except RuntimeError as error:
        raise ConfigError("there is no home folder for the cache", fix="set XDG_CACHE_HOME to a folder") from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; it is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone may use, whatever the umask; one that is there becomes so, if it is ours.

    Raises:
        OSError: If it cannot be made.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid == os.geteuid():
        path.chmod(0o700)


def private_file(path: Path) -> FileIO:
    """Make a new file that its owner alone may read, whatever the umask, and return it for writing, unbuffered.

    Raises:
        OSError: If it is there, or cannot be made.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)
    return os.fdopen(fd, "wb", buffering=0)


def user_config(*parts: str) -> Path:
    """Return ``$XDG_CONFIG_HOME/mmedge``, else ``~/.config/mmedge``, and below it ``parts``; nothing is created.

    Raises:
        ConfigError: If no folder is set and there is no home folder.
    """
    return _own_folder("XDG_CONFIG_HOME", ".config", "the settings").joinpath(*parts)


def user_state(*parts: str) -> Path:
    """Return ``$STATE_DIRECTORY`` (of a service), else ``$XDG_STATE_HOME/mmedge``, else ``~/.local/state/mmedge``.

    And below it ``parts``; nothing is created.

    Raises:
        ConfigError: If no folder is set and there is no home folder.
    """
    service = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    folder = Path(service) if service else _own_folder("XDG_STATE_HOME", ".local/state", "what is kept")
    return folder.joinpath(*parts)


def _own_folder(variable: str, below_home: str, what: str) -> Path:
    base = Path(os.environ.get(variable, ""))
    if not base.is_absolute():  # so the specification wants it
        try:
            base = Path.home() / below_home
        except RuntimeError as error:
            raise ConfigError(f"there is no home folder for {what}", fix=f"set {variable} to a folder") from error
    return base / "mmedge"


@contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Give a file to write; when the block ends well it is on the disk and takes the place of ``path``.

    Args:
        path: Where it is to be; what is there stays until then, and if the block raises.
        mode: Permissions.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> with replacing(Path("notes.txt")) as file:  # doctest: +SKIP
        ...     file.write(b"all of it")
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def changing_settings(path: Path, what: str) -> Iterator[BinaryIO]:
    """Write a file of the user's settings anew, while no other process changes one: read it within, then write.

    Args:
        path: The file; its folder is made, for its owner alone.
        what: Is not done if it cannot be written, for the message.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            with replacing(path) as file:
                yield file
        finally:
            os.close(folder)
    except OSError as error:
        fix = "make the folder writable, or set XDG_CONFIG_HOME to one that is"
        raise ConfigError(f"{what}: {error.strerror}", where=str(path), fix=fix) from error
