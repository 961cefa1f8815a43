"""What wakes a reader in another process: an eventfd."""

from __future__ import annotations

import os

from mmedge._native import core


class Wake:
    """Set by any process that holds the descriptor, waited for by one.

    Args:
        fd: An eventfd that came from another process, owned from now on; None makes a new one.

    Example:
        >>> wake = Wake()
        >>> wake.set(); wake.wait(1.0), wake.wait(0.0)
        (True, False)
    """

    _fd = -1

    def __init__(self, fd: int | None = None) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if fd is None else fd

    def fileno(self) -> int:
        """Return the descriptor, to poll on or to pass on."""
        return self._fd

    def set(self) -> None:
        """Wake the reader, now or at its next wait; one that can be set no more is set already."""
        core.eventfd_set(self._fd)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it was set since the last wait; False if it was not in time."""
        return core.eventfd_wait(self._fd, timeout_s)

    def clear(self) -> bool:
        """Forget that it was set; tell whether it was."""
        return core.eventfd_clear(self._fd)

    def __del__(self) -> None:
        # Not before the last user is gone: a thread may still be polling, and the number would be used again.
        if self._fd >= 0:
            os.close(self._fd)


class ShownWake(Wake):
    """One that a program holds, too, whose flags are the program's as well: it may have made the descriptor wait.

    Example:
        >>> wake = ShownWake()
        >>> os.set_blocking(wake.fileno(), True)
        >>> wake.clear()
        False
    """

    def set(self) -> None:
        """Wake the program, or who waits for it; never waits itself."""
        os.set_blocking(self._fd, False)
        super().set()

    def clear(self) -> bool:
        """Forget that it was set; tell whether it was. Never waits."""
        os.set_blocking(self._fd, False)
        return super().clear()
