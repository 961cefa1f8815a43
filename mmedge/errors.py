"""Every error of the SDK: what went wrong, where, and what to do about it.

::

    MmedgeError                  5  run-time failure (base of all)
    ├── InternalError           70  a bug in mmedge
    ├── CheckError               1  a comparison, self-test or verification failed
    ├── ConfigError              2  an option, recipe or call that cannot work
    ├── MissingDependencyError   3  an optional package is not installed
    ├── DeviceError              3  a camera, microphone or GPU is not there
    ├── BundleError              4  a bundle that is damaged, hostile or too new
    ├── EngineError              5  a network that cannot be built, loaded or run
    ├── SourceError              5  a stream that broke while it was read
    └── FrameExpiredError        5  a picture that was asked for too late

The number is the exit code of the command line.
"""

from __future__ import annotations

import errno
import os
import traceback
from typing import ClassVar

from mmedge.address import scrub
from mmedge.plain import printable

_MAX_TRACE = 16_000  # characters
_NO_MEMORY = ("cannot allocate memory", "failed to map segment", "bad_alloc", "out of memory")


class MmedgeError(Exception):
    """Base of all errors raised on purpose by mmedge.

    Args:
        message: What went wrong, one sentence.
        where: Key path, tensor, device or ``file:line`` it concerns.
        fix: What the reader can do about it.

    Example:
        >>> print(MmedgeError("no such input 'sound'", where="--input", fix="use 'audio'"))
        no such input 'sound'
          where: --input
          fix: use 'audio'
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.message = printable(scrub(message))
        super().__init__(self.message)
        self.where = None if where is None else printable(scrub(where))
        self.fix = None if fix is None else printable(scrub(fix))

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the error as the JSON document that ``--json`` prints; its class is the nearest one of this module."""
        return {
            "schema": "mmedge.error/1",
            "error": next(cls.__name__ for cls in type(self).__mro__ if cls.__module__ == __name__),
            "message": self.message,
            "where": self.where,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


class InternalError(MmedgeError):
    """A bug in mmedge, with what is needed to report it; its cause is the unexpected exception."""

    exit_code = 70


class ChildTraceback(Exception):  # noqa: N818  (it is shown as the cause of an error, never raised)
    """Where in another process an error arose: the text of its traceback."""


def internal(error: BaseException, *, where: str | None = None) -> MmedgeError:
    """Return the InternalError of an unexpected exception, which becomes its cause.

    If the machine or a limit of the process has run out of something, that is not a bug: it is another error.

    Example:
        >>> print(internal(TypeError("no int"), where="capture"))
        internal error: TypeError: no int
          where: capture
          fix: report it, with its traceback and `mmedge doctor --json`
        >>> print(internal(OSError(24, "Too many open files"), where="capture"))
        this process cannot open more files
          where: capture
          fix: raise the limit (ulimit -n 1024), or close files that are open
    """
    short = shortage(error)
    if short is not None:
        return MmedgeError(short[0], where=where, fix=short[1])
    problem = InternalError(
        f"internal error: {type(error).__name__}: {error}",
        where=where,
        fix="report it, with its traceback and `mmedge doctor --json`",
    )
    problem.__cause__ = error
    return problem


def shortage(error: BaseException) -> tuple[str, str] | None:
    """Return which resource ran out and how to fix it; None if ``error`` has another cause."""
    number = error.errno if isinstance(error, OSError) else None
    said = str(error).lower() if isinstance(error, (RuntimeError, ImportError)) else ""
    if number in (errno.EMFILE, errno.ENFILE):
        return "this process cannot open more files", "raise the limit (ulimit -n 1024), or close files that are open"
    if number == errno.EAGAIN or "start new thread" in said:
        return "no thread or process can be started", "raise the limits (ulimit -u, ulimit -v), or end other programs"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in said for words in _NO_MEMORY):
        return "there is not enough memory", "raise the limit (ulimit -v), or end other programs"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full or a limit is reached: {os.strerror(number)}",
            "free space, or raise the limit (ulimit -f)",
        )
    return None


def trace(error: BaseException | None) -> str:
    """Return the traceback of an exception as text of at most 16,000 characters: its start and its end."""
    if error is None:
        return ""
    text = str(error) if isinstance(error, ChildTraceback) else "".join(traceback.format_exception(error)).rstrip()
    half = _MAX_TRACE // 2
    text = scrub(text)  # before it is cut: a half of a secret is one, too
    return printable(text if len(text) <= _MAX_TRACE else f"{text[: half - 5]}\n...\n{text[-half:]}")


class CheckError(MmedgeError):
    """A comparison, self-test or verification failed."""

    exit_code = 1


class ConfigError(MmedgeError):
    """An option, recipe or call that cannot work."""

    exit_code = 2


class MissingDependencyError(MmedgeError):
    """An optional package is not installed."""

    exit_code = 3


class DeviceError(MmedgeError):
    """A camera, microphone or GPU is not there or cannot be opened."""

    exit_code = 3


class BundleError(MmedgeError):
    """A bundle that is damaged, hostile or needs a newer mmedge."""

    exit_code = 4


class EngineError(MmedgeError):
    """A network that cannot be built, loaded or run."""


class SourceError(MmedgeError):
    """A stream that broke while it was read."""


class FrameExpiredError(MmedgeError):
    """A picture that was asked for too late: its slot holds another one by now."""
