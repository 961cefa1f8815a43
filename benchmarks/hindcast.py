"""What `mmedge inspect --plan --device` would have said of public figures of boards, had it not known them."""

from __future__ import annotations

from benchmarks.harness import BenchmarkReport, Row, host, main
from mmedge.forecast.boards import known_boards
from mmedge.forecast.hindcast import hindcast


def measure(quick: bool) -> BenchmarkReport:
    """Say again what is public of each board from what is public of the others; ``quick`` changes nothing."""
    cases = list(hindcast())
    rows = [
        Row(
            f"{case.network} on {case.board}, from {case.origin}: {case.told.span.told()}"
            + ("" if case.hit else ", missed"),
            "ms",
            case.told.span.middle or 0.0,
            {},
            None,
            beside={"published": case.ms},
        )
        for case in cases
    ]
    targets = {"hindcast_hits": sum(case.hit for case in cases) / len(cases)}
    for board in known_boards():
        own = [case.hit for case in cases if case.board == board]
        targets[f"hindcast_hits_{board.replace('-', '_')}"] = sum(own) / len(own)
    return BenchmarkReport(
        name="hindcast",
        title="Public times of networks on boards, said again without the times that are public of the board itself",
        host=host(),
        conditions={"cases": len(cases), "published": "mmedge/forecast/boards.toml, each with its source"},
        evidence="simulated",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(measure)
