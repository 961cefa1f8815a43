"""What the user says of networks where files do not tell: ``--size``, ``--classes``, ``--scale``, ``--layout``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from mmedge.bundle.seats import PictureLayout
from mmedge.errors import ConfigError
from mmedge.interpret.detection import Layout
from mmedge.learn import learn

from .scale import SCALES, Color

_SIZE = re.compile(r"(\d{1,8})(?:x(\d{1,5}))?")
_BOXES = get_args(Layout)
_PICTURES = get_args(PictureLayout)
SOUND_SCALES = {"int16": 32768.0}
# Option -> what it takes, for people.
OPTIONS = {
    "size": "WIDTHxHEIGHT of the picture in pixels, or one number; of sound its samples; of a tensor what is open",
    "classes": "their number, a file with a name a line, or 'none' where the output has no classes",
    "scale": f"what numbers the network takes: {', '.join((*SCALES, 'raw', *SOUND_SCALES))}",
    "layout": f"of boxes: {', '.join((*_BOXES, 'none'))}; of a picture: {', '.join(_PICTURES)}",
    "color": "rgb or bgr",
}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of one network; None where nothing.

    Attributes:
        size: Height and width of its pictures in pixels.
        samples: Of its sound; or the size of a tensor's open dimension.
        classes: Their names; none at all where its output has no classes.
        scale: A key of ``SCALES``.
        gain: By which sound of -1..1 is multiplied.
        boxes: Their layout; ``none`` where they are no boxes.
        picture: The axes of its pictures.
        color: The order of its channels.
    """

    size: tuple[int, int] | None = None
    samples: int | None = None
    classes: tuple[str, ...] | None = None
    scale: str | None = None
    gain: float | None = None
    boxes: Layout | Literal["none"] | None = None
    picture: PictureLayout | None = None
    color: Color | None = None


def said_of(name: str, options: Mapping[str, Sequence[str]]) -> Said:
    """Return what the options say of one network.

    Args:
        name: Of the network.
        options: ``size``, ``classes``, ``scale``, ``layout``, ``color`` -> each ``VALUE`` for all networks, or
            ``NETWORK=VALUE`` for one.

    Raises:
        ConfigError: If a value is none that the option takes.

    Example:
        >>> said_of("yolo", {"size": ["320"], "scale": ["yolo=imagenet", "other=0..1"]}).scale
        'imagenet'
    """
    found: dict[str, object] = {}
    for option, texts in options.items():
        for own in (False, True):  # what is said of this network alone comes last
            for text in texts:
                network, equals, value = text.rpartition("=")
                if bool(equals) == own and network in ("", name):
                    found |= _read(option, value)
    return msgspec.convert(found, learn(Said))


def check_names(names: Sequence[str], options: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError if an option names a network that is not there."""
    for option, texts in options.items():
        for text in texts:
            network, equals, _ = text.rpartition("=")
            if equals and network not in names:
                raise ConfigError(
                    f"no network is called '{network}'", where=f"--{option} {text}", fix=f"one of {', '.join(names)}"
                )


def _read(option: str, value: str) -> dict[str, object]:
    where = f"--{option} {value}"
    if option == "size" and (match := _SIZE.fullmatch(value)) is not None and int(match[1]) > 0:
        width, height = int(match[1]), int(match[2] or match[1])
        return {"size": (height, width), "samples": None if match[2] else width}
    if option == "scale" and (value in SCALES or value == "raw"):
        return {"scale": "0..255" if value == "raw" else value}
    if option == "scale" and value in SOUND_SCALES:
        return {"gain": SOUND_SCALES[value]}
    if option == "layout" and value in (*_BOXES, "none"):
        return {"boxes": value}
    if option == "layout" and value in _PICTURES:
        return {"picture": value}
    if option == "color" and value in get_args(Color):
        return {"color": value}
    if option == "classes":
        return {"classes": _classes(value, where)}
    raise ConfigError(f"'{value}' does not name a {option}", where=where, fix=OPTIONS[option])


def _classes(value: str, where: str) -> tuple[str, ...]:
    if value == "none":
        return ()
    if value.isdecimal():
        if not 0 < int(value) <= 1 << 20:
            raise ConfigError(f"{value} classes are not possible", where=where, fix=OPTIONS["classes"])
        return tuple(map(str, range(int(value))))
    try:
        lines = Path(value).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the names: {error}", where=where, fix=OPTIONS["classes"]) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ConfigError("the file has no names", where=where, fix=OPTIONS["classes"])
    return names
