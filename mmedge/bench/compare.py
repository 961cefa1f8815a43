"""Two reports beside each other: ratios, what is known of them, and whether one is a regression."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmedge.bench.machine import differences
from mmedge.bench.report import SCHEMA, Report
from mmedge.bench.samples import Interval
from mmedge.errors import CheckError, ConfigError
from mmedge.files import read_plain

_LARGEST = 1 << 24  # bytes of a file that is read
GATED = tuple(("end_to_end", percent) for percent in ("p50", "p90", "p99"))


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of two reports.

    Attributes:
        what: Which figure.
        ours_ms: Now.
        theirs_ms: In the baseline.
        interval: Between what the ratio lies, whatever the distributions; None: not known.
        gated: Whether it decides.
    """

    what: str
    ours_ms: float
    theirs_ms: float
    interval: Interval
    gated: bool

    @property
    def ratio(self) -> float:
        """Now over then: above 1 is slower."""
        return self.ours_ms / self.theirs_ms

    def regressed(self, most: float) -> bool:
        """Tell whether it is slower by more than a share ``most``, as far as both are known."""
        low = self.interval[0]
        return low is not None and low > 1 + most


@dataclass(frozen=True)
class Comparison:
    """Two reports beside each other.

    Attributes:
        changes: Of each figure that both have.
        differences: In what they differ that decides about latency; if in anything, nothing is gated.
        problems: Why one of them is not valid.
        most: Share by which a figure may be slower.
    """

    changes: Sequence[Change]
    differences: Sequence[str]
    problems: Sequence[str]
    most: float

    @property
    def regressions(self) -> list[Change]:
        """The figures that got slower by more than they may."""
        if self.differences:
            return []
        return [change for change in self.changes if change.gated and change.regressed(self.most)]

    def raise_for_status(self) -> None:
        """Refuse a regression, and a comparison of what is not valid.

        Raises:
            CheckError: Says which figure, and by how much.
        """
        if self.problems:
            raise CheckError(
                f"the comparison is not valid: {'; '.join(self.problems)}",
                where="compare",
                fix="measure both on a machine that does nothing else",
            )
        if self.regressions:
            told = ", ".join(f"{c.what} x {c.ratio:.3f} (at least {c.interval[0]:.3f})" for c in self.regressions)
            raise CheckError(
                f"slower than the baseline by more than {100 * self.most:g} %: {told}",
                where="compare",
                fix="find what changed (mmedge bench --trace), or measure a new baseline if this is meant",
            )

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "max_regress": self.most,
            "gated": not self.differences,
            "differences": list(self.differences),
            "problems": list(self.problems),
            "regressions": [change.what for change in self.regressions],
            "figures": [
                {
                    "what": change.what,
                    "ours_ms": change.ours_ms,
                    "baseline_ms": change.theirs_ms,
                    "ratio": round(change.ratio, 4),
                    "interval": [None if end is None else round(end, 4) for end in change.interval],
                    "gated": change.gated and not self.differences,
                }
                for change in self.changes
            ],
        }


def read_baseline(path: Path) -> dict[str, Any]:
    """Return a report that was saved as JSON.

    Raises:
        ConfigError: If there is none, or it is of another schema.
    """
    try:
        document = json.loads(read_plain(path, _LARGEST), parse_constant=_refuse)
    except OSError as error:
        raise ConfigError(
            f"cannot read the baseline: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError("the baseline is not JSON", where=str(path), fix="save one: --save FILE.json") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"the baseline has the schema {schema!r}, not '{SCHEMA}'",
            where=str(path),
            fix="measure it again with this version: --save FILE.json",
        )
    try:
        found = compare(document, document, 0.0)
        numbers = [number for change in found.changes for number in (change.ours_ms, *change.interval)]
        if any(number is not None and not 0 < number < math.inf for number in numbers):
            raise ValueError("a time that is not above 0")
        if not any(change.gated for change in found.changes):  # a gate that compares nothing would let all pass
            raise ValueError("end_to_end has no p50 with an interval")
        if document["valid"] is not (document["problem"] is None):
            raise ValueError("valid and problem contradict each other")
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"the baseline is damaged: {type(error).__name__} {error}", where=str(path), fix="measure it again"
        ) from error
    return dict(document)


def _refuse(constant: str) -> float:
    raise ValueError(f"JSON has no {constant}")


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], most: float, *, in_turn: bool = False) -> Comparison:
    """Compare two reports as ``to_dict`` gives them.

    Args:
        ours: The new one.
        theirs: The baseline.
        most: Share by which a figure may be slower, 0.05 for 5 %.
        in_turn: Whether both were measured in turn just now: in what they differ is what is compared then.
    """
    changes = []
    for (what, percent), now in _figures(ours).items():
        then = _figures(theirs).get((what, percent))
        if then is not None and now[0] and then[0]:
            changes.append(
                Change(f"{what} {percent}", now[0], then[0], ratio_between(now[1], then[1]), (what, percent) in GATED)
            )
    problems = [
        f"{whose}: {report['problem']}"
        for whose, report in (("now", ours), ("the baseline", theirs))
        if report["problem"]
    ]
    differ = [] if in_turn else differences(ours["conditions"], theirs["conditions"])
    return Comparison(changes, differ, problems, most)


def ratio_between(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Interval:
    """Return between what a ratio lies of two figures that lie between these: ends over opposite ends.

    Each holds with 95 %, so both do with 90 % at least; that they lie at opposite ends at once is far rarer, so that
    two runs of one thing are told apart about once in a hundred times.

    Example:
        >>> ratio_between((9.0, 11.0), (10.0, 12.0))
        (0.75, 1.1)
    """
    (low, high), (least, most) = ours, theirs
    return (None if low is None or not most else low / most, None if high is None or not least else high / least)


def _figures(report: Mapping[str, Any]) -> dict[tuple[str, str], tuple[float | None, Sequence[float | None]]]:
    told = report["latency_ms"]
    named = {"end_to_end": told["end_to_end"], "overhead": told.get("overhead", {}), **told["steps"]}
    named |= {f"stage {name}": parts["engine"] for name, parts in report["stages_ms"].items()}
    return {
        (what, percent): (figures.get(percent), between)
        for what, figures in named.items()
        for percent, between in figures.get("interval", {}).items()
    }


def merged(reports: Sequence[Report]) -> Report:
    """Return runs of one thing as one report: what was measured, behind each other; the rest is the last one's."""
    last = reports[-1]
    for other in reports[:-1]:
        for name, samples in other.tally.latencies.items():
            if name in last.tally.latencies:
                last.tally.latencies[name].extend(samples)
        for stage, found in other.tally.stages.items():
            last.tally.stages[stage].preprocess.extend(found.preprocess)
            last.tally.stages[stage].engine.extend(found.engine)
        last.tally.share.extend(other.tally.share)
    missed = [other.rate_problem for other in reports[:-1] if other.rate_problem is not None]
    seen = [problem for report in reports for problem in report.problems]
    return replace(last, problems=tuple(dict.fromkeys([*missed, *seen])))
