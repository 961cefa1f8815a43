"""Recognise detectors by their ONNX signature."""

from __future__ import annotations

from collections.abc import Sequence

from mmedge.interpret.detection import Layout

_STRIDES = (8, 16, 32, 64)


def recognise(
    image: Sequence[object], outputs: Sequence[Sequence[object]], classes: int | None = None
) -> tuple[Layout, int | None] | None:
    """Tell the layout of a detector's output from its shapes.

    Args:
        image: Shape of the picture, channels first or last; dimensions that are not numbers are dynamic.
        outputs: Shapes of the outputs; a detector has one.
        classes: How many classes the network names, if it does: their boxes are then recognised on any grid.

    Returns:
        The layout and the number of classes (None for ``boxes``, whose shape does not show it), or None when it is
        none that is known. YOLO networks are known by their number of rows, one or three per grid cell.

    Example:
        >>> recognise([1, 3, 640, 640], [[1, 84, 8400]])
        ('yolo', 80)
        >>> recognise([1, 3, 640, 640], [[1, 25200, 85]])
        ('yolo-objectness', 80)
        >>> recognise([1, 3, 224, 224], [[1, 1000]])
    """
    if len(image) != 4 or len(outputs) != 1 or len(outputs[0]) != 3:
        return None
    rows, values = outputs[0][1:]
    grids = _grids(image)
    is_grid_of_one = classes == 1 and rows in grids  # 5 + 1 values a cell of a small picture
    if values == 6 and (not isinstance(rows, int) or rows <= 1000) and not is_grid_of_one:
        return "boxes", None
    if not (isinstance(rows, int) and isinstance(values, int)):
        return None
    if classes is not None:
        if rows == 4 + classes < values:
            return "yolo", classes
        if values == 5 + classes < rows:
            return "yolo-objectness", classes
    if values in grids and rows > 4:
        return "yolo", rows - 4
    if rows in grids and values > 5:
        return "yolo-objectness", values - 5
    return None


def _grids(image: Sequence[object]) -> set[int]:
    """Return how many boxes a network has that gives one or three per cell of a picture; none of a dynamic size."""
    height, width = image[1:3] if image[3] in (1, 3) and image[1] not in (1, 3) else image[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        return set()
    cells = [-(-height // stride) * -(-width // stride) for stride in _STRIDES]
    return {sum(cells[:3]), sum(cells), 3 * sum(cells[:3]), 3 * sum(cells)}
