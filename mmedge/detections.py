"""Boxes for the package ``supervision``: tracks, zones, counting."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmedge.errors import ConfigError
from mmedge.extras import require
from mmedge.types import ByteArray, Frame, Result


def to_supervision(
    result: Result, picture: Frame | ByteArray, *, task: str | None = None, labels: Sequence[str] | None = None
) -> Any:
    """Return the boxes of a detection as ``supervision.Detections``; see ``Result.to_supervision``.

    ``picture`` is a frame, or [height, width, ...] of any dtype.
    """
    supervision = require("supervision", "to_supervision")
    if task is None:
        seeing = [name for name, said in result.tasks.items() if said.boxes]
        if len(seeing) > 1:
            raise ConfigError(
                f"the result has boxes of {seeing}", where="to_supervision", fix="name one of them: task='NAME'"
            )
        task = seeing[0] if seeing else None
    elif task not in result.tasks:
        raise ConfigError(
            f"the result has no task '{task}'", where="to_supervision", fix=f"it has {list(result.tasks)}"
        )
    boxes = () if task is None else result.tasks[task].boxes
    if not boxes:
        return supervision.Detections.empty()
    corners = np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float32)
    height, width = _size(picture)
    return supervision.Detections(
        xyxy=corners * np.array([width, height, width, height], np.float32),
        confidence=np.array([box.score for box in boxes], np.float32),
        class_id=np.array([_number(box.label, labels) for box in boxes]),
        data={"class_name": np.array([box.label for box in boxes])},
    )


def _size(picture: Frame | ByteArray) -> tuple[int, int]:
    """Return height and width as it is shown."""
    if not isinstance(picture, Frame):
        return picture.shape[0], picture.shape[1]
    turned = picture.description.rotation in (90, 270)
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _number(label: str, labels: Sequence[str] | None) -> int:
    if labels is None:
        return zlib.crc32(label.encode("utf-8", "surrogatepass")) & 0xFFFF
    if label not in labels:
        raise ConfigError(
            f"the label '{label}' is not among the labels", where="to_supervision", fix="pass bundle.labels(task)"
        )
    return list(labels).index(label)
