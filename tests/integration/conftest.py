"""Fixtures of real devices and programs: PulseAudio as microphone, ffmpeg as network camera, a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loopback import PROGRAMS, PulseAudio, Sender
from mmedge.errors import MissingDependencyError
from mmedge.extras import require
from tests.pages import DESKTOP, Opened, chromium

_APT = {
    "pulseaudio": "pulseaudio",
    "pactl": "pulseaudio-utils",
    "pacat": "pulseaudio-utils",
    "ffmpeg": "ffmpeg",
    "strace": "strace",
    "openssl": "openssl",
    "gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-base",
}


def need(*programs: str) -> None:
    """Skip the test, with the line to type, if a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_APT[program] for program in missing))
        pytest.skip(f"{', '.join(missing)} missing; type: apt-get install {packages}")


@pytest.fixture
def microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[PulseAudio]:
    """Start a private PulseAudio, of as many channels as the test's parameter says, and let PortAudio see it."""
    need(*PROGRAMS)
    home = tmp_path / "pulse"
    home.mkdir(mode=0o700)
    for name in ("PULSE_SERVER", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "")  # set anew by PulseAudio, and put back after the test
    monkeypatch.delenv("DISPLAY", raising=False)
    pulse = PulseAudio(home, channels=getattr(request, "param", 2))
    try:
        pulse.start()
        _rescan()
        yield pulse
    finally:
        pulse.close()


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


@pytest.fixture
def camera() -> Iterator[Sender]:
    """Give a sender to a free UDP port of the loopback interface."""
    need("ffmpeg")
    sender = Sender()
    try:
        yield sender
    finally:
        sender.kill()


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with what the commands of the pages name."""
    from tests.doc_runs import make_materials

    folder = tmp_path_factory.mktemp("materials")
    make_materials(folder)
    return folder


@pytest.fixture
def gstreamer() -> None:
    """Skip without GStreamer's programs."""
    need("gst-launch-1.0")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def look(browser: Any) -> Iterator[Any]:
    """Open a page in a window of its own."""
    contexts = []

    def opened(url: str, size: dict[str, int] = DESKTOP, **options: Any) -> Opened:
        contexts.append(browser.new_context(viewport=size, **options))
        return Opened(contexts[-1].new_page(), url)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """Return where a pipeline may listen for programs."""
    return tmp_path / "door"
