"""Source addresses on a command line: ``@FILE`` and ``${VARIABLE}`` keep their secrets out of it.

What is typed stands in the shell's history, and anybody on the machine can read it while the command runs.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable
from urllib.parse import quote

from mmedge.address import Address
from mmedge.errors import ConfigError

_FILE = "@"  # before a path
_MAX_BYTES = 64 * 1024
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
log = logging.getLogger("mmedge.cli")


def notice(arguments: Iterable[str]) -> None:
    """Learn what must not be shown of a command line, before anything is said about it."""
    for argument in arguments:
        option = re.match(r"-{0,2}[A-Za-z][\w-]*=", argument)
        Address(argument[option.end() :] if option else argument)


def typed(text: str, where: str) -> Address:
    """Return the address that an argument stands for.

    Args:
        text: An address, in which ``${VARIABLE}`` is a variable of the environment; or ``@FILE``, a file that holds
            nothing but an address.
        where: The option, for messages.

    Raises:
        ConfigError: If the file cannot be read or holds no single line, or the variable is not set.

    Example:
        >>> os.environ["CAM_PASSWORD"] = "p@ss/word"
        >>> print(typed("rtsp://me:${CAM_PASSWORD}@camera/", "--image"))
        rtsp://***@camera/
    """
    return _read(text[1:], where) if text.startswith(_FILE) else Address(_expand(text, where))


def suggested(text: str) -> str:
    """Return an argument as a suggested command may show it."""
    return text if text.startswith(_FILE) else str(Address(text))


def _expand(text: str, where: str) -> str:
    """Put in variables. What stands in a user name or password may hold any character: it is escaped."""
    parts: list[str] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        name = found[1]
        if not _NAME.fullmatch(name):
            raise ConfigError("${...} holds no name of a variable", where=where, fix="for example ${CAM_PASSWORD}")
        value = os.environ.get(name)
        if value is None:
            raise ConfigError(
                f"the environment has no variable '{name}'",
                where=where,
                fix=f"set it before: read -rs {name}; export {name}",
            )
        before, after = text[: found.start()], text[found.end() :]
        begun = before.rpartition("://")[2] if "://" in before and not before.startswith("gst:") else "/"
        in_user = not re.search(r"[/?#@]", begun) and "@" in after
        # A '%' begins an escape here as in any address.
        parts += [text[at : found.start()], quote(value, safe="%:!$&'()*+,;=~") if in_user else value]
        at = found.end()
    return "".join([*parts, text[at:]])


def _read(path: str, where: str) -> Address:
    shown = f"@{Address(path)}"  # it may be an address itself
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(21, "it is a folder")
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the file of the address cannot be read: {error.strerror}", where=f"{where} {shown}", fix="check the path"
        ) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        log.warning("%s: others may read this file; chmod 600 %s", where, shown[1:])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip() or len(data) > _MAX_BYTES or re.search(r"[\r\n\0]", text):
        raise ConfigError(
            "the file must hold one address, on one line of UTF-8",
            where=f"{where} {shown}",
            fix="write the address into it, and nothing else",
        )
    return Address(text)
