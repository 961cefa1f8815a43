"""The seat of a network's picture: what the user says, what the file tells, and what has to be assumed."""

from __future__ import annotations

import re

import numpy as np
import onnx

from mmedge.bundle.manifest import ImageInput
from mmedge.bundle.seats import PictureLayout

from .brought import dims, dtype
from .infer import Network, metadata_of
from .layouts import Dims
from .scale import SCALES, axes_by_graph, taken_by

Axes = tuple[int, int, int]
_AXES: dict[PictureLayout, Axes] = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2), "ncwh": (1, 3, 2), "nwhc": (3, 2, 1)}


def picture_axes(network: Network, value: onnx.ValueInfoProto) -> tuple[PictureLayout, int] | None:
    """Return the axes of an input that is a picture, and how many channels it has; None where it is none.

    The user's word counts, then the shape, then the first layer.
    """
    shape, kind = dims(value), dtype(value)
    if len(shape) != 4 or shape[0] not in (1, None) or not (kind == np.uint8 or kind.kind == "f"):
        return None
    said = network.said.picture
    if said is not None:
        channels = shape[_AXES[said][0]]
        if channels is None:
            found = axes_by_graph(network.model, value)
            channels = 3 if found is None else found[1]
        return (said, channels) if channels in (1, 3) else None
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last:
        return ("nchw", shape[1] or 3) if first else ("nhwc", shape[3] or 3)
    if (first and last) or None in (shape[1], shape[3]):
        found = axes_by_graph(network.model, value)
        if found is not None and found[1] == (shape[found[0][0]] or found[1]):
            return next(name for name, axes in _AXES.items() if axes == found[0]), found[1]
    return None


def picture_seat(
    network: Network, value: onnx.ValueInfoProto, layout: PictureLayout, channels: int
) -> tuple[ImageInput, str]:
    """Return the seat of a picture, and why; what had to be assumed goes to ``network.asks``."""
    shape, kind, said, model = dims(value), dtype(value), network.said, network.model
    axes = _AXES[layout]
    height, width = shape[axes[1]], shape[axes[2]]
    ranks = {len(dims(output)) for output in model.graph.output}
    known = metadata_of(model)
    detects = 3 in ranks or ("names" in known and 2 not in ranks)
    classes = {dims(output)[-1] for output in model.graph.output if len(dims(output)) == 2}
    why = f"a picture, {_told(layout)}"
    asks: list[str] = []
    if height is None or width is None:
        default = said.size or _file_size(known)
        where = "as you say" if said.size else "as the file says" if default else "since its size is open"
        if default is None:
            default = (640, 640) if detects else (224, 224)
            asks.append(f"their size (taken as {default[1]}x{default[0]}: --size WIDTHxHEIGHT)")
        height, width = height or default[0], width or default[1]
        why += f"; {width}x{height}, {where}"
    small = not detects and channels == 3 and ((height, width) == (224, 224) or 1000 in classes)
    taken = taken_by(model, value, axes)
    ultralytics = "names" in known and ("imgsz" in known or "stride" in known)
    if said.scale is not None:
        scale, told = said.scale, "as you say"
    elif taken.scale is not None:
        scale, told = taken.scale, taken.why
    elif ultralytics:
        scale, told = "0..1", "as Ultralytics' networks take them"
    else:
        scale, told = ("imagenet" if small else "0..1"), "assumed"
        others = " or ".join(f"--scale {name}" for name in SCALES if name != scale)
        asks.append(f"which numbers its pictures have (taken as {scale}: {others})")
    color = said.color or taken.color or "rgb"
    if channels == 3 and said.color is None and taken.color is None and not ultralytics:
        asks.append("the order of their colours (taken as rgb: --color bgr)")
    if asks:
        network.asks.append(f"the file of network '{network.name}' does not tell, of '{value.name}', {'; '.join(asks)}")
    mean, std = (tuple(numbers[:channels]) for numbers in SCALES[scale])
    words = {"imagenet": "normalised as ImageNet"}.get(scale, scale)
    why += f", {words}" + (f": {told}" if kind != np.uint8 else "")
    return ImageInput(
        size=(height, width),
        color="gray" if channels == 1 else color,
        fit="letterbox" if detects else "crop" if small else "stretch",
        mean=mean,
        std=std,
        layout=layout if _hides(shape, layout) else "nchw",
    ), why


def _hides(shape: Dims, layout: PictureLayout) -> bool:
    """Tell whether a shape alone does not show how its axes lie."""
    return layout in ("ncwh", "nwhc") or (
        layout == "nhwc" and not (shape[3] in (1, 3) and shape[1] not in (1, 3, None))
    )


def _told(layout: PictureLayout) -> str:
    width_first = ", width before height" if layout in ("ncwh", "nwhc") else ""
    return f"channels {'first' if layout[1] == 'c' else 'last'}{width_first}"


def _file_size(known: dict[str, str]) -> tuple[int, int] | None:
    numbers = [int(number) for number in re.findall(r"\d{1,5}", known.get("imgsz", ""))]
    if not numbers or not 0 < max(numbers) <= 16_384 or min(numbers) == 0:
        return None
    return (numbers[0], numbers[-1])
