"""Text in systemd's files: words, paths and names, by its rules of quoting (systemd.syntax, systemd.unit)."""

from __future__ import annotations

import re
import string

_PLAIN = re.compile(r"[A-Za-z0-9_/=,.+-][A-Za-z0-9_/=,.+:@-]*")
_IN_NAME = frozenset(string.ascii_letters + string.digits + ":_.-")


def word(text: str) -> str:
    r"""Return one argument of a command line in ``ExecStart=``.

    ``%`` and ``$`` are doubled, what needs it is quoted, characters that cannot be seen are written as escapes.

    Example:
        >>> print(word("a b"), word("100%"), word("$HOME"), word('say "x"'))
        "a b" "100%%" "$$HOME" "say \"x\""
    """
    return _quoted(text.replace("$", "$$"))


def path_word(text: str) -> str:
    r"""Return one path in a list of paths, such as ``BindReadOnlyPaths=``.

    Example:
        >>> print(path_word("/a b"), path_word("/a:b"))
        "/a b" "/a:b"
    """
    return _quoted(text) if ":" not in text else _in_quotes(text)


def expanded(text: str) -> str:
    """Return an argument in which ``${NAME}`` stands for a variable that systemd puts in; ``%`` is doubled."""
    return _quoted(text, variables=True)


def _quoted(text: str, *, variables: bool = False) -> str:
    if _PLAIN.fullmatch(text) or (variables and re.fullmatch(r"[\w=@{}$/.-]+", text, re.ASCII)):
        return text
    return _in_quotes(text)


def _in_quotes(text: str) -> str:
    return '"' + "".join(map(_character, specifiers(text))) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def specifiers(text: str) -> str:
    """Return a text in which systemd puts nothing in: ``%`` is doubled."""
    return text.replace("%", "%%")


def setting(text: str) -> str:
    """Return a text on one line of a unit, such as a description: ``%`` is doubled, what steers is left out."""
    return specifiers(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def unit_name(text: str) -> str:
    r"""Return a text as part of a unit's name: what may not be in one is escaped as ``systemd-escape`` does.

    Example:
        >>> print(unit_name("front-door"), unit_name("my kiosk"), unit_name("50%"), unit_name(".a/b"))
        front-door my\x20kiosk 50\x25 \x2ea-b
    """
    escaped = []
    for number, character in enumerate(text):
        if character == "/":
            escaped.append("-")
        elif character in _IN_NAME and not (character == "." and number == 0):
            escaped.append(character)
        else:
            escaped.append("".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape")))
    return "".join(escaped)
