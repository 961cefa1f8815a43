"""What is said of a network where its file does not tell: options of ``mmedge new`` and ``mmedge export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import typer

Tokenizer = Annotated[Path | None, typer.Option(help="tokenizer.json of a network that takes input_ids.")]
Size = Annotated[
    list[str],
    typer.Option(
        metavar="[NETWORK=]WxH", help="Size of a network's pictures, samples of its sound, a tensor's open dimension."
    ),
]
Classes = Annotated[
    list[str], typer.Option(metavar="[NETWORK=]N", help="How many classes it has, a file of their names, or 'none'.")
]
Scale = Annotated[
    list[str],
    typer.Option(metavar="[NETWORK=]SCALE", help="The numbers it takes: 0..1, -1..1, 0..255, imagenet, raw, int16."),
]
Layout = Annotated[
    list[str],
    typer.Option(
        metavar="[NETWORK=]LAYOUT",
        help="Of its boxes: yolo, yolo-objectness, boxes, none; of its pictures: nchw, nhwc, ncwh, nwhc.",
    ),
]
Color = Annotated[list[str], typer.Option(metavar="[NETWORK=]COLOR", help="Order of its colours: rgb, bgr.")]


_T = TypeVar("_T")


def given(**options: _T | None) -> dict[str, _T]:
    """Return the options that were given, as ``said_of`` takes them.

    Example:
        >>> given(size=["320"], scale=[])
        {'size': ['320']}
    """
    return {name: value for name, value in options.items() if value is not None and value != []}
