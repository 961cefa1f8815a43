"""The socket that programs attach to: a file of this user's alone, on this machine."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmedge.errors import ConfigError

_LONGEST = 107  # bytes: a struct sockaddr_un ends there
_WHERE = "attach"
_PATIENCE_S = 1.0


def check_path(path: str) -> None:
    """Raise ConfigError unless a socket may be made there."""
    place, size = Path(path), len(os.fsencode(path))
    if not path or "\0" in path:
        raise ConfigError(f"{path!r} is not a path", where=_WHERE, fix="for example attach='/run/mmedge/door.sock'")
    if size > _LONGEST:
        raise ConfigError(
            f"the path of a socket has at most {_LONGEST} bytes, this one {size}", where=path, fix="take a shorter path"
        )
    if not place.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(place.parent), fix="make it, or take another path")
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise ConfigError("something that is not a socket is there", where=path, fix="take another path")


def listen(path: str) -> socket.socket:
    """Return a socket that listens at a path; one that a dead run has left there is replaced.

    Raises:
        ConfigError: If nothing can be made there, or another run listens.
    """
    check_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _alone(Path(path).parent):
            if os.path.lexists(path):
                if _answers(path):
                    raise ConfigError("another run listens there", where=path, fix="take another path")
                Path(path).unlink()
            listener.bind(path)
            Path(path).chmod(0o600)  # nobody can connect before it listens
            listener.listen(8)
        listener.setblocking(False)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            what = f"no socket can be made there: {error.strerror}"
            raise ConfigError(what, where=path, fix="take another path") from error
        raise
    return listener


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one run at a time replace a dead one's socket; whoever else locks the folder is waited for a second."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it may be written to, but not read
        yield
        return
    try:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


class SocketFile:
    """A socket that listens at a path, and the file it has there. Raises as ``listen`` does.

    Attributes:
        listener: The socket.
    """

    def __init__(self, path: str) -> None:
        self.listener = listen(path)
        self._path = Path(path).absolute()  # wherever the process goes
        self._made = self._file()

    def close(self) -> None:
        """Close it, and remove its file unless another has taken the place; idempotent."""
        with suppress(OSError):
            if self._made is not None and self._file() == self._made:
                self._path.unlink()
        self.listener.close()

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it is busy, of another kind, or another user's: somebody's in any case
            return True
        return True


def may(line: socket.socket) -> bool:
    """Tell whether a peer is of this user, or root."""
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", raw)[1] in (0, os.geteuid())
