"""Which samples are taken of recordings: which calibrate, which choose among forms of a network, which judge them."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Recipe

LEAST = 3  # samples in all: two calibrate, one measures
MIN_SAMPLES = 30  # fewer say nothing of a share that differs by a point
CHOOSING = 48  # as many choose at most: each form that is tried runs on all of them
_STRETCH = 8  # triggers in a row, of a stage with a memory


def choosing_counts(held: Sequence[int]) -> list[int] | None:
    """Return how many of the first held-out triggers of each recording choose; the rest judges.

    Of several recordings whole ones choose, so that no neighbour in time judges; else the first half of each.

    Args:
        held: How many triggers of each recording are held out.

    Returns:
        The counts; None where one of the parts would have fewer than 30.

    Example:
        >>> choosing_counts([50, 10, 60]), choosing_counts([80]), choosing_counts([59])
        ([50, 10, 0], [40], None)
    """
    half = sum(held) // 2
    whole: list[int] = []
    for own in held:
        whole.append(own if sum(whole) + own <= half else 0)
    for counts in (whole, [own // 2 for own in held]):
        if min(sum(counts), sum(held) - sum(counts)) >= MIN_SAMPLES:
            return counts
    return None


def spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` different numbers of 0..total-1, evenly spread over all of them.

    Example:
        >>> spread(10, 4), spread(3, 100)
        ([1, 3, 6, 8], [0, 1, 2])
    """
    count = min(count, total)
    return [round((i + 0.5) * total / count - 0.5) for i in range(count)]


def choose(recipe: Recipe, total: int, count: int) -> list[int]:
    """Return what ``spread`` does; for a stage with a memory stretches without a gap, which it needs to have one.

    Args:
        recipe: Its stages.
        total: How many there are.
        count: How many to choose at most.
    """
    if count >= total or not any(stage.states for stage in recipe.stages.values()):
        return spread(total, count)
    length = min(_STRETCH, count)
    starts = spread(total // length, count // length)
    return [start * length + step for start in starts for step in range(length)]


def shares(triggers: Sequence[int], total: int) -> list[int]:
    """Return how many of ``total`` samples each recording gives: as many as the others, as far as it has them.

    Example:
        >>> shares([100, 4, 100], 30)
        [13, 4, 13]
    """
    given = [0] * len(triggers)
    left, unfilled = min(total, sum(triggers)), list(range(len(triggers)))
    while left:
        each, more = divmod(left, len(unfilled))
        for turn, index in enumerate(unfilled):
            taken = min(each + (turn < more), triggers[index] - given[index])
            given[index] += taken
            left -= taken
        unfilled = sorted((i for i in unfilled if given[i] < triggers[i]), key=given.__getitem__)
    return given


def held_out_of(triggers: Sequence[int], chosen: Sequence[Sequence[int]]) -> list[list[bool]]:
    """Return which chosen triggers are held out: those of the last third of each recording.

    Of recordings too short to be split, every third is held out as a whole.
    """
    late: list[list[bool]] = []
    short = 0
    for own, indices in zip(triggers, chosen, strict=True):
        short += own < 3
        late.append([3 * index >= 2 * own if own >= 3 else short % 3 == 0 for index in indices])
    if not any(map(any, late)):
        late[-1][-1] = True
    return late
