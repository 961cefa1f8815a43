"""Runs that go wrong: holes in the sound, files apart, wrong clocks, sources and sinks that break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.capture.base import ThreadSource
from mmedge.errors import ConfigError, MmedgeError, SourceError
from mmedge.pipeline import runtime as runtime_module
from mmedge.types import Frame, Result
from tests.processes import until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

RATE = 8000
PUSH = {"image": "push://", "audio": "push://"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """Return what ``work`` does, or fail if it hangs."""
    box: list[Any] = []

    def target() -> None:
        try:
            box.append(work())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


def play(path: Path, inputs: dict[str, str], **options: Any) -> tuple[list[Result], mmedge.Pipeline]:
    with mmedge.Pipeline(path, inputs, **options) as pipe:
        return list(pipe), pipe


@pytest.mark.parametrize(("start_s", "drop"), [(3.0, None), (0.0, (1.0, 3.5))])
def test_a_hole_in_the_sound_does_not_hang_an_offline_run(
    bundle: Path, write_clip: Any, start_s: float, drop: tuple[float, float] | None
) -> None:
    clip = write_clip(
        times_s=tuple(k / 60 for k in range(240)),
        size=(64, 64),
        sound=np.full((1, 4 * RATE - round(start_s * RATE)), 0.5, np.float32),
        audio_start_s=start_s,
        drop_audio_s=drop,
    )
    inputs = {"image": str(clip), "audio": str(clip)}
    results, _ = within(120, lambda: play(bundle, inputs, latency="offline"))
    assert len(results) == 240


def test_two_files_stay_together_offline(bundle: Path, write_clip: Any) -> None:
    n = 30 * RATE
    sound = np.full((1, n), 0.8, np.float32)
    pictures = write_clip("p.nut", times_s=tuple(k / 25 for k in range(750)), size=(64, 64))
    noise = write_clip("s.wav", times_s=None, sound=sound, audio_codec="pcm_s16le")
    results, _ = within(120, lambda: play(bundle, {"image": str(pictures), "audio": str(noise)}, latency="offline"))
    assert len(results) == 750
    # Loud sound makes the scene bright at every trigger: none of it was overwritten before it was read.
    assert {r.tasks["scene"].label for r in results[5:-5]} == {"bright"}


def test_a_wrong_clock_is_refused(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, PUSH) as pipe, pytest.raises(ConfigError, match="not on CLOCK_MONOTONIC"):
        pipe.push("audio", np.zeros(320, np.float32), time.time_ns())


def test_running_for_a_while_ends_without_results(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, PUSH) as pipe:
        statistics = within(120, lambda: pipe.run(duration_s=0.5))
    assert statistics.results == 0


@pytest.mark.parametrize("duration_s", [0, -1, float("nan"), float("inf"), 1e300])
def test_durations_that_cannot_be(bundle: Path, duration_s: float) -> None:
    with pytest.raises(ConfigError, match="duration"):
        mmedge.Pipeline(bundle, PUSH, duration_s=duration_s)
    with pytest.raises(ConfigError, match="duration"):
        mmedge.bench(bundle, duration_s=duration_s)


class Broken(ThreadSource):
    """Ten frames, then an error."""

    def _read_impl(self, emit: Any, stop: threading.Event) -> None:
        for seq in range(10):
            now = time.monotonic_ns()
            data = np.zeros((8, 8), np.uint8)
            emit(
                Frame(
                    stream="image",
                    seq=seq,
                    capture_ns=now,
                    arrive_ns=now,
                    data=data,
                    format="gray8",
                    width=8,
                    height=8,
                )
            )
            time.sleep(0.02)
        raise OSError("the cable was pulled")


def test_a_source_that_breaks_ends_the_run_with_its_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "open_sources", lambda *_, **__: [Broken(("image",), name="cam", live=True)])
    seen: list[Result] = []
    with (
        mmedge.Pipeline(bundle, {"image": "0"}, on_result=seen.append, isolation="thread") as pipe,
        pytest.raises(SourceError, match="the cable was pulled"),
    ):
        pipe.run()
    assert seen


def test_results_nobody_reads_are_counted(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, PUSH) as pipe:
        start, pushed = time.monotonic_ns(), 0
        while pipe.statistics.results < 80:  # a busy machine answers some of them
            pushed += 1
            now = start + pushed * 5_000_000
            time.sleep(max(0, (now - time.monotonic_ns()) / 1e9))
            pipe.push("audio", np.zeros(40, np.float32), now)
            pipe.push("image", np.zeros((8, 8), np.uint8), now)
        assert until(lambda: pipe.statistics.triggers == pushed, 60)
        pipe.close()
        statistics = pipe.statistics
    assert statistics.undelivered == statistics.results - 64 > 0
    assert statistics.triggers == statistics.results + statistics.dropped == pushed


def test_long_blocks_lose_no_hops(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "hops.mmedge", sync={"trigger": "audio", "every_ms": 20})
    with mmedge.Pipeline(path, {"audio": "push://"}) as pipe:
        start, times = time.monotonic_ns(), []
        for k in range(8):
            now = start + (k + 1) * 100_000_000
            time.sleep(max(0, (now - time.monotonic_ns()) / 1e9))
            pipe.push("audio", np.zeros(800, np.float32), now)
            if k:  # a busy machine answers each block before the next one comes
                times += [next(iter(pipe)).t_ns for _ in range(5)]
    assert pipe.statistics.drops == {}
    assert set(np.diff(times)) == {20_000_000}


class BadSink:
    """Fails when it is closed."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, result: Result) -> None:
        """Take it."""

    def close(self) -> None:
        self.closed = True
        raise MmedgeError("the sink cannot close")


def test_every_sink_is_closed_whichever_fails(bundle: Path) -> None:
    sinks = [BadSink(), BadSink()]
    pipe = mmedge.Pipeline(bundle, PUSH, sinks=sinks).start()
    with pytest.raises(MmedgeError, match="cannot close"):
        pipe.close()
    assert all(sink.closed for sink in sinks)
    with pytest.raises(ConfigError, match="run has ended"):
        pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
    with pytest.raises(ConfigError, match="was closed"):
        pipe.start()


def leave(**_: Any) -> Any:
    raise SystemExit(3)


def test_a_rule_that_exits_is_a_stage_that_failed(tmp_path: Path) -> None:
    from tests.tiny import MANIFEST

    stages = {**MANIFEST["stages"]}
    stages["join"] = {**stages["join"], "callable": "tests.integration.test_pipeline_edges:leave"}
    path = tiny_bundle(tmp_path / "exit.mmedge", stages=stages)
    with mmedge.Pipeline(path, PUSH) as pipe:
        now = time.monotonic_ns()
        pipe.push("audio", np.zeros(800, np.float32), now)
        pipe.push("image", np.zeros((8, 8), np.uint8), now)
        result = within(120, lambda: next(iter(pipe)))
    assert result.status == "unvalidated"
    assert "SystemExit: 3" in result.reason
    assert pipe.statistics.stage_errors == {"join": 1}


def test_two_cameras_of_different_length_end_offline(tmp_path: Path, write_clip: Any) -> None:
    from tests.tiny import MANIFEST

    inputs = {**MANIFEST["inputs"], "rear": MANIFEST["inputs"]["image"]}
    masks = [{"present": ["image", "rear"], "metric": "top1", "value": 1.0}]
    stages = {**MANIFEST["stages"]}
    stages["join"] = {
        "inputs": {"bright": "eye.y", "loud": "ear.y", "present": "@present"},
        "outputs": stages["join"]["outputs"],
        "callable": "tests.integration.test_pipeline_edges:scene",
    }
    path = tiny_bundle(tmp_path / "cams.mmedge", inputs=inputs, validated_masks=masks, stages=stages)
    front = write_clip("front.nut", times_s=tuple(k / 25 for k in range(25)), size=(64, 64))
    rear = write_clip("rear.nut", times_s=tuple(k / 25 for k in range(100)), size=(64, 64))
    sources = {"image": str(front), "rear": str(rear)}
    results, _ = within(120, lambda: play(path, sources, latency="offline"))
    assert len(results) == 25


def scene(bright: Any, loud: Any, present: Any) -> Any:
    return np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)


def test_labels_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from mmedge.sinks import ConsoleSink
    from mmedge.types import TaskResult

    sink = ConsoleSink()
    for label in ("[laughter]", "[/dark]"):
        sink.write(
            Result(
                t_ns=0,
                unix_ns=0,
                status="ok",
                tasks={"scene": TaskResult(label=label, score=1.0)},
                present={},
                age_ms={},
                skew_ms=0.0,
                uncertainty_ms=0.0,
                latency_ms={},
                epoch={},
            )
        )
    sink.close()
    shown = capsys.readouterr().out
    assert "[laughter]" in shown
    assert "[/dark]" in shown
