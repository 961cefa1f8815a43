"""Traces are opened by Perfetto's own trace processor: it reads all of them, and answers as the report does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.cli import run
from tests.tiny import tiny_bundle
from tests.trace_processor import TraceProcessor, trace_processor

# What Perfetto counts of a trace that it could read only in part.
PROBLEMS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
TRACKS = """select process.name as process, thread.name as thread, slice.name as name, count(*) as n,
    min(slice.ts) as first, sum(slice.dur) as took, min(slice.dur) as shortest
    from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)
    group by 1, 2, 3"""


@pytest.fixture
def processor() -> Iterator[TraceProcessor]:
    with trace_processor() as found:
        yield found


def test_the_trace_of_a_benchmark(tmp_path: Path, processor: TraceProcessor) -> None:
    report = mmedge.bench(tiny_bundle(tmp_path / "t.mmedge"), 1.5, warm_up_s=1.0, arrivals="poisson", seed=1)
    answers = report.tally.answers
    assert len(answers) > 10
    processor.load(report.save_trace(tmp_path / "trace.json").read_bytes())
    assert processor.query(PROBLEMS) == []
    found = {(row["process"], row["thread"], row["name"]): row for row in processor.query(TRACKS)}
    for stage in ("eye", "ear", "join"):
        for part in ("tensors", "engine"):
            assert found["runtime", f"stage {stage}", part]["n"] == report.stages_ms[stage]["engine"].n, (stage, part)
        told = report.stages_ms[stage]["engine"]
        assert found["runtime", f"stage {stage}", "engine"]["took"] == pytest.approx(told.mean * told.n * 1e6, rel=0.01)
    for name in ("graph", "interpret"):
        assert found["runtime", "graph", name]["n"] == len(answers)
    assert found["runtime", "captures", "capture"]["n"] == len(answers)
    assert found["user", "results", "received"]["n"] == len(answers)
    # All on one clock, that of the results.
    assert found["runtime", "captures", "capture"]["first"] == pytest.approx(min(a.t_ns for a in answers), abs=1000)
    assert all(row["shortest"] >= 0 for row in found.values())  # -1: a slice that never ended
    # Each result's way is an arrow from its graph to the reader.
    arrows = processor.query(
        "select origin.name as origin, target.name as target, count(*) as n, min(target.ts - origin.ts) as least "
        "from flow join slice origin on slice_out = origin.id join slice target on slice_in = target.id group by 1, 2"
    )
    assert [(row["origin"], row["target"], row["n"]) for row in arrows] == [("interpret", "received", len(answers))]
    assert arrows[0]["least"] >= 0
    waits = processor.query(
        "select slice.name as name, count(*) as n, min(dur) as least from slice "
        "join process_track on slice.track_id = process_track.id join process using (upid) "
        "where category = 'trigger' and process.name = 'runtime' group by 1"
    )
    ways = ["trigger", "wait: executor", "wait: into the runtime", "wait: other inputs", "wait: to the runtime"]
    assert [(row["name"], row["n"]) for row in waits] == [(name, len(answers)) for name in ways]
    assert all(row["least"] >= 0 for row in waits)


def test_the_trace_of_a_run(tmp_path: Path, write_clip: Any, processor: TraceProcessor) -> None:
    clip = write_clip(size=(64, 64), times_s=[k / 25 for k in range(30)])
    path, written, lines = tiny_bundle(tmp_path / "t.mmedge"), tmp_path / "trace.json", tmp_path / "lines.jsonl"
    assert run(["run", str(path), "--image", str(clip), "--sink", f"jsonl:{lines}", "--trace", str(written)]) == 0
    processor.load(written.read_bytes())
    assert processor.query(PROBLEMS) == []
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    captures = processor.query("select ts from slice where name = 'capture' order by ts")
    assert [row["ts"] for row in captures] == pytest.approx([result["t_ns"] for result in results], abs=1000)


@pytest.mark.parametrize(
    "events",
    [
        [{"ph": "X", "tid": 1, "ts": 1.0, "dur": 10.0}, {"ph": "X", "tid": 1, "ts": 5.0, "dur": 10.0}],
        [{"ph": "f", "bp": "e", "cat": "result", "id": 1, "tid": 1, "ts": 5.0}],
    ],
    ids=["slices of a track that overlap", "an arrow from nowhere"],
)
def test_what_is_wrong_with_a_trace_is_seen(events: list[dict[str, Any]], processor: TraceProcessor) -> None:
    """Else the tests above would show nothing."""
    processor.load(json.dumps({"traceEvents": [{"pid": 1, "name": "an event", **event} for event in events]}).encode())
    assert processor.query(PROBLEMS) != []


def test_what_is_no_question_is_refused(processor: TraceProcessor) -> None:
    with pytest.raises(ValueError, match="nothing from slice"):
        processor.query("select nothing from slice")
