"""Text of others on its way out: no character of it may steer a terminal, turn lines round, or hide.

Labels, names, messages and file names come from bundles, devices and networks. Whatever shows them, shows these
characters as escapes; in a bundle's labels and names they are refused.
"""

from __future__ import annotations

import re

# Controls (C0, C1), those that turn the direction of writing, line and paragraph separators, what has no width (but
# for the joiners of emoji and of Persian and Indic words), tags, and lone surrogates. Line break and tab stay.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff\ud800-\udfff"
)
_FOUND = re.compile(f"[{_UNSAFE}]")
_FOUND_IN_NAME = re.compile(f"[{_UNSAFE}\t\n]")


def printable(text: str) -> str:
    r"""Return ``text`` with every unsafe character as an escape.

    Example:
        >>> printable("\x1b]0;x\x07 \u202e \ud800 tab\t, ü")
        '\\x1b]0;x\\x07 \\u202e \\ud800 tab\t, ü'
    """
    return _FOUND.sub(lambda found: _escape(ord(found[0])), text)


def unsafe(text: str, *, lines: bool = False) -> str | None:
    r"""Return the first character, as an escape, that a name may not have; None if there is none.

    Args:
        text: The name.
        lines: Whether it may have line breaks and tabs.

    Example:
        >>> unsafe("a\nb"), unsafe("a\nb", lines=True), unsafe("été")
        ('\\x0a', None, None)
    """
    found = (_FOUND if lines else _FOUND_IN_NAME).search(text)
    return None if found is None else _escape(ord(found[0]))


def json_text(text: str) -> str:
    r"""Return a JSON document with every unsafe character of its strings as JSON's own escape: it says the same.

    Example:
        >>> json_text('{"label": "\u202e"}')
        '{"label": "\\u202e"}'
    """
    return _FOUND.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _units(ord(found[0]))), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def _units(code: int) -> tuple[int, ...]:
    """Return a character in UTF-16, as JSON writes it."""
    return (code,) if code < 1 << 16 else (0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF))
