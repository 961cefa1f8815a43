"""Jetson's CSI cameras and any GStreamer pipeline, through a ``gst_launch`` child that writes NV12 to a pipe."""

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
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from mmedge.capture.base import Emit, ThreadSource
from mmedge.capture.picture import PictureTrack
from mmedge.capture.uri import Uri
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError, SourceError
from mmedge.types import Description

_CSI_SIZE = (1280, 720)
_CSI_FPS = 30
_LAUNCH = Path(__file__).with_name("gst_launch.py")
_START_NS = 1_000_000_000  # in which gst-launch reports a bad pipeline
_UNKNOWN_PERIOD_NS = 33_333_333  # 30 fps
# The pipe carries no description, so the caps leave no choice: GStreamer converts what is another.
_COLORIMETRY, _DESCRIPTION = "bt601", Description(matrix="bt601", full_range=False)


def pipeline_text(uri: Uri) -> tuple[str, int, int]:
    """Return the pipeline of a ``csi`` or ``gst`` address, up to and with ``fdsink``, and its frames' size.

    Args:
        uri: Parsed address.

    Returns:
        (pipeline, width, height).

    Raises:
        ConfigError: If the size of the frames is not known or cannot be packed without gaps.

    Example:
        >>> from mmedge.capture.uri import parse
        >>> pipeline_text(parse("gst:videotestsrc?width=320&height=240"))[1:]
        (320, 240)
    """
    width, height = uri.number("width"), uri.number("height")
    if uri.kind == "csi":
        width, height = width or _CSI_SIZE[0], height or _CSI_SIZE[1]
        rate = f"{uri.number('fps') or _CSI_FPS}/1"
        size = f"width={width},height={height}"
        source = (
            f"nvarguscamerasrc sensor-id={uri.target}"
            f" ! video/x-raw(memory:NVMM),{size},framerate={rate},format=NV12 ! nvvidconv"
            f" ! video/x-raw,format=NV12,{size} ! videoconvert"
        )
    else:
        source = uri.reveal()
        width = width or _last_number("width", source)
        height = height or _last_number("height", source)
        if width is None or height is None:
            raise ConfigError(
                "the size of the pipeline's frames is unknown",
                where=f"gst:{uri.target}",
                fix="add it: 'gst:PIPELINE?width=640&height=480', or caps with width= and height= in the pipeline",
            )
        size = f"width={width},height={height}"
        if "fps" in uri.params:
            source += f" ! videorate ! video/x-raw,framerate={uri.number('fps')}/1"
        source += " ! videoconvert ! videoscale"
    if width % 4 or height % 2:  # GStreamer pads other rows, and the pipe would carry the padding
        raise ConfigError(
            f"frames of {width}x{height} are not supported",
            where=f"{uri.kind}:{uri.target}",
            fix="use a width that is a multiple of 4 and an even height",
        )
    caps = f"video/x-raw,format=NV12,{size},pixel-aspect-ratio=1/1,colorimetry={_COLORIMETRY}"
    return f"{source} ! {caps} ! fdsink fd=1 sync=false", width, height


def _last_number(name: str, text: str) -> int | None:
    found = re.findall(rf"\b{name}\s*=\s*(?:\(int\)\s*)?(\d+)", text)
    return int(found[-1]) if found else None


class GStreamerSource(ThreadSource):
    """Reads NV12 frames that a GStreamer child process writes; it gets the pipeline through its standard input.

    The pipe carries no times, so a frame's capture time is its arrival less one frame period (quality C).

    Args:
        uri: Parsed address of kind ``csi`` or ``gst``.
        images: Names of the inputs that take its pictures.

    Raises:
        MissingDependencyError: If GStreamer is not installed.
        DeviceError: If a CSI camera is asked for where there can be none.
        ConfigError: If the pipeline's frame size is not known.
    """

    def __init__(self, uri: Uri, *, images: tuple[str, ...]) -> None:
        super().__init__(images, name=f"{uri.kind}:{uri.target}", live=True)
        pipeline, self._width, self._height = pipeline_text(uri)
        fps = uri.number("fps") or (_CSI_FPS if uri.kind == "csi" else None)
        self.nominal_hz = {} if fps is None else dict.fromkeys(images, float(fps))
        self._period_ns = _UNKNOWN_PERIOD_NS if fps is None else 1_000_000_000 // fps
        if shutil.which("gst-launch-1.0") is None:
            raise MissingDependencyError(
                f"{uri.kind}: sources need GStreamer (gst-launch-1.0), which is not installed",
                where=self.name,
                fix="apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base",
            )
        if uri.kind == "csi" and not has_element("nvarguscamerasrc"):
            raise DeviceError(
                f"CSI camera {uri.target} cannot be read: GStreamer has no element 'nvarguscamerasrc' (a part of"
                " NVIDIA's JetPack)",
                where=f"csi://{uri.target}",
                fix="run on a Jetson, or use another camera: run `mmedge devices` to list devices",
            )
        self._words = _split(pipeline, self.name)
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
        watch, unwanted = tracks[self.streams[0]], np.empty(shape, np.uint8)
        while not stop.is_set():
            lent = {name: loan for name, track in tracks.items() if (loan := track.slot(shape, stop)) is not None}
            picture = next(iter(lent.values()))[0] if lent else unwanted
            if not _fill(pipe, picture.data.cast("B")):
                for _, release in lent.values():
                    release()
                return
            arrive_ns = now_ns()
            self.counters["dropped_frames"] += len(tracks) - len(lent)
            capture_ns = arrive_ns - self._period_ns
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
                        uncertainty_ns=2 * self._period_ns,
                        unchanged_ns=unchanged_ns,
                        quality="C",
                        description=_DESCRIPTION,
                    )
                )


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


def _split(pipeline: str, name: str) -> list[str]:
    try:
        return shlex.split(pipeline)
    except ValueError as error:
        raise ConfigError(
            f"the pipeline cannot be split into words: {error}", where=name, fix="close its quotes"
        ) from error
