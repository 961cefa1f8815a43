"""Which triggers are answered when more are ready than there is time for."""

from __future__ import annotations

from collections.abc import Sequence

from mmedge.types import Snapshot

_NEWEST = 4  # answers that say most of how long the next one takes


def expected_run_ns(before_ns: int, took_ns: int) -> int:
    """Return how long an answer is expected to take, after one that took ``took_ns``; ``before_ns`` was expected.

    One that was held up says little of the next, and of stages that run at every third trigger the mean counts.

    Example:
        >>> expected_run_ns(0, 8), expected_run_ns(8, 28), expected_run_ns(13, 8)
        (8, 13, 11)
    """
    return before_ns + (took_ns - before_ns) // _NEWEST if before_ns else took_ns


def shed(snapshots: Sequence[Snapshot], *, period_ns: int, run_ns: int) -> tuple[list[Snapshot], list[Snapshot]]:
    """Choose what is answered of the snapshots that are ready at once.

    Of frames the newest matters: older ones are answered only if that delays it by less than a period. Of hops (of
    sound, of a timer, of another input that keeps the rate), texts and tensors as many of the newest are answered as
    can be in the time they stand for: all of them while a run is shorter than a period, so that sound that comes in
    long blocks loses none, and only the newest when runs are longer.

    Args:
        snapshots: In order of time.
        period_ns: From one trigger to the next, at most.
        run_ns: How long an answer is expected to take.

    Returns:
        What to answer and what to let go, each in order.

    Example:
        >>> hops = [Snapshot(t_ns=40 * k, seq=k, present={}) for k in range(9)]
        >>> [s.seq for s in shed(hops, period_ns=40, run_ns=150)[0]]
        [7, 8]
    """
    runs, count = max(run_ns, 1), len(snapshots)
    at_once = max(1, period_ns // runs)  # delays the newest by less than a period
    span_ns = snapshots[-1].t_ns - snapshots[0].t_ns if snapshots else 0
    # What has no rate of its own may come faster than it says.
    step_ns = min(period_ns, span_ns // (count - 1)) if count > 1 else period_ns
    spare_frames = sum(snapshot.on_frame for snapshot in snapshots) - at_once
    spare = count - max(at_once, count * step_ns // runs)
    kept: list[Snapshot] = []
    late: list[Snapshot] = []
    for index, snapshot in enumerate(snapshots):
        outdated = snapshot.on_frame and spare_frames > 0
        spare_frames -= snapshot.on_frame
        (late if outdated or index < spare else kept).append(snapshot)
    return kept, late
