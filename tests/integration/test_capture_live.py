"""Live sources against real programs: ffmpeg on loopback, PortAudio on PulseAudio, GStreamer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.capture import Source, open_sources, parse
from mmedge.capture.gstreamer import GStreamerSource
from mmedge.errors import DeviceError, SourceError
from mmedge.preprocess.reference import pixels
from mmedge.types import Block, EndOfStream, Frame, Packet

INPUTS: dict[str, Any] = {
    "image": ImageInput(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=500),
}


class Listener:
    """Collects packets of several sources, keeping one number of each picture."""

    def __init__(self) -> None:
        self.frames: list[tuple[Frame, float]] = []
        self.blocks: list[Block] = []
        self.ends: list[EndOfStream] = []
        self.sources: list[Source] = []
        self.change = threading.Condition()

    def __call__(self, packet: Packet) -> None:
        with self.change:
            if isinstance(packet, Frame):
                self.frames.append((packet, float(packet.data[: packet.height].mean())))
                assert packet.release is not None
                packet.release()
            elif isinstance(packet, Block):
                self.blocks.append(packet)
            elif isinstance(packet, EndOfStream):
                self.ends.append(packet)
            self.change.notify_all()

    def start(self, *sources: Source) -> None:
        for source in sources:
            self.sources.append(source)
            source.start(self)

    def wait(self, condition: Callable[[], object], timeout_s: float = 60) -> None:
        with self.change:
            assert self.change.wait_for(condition, timeout_s), [s.health() for s in self.sources]

    def stop(self) -> None:
        for source in self.sources:
            began = time.monotonic()
            source.stop()
            assert time.monotonic() - began < 30


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    try:
        yield listener
    finally:
        listener.stop()


def flash_and_beep(write_clip: Any, at_s: tuple[float, ...], duration_s: float) -> Path:
    """Write a clip that is black and silent but for 100 ms of white and 1 kHz at each of ``at_s``."""
    t = np.arange(round(duration_s * 48000)) / 48000
    on = np.zeros(len(t), bool)
    for start in at_s:
        on |= (t >= start) & (t < start + 0.1)
    path: Path = write_clip(
        "flash.nut",
        times_s=[k / 25 for k in range(round(duration_s * 25))],
        picture=lambda s: 235 if any(start <= s + 1e-6 < start + 0.1 for start in at_s) else 16,
        size=(320, 240),
        sound=(0.5 * np.sin(2 * np.pi * 1000 * t) * on)[None],
        rate_hz=48000,
        audio_codec="pcm_s16le",
    )
    return path


def onsets_ns(times: Any, high: Any) -> list[int]:
    """Return the times at which ``high`` turns true after 200 ms of false."""
    found: list[int] = []
    last = -(1 << 62)
    for time_ns, value in zip(times, high, strict=True):
        if value:
            if time_ns - last > 200_000_000:
                found.append(int(time_ns))
            last = time_ns
    return found


@pytest.mark.devices
def test_flash_and_beep_meet_on_one_clock(microphone: Any, camera: Any, write_clip: Any, listener: Listener) -> None:
    at_s = (1.5, 2.3, 3.1, 3.9, 4.7)
    clip = flash_and_beep(write_clip, at_s, 5.2)
    listener.start(*open_sources(INPUTS, {"image": camera.uri, "audio": microphone.uri}))
    listener.wait(lambda: listener.blocks)
    camera.send(clip, microphone=microphone).wait(60)
    time.sleep(1)  # what has been sent is on its way
    listener.stop()
    flashes = onsets_ns([f.capture_ns for f, _ in listener.frames], [mean > 120 for _, mean in listener.frames])
    sound = np.concatenate([b.samples for b in listener.blocks])
    times = np.concatenate(
        [b.capture_ns - (len(b.samples) - np.arange(len(b.samples))) * 125_000 for b in listener.blocks]
    )
    beeps = onsets_ns(times, np.abs(sound) > 0.1)
    # A sender, a player or this machine that stutters may lack or split one; most of them say how it is.
    assert min(len(flashes), len(beeps)) >= 3
    skews_ms = [min(((flash - beep) / 1e6 for beep in beeps), key=abs) for flash in flashes]
    print(f"flash - beep: {[round(skew, 1) for skew in skews_ms]} ms")  # noqa: T201
    assert np.median(np.abs(skews_ms)) < 300  # benchmarks/devices.py measures it alone
    first = int(np.flatnonzero(np.abs(sound) > 0.1)[0])
    spectrum = np.abs(np.fft.rfft(sound[first : first + 640]))
    assert abs(np.argmax(spectrum) * 8000 / 640 - 1000) < 20
    frames = [f for f, _ in listener.frames]
    assert all(a.capture_ns < b.capture_ns for a, b in pairwise(frames))
    assert all(f.arrive_ns >= f.capture_ns - 1_000_000 for f in frames)
    assert {f.format for f in frames} == {"yuv420p"}
    assert frames[0].full_range is False
    assert sum(b.lost for b in listener.blocks) < 0.05 * len(sound)
    steps_ns = np.diff([b.capture_ns for b in listener.blocks])
    assert np.quantile(np.abs(steps_ns - 10_000_000), 0.9) < 30_000_000


@pytest.mark.devices
def test_network_source_outlives_its_sender(camera: Any, write_clip: Any, listener: Listener) -> None:
    clip = flash_and_beep(write_clip, (0.5,), 1.5)
    (source,) = open_sources({"image": INPUTS["image"]}, {"image": camera.uri})
    listener.start(source)
    camera.send(clip).wait(60)
    listener.wait(lambda: len(listener.frames) > 20)
    while source.health().state != "RECONNECTING":
        time.sleep(0.05)
    before = len(listener.frames)
    camera.send(clip).wait(60)
    listener.wait(lambda: len(listener.frames) > before + 20)
    assert [f.epoch for f, _ in listener.frames] == sorted(f.epoch for f, _ in listener.frames)
    assert listener.frames[-1][0].epoch > listener.frames[0][0].epoch
    assert listener.ends == []


def test_network_source_stops_while_nothing_comes(camera: Any, listener: Listener) -> None:
    (source,) = open_sources({"image": INPUTS["image"]}, {"image": camera.uri})
    listener.start(source)
    time.sleep(0.3)
    listener.stop()
    assert not any(t.name == f"mmedge-{camera.uri}" for t in threading.enumerate())


def test_an_unreachable_camera_is_tried_again_and_its_password_not_shown(
    camera: Any, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    uri = camera.uri.replace("udp://", "rtsp://user:secret@") + "/live"
    (source,) = open_sources({"image": INPUTS["image"]}, {"image": uri})
    listener.start(source)
    deadline = time.monotonic() + 60
    while source.health().state != "RECONNECTING" and time.monotonic() < deadline:
        time.sleep(0.02)
    health = source.health()
    assert health.state == "RECONNECTING"
    assert "refused" in str(health.reason)
    assert "secret" not in str(health) + caplog.text
    assert listener.ends == []


@pytest.mark.devices
def test_microphone_by_default_and_by_name(microphone: Any, listener: Listener) -> None:
    with pytest.raises(DeviceError, match=r"'nosuch'.*'pulse'") as error:
        open_sources({"audio": INPUTS["audio"]}, {"audio": "mic://nosuch"})
    assert "mmedge devices" in str(error.value.fix)
    listener.start(*open_sources({"audio": INPUTS["audio"]}, {"audio": "mic://PULSE"}))
    listener.wait(lambda: len(listener.blocks) > 250)  # beyond the two seconds of probing
    assert {b.quality for b in listener.blocks} <= {"A", "B", "C"}
    assert all(b.samples.dtype == np.float32 and len(b.samples) <= 80 for b in listener.blocks)


def test_gstreamer_pipeline_gives_nv12(listener: Listener, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gstreamer")
    uri = "gst:videotestsrc num-buffers=20 pattern=white ! video/x-raw,framerate=30/1?width=64&height=48&fps=30"
    listener.start(*open_sources({"image": INPUTS["image"]}, {"image": uri}))
    listener.wait(lambda: listener.ends)
    assert [(f.format, f.data.shape, round(mean)) for f, mean in listener.frames] == [("nv12", (72, 64), 235)] * 20
    assert listener.ends[0].reason == "the GStreamer pipeline has ended"
    assert listener.sources[0].error is None
    assert listener.frames[-1][0].unchanged_ns > 0


@pytest.mark.parametrize(("live", "quality"), [("true", "B"), ("false", "C")])
def test_gstreamer_frames_have_the_pipelines_times_while_they_can_be_right(
    listener: Listener, request: pytest.FixtureRequest, live: str, quality: str
) -> None:
    request.getfixturevalue("gstreamer")
    uri = f"gst:videotestsrc is-live={live} num-buffers=12 ! video/x-raw,framerate=25/1?width=64&height=48"
    listener.start(*open_sources({"image": INPUTS["image"]}, {"image": uri}))
    listener.wait(lambda: listener.ends)
    frames = [frame for frame, _ in listener.frames]
    assert {frame.quality for frame in frames} == {quality}
    assert all(frame.capture_ns <= frame.arrive_ns for frame in frames)
    steps_ms = np.diff([frame.capture_ns for frame in frames]) / 1e6
    if quality == "B":  # what the pipeline says, whenever it came
        assert np.abs(steps_ms - 40).max() < 1
        assert frames[0].uncertainty_ns == 20_000_000
    assert {frame.epoch for frame in frames} == {0 if quality == "B" else 1}


@pytest.mark.parametrize("colorimetry", ["bt601", "bt709"])
@pytest.mark.parametrize(("pattern", "want"), [("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))])
def test_gstreamer_converts_to_the_colorimetry_that_frames_say(
    request: pytest.FixtureRequest, colorimetry: str, pattern: str, want: tuple[int, ...]
) -> None:
    request.getfixturevalue("gstreamer")
    caps = f"video/x-raw,format=I420,width=64,height=48,colorimetry={colorimetry}"
    uri = f"gst:videotestsrc num-buffers=1 pattern={pattern} ! {caps}"
    frames: list[Any] = []
    (source,) = open_sources({"image": INPUTS["image"]}, {"image": uri})
    source.start(lambda packet: frames.append(packet.copy() if isinstance(packet, Frame) else packet))
    deadline = time.monotonic() + 60
    while len(frames) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    source.stop()
    # GStreamer rounds chroma down: one of its levels is up to two of ours.
    assert np.abs(pixels(frames[0], "rgb")[24, 32].astype(int) - want).max() <= 3


def test_gstreamer_pipeline_that_fails_says_so(
    listener: Listener, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("gstreamer")
    monkeypatch.setattr("mmedge.capture.gstreamer._START_NS", 60_000_000_000)
    source = GStreamerSource(parse("gst:nosuchelement?width=64&height=48"), images=("image",))
    with pytest.raises(SourceError, match="nosuchelement"):
        listener.start(source)
    listener.wait(lambda: listener.ends)
    assert listener.ends[0].reason is not None


def test_gstreamer_child_ends_with_stop(listener: Listener, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gstreamer")
    source = GStreamerSource(parse("gst:videotestsrc is-live=true?width=64&height=48"), images=("image",))
    listener.start(source)
    listener.wait(lambda: listener.frames)
    child = source._child
    listener.stop()
    assert child is not None
    assert child.poll() is not None
    assert source.error is None


def test_csi_without_a_jetson(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gstreamer")
    with pytest.raises(DeviceError, match="nvarguscamerasrc"):
        open_sources({"image": INPUTS["image"]}, {"image": "csi://0"})


def test_hardware_that_is_insisted_on_and_not_there_is_an_error(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gstreamer")
    with pytest.raises(DeviceError, match="cannot be read through the board's hardware"):
        open_sources({"image": INPUTS["image"]}, {"image": "v4l2:///dev/null?decode=hardware"})
