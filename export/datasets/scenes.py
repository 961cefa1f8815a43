"""What a camera sees: a digit on a sheet of paper somewhere in a room, or no digit at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.extras import require
from mmedge.types import ByteArray, FloatArray

PATCH = 160  # pixels of a square sheet before it is put into the scene
_Points = npt.NDArray[np.float32]


def cv2() -> Any:
    """Return OpenCV, imported on first use."""
    return require("cv2", "rendering scenes")


class SceneRenderer:
    """Draws random gray scenes.

    Pictures are uint8 [height, width], 0..255.

    Args:
        photos: Backgrounds, gray.
        faces: Small pictures of faces, gray.
        height: Rows; scenes are drawn at twice this size and area-reduced.
        width: Columns.
    """

    def __init__(self, photos: Sequence[ByteArray], faces: Sequence[ByteArray], height: int, width: int) -> None:
        self.photos, self.faces = photos, faces
        self.size = (height, width)
        self.canvas = (2 * height, 2 * width)

    def digit(self, picture: ByteArray, *, hard: bool, rng: np.random.Generator) -> ByteArray:
        """Return a scene that shows a digit: the bare picture, or paper held before a camera.

        Args:
            picture: uint8 [28, 28], light on dark.
            hard: The picture has grey shades that carry the digit, so strokes are not reshaped.
            rng: Where every choice comes from.

        Returns:
            uint8 [height, width].
        """
        if rng.random() < 0.25:
            return self._camera(self._bare(picture, rng), rng, gentle=True)
        sheet = paper(self._ink(picture, hard, rng), rng, tone=None)
        return self._camera(self._hold(sheet, rng), rng)

    def nothing(self, rng: np.random.Generator) -> ByteArray:
        """Return a scene without a digit: empty paper, a room, a face, a hand, scribbles, one tone.

        It is uint8 [height, width].
        """
        return self._camera(self._nothing(int(rng.choice(6, p=(0.28, 0.27, 0.12, 0.08, 0.07, 0.18))), rng), rng)

    def empty(self, rng: np.random.Generator) -> ByteArray:
        """Return what a camera sees while nobody is there: empty paper, a room, one tone.

        It is uint8 [height, width].
        """
        return self._camera(self._nothing(int(rng.choice((0, 1, 5))), rng), rng)

    def _nothing(self, kind: int, rng: np.random.Generator) -> FloatArray:
        if kind == 0:
            scene = self._hold(paper(np.zeros((PATCH, PATCH), np.float32), rng, tone=None), rng)
        elif kind == 1:
            scene = self._background(rng, photo=1.0)
        elif kind == 2:
            scene = self._background(rng)
            _paste(scene, cv2().resize(self.faces[int(rng.integers(len(self.faces)))], (140, 140)), rng)
        elif kind == 3:
            scene = self._background(rng)
            for _ in range(rng.integers(1, 4)):
                _finger(scene, rng, np.array([rng.uniform(0, scene.shape[1]), rng.uniform(0, scene.shape[0])]))
        elif kind == 4:
            scene = self._hold(paper(_letter(rng), rng, tone=None), rng)
        else:
            tone = 0.0 if rng.random() < 0.5 else rng.uniform(0, 255)
            scene = np.full(self.canvas, tone, np.float32)
        return scene

    def _ink(self, picture: ByteArray, hard: bool, rng: np.random.Generator) -> FloatArray:
        """Return the coverage of the sheet by ink, 0..1 [PATCH, PATCH]."""
        side = int(rng.uniform(0.5, 1.0) * PATCH)
        smooth = rng.random() < 0.6
        value = cv2().resize(picture, (side, side), interpolation=2 if smooth else 0).astype(np.float32) / 255
        if not hard and smooth and rng.random() < 0.7:
            # A steeper and shifted edge makes thin and thick pens.
            value = (value - rng.uniform(0.25, 0.7)) * rng.uniform(2, 6) + 0.5
        ink = np.zeros((PATCH, PATCH), np.float32)
        top, left = rng.integers(0, PATCH - side + 1, 2)
        ink[top : top + side, left : left + side] = value
        return ink.clip(0, 1)

    def _bare(self, picture: ByteArray, rng: np.random.Generator) -> FloatArray:
        """Return the picture itself, light on dark or inverted, centred, from square to the frame's aspect."""
        height, width = self.canvas
        rows = int(rng.uniform(0.55, 1.0) * height)
        columns = min(width, int(rows * rng.uniform(1.0, width / height)))
        if rng.random() < 0.4:
            rows, columns = height, width if rng.random() < 0.5 else height
        scene = np.zeros(self.canvas, np.float32)
        top = int((height - rows) * rng.uniform(0.3, 0.7))
        left = int((width - columns) * rng.uniform(0.3, 0.7))
        scene[top : top + rows, left : left + columns] = cv2().resize(picture, (columns, rows), interpolation=0)
        return 255 - scene if rng.random() < 0.35 else scene

    def _background(self, rng: np.random.Generator, photo: float = 0.6) -> FloatArray:
        height, width = self.canvas
        if rng.random() < photo:
            picture = self.photos[int(rng.integers(len(self.photos)))]
            scale = rng.uniform(0.35, 1.0)
            rows = max(int(picture.shape[0] * scale), 16)
            columns = max(min(int(rows * width / height), picture.shape[1]), 16)
            top = rng.integers(0, picture.shape[0] - rows + 1)
            left = rng.integers(0, picture.shape[1] - columns + 1)
            part = picture[top : top + rows, left : left + columns]
            if rng.random() < 0.5:
                part = part[:, ::-1]
            scene: FloatArray = cv2().resize(part, (width, height), interpolation=1).astype(np.float32)
            return scene
        return uneven(self.canvas, rng, 20, 235)

    def _hold(self, sheet: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Put a sheet into a room, turned and in perspective, perhaps with fingers on its edge."""
        height, width = self.canvas
        scene = self._background(rng)
        rows = rng.uniform(0.5, 1.25) * height
        columns = rows * rng.uniform(0.85, 1.4)
        margin = (max(width - columns, 0) / 2 + 0.06 * width, max(height - rows, 0) / 2 + 0.06 * height)
        centre = np.array([width / 2 + rng.uniform(-1, 1) * margin[0], height / 2 + rng.uniform(-1, 1) * margin[1]])
        quad = corners(centre, rows, columns, np.deg2rad(rng.normal(0, 7)))
        quad += rng.normal(0, 0.025 * rows, quad.shape).astype(np.float32)
        place(scene, sheet, quad)
        if rng.random() < 0.3:
            edge = rng.integers(4)
            _finger(scene, rng, (quad[edge] + quad[(edge + 1) % 4]) / 2)
        return scene

    def _camera(self, scene: FloatArray, rng: np.random.Generator, *, gentle: bool = False) -> ByteArray:
        """Apply light, blur, exposure and sensor noise."""
        if not gentle or rng.random() < 0.3:
            scene = scene * uneven(self.canvas, rng, 0.6, 1.2)
        if rng.random() < 0.4:
            scene = cv2().GaussianBlur(scene, (0, 0), rng.uniform(0.5, 2.2))
        if rng.random() < 0.5:
            scene = scene * rng.uniform(0.5, 1.2) + rng.uniform(0, 30)
        small = cv2().resize(scene, self.size[::-1], interpolation=3)
        if rng.random() < 0.7:
            small = small + rng.normal(0, rng.uniform(0.5, 5), self.size).astype(np.float32)
        result: ByteArray = small.round().clip(0, 255).astype(np.uint8)
        return result


def paper(ink: FloatArray, rng: np.random.Generator, *, tone: tuple[float, float] | None) -> FloatArray:
    """Return a sheet [PATCH, PATCH] in grey levels.

    ``ink`` and the sheet are float32.

    Args:
        ink: Coverage by ink, 0..1.
        rng: Draws tones and grain.
        tone: Grey level of paper and ink; None draws them, dark on light or (40 %) light on dark.

    Returns:
        The sheet.
    """
    if tone is None:
        light, dark = rng.uniform(150, 255), rng.uniform(0, 75)
        tone = (light, dark) if rng.random() < 0.6 else (dark, light)
    sheet: FloatArray = np.full(ink.shape, tone[0], np.float32) + rng.normal(0, 2, ink.shape).astype(np.float32)
    if rng.random() < 0.15:
        sheet[:: rng.integers(10, 24)] += 0.25 * (tone[1] - tone[0])
    return (sheet * (1 - ink) + tone[1] * ink).astype(np.float32)


def corners(centre: npt.ArrayLike, rows: float, columns: float, angle: float) -> _Points:
    """Return the corners of a turned rectangle, clockwise from the top left, as x and y."""
    x, y = columns / 2, rows / 2
    box = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    points: _Points = (box @ turn + np.asarray(centre)).astype(np.float32)
    return points


def place(scene: FloatArray, sheet: FloatArray, quad: _Points) -> None:
    """Draw ``sheet`` into ``scene`` so that its corners lie at ``quad``.

    ``scene`` [height, width] and ``sheet`` [rows, columns] are float32 grey levels; ``quad`` is float32 [4, 2], x and y
    in pixels.
    """
    height, width = scene.shape
    rows, columns = sheet.shape
    source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    matrix = cv2().getPerspectiveTransform(source, quad)
    both = np.dstack([sheet, np.full_like(sheet, 1.0)])
    warped = cv2().warpPerspective(both, matrix, (width, height), flags=1)
    scene *= 1 - warped[..., 1]
    scene += warped[..., 0]


def uneven(size: tuple[int, int], rng: np.random.Generator, low: float, high: float) -> FloatArray:
    """Return a smooth random field between two values. It is float32 [height, width], of ``size``."""
    field: FloatArray = cv2().resize(rng.uniform(low, high, (3, 3)).astype(np.float32), size[::-1], interpolation=1)
    return field


def _finger(scene: FloatArray, rng: np.random.Generator, tip: npt.ArrayLike) -> None:
    height = scene.shape[0]
    x, y = np.asarray(tip)
    axes = (int(rng.uniform(0.1, 0.25) * height), int(rng.uniform(0.03, 0.06) * height))
    angle = rng.uniform(0, 180)
    cv2().ellipse(scene, (int(x), int(y)), axes, angle, 0, 360, rng.uniform(70, 200), -1)


def _paste(scene: FloatArray, picture: ByteArray, rng: np.random.Generator) -> None:
    rows = min(int(rng.uniform(0.3, 1.0) * scene.shape[0]), scene.shape[0])
    top, left = rng.integers(0, scene.shape[0] - rows + 1), rng.integers(0, scene.shape[1] - rows + 1)
    scene[top : top + rows, left : left + rows] = cv2().resize(picture, (rows, rows))


def _letter(rng: np.random.Generator) -> FloatArray:
    """Return ink in the shape of letters that no digit looks like, or of a scribble."""
    ink = np.zeros((PATCH, PATCH), np.uint8)
    if rng.random() < 0.5:
        text = "".join(rng.choice(list("AEFHKMNRWXY"), rng.integers(1, 4)))
        cv2().putText(ink, text, (8, 110), 2, 4.0 / len(text), 255, int(rng.integers(3, 9)))
    else:
        points = rng.uniform(0.1, 0.9, (12, 2)) * PATCH
        cv2().polylines(ink, [points.astype(np.int32)], False, 255, int(rng.integers(2, 8)))
    return (ink / 255).astype(np.float32)
