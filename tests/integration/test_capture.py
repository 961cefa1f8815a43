"""Sources as a run opens them: files, text, cameras, and what happens when they are not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.capture import ThreadSource, list_devices, open_sources
from mmedge.capture.base import Emit
from mmedge.capture.devices import _cameras
from mmedge.capture.media import MediaSource
from mmedge.capture.v4l2 import Backlog, CameraClock, CameraSource
from mmedge.errors import ConfigError, DeviceError, MmedgeError, SourceError
from mmedge.types import Block, EndOfStream, Frame, Packet

pytestmark = pytest.mark.parallel

IMAGE = ImageInput(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
AUDIO = AudioInput(sample_rate_hz=8000, window_ms=500)
TEXT = TextInput(max_tokens=16)
INPUTS: dict[str, Any] = {"image": IMAGE, "rear": IMAGE, "audio": AUDIO, "text": TEXT}


def play(*sources: Any, until: Callable[[list[Packet]], bool] | None = None) -> list[Packet]:
    """Run sources until each of their streams has ended (or ``until``), and return what came."""
    packets: list[Packet] = []
    change = threading.Condition()
    streams = {stream for source in sources for stream in source.streams}

    def emit(packet: Packet) -> None:
        with change:
            packets.append(packet)
            if isinstance(packet, Frame) and packet.release is not None:
                packet.release()
            change.notify_all()

    def over() -> bool:
        return streams == {p.stream for p in packets if isinstance(p, EndOfStream)}

    for source in sources:
        source.start(emit)
    try:
        with change:
            assert change.wait_for(lambda: until(packets) if until else over(), 60), [s.health() for s in sources]
    finally:
        for source in sources:
            source.stop()
    return packets


def test_inputs_that_name_one_file_share_it(write_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(sound=np.zeros((1, 8000)))
    monkeypatch.chdir(clip.parent)
    uris = {"image": str(clip), "audio": clip.name, "rear": f"file://{clip}"}
    sources = open_sources(INPUTS, uris, realtime=False)
    assert [source.streams for source in sources] == [("image", "rear", "audio")]
    assert sources[0].live is False
    packets = play(*sources)
    front = [p for p in packets if isinstance(p, Frame) and p.stream == "image"]
    rear = [p for p in packets if isinstance(p, Frame) and p.stream == "rear"]
    assert [f.capture_ns for f in front] == [f.capture_ns for f in rear]
    assert len(front) == 25


def test_two_files_share_one_beginning(write_clip: Any) -> None:
    image = write_clip("a.nut")
    audio = write_clip("b.wav", times_s=None, sound=np.zeros((1, 8000)), audio_codec="pcm_s16le")
    sources = open_sources(INPUTS, {"image": str(image), "audio": str(audio)}, realtime=False)
    packets = play(*sources)
    frame = next(p for p in packets if isinstance(p, Frame))
    block = next(p for p in packets if isinstance(p, Block))
    assert block.capture_ns - len(block.samples) * 125_000 == frame.capture_ns


@pytest.mark.parametrize(
    ("uris", "options", "message"),
    [
        ({"sound": "0"}, {}, "no input 'sound'"),
        ({"audio": "0"}, {}, "v4l2 source cannot feed the audio input"),
        ({"image": "mic://default"}, {}, "microphone source cannot feed the image input"),
        ({"text": "clip.mp4"}, {}, "file source cannot feed the text input"),
        ({"image": "v4l2:///dev/video0?fps=30", "rear": "v4l2:///dev/video0?fps=60"}, {}, "'rear' share one camera"),
        ({"image": "0"}, {"speed": 2.0}, "speed of 2"),
        ({"image": "clip.mp4"}, {"speed": -1.0}, "speed of -1"),
        ({"image": "clip.mp4"}, {"speed": 2.0, "realtime": False}, "speed of 2"),
        ({"image": "none.mp4"}, {}, "no file 'none.mp4'"),
        ({"text": "text://none.txt"}, {}, "no text file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    uris: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        open_sources(INPUTS, uris, **options)
    assert error.value.fix is not None


def test_one_failure_closes_what_was_opened(write_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(MediaSource, "_close_impl", lambda self: closed.append(self.name))
    clip = str(write_clip())
    with pytest.raises(DeviceError):
        open_sources(INPUTS, {"image": clip, "rear": "v4l2:///dev/video99"})
    assert closed == [clip]


def test_an_absent_camera_says_what_was_looked_for() -> None:
    for uri in ("99", "v4l2:///dev/video99"):
        with pytest.raises(DeviceError, match=r"'/dev/video99' is not there") as error:
            open_sources(INPUTS, {"image": uri})
        assert "mmedge devices" in str(error.value.fix)
        assert error.value.exit_code == 3
    with pytest.raises(DeviceError, match="is not a camera device"):
        open_sources(INPUTS, {"image": "v4l2:///dev/shm"})


def test_camera_loop_reads_into_slots(write_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No camera is needed: OpenCV reads a file through the same calls, and its stamps are no kernel times."""
    cv2 = pytest.importorskip("cv2")
    clip = write_clip("clip.mp4", video_codec="libx264", picture=lambda _: 126)
    monkeypatch.setattr("mmedge.capture.v4l2.open_camera", lambda *_: cv2.VideoCapture(str(clip)))
    (source,) = open_sources(INPUTS, {"image": "0", "rear": "/dev/video0"})
    packets = play(source)
    frames, rear = ([p for p in packets if isinstance(p, Frame) and p.stream == name] for name in source.streams)
    # What a file hands over at once looks like a driver's backlog, of which there are at most ten.
    assert isinstance(source, CameraSource)
    assert len(frames) + source.counters["flushed_frames"] == 25
    assert len(frames) >= 15
    assert {(f.format, f.data.shape, f.full_range) for f in frames} == {("bgr24", (48, 64, 3), True)}
    assert all(abs(int(f.data[0, 0, 0]) - 128) < 4 for f in frames + rear)
    assert [f.capture_ns for f in frames] == sorted(f.capture_ns for f in rear)
    assert {f.quality for f in frames[2:]} == {"B"}
    assert isinstance(source.error, SourceError)  # a camera has no end: a file's end is a camera that died
    assert "stopped sending" in str(packets[-1].reason if isinstance(packets[-1], EndOfStream) else "")


def test_frames_that_waited_for_the_reader_are_not_of_now() -> None:
    ms = 1_000_000
    backlog = Backlog()
    assert [backlog.holds(waited) for waited in (0, 999_999, 33 * ms, 0, 0)] == [True, True, False, False, False]
    endless = Backlog()
    assert sum(endless.holds(0) for _ in range(100)) == 10


def test_camera_clock_takes_the_best_stamp_there_is() -> None:
    ms = 1_000_000
    clock = CameraClock()
    assert clock.capture(1000 * ms, 1030 * ms) == (1000 * ms, 5 * ms, "A")
    assert clock.capture(0, 5000 * ms) == (5000 * ms, 40 * ms, "C")
    learnt = [clock.capture(k * 40 * ms, (100_000 + k * 40 + 7 + k % 3) * ms) for k in range(1, 50)]
    assert {quality for _, _, quality in learnt} == {"B"}
    assert learnt[-1][0] == pytest.approx((100_000 + 49 * 40 + 7) * ms, abs=ms)


class Failing(ThreadSource):
    """A source whose reader fails or hangs."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__(("image", "audio"), name="failing", live=True)
        self.failure = failure

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        if self.failure is None:
            time.sleep(90)
        else:
            raise self.failure


@pytest.mark.parametrize("failure", [ValueError("driver says no"), DeviceError("unplugged")])
def test_a_source_never_dies_silently(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    source = Failing(failure)
    packets = play(source)
    assert isinstance(source.error, MmedgeError)
    reasons = {p.stream: p.reason for p in packets if isinstance(p, EndOfStream)}
    assert set(reasons) == {"image", "audio"}
    assert all(str(failure) in str(reason) for reason in reasons.values())
    assert source.health().state == "MISSING"
    assert "failing" in caplog.text or "unplugged" in caplog.text


def test_stop_does_not_wait_for_a_reader_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    source = Failing(None)
    source.start(lambda packet: None)
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 80
    assert "left behind" in caplog.text


def test_an_emit_that_fails_is_recorded(write_clip: Any) -> None:
    source = MediaSource(str(write_clip()), images=("image",), realtime=False)

    def emit(packet: Packet) -> None:
        raise RuntimeError("full")

    source.start(emit)
    deadline = time.monotonic() + 60
    while source.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    source.stop()
    assert "RuntimeError: full" in str(source.error)


def test_devices_can_be_listed(tmp_path: Path) -> None:
    assert all(device.name and device.detail for device in list_devices())
    assert _cameras(tmp_path / "class", tmp_path) == []
