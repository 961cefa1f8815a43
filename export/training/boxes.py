"""Training a detector on boxes: each right box is given to the one row of the output that fits it best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmedge._native import core
from mmedge.errors import ConfigError
from mmedge.interpret.nms import suppress

from ..recipe import RecipeTask

OVERLAP = 0.5  # from which a found box is a right one
_BOX, _CORNERS = 2.0, 5.0  # how much overlap and corners count beside the class
_FOCUS = 2.0  # of the focal loss: rows that are surely nothing hardly count
_TINY = 1e-6


def decode(task: RecipeTask, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return corners [batch, n, 4] in pixels of the network's input, and scores [batch, n, classes] in 0..1.

    ``outputs`` are float32 as the task's layout has them.

    Raises:
        ConfigError: If the layout gives no score for each class.
    """
    assert task.detection is not None
    layout = task.detection.layout
    if layout == "boxes":
        raise ConfigError(
            "the layout 'boxes' has no score for each class, so it cannot be trained",
            where=f"'{task.output}'",
            fix="train the layout 'yolo' or 'yolo-objectness'",
        )
    rows = outputs.transpose(1, 2) if layout == "yolo" else outputs
    half = rows[..., 2:4] / 2
    scores = rows[..., 4:] if layout == "yolo" else rows[..., 4:5] * rows[..., 5:]
    return torch.cat([rows[..., :2] - half, rows[..., :2] + half], -1), scores.clamp(0, 1)


def box_loss(task: RecipeTask, outputs: Tensor, boxes: Sequence[Tensor | None], size: tuple[int, int]) -> Tensor:
    """Return the loss of a detection: focal loss of all scores, overlap (GIoU) and corners of the rows that match.

    After DETR (Carion et al. 2020) each box has one row, chosen by class, corners and overlap, here greedily.

    Args:
        task: With the layout.
        outputs: float32 [batch, ...].
        boxes: Of each picture, float32 [k, 5]: class, corners in pixels of the network's input; None for unknown.
        size: Rows and columns of the network's input.

    Returns:
        float32 []; 0 where no picture's boxes are known.
    """
    corners, scores = decode(task, outputs)
    unit = corners.new_tensor([size[1], size[0], size[1], size[0]])
    total, count = outputs.sum() * 0, 0
    for own, score, right in zip(corners, scores, boxes, strict=True):
        if right is None:
            continue
        right = right.to(own)
        kinds = right[:, 0].long()
        rows, columns = match(own.detach() / unit, score.detach(), kinds, right[:, 1:] / unit)
        target = torch.zeros_like(score)
        target[rows, kinds[columns]] = 1
        total = total + focal(score, target)
        if len(rows):
            found, wanted = own[rows] / unit, right[columns, 1:] / unit
            total = total + _BOX * (1 - giou(found, wanted)).sum() + _CORNERS * (found - wanted).abs().sum() / 4
        count += max(len(right), 1)
    return total / max(count, 1)


def focal(scores: Tensor, target: Tensor) -> Tensor:
    """Return the focal loss (Lin et al. 2017), summed, of probabilities and 0 or 1, both float32 [n, classes]."""
    right = torch.where(target > 0, scores, 1 - scores)
    return ((1 - right) ** _FOCUS * -right.clamp_min(_TINY).log()).sum()


def match(corners: Tensor, scores: Tensor, kinds: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and the boxes they are given to, both int64 [m]: the best pair first, each row and box once.

    Args:
        corners: float32 [n, 4].
        scores: float32 [n, classes].
        kinds: Class of each box, int64 [k].
        right: Corners of each box, float32 [k, 4].
    """
    cost = (
        -scores[:, kinds] - _BOX * giou(corners[:, None], right[None]) + _CORNERS * torch.cdist(corners, right, 1) / 4
    )
    rows, columns = [], []
    for _ in range(min(cost.shape)):
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        rows.append(row)
        columns.append(column)
        cost[row], cost[:, column] = torch.inf, torch.inf
    return torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)


def giou(one: Tensor, two: Tensor) -> Tensor:
    """Return the generalised overlap (Rezatofighi et al. 2019), -1..1, of corners float32 [..., 4] that broadcast."""
    both = _area(torch.max(one[..., :2], two[..., :2]), torch.min(one[..., 2:], two[..., 2:]))
    joined = _area(one[..., :2], one[..., 2:]) + _area(two[..., :2], two[..., 2:]) - both
    hull = _area(torch.min(one[..., :2], two[..., :2]), torch.max(one[..., 2:], two[..., 2:]))
    return both / joined.clamp_min(_TINY) - (hull - joined) / hull.clamp_min(_TINY)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp_min(0).prod(-1)


def f1(task: RecipeTask, outputs: Tensor, boxes: Sequence[Tensor | None]) -> Tensor:
    """Return of each picture whose boxes are known how well they are found, float32 [m], 0..1.

    It is the harmonic mean of precision and recall (1 where nothing is there and nothing found) of boxes above the
    threshold (0.5 where it is 0), suppressed as at run time; one is right that overlaps a box of its class by
    half or more.

    Args:
        task: With layout, threshold and iou.
        outputs: float32 [batch, ...].
        boxes: Of each picture, float32 [k, 5], or None.
    """
    assert task.detection is not None
    corners, scores = decode(task, outputs.detach().float().cpu())
    found = []
    for own, score, right in zip(corners, scores, boxes, strict=True):
        if right is None:
            continue
        best, kinds = score.max(-1)
        sure = best.topk(min(len(best), core.MAX_CANDIDATES)).indices
        sure = sure[best[sure] >= (task.threshold or 0.5)]
        chosen = suppress(own[sure].numpy(), best[sure].numpy(), task.detection.iou, kinds[sure].numpy())
        kept = sure[torch.from_numpy(chosen[: task.detection.max_boxes])]
        wanted, left = right[:, 0].long().tolist(), set(range(len(right)))
        for kind, truth in zip(kinds[kept].tolist(), overlaps(own[kept], right[:, 1:].to(own)).tolist(), strict=True):
            near = [k for k in left if wanted[k] == kind and truth[k] >= OVERLAP]
            left -= set(near[:1])
        together = len(kept) + len(right)
        found.append(2 * (len(right) - len(left)) / together if together else 1.0)
    return torch.tensor(found)


def overlaps(one: Tensor, two: Tensor) -> Tensor:
    """Return intersection over union of each of ``one`` [n, 4] with each of ``two`` [k, 4], float32 [n, k]."""
    both = _area(torch.max(one[:, None, :2], two[None, :, :2]), torch.min(one[:, None, 2:], two[None, :, 2:]))
    areas = _area(one[:, :2], one[:, 2:])[:, None] + _area(two[:, :2], two[:, 2:])[None]
    return both / (areas - both).clamp_min(_TINY)
