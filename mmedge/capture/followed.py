"""A file that is read as it grows, is cut off, written anew in place, or replaced by another."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_CHUNK = 64 * 1024
# This much of what was read last is read again, to distinguish a file that grew from one that was rewritten.
_TAIL = 4096


class FollowedFile:
    """Follows a regular file by looking at it.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be opened.

    Example:
        >>> file = FollowedFile(Path("notes.txt"))  # doctest: +SKIP
        >>> file.read().decode().splitlines()  # doctest: +SKIP
        ['seven']
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.rewind()

    def rewind(self) -> None:
        """Read it from its start."""
        self._at, self._tail = 0, b""
        self._mtime_ns = self._suspect_ns = 0

    def read(self) -> bytes | None:
        """Return up to 64 KiB of what follows, nothing at the end, None if what was read is no longer there.

        Raises:
            OSError: If it cannot be read.
        """
        # In one call, so that nothing is written between what is compared and what is new.
        data = os.pread(self._fd, len(self._tail) + _CHUNK, self._at - len(self._tail))
        if data[: len(self._tail)] != self._tail:
            return None
        new = data[len(self._tail) :]
        if new:
            self._at += len(new)
            self._tail = data[-_TAIL:]
            self._mtime_ns = self._suspect_ns = os.fstat(self._fd).st_mtime_ns
        return new

    def repeated(self) -> bool:
        """Tell, at its end, whether the very same was written anew; it is known at the second look.

        Raises:
            OSError: If it cannot be read.
        """
        state = os.fstat(self._fd)
        if not self._at or state.st_size != self._at or state.st_mtime_ns == self._mtime_ns:
            return False
        # Whoever appends sets the time before the size: what has not grown at the next look either did not grow.
        again, self._suspect_ns = self._suspect_ns == state.st_mtime_ns, state.st_mtime_ns
        return again

    def replaced(self) -> bool:
        """Tell whether another file has its name; this one can still be read.

        Raises:
            OSError: If there is none.
        """
        now, own = self._path.stat(), os.fstat(self._fd)
        return (now.st_dev, now.st_ino) != (own.st_dev, own.st_ino)

    def reopen(self) -> None:
        """Open the file that has its name now.

        Raises:
            OSError: If there is none.
        """
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a file any more", str(self._path))
        self.close()
        self._fd = fd
        self.rewind()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
