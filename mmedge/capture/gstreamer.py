"""Any GStreamer pipeline, a Jetson's cameras among them, through a ``gst_launch`` child that writes NV12 to a pipe."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np

from mmedge.capture.base import Emit, ThreadSource, log
from mmedge.capture.kinds import KINDS
from mmedge.capture.nvmm import Chain, chain
from mmedge.capture.picture import PictureTrack
from mmedge.capture.uri import Uri
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, MissingDependencyError, SourceError
from mmedge.types import ClockQuality, Description

_LAUNCH = Path(__file__).with_name("gst_launch.py")
_OUT = "fdsink name=mmedge-out fd=1 sync=false"
_START_NS = 1_000_000_000  # in which gst-launch reports a bad pipeline
_OLDEST_NS = 1_000_000_000  # a live picture is not on its way for longer
_UNKNOWN_PERIOD_NS = 33_333_333  # 30 fps
# The pipe carries no description, so the caps leave no choice: GStreamer converts what is another.
_COLORIMETRY, _DESCRIPTION = "bt601", Description(matrix="bt601", full_range=False)


def pipeline(uri: Uri, has: Callable[[str], bool] | None = None) -> Chain:
    """Return the pipeline of an address, up to and with ``fdsink``.

    Args:
        uri: Parsed address: ``gst``, ``csi``, or ``v4l2`` where the board's hardware decodes.
        has: Whether there is an element of a name; by default the installed GStreamer is asked.

    Raises:
        ConfigError: If the size of the frames is not known or cannot be packed without gaps.
        DeviceError: If an element is missing that the board's hardware is used by.

    Example:
        >>> from mmedge.capture.uri import parse
        >>> pipeline(parse("gst:videotestsrc?width=320&height=240")).width
        320
    """
    found = _written(uri) if uri.kind == "gst" else chain(uri, has or has_element)
    if found.width % 4 or found.height % 2:  # GStreamer pads other rows, and the pipe would carry the padding
        raise ConfigError(
            f"frames of {found.width}x{found.height} are not supported",
            where=f"{uri.kind}:{uri.target}",
            fix="use a width that is a multiple of 4 and an even height",
        )
    size = f"width={found.width},height={found.height}"
    caps = f"video/x-raw,format=NV12,{size},pixel-aspect-ratio=1/1,colorimetry={_COLORIMETRY}"
    return found._replace(text=f"{found.text} ! {caps} ! {_OUT}")


def _written(uri: Uri) -> Chain:
    source, fps = uri.reveal(), uri.number("fps")
    width = uri.number("width") or _last_number("width", source)
    height = uri.number("height") or _last_number("height", source)
    if width is None or height is None:
        raise ConfigError(
            "the size of the pipeline's frames is unknown",
            where=f"gst:{uri.target}",
            fix="add it: 'gst:PIPELINE?width=640&height=480', or caps with width= and height= in the pipeline",
        )
    if fps is not None:
        source += f" ! videorate ! video/x-raw,framerate={fps}/1"
    return Chain(f"{source} ! videoconvert ! videoscale", width, height, fps)


def _last_number(name: str, text: str) -> int | None:
    found = re.findall(rf"\b{name}\s*=\s*(?:\(int\)\s*)?(\d+)", text)
    return int(found[-1]) if found else None


class GStreamerSource(ThreadSource):
    """Reads NV12 frames that a GStreamer child process writes; it gets the pipeline through its standard input.

    Each frame comes with the time that GStreamer gave it (quality B). Where that cannot be of a live picture, its
    capture time is its arrival less one frame period (quality C).

    Args:
        uri: Parsed address of kind ``csi`` or ``gst``, or ``v4l2`` where the board's hardware decodes.
        images: Names of the inputs that take its pictures.

    Raises:
        MissingDependencyError: If GStreamer is not installed.
        DeviceError: If an element is missing that the board's hardware is used by.
        ConfigError: If the pipeline's frame size is not known.
    """

    def __init__(self, uri: Uri, *, images: tuple[str, ...]) -> None:
        super().__init__(images, name=f"{uri.kind}:{uri.target}", live=True)
        if shutil.which("gst-launch-1.0") is None:
            raise MissingDependencyError(
                f"{uri.kind}: sources need GStreamer (gst-launch-1.0), which is not installed",
                where=self.name,
                fix="apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base",
            )
        found = pipeline(uri)
        if found.by:
            log.info("%s: read and converted by %s", self.name, found.by)
        self._width, self._height = found.width, found.height
        self.nominal_hz = {} if found.fps is None else dict.fromkeys(images, float(found.fps))
        self._period_ns = _UNKNOWN_PERIOD_NS if found.fps is None else 1_000_000_000 // found.fps
        self._words = _split(found.text, self.name)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self, emit: Emit) -> None:
        """Start to read; returns when the first frame is there, the pipeline has ended, or a second is over.

        Raises:
            SourceError: If it ended at once: a pipeline that cannot run is an error of the start.
        """
        super().start(emit)
        deadline_ns = now_ns() + _START_NS
        while self._state == "MISSING" and self.error is None and not self._ended and now_ns() < deadline_ns:
            time.sleep(0.01)
        if self.error is not None and self._state == "MISSING" and not self.counters["frames"]:
            raise self.error

    def _close_impl(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.terminate()  # its end of the pipe closes, which wakes the reader

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        with tempfile.TemporaryFile() as messages:
            with self._lock:
                if stop.is_set():
                    return
                # A pipeline that hangs would outlive a reader that is killed: the kernel ends it then.
                setpriv = shutil.which("setpriv")
                guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
                self._child = subprocess.Popen(
                    [*guard, sys.executable, "-I", "-S", str(_LAUNCH)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    bufsize=0,
                )
            child = self._child
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                with suppress(BrokenPipeError), child.stdin as words:  # it was ended meanwhile
                    words.write(json.dumps(self._words).encode())
                self._frames(child.stdout, emit, stop)
                child.stdout.close()  # a child that still writes gets SIGPIPE
                code = child.wait(5)
            finally:
                child.kill()
                child.wait()
            if code == 0 and not stop.is_set():  # with a reason: of a camera, it is not the end of what was wanted
                for name in self.streams:
                    self.end(emit, name, "the GStreamer pipeline has ended")
            if code != 0 and not stop.is_set():
                messages.seek(0)
                said = messages.read()[-2000:].decode(errors="replace").strip()
                raise SourceError(
                    f"the GStreamer pipeline failed (exit code {code}): {said}",
                    where=self.name,
                    fix="try the same pipeline in a shell, with gst-launch-1.0",
                )

    def _frames(self, pipe: IO[bytes], emit: Emit, stop: threading.Event) -> None:
        shape = (self._height * 3 // 2, self._width)
        tracks = {name: PictureTrack(live=True, slots=lambda: self.slots) for name in self.streams}
        watch, unwanted, stamp = tracks[self.streams[0]], np.empty(shape, np.uint8), bytearray(8)
        clock = _Stamps(self._period_ns)
        while not stop.is_set() and _fill(pipe, memoryview(stamp)):
            lent = {name: loan for name, track in tracks.items() if (loan := track.slot(shape, stop)) is not None}
            picture = next(iter(lent.values()))[0] if lent else unwanted
            if not _fill(pipe, picture.data.cast("B")):
                for _, release in lent.values():
                    release()
                return
            arrive_ns = now_ns()
            self.counters["dropped_frames"] += len(tracks) - len(lent)
            before = clock.quality
            capture_ns, uncertainty_ns = clock.capture(int.from_bytes(stamp, sys.byteorder), arrive_ns)
            if before == "B" and clock.quality == "C":
                log.warning("%s: its time stamps are of no live picture; a new epoch starts", self.name)
                self.counters["clock_jumps"] += 1
                self.new_epoch()
            unchanged_ns = watch.unchanged_ns(picture[: self._height], capture_ns)
            for name, (slot, release) in lent.items():
                if slot is not picture:
                    slot[...] = picture
                emit(
                    self.frame(
                        name,
                        slot,
                        release,
                        format="nv12",
                        size=(self._width, self._height),
                        capture_ns=capture_ns,
                        arrive_ns=arrive_ns,
                        uncertainty_ns=uncertainty_ns,
                        unchanged_ns=unchanged_ns,
                        quality=clock.quality,
                        description=_DESCRIPTION,
                    )
                )


class _Stamps:
    """Judges the times that GStreamer gives to frames; the first one that cannot be right ends the trust in them."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns, self._last_ns = period_ns, 0
        self.quality: ClockQuality = "B"

    def capture(self, stamp_ns: int, arrive_ns: int) -> tuple[int, int]:
        """Return (capture_ns, uncertainty_ns) of a frame; ``stamp_ns`` is 0 if it has none."""
        if not 0 <= arrive_ns - stamp_ns < _OLDEST_NS or stamp_ns < self._last_ns:
            self.quality = "C"
        if self.quality == "C":
            return arrive_ns - self._period_ns, 2 * self._period_ns
        self._last_ns = stamp_ns
        return stamp_ns, KINDS["gst"].constant_ns["B"]


@cache
def has_element(name: str) -> bool:
    """Return whether the installed GStreamer has an element of this name."""
    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None:
        return False
    return subprocess.run([inspect, name], capture_output=True, timeout=30, check=False).returncode == 0


def _fill(pipe: IO[bytes], view: memoryview) -> bool:
    """Read until ``view`` is full; False at the end of the stream."""
    filled = 0
    while filled < len(view):
        count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            return False
        filled += count
    return True


def _split(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            f"the pipeline cannot be split into words: {error}", where=name, fix="close its quotes"
        ) from error
