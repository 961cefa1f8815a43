"""The grammar of source addresses: what ``--input NAME=URI`` accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmedge.capture.channels import CHOICE
from mmedge.capture.kinds import KINDS, no_address
from mmedge.errors import ConfigError, printable

FORMS = ", ".join(kind.forms for kind in KINDS.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Uri:
    """A parsed source address.

    Attributes:
        kind: Which source reads it: a key of ``KINDS``.
        target: Device path, sensor number, full network or test address, file path, device name or pipeline.
        params: What stood after ``?``, checked.
    """

    kind: str
    target: str
    params: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the address as it may be shown: without a password."""
        shown = printable(self.target)
        return re.sub(r"(?<=://)[^/@]*@", "***@", shown) if KINDS[self.kind].password else shown

    @property
    def live(self) -> bool:
        """Whether a device or a peer feeds it: it can hang, vanish and come back."""
        return KINDS[self.kind].live

    @property
    def device(self) -> tuple[str, ...]:
        """What the address opens, the same for all its spellings as far as text and links tell."""
        return self.kind, *KINDS[self.kind].device(self.target, self.params)

    @property
    def name(self) -> str:
        """The one spelling of the address, parameters of the device included and without a password."""
        if KINDS[self.kind].whole:
            return str(self)
        query = "&".join(f"{name}={value}" for name, value in sorted(self.params.items()) if name not in CHOICE)
        return f"{KINDS[self.kind].schemes[0]}{self.target}" + (f"?{query}" if query else "")

    def number(self, name: str) -> int | None:
        """Return a whole-number parameter, None if it was not given."""
        return int(self.params[name]) if name in self.params else None


def parse(uri: str) -> Uri:
    """Parse a source address.

    Args:
        uri: One of the forms of ``FORMS``.

    Returns:
        Its parts, checked as far as text can be; nothing is opened.

    Raises:
        ConfigError: If it has none of these forms.

    Example:
        >>> parse("csi://0?width=1280&height=720&fps=30").params["width"]
        '1280'
        >>> parse("0").target
        '/dev/video0'
    """
    try:
        name = _kind(uri)
        target, params = KINDS[name].read(uri)
    except ConfigError as error:
        raise ConfigError(error.message, where=f"'{uri}'", fix=error.fix or f"use one of: {FORMS}") from error
    return Uri(kind=name, target=target, params=params)


def _kind(uri: str) -> str:
    if not uri.strip():
        raise ConfigError("the source address is empty")
    for name, kind in KINDS.items():
        if uri.startswith(kind.schemes):
            return name
    for name, kind in KINDS.items():
        if kind.plain is not None and re.fullmatch(kind.plain, uri):
            return name
    raise no_address(uri)
