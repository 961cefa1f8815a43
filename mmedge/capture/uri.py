"""The grammar of source addresses: what ``--input NAME=URI`` accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmedge.address import Address
from mmedge.capture.channels import CHOICE
from mmedge.capture.kinds import KINDS, no_address
from mmedge.errors import ConfigError

FORMS = ", ".join(kind.forms for kind in KINDS.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Uri:
    """A parsed source address.

    Attributes:
        kind: Which source reads it: a key of ``KINDS``.
        address: The address as it was given.
        target: Device path, sensor number, full network or test address, file path, device name or pipeline, as it
            may be shown: of kinds whose addresses may hold a secret it is masked, see ``reveal``.
        params: What stood after ``?``, checked.
    """

    kind: str
    address: Address = field(compare=False)
    target: str
    params: Mapping[str, str] = field(default_factory=dict)
    _whole: str = field(repr=False)

    def __str__(self) -> str:
        """Return the address as it may be shown: without a secret."""
        return self.target.encode("utf-8", "backslashreplace").decode()

    def reveal(self) -> str:
        """Return the target with its secrets: only for the call that opens the device."""
        return self._whole

    @property
    def live(self) -> bool:
        """Whether a device or a peer feeds it: it can hang, vanish and come back."""
        return KINDS[self.kind].live

    @property
    def device(self) -> tuple[object, ...]:
        """What the address opens, the same for all its spellings, as far as text and links show."""
        kind = KINDS[self.kind]
        scheme = "" if kind.whole else kind.schemes[0]
        return self.kind, *(Address(scheme + part) for part in kind.device(self._whole, self.params))

    @property
    def spelling(self) -> Address:
        """The one spelling of the address, parameters of the device included."""
        if KINDS[self.kind].whole:
            return Address(self._whole)
        query = "&".join(f"{name}={value}" for name, value in sorted(self.params.items()) if name not in CHOICE)
        return Address(f"{KINDS[self.kind].schemes[0]}{self._whole}" + (f"?{query}" if query else ""))

    @property
    def name(self) -> str:
        """The same without a secret."""
        return str(self.spelling)

    def number(self, name: str) -> int | None:
        """Return a whole-number parameter, None if it was not given."""
        return int(self.params[name]) if name in self.params else None


def parse(uri: str | Address) -> Uri:
    """Parse a source address.

    Args:
        uri: One of the forms of ``FORMS``.

    Returns:
        Its parts, checked as far as text can be; nothing is opened.

    Raises:
        ConfigError: If it has none of these forms. Of the address it shows what may be shown.

    Example:
        >>> parse("csi://0?width=1280&height=720&fps=30").params["width"]
        '1280'
        >>> parse("0").target
        '/dev/video0'
    """
    address = Address(uri)  # before anything is checked: what is wrong with it is said about its masked form
    try:
        name = _kind(address)
        target, params = KINDS[name].read(address.reveal())
    except ConfigError as error:
        raise ConfigError(
            error.message, where=f"'{address}'", fix="; ".join(filter(None, (error.fix, f"use one of: {FORMS}")))
        ) from None
    kind = KINDS[name]
    scheme = "" if kind.whole else kind.schemes[0]
    shown = str(Address(scheme + target)).removeprefix(scheme) if kind.password else target
    return Uri(kind=name, address=address, target=shown, params=params, _whole=target)


def _kind(address: Address) -> str:
    uri = address.reveal()
    if not uri.strip():
        raise ConfigError("the source address is empty")
    for name, kind in KINDS.items():
        if uri.startswith(kind.schemes):
            return name
    if address.masked and "://" not in uri:  # a network address without its scheme, a user with it
        raise ConfigError(
            f"'{address}' is neither a file nor a source address",
            fix="begin a network address with its scheme, a file's with file:// or ./",
        )
    for name, kind in KINDS.items():
        if kind.plain is not None and re.fullmatch(kind.plain, uri):
            return name
    raise no_address()


def modules_of(addresses: Iterable[Address]) -> tuple[str, ...]:
    """Return what a process imports to read these sources, each kind's together, in the order of the kinds' names."""
    kinds = sorted({parse(address).kind for address in addresses})
    return tuple(module for kind in kinds for module in KINDS[kind].modules)
