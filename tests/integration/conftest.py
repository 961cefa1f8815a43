"""Fixtures for real devices: a private PulseAudio as microphone, ffmpeg as network camera."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmedge.errors import MissingDependencyError
from mmedge.extras import require

_APT = {
    "pulseaudio": "pulseaudio",
    "pactl": "pulseaudio-utils",
    "pacat": "pulseaudio-utils",
    "ffmpeg": "ffmpeg",
    "gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-base",
}


def need(*programs: str) -> None:
    """Skip the test, with the line to type, if a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_APT[program] for program in missing))
        pytest.skip(f"{', '.join(missing)} missing; type: apt-get install {packages}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@dataclass
class Microphone:
    """A PulseAudio null sink whose monitor is the default source.

    Attributes:
        uri: What to give to ``--audio``.
        sink: Name of the sink to play into.
    """

    uri: str = "mic://pulse"
    sink: str = "mm"
    _players: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def play(self, clip: Path) -> subprocess.Popen[bytes]:
        """Play the sound of a media file into the microphone; returns at once."""
        return _start_ffmpeg(self._players, "-i", str(clip), "-vn", *pulse_output(self.sink))


@pytest.fixture
def microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Microphone]:
    """Start a private PulseAudio and let PortAudio see it."""
    need("pulseaudio", "pactl", "ffmpeg")
    home = tmp_path / "pulse"
    home.mkdir(mode=0o700)
    server = f"unix:{home}/native"
    monkeypatch.setenv("PULSE_SERVER", server)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    monkeypatch.delenv("DISPLAY", raising=False)
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-n", *_modules(home)],
            env={**os.environ, "HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    microphone = Microphone()
    try:
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "set-default-source", "mmmic"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PulseAudio did not start: {(home / 'log').read_text()}")
            time.sleep(0.05)
        _rescan()
        yield microphone
    finally:
        for player in microphone._players:
            _end(player)
        _end(daemon)


def _modules(home: Path) -> list[str]:
    modules = (
        f"module-native-protocol-unix socket={home}/native auth-anonymous=1",
        "module-null-sink sink_name=mm",
        "module-remap-source master=mm.monitor source_name=mmmic",
    )
    return [word for module in modules for word in ("-L", module)]


def _rescan() -> None:
    """Let PortAudio list devices again: it does so once, when it is loaded."""
    loaded = "sounddevice" in sys.modules
    try:
        sounddevice = require("sounddevice", "this test")
    except MissingDependencyError as error:
        pytest.skip(f"{error.message}; type: {error.fix}")
    if loaded:
        sounddevice._terminate()
        sounddevice._initialize()
    if not any(device["name"] == "pulse" for device in sounddevice.query_devices()):
        pytest.skip("PortAudio has no device 'pulse'; type: apt-get install libasound2-plugins")


@dataclass
class Camera:
    """Sends a clip as a camera on the loopback interface would.

    Attributes:
        uri: What to give to ``--image``.
    """

    uri: str
    _senders: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def send(self, clip: Path, *, microphone: Microphone | None = None) -> subprocess.Popen[bytes]:
        """Send the pictures of a clip, and its sound into a microphone, at real-time speed; returns at once."""
        sound = () if microphone is None else ("-map", "0:a", *pulse_output(microphone.sink))
        return _start_ffmpeg(
            self._senders,
            *("-i", str(clip), "-map", "0:v", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"),
            *("-pix_fmt", "yuv420p", "-f", "mpegts", f"{self.uri}?pkt_size=1316", *sound),
        )


@pytest.fixture
def camera() -> Iterator[Camera]:
    """Give a sender to a free UDP port of the loopback interface."""
    need("ffmpeg")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    camera = Camera(f"udp://127.0.0.1:{port}")
    try:
        yield camera
    finally:
        for sender in camera._senders:
            _end(sender)


def pulse_output(sink: str) -> tuple[str, ...]:
    """Return ffmpeg's arguments that play into a PulseAudio sink with a short buffer."""
    return ("-f", "pulse", "-buffer_duration", "30", "-device", sink, "test")


def _start_ffmpeg(started: list[subprocess.Popen[bytes]], *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-re", *arguments])
    started.append(process)
    return process


@pytest.fixture
def gstreamer() -> None:
    """Skip without GStreamer's programs."""
    need("gst-launch-1.0")
