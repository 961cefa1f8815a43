"""Constant offsets between a camera and a microphone: the file they are kept in, and how they are applied."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.capture import KINDS, parse
from mmedge.errors import ConfigError
from mmedge.files import changing_settings, user_config
from mmedge.learn import learn
from mmedge.types import ClockQuality, Packet

_MAX_BYTES, _MAX_PAIRS = 1 << 20, 256
_MARKED = re.compile(r" \([0-9a-f]{6}\)\Z")
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=60_000_000_000)]
_P = TypeVar("_P", bound=Packet)


class Offset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the times of a camera are late against those of a microphone.

    Attributes:
        image: Address of the camera, without a password.
        audio: Address of the microphone, without a password.
        offset_ns: Capture time of a flash less that of a beep which began at the same instant.
        uncertainty_ns: Bound on the error of ``offset_ns``.
        mad_ns: Median deviation of the single pairs.
        pairs: How many flashes and beeps it was learnt from.
    """

    image: _Name
    audio: _Name
    offset_ns: Annotated[int, msgspec.Meta(ge=-60_000_000_000, le=60_000_000_000)]
    uncertainty_ns: _Length
    mad_ns: _Length
    pairs: Annotated[int, msgspec.Meta(ge=1)]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: Literal["mmedge.offsets/1"]
    offsets: Annotated[tuple[Offset, ...], msgspec.Meta(max_length=_MAX_PAIRS)]


def offsets_path() -> Path:
    """Return where offsets are kept: ``mmedge/offsets.json`` under ``$XDG_CONFIG_HOME``, else under ``~/.config``.

    Raises:
        ConfigError: If there is no home folder.
    """
    return user_config("offsets.json")


def device_name(uri: str | Address) -> str:
    """Return the one spelling under which a live device is kept; no secret is part of it.

    Where a token or the like is all that tells two devices apart, six digits follow, which only this machine can
    compute: they come from a random key beside the offsets. A password does not count: it may be changed.

    Raises:
        ConfigError: If it is not a source address of a live device.

    Example:
        >>> device_name("0") == device_name("v4l2:///dev/video0")
        True
    """
    parsed = parse(uri)
    if not parsed.live:
        raise ConfigError(
            f"'{parsed.address}' is not a live device",
            where=str(parsed.address),
            fix="files need no calibration: their times are exact",
        )
    mark = parsed.spelling.mark(_key()) if parsed.spelling.mark(b"") else ""
    return f"{parsed.name} ({mark})" if mark else parsed.name


def _key() -> bytes:
    """Return this machine's key for the names of addresses; it is made on first use."""
    path = offsets_path().with_name("address.key")
    what = "the key for names of devices cannot be used"
    if not path.exists():
        with changing_settings(path, what) as file:  # another process may have been first
            file.write(path.read_bytes() if path.exists() else os.urandom(32))
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}", where=str(path), fix="make it readable for yourself") from error
    if len(key) != 32:
        raise ConfigError(
            "the key for names of devices is damaged", where=str(path), fix="delete the file and calibrate again"
        )
    return key


def lookup(image_uri: str | Address, audio_uri: str | Address) -> Offset | None:
    """Return what is known of a pair of devices, None if it was never calibrated.

    Args:
        image_uri: Address of the camera; its parameters belong to it, as another size has another delay.
        audio_uri: Address of the microphone.

    Raises:
        ConfigError: If the file cannot be read or is damaged, or an address is malformed.
    """
    parse(image_uri), parse(audio_uri)
    known = _read(offsets_path())
    pair = (device_name(image_uri), device_name(audio_uri)) if known else ()  # a key is not made for nothing
    return next((offset for offset in known if (offset.image, offset.audio) == pair), None)


def store(offset: Offset) -> Path:
    """Keep an offset in place of what was known of its pair; of more than 256 pairs the oldest is forgotten.

    Returns:
        The file written.

    Raises:
        ConfigError: If the file cannot be written, or what is there is damaged.
    """
    path = offsets_path()
    with changing_settings(path, "the offset cannot be saved") as file:
        others = [known for known in _read(path) if (known.image, known.audio) != (offset.image, offset.audio)]
        content = _File(schema="mmedge.offsets/1", offsets=(*others[-(_MAX_PAIRS - 1) :], offset))
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return path


def _read(path: Path) -> tuple[Offset, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise msgspec.ValidationError(f"it is longer than {_MAX_BYTES} bytes")
        return tuple(map(_renamed, msgspec.json.decode(data, type=learn(_File)).offsets))
    except FileNotFoundError:
        return ()
    except OSError as error:
        message = f"the offsets of devices cannot be read: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="make the file readable, or delete it") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file of device offsets is damaged: {error}",
            where=str(path),
            fix="delete the file and calibrate again: mmedge calibrate --image URI --audio URI",
        ) from error


def _renamed(offset: Offset) -> Offset:
    """Return an offset whose names show no secret: files of mmedge 0.1 kept tokens and pipelines as they were."""
    new: dict[str, str] = {}
    for name in (offset.image, offset.audio):
        shown = str(Address(name))
        if shown != name and not _MARKED.search(name):
            try:
                new[name] = device_name(name)
            except ConfigError:  # no address of today
                new[name] = shown
    return msgspec.structs.replace(
        offset, image=new.get(offset.image, offset.image), audio=new.get(offset.audio, offset.audio)
    )


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration changes of one input's packets.

    Attributes:
        earlier_ns: Its stamps are so much too late.
        uncertainty_ns: Its half of the pair's uncertainty, in place of ``known_ns``.
        known_ns: What of a packet's uncertainty, by class of its stamp, is a constant that is known by now.
    """

    earlier_ns: int
    uncertainty_ns: int = 0
    known_ns: Mapping[ClockQuality, int] = msgspec.field(default_factory=dict)

    def __call__(self, packet: _P) -> _P:
        """Return the packet with its true time; the data is the same object."""
        rest_ns = max(0, packet.uncertainty_ns - self.known_ns.get(packet.quality, 0))
        return replace(
            packet,
            capture_ns=packet.capture_ns - self.earlier_ns,
            uncertainty_ns=rest_ns + self.uncertainty_ns,
        )


def alignment(
    inputs: Mapping[str, Input], uris: Mapping[str, str] | Mapping[str, Address]
) -> tuple[dict[str, Shift], list[str]]:
    """Say how the packets of a run's live devices are to be shifted.

    Of two devices the one whose stamps are late is moved back, as a stamp can be late but not early: no
    packet is ever from the future. Uncertainties shrink only when every camera and microphone of the run
    is part of one calibrated group; until then they hold what is unknown of each device.

    Args:
        inputs: The inputs of the bundle.
        uris: Input name -> source address; files and text are left as they are.

    Returns:
        Input name -> shift, and a note for each pair of devices that was never calibrated.

    Raises:
        ConfigError: If the file of offsets is damaged or cannot be read.
    """
    live = {name: uri for name, uri in uris.items() if parse(uri).live}
    images = [name for name in live if isinstance(inputs[name], ImageInput)]
    sounds = [name for name in live if isinstance(inputs[name], AudioInput)]
    known: list[tuple[str, str, Offset]] = []
    notes: list[str] = []
    for image in images:
        for sound in sounds:
            offset = lookup(live[image], live[sound])
            if offset is not None:
                known.append((image, sound, offset))
            elif parse(live[image]).device != parse(live[sound]).device:
                notes.append(
                    f"'{image}' and '{sound}' were never calibrated: what is constant in their delays is unknown "
                    f"(mmedge calibrate --image {quote(parse(live[image]).name)} "
                    f"--audio {quote(parse(live[sound]).name)})"
                )
    # The best known pairs first; each brings two groups of devices onto one time.
    groups = {name: _Group({name: 0}) for name in (*images, *sounds)}
    for image, sound, offset in sorted(known, key=lambda pair: pair[2].uncertainty_ns):
        ours, theirs = groups[image], groups[sound]
        if ours is not theirs:
            move_ns = theirs.late_ns[sound] + offset.offset_ns - ours.late_ns[image]
            theirs.late_ns.update({name: late_ns + move_ns for name, late_ns in ours.late_ns.items()})
            theirs.uncertainty_ns += ours.uncertainty_ns + offset.uncertainty_ns
            groups.update(dict.fromkeys(ours.late_ns, theirs))
    whole = len({id(group) for group in groups.values()}) == 1
    shifts: dict[str, Shift] = {}
    for name, group in groups.items():
        earlier_ns = group.late_ns[name] - min(group.late_ns.values())
        if whole and known:
            constant = KINDS[parse(live[name]).kind].constant_ns
            shifts[name] = Shift(earlier_ns=earlier_ns, uncertainty_ns=group.uncertainty_ns // 2, known_ns=constant)
        elif earlier_ns:
            shifts[name] = Shift(earlier_ns=earlier_ns)
    return shifts, notes


class _Group(msgspec.Struct):
    """Devices on one time: how late the stamps of each are, and what the uncertainties of their offsets add up to."""

    late_ns: dict[str, int]
    uncertainty_ns: int = 0
