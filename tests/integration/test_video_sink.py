"""Runs as videos: pictures with what was said, and the sound, which stay together."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.cli import run
from mmedge.sinks import make_sink
from mmedge.types import Result
from tests.conftest import WriteClip
from tests.tiny import tiny_bundle

av = pytest.importorskip("av")
pytest.importorskip("cv2")
pytestmark = pytest.mark.parallel

FRAME_S = 0.04
FLASHES_S = (0.52, 1.2, 2.0, 3.4)
RATE_HZ = 8000


def watched(path: Path) -> tuple[list[float], list[float], int]:
    """Return when pictures turn bright, when the tone of 1 kHz sets in, in s, and how many pictures there are."""
    flashes: list[float] = []
    with av.open(str(path)) as file:
        was = True
        count = 0
        for frame in file.decode(video=0):
            count += 1
            bright = float(frame.to_ndarray(format="gray")[-20:].mean()) > 160
            flashes += [frame.time] if bright and not was else []
            was = bright
    with av.open(str(path)) as file:
        pieces = [(frame.time, frame.to_ndarray().reshape(-1)) for frame in file.decode(audio=0)]
        rate_hz = file.streams.audio[0].rate
    start_s, sound = pieces[0][0], np.concatenate([samples for _, samples in pieces])
    hop = rate_hz // 250  # four periods of the tone
    turned = sound * np.exp(-2j * np.pi * 1000 / rate_hz * np.arange(len(sound)))
    level = np.abs(turned[: len(turned) // hop * hop].reshape(-1, hop).mean(axis=1))
    loud = level > 0.12
    beeps = [start_s + k * hop / rate_hz for k in np.flatnonzero(loud[1:] & ~loud[:-1]) + 1]
    return flashes, beeps, count


def flash_clip(write_clip: WriteClip, seconds: int = 4) -> str:
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    sound = sum(((t >= at) & (t < at + 0.12)) * 0.5 * np.sin(2 * np.pi * 1000 * (t - at)) for at in FLASHES_S)
    return str(
        write_clip(
            times_s=tuple(k / 25 for k in range(seconds * 25)),
            picture=lambda now: 235 if any(at - 1e-6 <= now < at + 0.12 for at in FLASHES_S) else 16,
            size=(96, 80),
            sound=np.asarray(sound, np.float32)[None],
        )
    )


def pair(flashes: list[float], beeps: list[float]) -> np.ndarray[Any, Any]:
    return np.array([min((beep - flash for beep in beeps), key=abs) for flash in flashes])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_flash_and_beep_of_a_file_stay_together(tmp_path: Path, write_clip: WriteClip, suffix: str) -> None:
    clip, out = flash_clip(write_clip), tmp_path / f"out{suffix}"
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, sinks=[f"video:{out}"], latency="offline") as pipe:
        pipe.run()
    (report,) = pipe.statistics.sinks.values()
    assert report["counters"] == {"written": 100, "skipped": 0, "lost": 0}
    flashes, beeps, pictures = watched(out)
    assert pictures == 100
    assert len(flashes) == len(FLASHES_S), flashes
    assert np.abs(np.array(flashes) - FLASHES_S).max() < 0.002
    assert np.abs(pair(flashes, beeps)).max() < FRAME_S / 2


def test_flash_and_beep_of_a_live_device_stay_together(tmp_path: Path) -> None:
    """The device flashes and beeps at every whole second; it runs in processes of its own."""
    out, source = tmp_path / "live.mp4", "test://?width=320&height=240&fps=30&drift_ppm=200"
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(
        bundle, {"image": source, "audio": source}, sinks=[f"video:{out}?overlay=false&results=all"], duration_s=6.0
    ) as pipe:
        assert pipe.isolation == "process"
        pipe.run()
    (report,) = pipe.statistics.sinks.values()
    flashes, beeps, pictures = watched(out)
    assert pictures >= 0.5 * pipe.statistics.results, report
    assert len(flashes) >= 2
    # Most of them: a busy machine may lack the first picture of a flash.
    assert np.median(np.abs(pair(flashes, beeps))) < 1 / 30


def test_a_recording_becomes_a_video(tmp_path: Path, write_clip: WriteClip) -> None:
    clip, out, bundle = flash_clip(write_clip), tmp_path / "out.mp4", tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, latency="offline", record=tmp_path / "r") as pipe:
        pipe.run()
    assert run(["replay", str(tmp_path / "r"), str(bundle), "--sink", f"video:{out}"]) == 0
    flashes, beeps, pictures = watched(out)
    assert pictures == 100
    assert np.abs(np.array(flashes) - FLASHES_S).max() < 0.002
    assert np.abs(pair(flashes, beeps)).max() < FRAME_S / 2


@pytest.mark.parametrize("privacy", ["none", "blur"])
def test_what_may_not_leave_is_not_in_the_video(tmp_path: Path, write_clip: WriteClip, privacy: str) -> None:
    clip, out, bundle = flash_clip(write_clip), tmp_path / "out.mp4", tiny_bundle(tmp_path / "tiny.mmedge")
    line = ["run", str(bundle), "--image", clip, "--audio", clip, "--latency", "offline", "--privacy", privacy]
    assert run([*line, "--sink", f"video:{out}?overlay=false"]) == 0
    with av.open(str(out)) as file:
        assert not file.streams.audio
        brightest = max(int(frame.to_ndarray(format="gray").max()) for frame in file.decode(video=0))
    assert brightest < 8 if privacy == "none" else brightest > 200


def test_what_is_there_is_not_overwritten(tmp_path: Path, write_clip: WriteClip) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(
        bundle, {"image": str(write_clip(size=(64, 64)))}, sinks=[f"video:{out}"], latency="offline"
    ) as pipe:
        pipe.run()
    assert out.read_bytes() == b"mine"
    with av.open(str(tmp_path / "out.2.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 25


class Cramped:
    """The sink on a disk that is full for the first 80 results: a limit on the size of files stands for it."""

    wants_pictures = True

    def __init__(self, sink: Any) -> None:
        self.sink, self.n = sink, 0
        self.begin, self.close, self.report = sink.begin, sink.close, sink.report
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(self, result: Result) -> None:
        self.n += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (700 if self.n <= 80 else self.limits[0], self.limits[1]))
        try:
            self.sink.write(result)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


def test_a_full_disk_is_counted_and_a_new_file_begun(
    tmp_path: Path, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmedge.sinks.video._AGAIN_S", 0.0)
    clip, sink = flash_clip(write_clip), Cramped(make_sink(f"video:{tmp_path / 'out.mp4'}"))
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, sinks=[sink], latency="offline") as pipe:
        pipe.run()
    counters = pipe.statistics.sinks["Cramped"]["counters"]
    assert counters["written"] + counters["lost"] == 100
    assert 0 < counters["lost"] <= 80
    assert pipe.statistics.sinks["Cramped"]["state"] == "OK"  # again
    assert "cannot write the video" in caplog.text
    with av.open(str(sink.sink.files[-1])) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 20


class Watched:
    """Notes the size of the file after each result."""

    wants_pictures = True

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.sizes: list[int] = []

    def begin(self, run: Any) -> None:
        self.sink.begin(run)

    def write(self, result: Result) -> None:
        self.sink.write(result)
        self.sizes.append(self.sink.files[-1].stat().st_size)

    def close(self) -> None:
        self.sink.close()


def test_without_sound_pictures_reach_the_disk_all_the_same(tmp_path: Path, write_clip: WriteClip) -> None:
    """A microphone that is away must not keep pictures in memory until the end."""
    clip = write_clip(picture=lambda t: 100, times_s=[k / 25 for k in range(200)])
    sink = Watched(make_sink(f"video:{tmp_path / 'out.mp4'}"))
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": str(clip)}, sinks=[sink], latency="offline") as pipe:
        pipe.run()
    assert sink.sizes[120] > 0  # 4.8 s
    assert sink.sizes[199] > sink.sizes[120]
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 200
