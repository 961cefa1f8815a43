"""One camera or microphone feeds several inputs: which addresses are one device, and what each input gets of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.capture import Source, ThreadSource, open_sources
from mmedge.errors import ConfigError, DeviceError
from mmedge.types import Block, ByteArray, EndOfStream, Frame, Packet
from tests.portaudio import portaudio
from tests.processes import until
from tests.tiny import tiny_bundle

S = 1_000_000_000
IMAGE = ImageInput(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
INPUTS: dict[str, Input] = {
    "image": IMAGE,
    "rear": IMAGE,
    "small": ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,)),
    "audio": AudioInput(sample_rate_hz=16000, window_ms=500),
    "speech": AudioInput(sample_rate_hz=8000, window_ms=500),
    "text": TextInput(max_tokens=4),
    "claim": TextInput(max_tokens=4),
}


def play(source: Source, done: Callable[[list[Packet]], bool], *, keep: str = "") -> list[Packet]:
    """Run a source until ``done``; pictures are copied and given back, but those of the input ``keep`` are held."""
    packets: list[Packet] = []
    change = threading.Condition()

    def emit(packet: Packet) -> None:
        with change:
            if isinstance(packet, Frame) and packet.stream != keep:
                packets.append(packet.copy())
                assert packet.release is not None
                packet.release()
            else:
                packets.append(packet)
            change.notify_all()

    source.start(emit)
    try:
        with change:
            assert change.wait_for(lambda: done(packets), 60), source.health()
    finally:
        source.stop()
    return packets


def all_ended(streams: set[str]) -> Callable[[list[Packet]], bool]:
    return lambda packets: {p.stream for p in packets if isinstance(p, EndOfStream)} == streams


def frames_of(packets: list[Packet], stream: str) -> list[Frame]:
    return [p for p in packets if isinstance(p, Frame) and p.stream == stream]


class Camera:
    """Stands in for ``cv2.VideoCapture``: 40 noisy pictures at 200 fps, with stamps of their own clock.

    Args:
        anew: OpenCV's way when the type of picture is another: the slot is not used.
    """

    def __init__(self, *, anew: bool = False) -> None:
        self.anew = anew
        self.pictures: list[ByteArray] = []
        self.decoded: list[ByteArray] = []
        self._rng = np.random.default_rng(0)

    def get(self, prop: int) -> float:
        return {3: 64.0, 4: 48.0, 5: 200.0, 0: 5.0 * len(self.pictures)}[prop]

    def grab(self) -> bool:
        threading.Event().wait(0.005)
        self.pictures.append(self._rng.integers(0, 256, (48, 64, 3), np.uint8))
        return len(self.pictures) <= 40

    def retrieve(self, slot: ByteArray) -> tuple[bool, ByteArray]:
        if self.anew:
            slot = np.empty_like(slot)
        slot[...] = self.pictures[-1]
        self.decoded.append(slot)
        return True, slot

    def release(self) -> None:
        """Nothing is open."""


def one_camera(monkeypatch: pytest.MonkeyPatch, uris: Mapping[str, str], *, anew: bool = False) -> tuple[Any, Camera]:
    """Open inputs of one camera; returns the source and what stands in for the hardware."""
    pytest.importorskip("cv2")
    opened: list[Camera] = []

    def open_camera(*_: Any) -> Camera:
        opened.append(Camera(anew=anew))
        return opened[-1]

    monkeypatch.setattr("mmedge.capture.v4l2.open_camera", open_camera)
    (source,) = open_sources(INPUTS, uris)
    (camera,) = opened
    return source, camera


@pytest.mark.parametrize("anew", [False, True])
def test_a_camera_gives_each_input_the_same_picture_at_the_same_time(
    anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = {"image": "0", "rear": "v4l2:///dev/video0", "small": "/dev/video0"}
    source, camera = one_camera(monkeypatch, uris, anew=anew)
    assert source.streams == tuple(uris)
    packets = play(source, all_ended(set(uris)))
    first, *others = (frames_of(packets, name) for name in uris)
    assert len(first) == len(camera.decoded) == 40 - source.counters["flushed_frames"]
    for frames in (first, *others):
        assert [f.seq for f in frames] == list(range(len(first)))
        assert [f.capture_ns for f in frames] == [f.capture_ns for f in first]
        assert [f.quality for f in frames] == [f.quality for f in first]
        assert all(f.unchanged_ns == 0 for f in frames)
        for frame, picture in zip(frames, camera.pictures[-1 - len(first) : -1], strict=True):
            np.testing.assert_array_equal(frame.data, picture)
    assert all("stopped sending" in str(p.reason) for p in packets if isinstance(p, EndOfStream))
    health = source.health()
    assert set(health.clocks) == set(health.nominal_hz) == set(uris)
    assert health.counters["dropped_frames"] == 0


def test_each_input_has_slots_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that gives nothing back loses its own pictures, and no other's."""
    source, _ = one_camera(monkeypatch, {"image": "0", "rear": "0"})
    source.slots = 3
    packets = play(source, all_ended({"image", "rear"}), keep="image")
    held, others = frames_of(packets, "image"), frames_of(packets, "rear")
    assert len(held) == 3
    assert len(others) > 20
    assert source.counters["dropped_frames"] == len(others) - 3
    for mine, other in zip(held, others, strict=False):
        np.testing.assert_array_equal(mine.data, other.data)
        assert not np.shares_memory(mine.data, other.data)


def test_a_frozen_camera_is_frozen_for_every_input(monkeypatch: pytest.MonkeyPatch) -> None:
    source, camera = one_camera(monkeypatch, {"image": "0", "rear": "0"})
    monkeypatch.setattr(camera, "_rng", SimpleNamespace(integers=lambda *_: np.zeros((48, 64, 3), np.uint8)))
    packets = play(source, all_ended({"image", "rear"}))
    for name in ("image", "rear"):
        frozen = [f.unchanged_ns for f in frames_of(packets, name)]
        assert frozen[0] == 0
        assert all(a < b for a, b in pairwise(frozen))


class Opened(ThreadSource):
    """Remembers with what it was made."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options
        super().__init__(tuple(options.get("images", options.get("sounds", ()))), name="opened", live=True)

    def _read_impl(self, emit: Any, stop: threading.Event) -> None:
        raise AssertionError("nothing is read here")


@pytest.fixture
def nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("v4l2.CameraSource", "gstreamer.GStreamerSource", "microphone.MicrophoneSource"):
        monkeypatch.setattr(f"mmedge.capture.{name}", Opened)


@pytest.mark.usefixtures("nothing_opens")
def test_what_is_one_device(tmp_path: Path) -> None:
    node, link = tmp_path / "video7", tmp_path / "by-id"
    node.touch()
    link.symlink_to(node)

    def streams(**uris: str) -> list[tuple[str, ...]]:
        return [source.streams for source in open_sources(INPUTS, uris)]

    assert streams(image=f"v4l2:///dev/..{node}", rear=f"v4l2:///dev/..{link}") == [("image", "rear")]
    assert streams(image="0", rear="1", small="0") == [("image", "small"), ("rear",)]
    assert streams(image="csi://0", rear="csi://0", small="csi://1") == [("image", "rear"), ("small",)]
    assert streams(audio="mic://USB", speech="mic://USB") == [("audio", "speech")]
    pipe = "gst:videotestsrc?width=64&height=48"
    assert streams(image=pipe, rear="gst: videotestsrc?height=48&width=64") == [("image", "rear")]
    # Another size is another pipeline, and GStreamer says whether its source can be read twice.
    assert streams(image=pipe, rear="gst:videotestsrc?width=32&height=48") == [("image",), ("rear",)]


@pytest.mark.usefixtures("nothing_opens")
@pytest.mark.parametrize("workers", [False, True])
def test_a_camera_has_one_setting(workers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[dict[str, Any]] = []

    class Worker(Opened):
        def __init__(self, inputs: Any, uris: dict[str, Any], *_: Any) -> None:
            super().__init__(images=inputs)
            orders.append(uris)

        def open(self) -> None:
            """It is."""

    monkeypatch.setattr("mmedge.capture.supervisor.WorkerSource", Worker)
    plain, large = "0", "v4l2:///dev/video0?width=1280&height=720"
    uris = {"image": plain, "rear": large, "small": "v4l2:///dev/video0?height=720&width=1280"}
    (source,) = open_sources(INPUTS, uris, workers=workers)
    assert isinstance(source, Opened)
    if workers:  # one spelling for all, so that the worker cannot come to another answer
        assert orders == [dict.fromkeys(uris, orders[0]["image"])]
        assert str(orders[0]["image"]) in (large, uris["small"])
    else:
        assert source.args[0].params == {"width": "1280", "height": "720"}
    uris["small"] = "v4l2:///dev/video0?width=640"
    with pytest.raises(ConfigError, match=r"'image' and 'rear' and 'small' share one camera, which cannot be") as error:
        open_sources(INPUTS, uris, workers=workers)
    assert large in error.value.message
    assert error.value.where == "/dev/video0"
    assert "the same parameters" in str(error.value.fix)


def test_a_text_feeds_one_input() -> None:
    with pytest.raises(ConfigError, match="'text' and 'claim' read the same text") as error:
        open_sources(INPUTS, {"text": "text://stdin", "claim": "text://stdin"})
    assert "its own text" in str(error.value.fix)


@pytest.mark.parametrize(("offered_hz", "opened_hz"), [((8000, 16000), 16000), ((8000,), 48000)])
def test_a_microphone_is_opened_at_the_highest_rate(
    offered_hz: tuple[int, ...], opened_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input of 8 kHz must not cost one of 16 kHz its upper octave, whichever comes first."""
    module = portaudio(monkeypatch, *offered_hz)
    (source,) = open_sources(INPUTS, {"speech": "mic://usb", "audio": "mic://usb"})
    source.stop()
    assert [options["samplerate"] for options in module.asked][-1] == opened_hz
    assert source.health().nominal_hz == {"speech": opened_hz, "audio": opened_hz}


@pytest.mark.parametrize(
    ("channels", "all_only", "query", "opened", "level"),
    [
        (6, False, "", 1, 0.5),  # whoever makes mono of them is asked to
        (6, True, "", 6, (1 - 0.5**6) / 6),
        (6, False, "?channel=1", 6, 0.25),  # all of them: what gives fewer, mixes
        (6, True, "?channel=5", 6, 0.5**6),
        (6, True, "?channels=0,2", 6, (0.5 + 0.125) / 2),
        (200, False, "?channel=1", 64, 0.25),
        (200, False, "?channel=99", 100, 0.5**100),
    ],
)
def test_a_microphone_is_opened_with_the_channels_that_are_needed(
    channels: int, all_only: bool, query: str, opened: int, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = portaudio(monkeypatch, 16000, channels=channels, all_only=all_only)
    (source,) = open_sources(INPUTS, {"audio": f"mic://usb{query}"})
    heard: list[Any] = []
    source.start(lambda packet: heard.append(packet.samples) if isinstance(packet, Block) else None)
    module.send(0.1)
    assert until(lambda: sum(map(len, heard)) >= 800, 60)
    source.stop()
    assert module.asked[-1]["channels"] == opened
    assert np.abs(np.concatenate(heard)).max() == pytest.approx(level, rel=0.01)
    with pytest.raises(ConfigError, match=f"no channel {channels}: microphone 'USB Audio' has {channels} channel") as e:
        open_sources(INPUTS, {"audio": f"mic://usb?channel={channels}"})
    assert "use ?channel=0" in str(e.value.fix)


def test_two_names_of_one_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = portaudio(monkeypatch, 16000)

    def streams(audio: str, speech: str) -> list[tuple[str, ...]]:
        module.asked.clear()
        sources = open_sources(INPUTS, {"audio": audio, "speech": speech})
        for source in sources:
            source.stop()
        return [source.streams for source in sources]

    assert streams("mic://default", "mic://USB Audio") == [("audio", "speech")]
    assert streams("mic://usb", "mic://USB Audio") == [("audio", "speech")]
    assert streams("mic://usb?channel=0", "mic://USB Audio?channels=0") == [("audio", "speech")]
    assert [options["device"] for options in module.asked] == [1]
    assert streams("mic://default", "mic://Headset") == [("audio",), ("speech",)]
    with pytest.raises(DeviceError, match=r"'nosuch' was not found.*'Headset'"):
        streams("mic://default", "mic://nosuch")


@pytest.mark.parametrize("device_hz", [16000, 48000])
def test_what_a_microphone_loses_is_as_long_for_every_input(device_hz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = portaudio(monkeypatch, device_hz)
    rates_hz = {"audio": 16000, "speech": 8000}
    (source,) = open_sources(INPUTS, dict.fromkeys(rates_hz, "mic://default"))
    blocks: dict[str, list[Block]] = {name: [] for name in rates_hz}

    source.start(lambda packet: blocks[packet.stream].append(packet) if isinstance(packet, Block) else None)
    try:
        module.send(0.4)
        module.send(0.4, lost_s=0.2)
        assert until(
            lambda: all(sum(len(b.samples) + b.lost for b in blocks[n]) > 0.95 * rates_hz[n] for n in blocks), 60
        )
        health = source.health()
    finally:
        source.stop()
    begins_ns, lost_s = {}, {}
    for name, rate_hz in rates_hz.items():
        heard = blocks[name]
        assert [block.seq for block in heard] == list(range(len(heard)))
        assert {block.epoch for block in heard} == {0}
        lost_s[name] = sum(block.lost for block in heard) / rate_hz
        assert lost_s[name] == pytest.approx(0.2, abs=0.05)  # a busy machine is late
        count = sum(len(block.samples) + block.lost for block in heard)
        assert count / rate_hz == pytest.approx(1.0, abs=0.1)
        spectrum = np.abs(np.fft.rfft(np.concatenate([block.samples for block in heard])[: rate_hz // 4]))
        assert np.argmax(spectrum) * 4 == pytest.approx(1000, abs=8)
        begins_ns[name] = heard[-1].capture_ns - count * S // rate_hz  # where the first sample of all lies
    assert lost_s["audio"] == pytest.approx(lost_s["speech"], abs=0.0005)
    assert begins_ns["audio"] == pytest.approx(begins_ns["speech"], abs=2_000_000)
    assert set(health.clocks) == set(rates_hz)
    assert health.counters["overflows"] == 1
    assert health.counters["lost_samples"] == sum(block.lost for heard in blocks.values() for block in heard)


def test_the_trigger_comes_last_of_what_one_device_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(inputs: Any, uris: Any, **options: Any) -> Any:
        asked.extend(uris)
        raise ConfigError("enough was seen", where="here", fix="none")

    monkeypatch.setattr("mmedge.pipeline.runtime.open_sources", note)
    path = tiny_bundle(tmp_path / "t.mmedge")  # the picture triggers
    pipe = mmedge.Pipeline(path, {"image": "test://", "audio": "test://"}, isolation="thread")
    with pytest.raises(ConfigError, match="enough"):
        pipe.start()
    pipe.close()
    assert asked == ["audio", "image"]
