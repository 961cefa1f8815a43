"""How fresh results are for whoever reads them slowly, and what time it is on the wall."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

import mmedge
from mmedge.replay.replay import Replay
from mmedge.types import Result
from tests.conftest import WriteClip
from tests.lines import replayed_line
from tests.tiny import tiny_bundle

CAMERA = "test://?width=160&height=120&fps=30"
PERIOD_S = 0.1  # of a slow reader: three times that of the camera


class Slow:
    """Takes a tenth of a second for each result."""

    def __init__(self) -> None:
        self.received: list[float] = []
        self.told: list[int] = []

    def write(self, result: Result) -> None:
        self.received.append(result.latency_ms["received"])
        self.told.append(result.t_ns)
        time.sleep(PERIOD_S)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_slow_readers_and_sinks_have_the_newest_and_nobody_waits_for_them(tmp_path: Path, isolation: str) -> None:
    """The median of ``received`` is below two of their own periods; who wants all of them gets all."""
    bundle, slow, log = tiny_bundle(tmp_path / "tiny.mmedge"), Slow(), tmp_path / "log.jsonl"
    read: list[Result] = []
    options = {"isolation": isolation, "duration_s": 5.0}
    with mmedge.Pipeline(bundle, {"image": CAMERA}, sinks=[slow, f"jsonl:{log}?results=all"], **options) as pipe:  # type: ignore[arg-type]
        for result in pipe:
            read.append(result)
            time.sleep(PERIOD_S)
    statistics = pipe.statistics
    for received in ([result.latency_ms["received"] for result in read], slow.received):
        assert 5 < len(received) < 60
        assert np.median(received) <= 2 * PERIOD_S * 1e3
    logged = [json.loads(line)["t_ns"] for line in log.read_text().splitlines()]
    assert logged == sorted(set(logged))
    assert len(logged) == statistics.results > 1.5 * max(len(read), len(slow.told))
    assert statistics.undelivered == statistics.results - len(read)
    assert pipe.statistics.sinks["Slow"]["counters"]["skipped"] == statistics.results - len(slow.told)
    assert pipe.statistics.sinks["Slow"]["counters"]["lost"] == 0


def test_every_result_has_its_time_on_the_wall(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": CAMERA}, duration_s=3.0, record=tmp_path / "r", results="all") as pipe:
        results = list(pipe)
        clock = pipe.health()["@clock"]
    offset_ns = int(str(clock["unix_ns"])) - int(str(clock["t_ns"]))
    assert {result.unix_ns - result.t_ns for result in results} == {offset_ns}
    before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    # Unless it was set meanwhile.
    assert wall_ns - after_ns - 100_000_000 < offset_ns < wall_ns - before_ns + 100_000_000
    header = json.loads((tmp_path / "r" / "recording.json").read_text())
    assert header["unix_ns"] - header["started_ns"] == offset_ns
    # And so has it in every replay: by the recording's own pair of times.
    time.sleep(0.01)
    with mmedge.load(bundle) as opened:
        again = list(Replay(tmp_path / "r", opened))
    assert [replayed_line(result) for result in again] == [replayed_line(result) for result in results]


def test_files_give_all_results_to_a_slow_reader(tmp_path: Path, write_clip: WriteClip) -> None:
    slow = Slow()
    bundle, clip = tiny_bundle(tmp_path / "tiny.mmedge"), str(write_clip(times_s=tuple(k / 25 for k in range(12))))
    with mmedge.Pipeline(bundle, {"image": clip}, sinks=[slow]) as pipe:
        pipe.run()
    assert len(slow.told) == 12
    with mmedge.Pipeline(bundle, {"image": clip}, sinks=["jsonl:-"], results="latest") as pipe:
        assert pipe._runtime.spec.results == "all"  # its sinks get what its reader does not


def test_a_result_without_its_time_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unix_ns"):
        msgspec.convert({"t_ns": 1, "status": "ok"}, Result)
