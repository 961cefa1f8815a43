"""The error of a run that gave no results: it says why, so that no script takes such a run for a success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmedge.errors import DeviceError, MmedgeError, SourceError
from mmedge.pipeline.statistics import Statistics

PACKETS = ("frames", "blocks", "texts", "tensors")


def unanswered(
    health: Mapping[str, Mapping[str, Any]], pushed: Mapping[str, int], statistics: Statistics | None = None
) -> MmedgeError:
    """Return the error of a run or recording that has ended with nothing: a DeviceError if nothing ever came in.

    Args:
        health: What each input's source says.
        pushed: How many packets came in by ``push``, of the inputs that are fed by it.
        statistics: What became of the triggers, of a run.

    Example:
        >>> print(unanswered({"image": {"state": "RECONNECTING", "reason": "no packet for 1.5 s"}}, {}))
        no data arrived
          where: image: no packet for 1.5 s
          fix: check that the sources send (mmedge devices --probe), or give them more time
    """
    came = {
        name: pushed[name] if name in pushed else _came(report) for name, report in health.items() if name[0] != "@"
    }
    where = "; ".join(f"{name}: {_say(came[name], health[name], by_push=name in pushed)}" for name in came)
    if not any(came.values()):
        fix = "check that the sources send (mmedge devices --probe), or give them more time"
        return DeviceError(
            "no data arrived", where=where, fix="push data while it runs" if pushed.keys() == came.keys() else fix
        )
    what, fix = "the run gave no results", "let it run longer, and look at the inputs that sent nothing"
    if statistics is not None and statistics.drops:
        what += f": of {statistics.triggers} triggers " + ", ".join(
            f"{n} {cause}" for cause, n in statistics.drops.items()
        )
    return SourceError(what, where=where, fix=fix)


def _came(report: Mapping[str, Any]) -> int:
    counters: Mapping[str, int] = report.get("counters", {})
    return sum(counters.get(kind, 0) for kind in PACKETS)


def _say(came: int, report: Mapping[str, Any], *, by_push: bool) -> str:
    if by_push:
        return f"{came} packets were pushed" if came else "no packets were pushed"
    reason = report.get("reason")
    return f"{came} packets came" + (f"; {reason}" if reason else "") if came else str(reason or "nothing has arrived")
