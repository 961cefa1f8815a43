"""A microphone and a camera on the loopback interface: a private PulseAudio server, ffmpeg as sender."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAMS = ("pulseaudio", "pactl", "ffmpeg")
_ORDER = ("front-left", "front-right", "rear-left", "rear-right", "front-center", "lfe", "side-left", "side-right")


def missing() -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, by force if need be."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class PulseAudio:
    """A server with a null sink whose monitor is the default source; it can die and come back.

    Args:
        home: A folder of its own.
        channels: Of the sink and of the microphone; eight are mapped as ALSA orders them.

    Attributes:
        uri: The microphone's address.
        sink: Name of the sink to play into.
    """

    uri = "mic://pulse"
    sink = "mm"

    def __init__(self, home: Path, *, channels: int = 2) -> None:
        self._home = home
        self._channels = f" channels={channels} channel_map={','.join(_ORDER[:channels])}" if channels > 2 else ""
        self._server: subprocess.Popen[bytes] | None = None
        self._players: list[subprocess.Popen[bytes]] = []
        os.environ.update(PULSE_SERVER=f"unix:{home}/native", XDG_RUNTIME_DIR=str(home))

    def start(self) -> None:
        """Start the server; returns when it answers."""
        modules = (
            f"module-native-protocol-unix socket={self._home}/native auth-anonymous=1",
            f"module-null-sink sink_name={self.sink}{self._channels}",
            f"module-remap-source master={self.sink}.monitor source_name=mmmic",
        )
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-n"]
                + [word for module in modules for word in ("-L", module)],
                env={**os.environ, "HOME": str(self._home)},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "set-default-source", "mmmic"], capture_output=True, check=False).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PulseAudio did not start: {(self._home / 'log').read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        (self._home / "native").unlink(missing_ok=True)

    def play(self, clip: Path, *, loop: bool = False) -> subprocess.Popen[bytes]:
        """Play the sound of a clip into the microphone; returns at once."""
        player = ffmpeg(*_loop(loop), "-i", str(clip), "-vn", *self.output())
        self._players.append(player)
        return player

    def output(self) -> tuple[str, ...]:
        """Return ffmpeg's arguments that play into the sink with a short buffer."""
        return ("-f", "pulse", "-buffer_duration", "30", "-device", self.sink, "test")

    def close(self) -> None:
        """End everything that was started."""
        for process in [*self._players, *([self._server] if self._server is not None else [])]:
            end(process)


class Sender:
    """Sends pictures to a UDP port of the loopback interface as a network camera would.

    Attributes:
        uri: The camera's address.
    """

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.uri = f"udp://127.0.0.1:{probe.getsockname()[1]}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def send(
        self, clip: Path, *, loop: bool = False, fps: int | None = None, microphone: PulseAudio | None = None
    ) -> subprocess.Popen[bytes]:
        """Send a clip's pictures, and its sound into a microphone, at the clip's own pace; returns at once."""
        sender = ffmpeg(
            *_loop(loop),
            *("-i", str(clip), "-map", "0:v", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"),
            *(("-r", str(fps)) if fps else ()),
            # Whoever tunes in waits for a key frame: at most a second, as with real cameras.
            *("-g", "30", "-pix_fmt", "yuv420p", "-f", "mpegts", f"{self.uri}?pkt_size=1316"),
            *(("-map", "0:a", *microphone.output()) if microphone is not None else ()),
        )
        self._processes.append(sender)
        return sender

    def kill(self) -> None:
        """Kill whatever is sending."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


def _loop(loop: bool) -> tuple[str, ...]:
    return ("-stream_loop", "-1") if loop else ()


def ffmpeg(*arguments: str) -> subprocess.Popen[bytes]:
    """Start ffmpeg at real-time speed."""
    return subprocess.Popen(["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-re", *arguments])


@contextmanager
def microphone() -> Iterator[PulseAudio]:
    """Give a running private PulseAudio."""
    with TemporaryDirectory(prefix="mmedge-pulse-") as folder:
        pulse = PulseAudio(Path(folder))
        pulse.start()
        try:
            yield pulse
        finally:
            pulse.close()
