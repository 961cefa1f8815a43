"""Results drawn on pictures: boxes with labels and scores, a line for every other task, what is absent and why."""

from __future__ import annotations

import math
import threading
import unicodedata
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np

from mmedge.errors import ConfigError
from mmedge.extras import require
from mmedge.plain import printable
from mmedge.types import Box, ByteArray, Result, TaskResult

Colour = tuple[int, int, int]
# Okabe and Ito: told apart by people with any kind of colour vision. RGB.
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (90, 120, 255),
)  # fmt: skip
_WHITE, _GREY, _AMBER, _BLACK = (255, 255, 255), (170, 170, 170), (255, 190, 60), (0, 0, 0)
_LONGEST = 200  # characters of a text that are looked at; what does not fit is cut off
_SMALLEST, _LARGEST = 9, 48  # height of text in pixels
_LINE = 1.3  # height of a line over that of its text
_fonts = threading.local()


def draw(picture: ByteArray, result: Result, *, tasks: Collection[str] | None = None) -> ByteArray:
    """Draw what a result says on a picture.

    Boxes stand where they were seen; every other task has a line at the top left. A task that abstains says so, an
    input that is absent is named. Text is drawn with OpenCV: its version 5 has most scripts, version 4 has ASCII, and
    other characters become their plain letter or an escape.

    Args:
        picture: uint8 [height, width, 3], RGB as it is shown.
        result: Whose boxes are in 0..1 of this picture.
        tasks: Names of the tasks to draw; all of them by default.

    Returns:
        uint8 [height, width, 3], a copy.

    Raises:
        ConfigError: If the picture has another shape or dtype, or there is no such task.
        MissingDependencyError: If OpenCV is not installed.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        found = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ConfigError(
            f"a picture to draw on is uint8 [height, width, 3], got {found}",
            where="draw",
            fix="use frame.to_rgb(), or pass the frame itself",
        )
    for name in tasks or ():
        if name not in result.tasks:
            raise ConfigError(f"the result has no task '{name}'", where="draw", fix=f"it has {list(result.tasks)}")
    out = np.array(picture, order="C")
    if not out.size:
        return out
    pen = _Pen(out)
    chosen = {name: task for name, task in result.tasks.items() if tasks is None or name in tasks}
    for task in chosen.values():
        for box in reversed(task.boxes):  # the best one comes last, on top
            _draw_box(pen, box)
    top = pen.size // 2
    for text, colour in _lines(result, chosen):
        if top + pen.line > out.shape[0] and top > pen.size // 2:
            break  # there is no room for more
        top = pen.label(text, (pen.size // 2, top), colour)
    return out


def _lines(result: Result, tasks: dict[str, TaskResult]) -> list[tuple[str, Colour]]:
    """Return what stands at the top left, a line each with its colour."""
    lines: list[tuple[str, Colour]] = []
    if result.status == "unvalidated":
        lines.append(("no answer: the model was not validated with these inputs alone", _AMBER))
    for name, task in tasks.items():
        if task.boxes:
            continue
        if task.label is None and task.value is None:
            unsure = "-" if task.score is None else f"unsure ({task.score:.2f})"
            lines.append((f"{name}: {unsure}", _GREY))
        else:
            lines.append((f"{name}: {task}", _WHITE))
    absent = [name for name, there in result.present.items() if not there]
    if absent:
        why = f" ({result.reason})" if result.reason else ""
        lines.append((f"absent: {', '.join(absent)}{why}", _AMBER))
    return lines


def _draw_box(pen: _Pen, box: Box) -> None:
    height, width = pen.image.shape[:2]
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(map(math.isfinite, corners)):
        return
    x1, x2 = (round(min(max(share, 0.0), 1.0) * (width - 1)) for share in sorted((box.x1, box.x2)))
    y1, y2 = (round(min(max(share, 0.0), 1.0) * (height - 1)) for share in sorted((box.y1, box.y2)))
    colour = _PALETTE[zlib.crc32(box.label.encode("utf-8", "surrogatepass")) % len(_PALETTE)]
    pen.cv2.rectangle(pen.image, (x1, y1), (x2, y2), colour, pen.thickness)
    above = y1 - pen.line
    place = (x1, above if above >= 0 else y1)
    room = max(x2 - x1 + 1, width // 3)
    pen.label(box.label, place, _ink(colour), colour, tail=f" {box.score:.2f}", room=room)


def _ink(colour: Colour) -> Colour:
    """Return black or white, whichever can be read on ``colour``."""
    red, green, blue = colour
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else _WHITE


class _Pen:
    """Writes on one picture, in a size that suits it; texts of others cannot steer it."""

    def __init__(self, image: ByteArray) -> None:
        self.cv2: Any = require("cv2", "drawing results")
        self.image = image
        self.size: int = min(max(round(min(image.shape[:2]) / 26), _SMALLEST), _LARGEST)
        self.line: int = round(self.size * _LINE)
        self.thickness = max(1, round(self.size / 8))
        self._font: Any = None
        if hasattr(self.cv2, "FontFace"):  # OpenCV 5
            if not hasattr(_fonts, "face"):
                _fonts.face = self.cv2.FontFace("sans")
            self._font = _fonts.face
        else:
            self._scale = self.cv2.getFontScaleFromHeight(self.cv2.FONT_HERSHEY_SIMPLEX, round(self.size * 0.72), 1)

    def label(
        self,
        text: str,
        at: tuple[int, int],
        ink: Colour,
        ground: Colour | None = None,
        *,
        tail: str = "",
        room: int | None = None,
    ) -> int:
        """Write a line whose ground has its top left corner ``at`` (x, y), moved to where it can be seen.

        Without a ``ground`` the picture below it is dimmed. What is wider than ``room`` pixels, by default the picture,
        is cut off before ``tail``. Returns where the next line begins.
        """
        height, width, _ = self.image.shape
        pad = max(2, self.size // 4)
        text = self._fitted(text, tail, min(room or width, width) - 2 * pad)
        across = min(self._width(text) + 2 * pad, width)
        x, y = max(min(at[0], width - across), 0), max(min(at[1], height - self.line), 0)
        part = self.image[y : y + self.line, x : x + across]
        part[...] = part // 4 if ground is None else np.array(ground, np.uint8)
        self._write(text, (x + pad, y + round(self.size * 1.0)), ink)
        return at[1] + self.line

    def _fitted(self, text: str, tail: str, room: int) -> str:
        text = printable(text[:_LONGEST]).replace("\n", "\\x0a").replace("\t", "\\x09")
        if self._font is None:
            text = _ascii(text)
        if self._width(text + tail) <= room:
            return text + tail
        tail, fits, does_not = f"...{tail}", 0, len(text)
        while does_not - fits > 1:
            middle = (fits + does_not) // 2
            fits, does_not = (middle, does_not) if self._width(text[:middle] + tail) <= room else (fits, middle)
        return text[:fits] + tail if fits else ""

    def _width(self, text: str) -> int:
        if self._font is not None:
            canvas = self.image.shape[1::-1]
            across: int = self.cv2.getTextSize(canvas, text, (0, 0), self._font, self.size)[2] if text else 0
            return across
        size: tuple[int, int] = self.cv2.getTextSize(text, self.cv2.FONT_HERSHEY_SIMPLEX, self._scale, 1)[0]
        return size[0]

    def _write(self, text: str, at: tuple[int, int], ink: Colour) -> None:
        if self._font is not None:
            self.cv2.putText(self.image, text, at, ink, self._font, self.size)
        else:
            style = (self.cv2.FONT_HERSHEY_SIMPLEX, self._scale, ink, 1, self.cv2.LINE_AA)
            self.cv2.putText(self.image, text, at, *style)


def _ascii(text: str) -> str:
    r"""Return a text in ASCII: letters without their accents, other characters as escapes.

    Example:
        >>> print(_ascii("Tür 7 世"))
        Tur 7 \u4e16
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "backslashreplace").decode()
