"""A recording of others, whose log was made up, fills no memory: it is read as far as it can be one."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from mmedge.recording.reader import Recording

TENSOR = {"modality": "tensor", "shape": [1, 2], "dtype": "float32", "rate_hz": 30}
SOUND = {"modality": "audio", "sample_rate_hz": 1000, "window_ms": 1000}


def made(folder: Path, spec: dict[str, Any], events: list[dict[str, Any]]) -> Recording:
    entry = {"uri": "push://", "live": True, "files": "x", "spec": spec}
    header = {"schema": "mmedge.recording/1", "mmedge": "1", "bundle": None, "inputs": {"x": entry}}
    header |= {"lossless": False, "video": "lossless", "started_ns": 0, "unix_ns": 0}
    (folder / "recording.json").write_text(json.dumps(header))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with (folder / "x.bin").open("wb") as file:
        file.truncate(1 << 33)  # a hole
    return Recording(folder)


def packet(kind: str, seq: int, **more: Any) -> dict[str, Any]:
    return {"event": kind, "stream": "x", "seq": seq, "capture_ns": seq, "arrive_ns": seq, **more}


POLL = {"event": "poll", "now_ns": 1}
ARRAY = {"dtype": "float32", "shape": [1, 2], "at": 0}
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "a turn without an end": (TENSOR, [packet("tensor", k, **ARRAY) for k in range(70_000)]),
    "large arrays": (TENSOR, [packet("tensor", 1, dtype="float32", shape=[1 << 24, 40], at=0), POLL]),
    "arrays of another input": (SOUND, [packet("tensor", 1, **ARRAY), POLL]),
    "long sound": (SOUND, [packet("block", 1, samples=1 << 24), POLL]),
    "much sound": (SOUND, [packet("block", k, samples=60_000) for k in range(3000)]),
}


@pytest.mark.parametrize("media", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_log_that_was_made_up_fills_no_memory(tmp_path: Path, name: str, media: bool) -> None:
    good = [packet("text", 0, text="a"), POLL]
    recording = made(tmp_path, CASES[name][0], [*good, *CASES[name][1]])
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(list(recording.turns(media=media, rates_hz={"x": 8000}))) == 1
    assert recording.cut is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 600_000
    if name != "much sound" or not media:
        assert "the log is damaged: " in recording.cut


def test_what_an_inbox_can_hold_is_read(tmp_path: Path) -> None:
    events = [event for turn in range(3) for event in (*(packet("text", k, text="a") for k in range(2000)), POLL)]
    recording = made(tmp_path, TENSOR, [*events, {"event": "end"}])
    assert [len(turn.packets) for turn in recording.turns()] == [2000] * 3
    assert recording.cut is None
