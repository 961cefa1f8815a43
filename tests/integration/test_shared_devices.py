"""One pipeline and one microphone feed two networks each, which want them otherwise: real GStreamer and PortAudio."""

from __future__ import annotations

import math
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import mmedge
from benchmarks.loopback import ffmpeg
from mmedge.bundle import write_archive
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Manifest
from mmedge.capture import open_sources
from mmedge.types import Block, EndOfStream, Frame, Packet, Result
from tests.processes import children, command, family, run_until
from tests.tiny import MANIFEST, _npz, manifest, members

MS = 1_000_000
# Black and white by turns: the next picture could not be taken for this one.
CAMERA = "gst:videotestsrc is-live=true pattern=blink ! video/x-raw,framerate=30/1?width=160&height=120&fps=30"
SEATS: dict[str, Input] = {
    "image": ImageInput(size=(4, 4), color="gray", mean=(0.0,), std=(1.0,), frame=(8, 8)),
    "rear": ImageInput(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=100),
    "wide": AudioInput(sample_rate_hz=16000, window_ms=50),
}


class Listener:
    """Keeps what comes, and gives pictures back."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def __call__(self, packet: Packet) -> None:
        if isinstance(packet, Frame):
            assert packet.release is not None
            self.packets.append(packet.copy())
            packet.release()
        else:
            self.packets.append(packet)

    def of(self, stream: str) -> list[Any]:
        return [p for p in list(self.packets) if p.stream == stream and not isinstance(p, EndOfStream)]

    def wait(self, done: Any, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < deadline, [type(packet).__name__ for packet in self.packets[-10:]]
            time.sleep(0.02)


def test_one_gstreamer_child_feeds_two_inputs(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gstreamer")
    uri = "gst:videotestsrc num-buffers=20 pattern=snow ! video/x-raw,framerate=30/1?width=64&height=48&fps=30"
    (source,) = open_sources(SEATS, {"image": uri, "rear": uri})
    listener = Listener()
    source.start(listener)
    try:
        listener.wait(lambda: sum(isinstance(packet, EndOfStream) for packet in listener.packets) == 2)
    finally:
        source.stop()
    first, second = listener.of("image"), listener.of("rear")
    assert len(first) == len(second) == 20
    for mine, other in zip(first, second, strict=True):
        assert (mine.seq, mine.capture_ns, mine.arrive_ns) == (other.seq, other.capture_ns, other.arrive_ns)
        np.testing.assert_array_equal(mine.data, other.data)
    assert any(not np.array_equal(a.data, b.data) for a, b in pairwise(first))
    reasons = {p.stream: p.reason for p in listener.packets if isinstance(p, EndOfStream)}
    assert reasons == dict.fromkeys(("image", "rear"), "the GStreamer pipeline has ended")
    assert source.error is None


@pytest.mark.devices
@pytest.mark.parametrize("workers", [False, True])
def test_one_microphone_feeds_two_rates(workers: bool, microphone: Any, write_clip: Any) -> None:
    t = np.arange(3 * 48000) / 48000
    beep = 0.5 * np.sin(2 * np.pi * 1000 * t) * ((t >= 1.5) & (t < 1.6))
    clip = write_clip("beep.wav", times_s=None, sound=beep[None], rate_hz=48000, audio_codec="pcm_s16le")
    (source,) = open_sources(SEATS, {"audio": "mic://pulse", "wide": "mic://PULSE"}, workers=workers)
    listener = Listener()
    source.start(listener)
    try:
        listener.wait(lambda: listener.packets)
        microphone.play(clip).wait(60)
        time.sleep(0.3)
    finally:
        source.stop()
    begins_ns = {}
    for name, rate_hz in (("audio", 8000), ("wide", 16000)):
        blocks: list[Block] = listener.of(name)
        assert [block.seq for block in blocks] == list(range(len(blocks)))
        sound = np.concatenate([block.samples for block in blocks])
        times = np.concatenate([b.capture_ns - np.arange(len(b.samples))[::-1] * 10**9 // rate_hz for b in blocks])
        loud = int(np.flatnonzero(np.abs(sound) > 0.1)[0])
        begins_ns[name] = int(times[loud])
        spectrum = np.abs(np.fft.rfft(sound[loud : loud + rate_hz // 12]))
        assert abs(np.argmax(spectrum) * 12 - 1000) < 25
        assert sum(block.lost for block in blocks) < 0.05 * len(
            sound
        )  # on a machine that stands still it is none of ours
    assert abs(begins_ns["audio"] - begins_ns["wide"]) < 2 * MS
    health = source.health()
    assert set(health.clocks) == set(health.nominal_hz) == {"audio", "wide"}


@pytest.mark.devices
def test_names_that_are_not_known_to_be_one_microphone_are_opened_one_by_one(microphone: Any) -> None:
    """ALSA's 'default' and 'pulse' are two devices to PortAudio; the server behind them lets both listen."""
    sources = open_sources(SEATS, {"audio": "mic://default", "wide": "mic://pulse"})
    listener = Listener()
    try:
        assert [source.streams for source in sources] == [("audio",), ("wide",)]
        for source in sources:
            source.start(listener)
        listener.wait(lambda: listener.of("audio") and listener.of("wide"))
    finally:
        for source in sources:
            source.stop()


@pytest.mark.devices
def test_what_a_worker_refuses_is_known_to_its_parent(camera: Any, tmp_path: Path) -> None:
    raw = np.full(3 * 8000, 0.25, np.float32)
    raw[16000] = np.nan
    (tmp_path / "sound.f32").write_bytes(raw.tobytes())
    (source,) = open_sources(SEATS, {"audio": camera.uri, "wide": camera.uri}, workers=True)
    listener = Listener()
    source.start(listener)
    try:
        sound = ("-f", "f32le", "-ar", "8000", "-ac", "1", "-i", str(tmp_path / "sound.f32"), "-c:a", "pcm_f32le")
        ffmpeg(*sound, "-f", "nut", f"{camera.uri}?pkt_size=1316").wait(60)
        listener.wait(lambda: source.refused is not None)
    finally:
        source.stop()
    assert "samples that are not finite" in str(source.refused)
    assert source.refused is not None
    assert source.refused.fix is not None
    assert source.refused_streams == ("audio", "wide")
    assert listener.of("audio")
    assert listener.of("wide")


def four_seats(path: Path) -> Path:
    """Write a bundle of two networks that see one picture otherwise, and two that hear one sound at two rates."""
    files = members()
    grey, rear = np.full((1, 1, 8, 8, 1), 51, np.uint8), {"modality": "image", "fit": "stretch", "mean": [0.5]}
    files["golden/rear.npz"] = _npz(in__x=grey, out__y=np.array([[[-0.3]]], np.float32))
    stages = {"eye": "image", "rear_eye": "rear", "ear": "audio", "wide_ear": "wide"}
    golden = {"eye": "eye", "rear_eye": "rear", "ear": "ear", "wide_ear": "ear"}
    changes: dict[str, Any] = {
        "inputs": {
            **MANIFEST["inputs"],
            "rear": {**MANIFEST["inputs"]["image"], **rear},
            "wide": {"modality": "audio", "sample_rate_hz": 16000, "window_ms": 50},
        },
        "stages": {stage: {"inputs": {"x": seat}, "outputs": {"y": ["batch", 1]}} for stage, seat in stages.items()},
        "tasks": {
            stage: {"kind": "verification", "output": f"{stage}.y", "labels": "labels/same.txt"} for stage in stages
        },
        "missing": {seat: {"policy": "zero"} for seat in SEATS},
        "validated_masks": [
            {"present": names, "metric": "top1", "value": 1.0}
            for names in (list(SEATS), ["image", "rear"], ["audio", "wide"])
        ],
    }
    variants = [
        {
            "stage": stage,
            "target": "cpu",
            "precision": "fp32",
            "file": f"{'eye' if 'eye' in stage else 'ear'}.onnx",
            "golden": f"golden/{golden[stage]}.npz",
            "tolerance": {},
        }
        for stage in stages
    ]
    return write_archive(path, msgspec.convert(manifest(files, **changes) | {"variants": variants}, Manifest), files)


def logit(result: Result, task: str) -> float:
    score = result.tasks[task].score
    assert score is not None
    return math.log(score / (1 - score))


def check(results: list[Result]) -> None:
    """The two eyes differ by their mean and the two ears by nothing, at each instant.

    A picture that was late and the next that was not are less than half a period apart, and a trigger does not wait
    for the nearer one then: it says so by its skew.
    """
    whole = [result for result in results if all(result.present.values()) and result.skew_ms < 1]
    assert len(whole) > 20
    bright = np.array([logit(result, "eye") for result in whole])
    assert bright.max() > 0.9
    assert bright.min() < 0.1
    np.testing.assert_allclose([logit(result, "rear_eye") for result in whole], bright - 0.5, atol=0.01)
    loud = np.array([logit(result, "ear") for result in whole])
    wide = np.array([logit(result, "wide_ear") for result in whole])
    assert np.median(np.abs(wide - loud)) < 0.02  # half the window: where the player stutters it hears otherwise
    assert np.median(loud) == pytest.approx(0.4 * 2 / math.pi, abs=0.03)
    for result in whole:
        assert result.epoch["image"] == result.epoch["rear"]
        assert result.epoch["audio"] == result.epoch["wide"]


def tone(write_clip: Any) -> Path:
    t = np.arange(20 * 48000) / 48000
    sound = 0.4 * np.sin(2 * np.pi * 1000 * t)
    path: Path = write_clip("tone.wav", times_s=None, sound=sound[None], rate_hz=48000, audio_codec="pcm_s16le")
    return path


def heard(results: list[Result], count: int, epoch: int = 0) -> bool:
    whole = [r for r in results if all(r.present.values()) and logit(r, "ear") > 0.2]
    return sum(r.epoch["image"] == epoch for r in whole) >= count


@pytest.mark.devices
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_two_devices_feed_four_networks(
    isolation: Any, microphone: Any, write_clip: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("gstreamer")
    microphone.play(tone(write_clip), loop=True)
    uris = {"image": CAMERA, "rear": CAMERA, "audio": "mic://pulse", "wide": "mic://pulse"}
    with mmedge.Pipeline(four_seats(tmp_path / "four.mmedge"), uris, isolation=isolation) as pipe:
        pictures = None
        results = []
        for result in pipe.results(time.monotonic() + 60):
            results.append(result)
            if pictures is None and result.present["image"] and result.present["rear"] and result.skew_ms < 1:
                pictures = [result.frame(name).data for name in ("image", "rear")]  # now: its slots are used again
            if pictures is not None and heard(results, 60):
                break
        assert pictures is not None
        np.testing.assert_array_equal(*pictures)
        if isolation == "process":
            _, workers = family(pipe)
            assert len(workers) == 2  # a device each
        else:
            assert sum("gst_launch" in command(pid) for pid in children(os.getpid())) == 1
        health: dict[str, Any] = pipe.health()
        if isolation == "process":
            camera = next(pid for pid in workers if any("gst_launch" in command(child) for child in children(pid)))
            os.kill(camera, signal.SIGKILL)
            again = run_until(pipe, 60, lambda results: heard(results, 30, epoch=1))
            health = pipe.health()
            assert health["image"]["counters"]["restarts"] == health["rear"]["counters"]["restarts"] == 1
            assert len(family(pipe)[1]) == 2
            check([result for result in again if result.epoch.get("image") == 1][5:])
    # What was made before all four were there, and while the ring of sound filled, is not compared.
    check([r for r in results if all(r.present.values()) and logit(r, "ear") > 0.2][10:])
    assert all(health[name]["state"] == "OK" for name in uris), health
