"""Atomic files (written to a temporary file, then renamed), private files, hashes, folders of cache and settings."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from mmedge.errors import ConfigError

_SMALL_BYTES = 16 << 20  # of a document
_NAME = 64  # characters of a file's name in that of the temporary one beside it


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


def engine_cache() -> Path:
    """Return where engines are kept; nothing is created.

    It is ``$MMEDGE_CACHE``, else ``$XDG_CACHE_HOME/mmedge/engines``, else a folder under ``~/.cache``.

    Raises:
        ConfigError: If no folder is set and there is no home folder.
    """
    if chosen := os.environ.get("MMEDGE_CACHE"):
        return Path(chosen)
    return user_cache("engines")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; it is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def read_document(path: Path, what: str) -> bytes:
    """Return a document that somebody names: of a plain file, as a named pipe would be waited for, at most 16 MiB.

    Args:
        path: Where it is.
        what: For messages: ``"the report"``.

    Raises:
        ConfigError: If it cannot be read, is no plain file, or is larger.

    Example:
        >>> b"import" in read_document(Path(__file__), "this module")
        True
    """
    try:
        return read_plain(path, _SMALL_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {what}: {error.strerror}", where=str(path), fix="check the path") from error


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file; OSError for anything else, whatever it has become since it was looked at."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # a pipe would be waited for, a device read without end
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return os.fdopen(handle, "rb")


def read_plain(path: Path, most_bytes: int) -> bytes:
    """Return what a plain file holds.

    Raises:
        OSError: If it cannot be read, is no plain file, or holds more than ``most_bytes``.
    """
    with open_plain(path) as file:
        raw = file.read(most_bytes + 1)
    if len(raw) > most_bytes:
        raise OSError(errno.EFBIG, f"it is too large, more than {most_bytes} bytes", str(path))
    return raw


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
    own = f".new-{path.name[:_NAME]}-"
    _sweep(path.parent, own)
    import tempfile  # here: a run writes no file as it starts

    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=own)
        _own(handle)
        if Path(temporary).exists():
            break
        os.close(handle)  # another process saw it before it had an owner
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            Path(temporary).replace(path)  # while it is owned: others sweep what nobody owns
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def scratch(parent: Path | None = None, prefix: str = "mmedge-scratch-") -> Iterator[Path]:
    """Give an empty folder that is gone when the block ends; of a process that was killed, when the next one asks.

    Args:
        parent: Where; in ``TMPDIR`` by default.
        prefix: Of its name: folders with it are looked at, and removed where their owner is dead.

    Raises:
        OSError: If it cannot be made.
    """
    import tempfile

    place = Path(tempfile.gettempdir()) if parent is None else parent
    _sweep(place, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
        with suppress(FileNotFoundError):  # another process saw it before it had an owner
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            _own(handle)
            if folder.exists():
                break
            os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _own(handle: int) -> None:
    """Lock a file or folder for as long as this process lives; where there are no locks, nothing is ever swept."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what has a prefix, is this user's, and nobody owns: whoever made it was killed."""
    with suppress(OSError):
        for path in (path for path in folder.iterdir() if path.name.startswith(prefix)):
            with suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    info = os.fstat(handle)
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if info.st_uid == os.geteuid():
                        shutil.rmtree(path, ignore_errors=True) if stat.S_ISDIR(info.st_mode) else path.unlink()
                finally:
                    os.close(handle)


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
