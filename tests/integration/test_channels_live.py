"""Channels of live sound, a tone in each: a microphone array behind PulseAudio, a sender on the network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.loopback import ffmpeg
from mmedge.bundle.manifest import AudioInput, Input
from mmedge.capture import Source, open_sources
from mmedge.errors import ConfigError
from mmedge.types import Block, Packet
from tests.processes import asked_by

RATE_HZ = 16000
ALSA_ORDER = [0, 1, 4, 5, 2, 3, 6, 7]  # of the channels of ffmpeg's 7.1
EAR = AudioInput(sample_rate_hz=RATE_HZ, window_ms=100)
SEATS: dict[str, Input] = dict.fromkeys("abcdefgh", EAR)


def tone_hz(channel: int) -> int:
    return 400 + 300 * channel


def tones(write_clip: Any, channels: int, layout: str) -> Path:
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    sound = np.stack([0.4 * np.sin(2 * np.pi * tone_hz(channel) * t) for channel in range(channels)])
    path: Path = write_clip(
        "tones.nut", times_s=None, sound=sound, rate_hz=RATE_HZ, layout=layout, audio_codec="pcm_s16le"
    )
    return path


def levels(sound: Any, channels: int) -> list[float]:
    """Return the amplitude of each channel's tone in the newest half second."""
    spectrum = np.abs(np.fft.rfft(sound[-RATE_HZ // 2 :] * np.hanning(RATE_HZ // 2))) / (RATE_HZ // 8)
    return [float(spectrum[tone_hz(channel) // 2 - 2 : tone_hz(channel) // 2 + 3].max()) for channel in range(channels)]


class Ears:
    """Keeps the sound of each input."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sounds: dict[str, list[Any]] = {name: [] for name in source.streams}
        self.ends: dict[str, str | None] = {}

    def __call__(self, packet: Packet) -> None:
        if isinstance(packet, Block):
            self.sounds[packet.stream].append(packet.samples)
        else:
            self.ends[packet.stream] = getattr(packet, "reason", None)

    def sound(self, name: str) -> Any:
        return np.concatenate([np.zeros(RATE_HZ, np.float32), *list(self.sounds[name])])

    def wait(self, done: Callable[[], object], within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < deadline, (self.source.health(), self.ends)
            time.sleep(0.05)


@contextmanager
def listening(uris: Mapping[str, str], **options: Any) -> Iterator[Ears]:
    (source,) = open_sources(SEATS, uris, **options)
    ears = Ears(source)
    source.start(ears)
    try:
        yield ears
    finally:
        source.stop()


@pytest.mark.devices
@pytest.mark.parametrize("microphone", [8], indirect=True)
@pytest.mark.parametrize("workers", [False, True])
def test_each_channel_of_an_array_can_be_chosen(workers: bool, microphone: Any, write_clip: Any) -> None:
    """Eight seats hear one microphone of the array each; it is opened once."""
    microphone.play(tones(write_clip, 8, "7.1"), loop=True)
    uris = {name: f"mic://{'pulse' if number % 2 else 'PULSE'}?channel={number}" for number, name in enumerate(SEATS)}
    with listening(uris, workers=workers) as ears:
        heard: list[list[float]] = []

        def settled() -> bool:
            """Half a second in which the player did not stutter."""
            heard[:] = [levels(ears.sound(name), 8) for name in SEATS]
            return all(0.36 < max(each) < 0.44 and sorted(each)[-2] < 0.01 for each in heard)

        ears.wait(settled)  # each seat hears one channel, and no other
        for worker in asked_by(os.getpid()):
            assert "libasound_module_pcm_a52" not in Path(f"/proc/{worker}/maps").read_text()
    assert [int(np.argmax(each)) for each in heard] == ALSA_ORDER, "each seat hears its own channel"


@pytest.mark.devices
@pytest.mark.parametrize("microphone", [8], indirect=True)
def test_several_channels_of_an_array_are_averaged(microphone: Any, write_clip: Any) -> None:
    microphone.play(tones(write_clip, 8, "7.1"), loop=True)
    uris = {"a": "mic://pulse?channels=0,1", "b": "mic://pulse?channel=0", "c": "mic://pulse?channel=1"}
    with listening(uris) as ears:

        def averaged() -> bool:
            heard = {name: np.array(levels(ears.sound(name), 8)) for name in uris}
            loud = all(each.max() > 0.15 for each in heard.values())
            return loud and np.allclose(heard["a"], (heard["b"] + heard["c"]) / 2, rtol=0, atol=0.02)

        ears.wait(averaged)


@pytest.mark.devices
@pytest.mark.parametrize("microphone", [8], indirect=True)
def test_channels_that_a_microphone_has_not(microphone: Any, write_clip: Any) -> None:
    with pytest.raises(ConfigError, match=r"there is no channel 32: microphone 'pulse' has 32 channels") as error:
        open_sources(SEATS, {"a": "mic://pulse?channel=32"})
    assert error.value.fix == "use ?channel=0 to ?channel=31"
    with pytest.raises(ConfigError, match="'b' chooses no channel of it") as error:
        open_sources(SEATS, {"a": "mic://pulse?channel=0", "b": "mic://pulse"})
    assert "?channel=0" in str(error.value.fix)
    # PulseAudio offers 32 channels for any microphone: one that it fills up with silence is said.
    microphone.play(tones(write_clip, 8, "7.1"), loop=True)
    with listening({"a": "mic://pulse?channel=20"}) as ears:
        ears.wait(lambda: "has been silent for 2 s in the chosen channel" in str(ears.source.health().reason))


@pytest.mark.parametrize("workers", [False, True])
def test_channels_and_tracks_of_a_sender(workers: bool, camera: Any, write_clip: Any) -> None:
    clip = tones(write_clip, 6, "5.1")
    uris = {
        "a": f"{camera.uri}?channel=5",
        "b": camera.uri,
        "c": f"{camera.uri}?track=1",
        "d": f"{camera.uri}?channel=6",
    }
    with listening(uris, workers=workers) as ears:
        two = ("-map", "0:a", "-map", "0:a", "-c:a:0", "pcm_s16le", "-ac:a:1", "1", "-filter:a:1", "pan=mono|c0=c2")
        sender = ffmpeg("-i", str(clip), *two, "-c:a:1", "pcm_s16le", "-f", "nut", f"{camera.uri}?pkt_size=1316")
        try:
            want = {"a": np.eye(6)[5] * 0.4, "b": np.full(6, 0.4 / 6), "c": np.eye(6)[2] * 0.4}
            ears.wait(
                lambda: all(np.allclose(levels(ears.sound(n), 6), want[n], 0, 0.01 * (1 + (n != "b"))) for n in want)
            )
            ears.wait(lambda: ears.source.refused is not None)
        finally:
            sender.kill()
            sender.wait()
        health = ears.source.health()
    assert not any(len(samples) for samples in ears.sounds["d"]), "nothing takes the place of what is not there"
    assert ears.source.refused_streams == ("d",)
    assert "there is no channel 6: its sound has 6 channels" in str(health.reason)
    assert "?channel=5" in str(getattr(ears.source.refused, "fix", ""))


def test_a_track_that_a_sender_has_not(camera: Any, write_clip: Any) -> None:
    with listening({"a": f"{camera.uri}?track=3"}) as ears:
        sender = ffmpeg("-i", str(tones(write_clip, 2, "stereo")), "-c:a", "mp2", "-f", "mpegts", camera.uri)
        try:
            ears.wait(lambda: ears.ends)
        finally:
            sender.kill()
            sender.wait()
        assert "has no audio track 3, but 1" in str(ears.ends["a"])
        assert "has no audio track 3" in str(ears.source.health().reason)
        assert getattr(ears.source.refused, "fix", None) == "use ?track=0"


@pytest.mark.usefixtures("camera")
@pytest.mark.parametrize("layout", ["FL+FL+FL", "FR+FL+FC"])
def test_channels_in_an_order_of_their_own(layout: str, tmp_path: Path) -> None:
    """MOV says it of each channel; what frees such a list twice ends the process, so another one looks."""
    sound = ("-f", "lavfi", "-i", f"aevalsrc=0.1|0.25|0.4:s={RATE_HZ}:d=1:c={layout}", "-c:a", "pcm_f32le")
    assert ffmpeg(*sound, str(tmp_path / "own.mov")).wait(60) == 0
    script = (
        "import sys, numpy, threading; from mmedge.capture.channels import Choice;"
        "from mmedge.capture.media import MediaSource\n"
        "for _ in range(3):\n"
        "    choices = {'all': Choice(), 'one': Choice(channels=(0,))}; ends = threading.Semaphore(0); heard = {}\n"
        f"    rates = dict.fromkeys(choices, {RATE_HZ})\n"
        "    source = MediaSource(sys.argv[1], sounds=rates, choices=choices, realtime=False)\n"
        "    source.start(lambda p: heard.setdefault(p.stream, []).append(p.samples) if hasattr(p, 'samples')"
        " else ends.release())\n"
        "    [ends.acquire(timeout=60) for _ in choices]; source.stop()\n"
        "    print(*(round(float(numpy.concatenate(heard[name]).mean()), 6) for name in choices))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path / "own.mov")], capture_output=True, check=False)
    assert (child.returncode, child.stdout.split()) == (0, [b"0.25", b"0.1"] * 3), child.stderr
