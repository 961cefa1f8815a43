"""Cameras of the kernel (V4L2) by OpenCV: BGR frames with the kernel's own time where it can be trusted."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import msgspec

from mmedge.capture.base import Emit, ThreadSource, log
from mmedge.capture.kinds import KINDS
from mmedge.capture.picture import PictureTrack
from mmedge.capture.uri import Uri
from mmedge.capture.v4l2_colours import driver_colours
from mmedge.clock import ClockReport, StreamClock, now_ns
from mmedge.errors import DeviceError, MmedgeError, SourceError
from mmedge.extras import require
from mmedge.types import ClockQuality

_MAX_AGE_NS = 1_000_000_000  # a driver's stamp that is older, or in the future, is of another clock
_TRUSTED = 60  # frames of class A after which their delay is known
_BUFFERED_NS = 1_000_000  # a read that returns sooner gave what had been waiting
_DEEPEST = 10  # more buffers OpenCV never asks for
_FLOOR_NS: dict[ClockQuality, int] = {**KINDS["v4l2"].constant_ns, "C": 40_000_000}


class CameraClock:
    """Turns the stamp of a grabbed frame into its capture time.

    ``A``: the stamp is a recent time on CLOCK_MONOTONIC. ``B``: it rises, so its offset is learnt.
    ``C``: there is none, and the time of arrival is all that is known.

    Attributes:
        quality: Class of the latest frame.
        broken: The time of the latest stamp has jumped: a new epoch must begin.
    """

    def __init__(self) -> None:
        self.quality: ClockQuality = "C"
        self.broken = False
        self._learnt = StreamClock(floor_ns=_FLOOR_NS["B"])
        self._before_ns = self._trusted = self._delay_ns = 0

    def capture(self, stamp_ns: int, arrive_ns: int) -> tuple[int, int, ClockQuality]:
        """Return (capture_ns, uncertainty_ns, quality) of a frame; ``stamp_ns`` is 0 if there is none."""
        self.broken = False
        if stamp_ns in (0, self._before_ns):
            return arrive_ns, _FLOOR_NS["C"], "C"
        if stamp_ns < self._before_ns:
            self._learnt.restart()
        jump_ns = self._learnt.observe(stamp_ns, arrive_ns)
        quality: ClockQuality = "A" if 0 <= arrive_ns - stamp_ns < _MAX_AGE_NS else "B"
        if self._before_ns:
            learnt_anew = quality == "B" and (jump_ns != 0 or stamp_ns < self._before_ns)
            self.broken = learnt_anew or (quality != self.quality)
        self._before_ns, self.quality = stamp_ns, quality
        if quality == "B":
            return self._learnt.to_monotonic(stamp_ns) - self._delay_ns, self._learnt.uncertainty_ns, "B"
        self._trusted += 1
        if self._trusted >= _TRUSTED:
            self._delay_ns = max(0, self._learnt.offset_ns)  # what a learnt offset holds besides, should A be lost
        return stamp_ns, _FLOOR_NS["A"], "A"

    def report(self) -> ClockReport:
        """Return the present state for a health report."""
        report = self._learnt.report(self.quality)
        return (
            report if self.quality == "B" else msgspec.structs.replace(report, uncertainty_ns=_FLOOR_NS[self.quality])
        )


class Backlog:
    """Tells frames that a driver had buffered before anybody read: they are handed over at once.

    Example:
        >>> backlog = Backlog()
        >>> [backlog.holds(waited_ns) for waited_ns in (20_000, 30_000, 25_000_000, 20_000)]
        [True, True, False, False]
    """

    def __init__(self) -> None:
        self._left = _DEEPEST

    def holds(self, waited_ns: int) -> bool:
        """Return whether the frame that was waited for so long is an old one; the first fresh one ends it."""
        fresh = waited_ns >= _BUFFERED_NS or not self._left
        self._left = 0 if fresh else self._left - 1
        return not fresh


def open_camera(cv2: Any, uri: Uri) -> Any:
    """Open a V4L2 device and set what the address asks for.

    Args:
        cv2: The module.
        uri: Parsed address of kind ``v4l2``.

    Returns:
        The ``cv2.VideoCapture``; release it.

    Raises:
        DeviceError: If the device is missing, is not a camera, or refuses the requested format.
    """
    _check_device(uri)
    capture = cv2.VideoCapture(uri.target, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DeviceError(
            f"camera '{uri.target}' cannot be opened",
            where=uri.target,
            fix="close the program that uses it, check the group 'video', or choose another: mmedge devices",
        )
    if "fourcc" in uri.params:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*uri.params["fourcc"]))
    wanted = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "fps": cv2.CAP_PROP_FPS}
    for name, prop in wanted.items():
        value = uri.number(name)
        if value is not None:
            capture.set(prop, value)
    for name in ("width", "height"):  # a camera gives the nearest size it has: not what was asked for
        value, given = uri.number(name), int(capture.get(wanted[name]))
        if value is not None and given != value:
            capture.release()
            raise DeviceError(
                f"camera '{uri.target}' does not offer {name} {value}; the nearest it has is {given}",
                where=uri.target,
                fix=f"list its formats with: v4l2-ctl -d {uri.target} --list-formats-ext",
            )
    return capture


def _check_device(uri: Uri) -> None:
    path = Path(uri.target)
    if not path.exists() or not stat.S_ISCHR(path.stat().st_mode):
        what = "is not a camera device" if path.exists() else "is not there"
        raise DeviceError(f"camera '{uri.target}' {what}", where=uri.target, fix="run `mmedge devices` to list devices")


def hardware_reads(uri: Uri) -> bool:
    """Return whether the board's hardware is to decode a camera's pictures, as ``decode`` in its address says.

    ``auto`` is said in the log: by what they are decoded, or why by OpenCV on the CPU.

    Args:
        uri: Parsed address of kind ``v4l2``.

    Raises:
        DeviceError: If the device is missing or is not a camera.
    """
    decode = uri.params.get("decode", "cpu")
    if decode == "cpu":
        return False
    _check_device(uri)
    if decode == "auto":
        from mmedge.capture.gstreamer import pipeline  # decode=cpu needs none of it

        try:
            pipeline(uri)
        except MmedgeError as error:
            log.info("%s: decoded by OpenCV on the CPU: %s", uri.target, error.message)
            return False
    return True


class CameraSource(ThreadSource):
    """Reads a V4L2 camera.

    Args:
        uri: Parsed address of kind ``v4l2``; ``width``, ``height``, ``fps`` and ``fourcc`` are asked for.
        images: Names of the inputs that take its pictures.

    Raises:
        DeviceError: If the device is missing, is not a camera, or refuses the requested format.
        MissingDependencyError: If OpenCV is not installed.
    """

    def __init__(self, uri: Uri, *, images: tuple[str, ...]) -> None:
        super().__init__(images, name=uri.target, live=True)
        self._cv2: Any = require("cv2", "reading a camera")
        self._capture = open_camera(self._cv2, uri)
        fps = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.nominal_hz = dict.fromkeys(images, fps) if fps > 0 else {}
        self._clock = CameraClock()
        colours = driver_colours(uri.target)
        if colours is not None:
            self.warn(
                "matrix",
                SourceError(
                    f"its driver says that its colours are {colours}; OpenCV takes them for BT.601 of limited range",
                    where=self.name,
                    fix="ask for MJPEG, which says its own: add fourcc=MJPG to the address",
                ),
            )

    def _clock_reports(self) -> dict[str, ClockReport]:
        return dict.fromkeys(self.streams, self._clock.report())

    def _close_impl(self) -> None:
        if self._thread is None:  # a running reader releases the camera itself
            self._capture.release()

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        capture, msec = self._capture, self._cv2.CAP_PROP_POS_MSEC
        tracks = {name: PictureTrack(live=True, slots=lambda: self.slots) for name in self.streams}
        watch, clock = tracks[self.streams[0]], self._clock
        shape = (int(capture.get(self._cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(self._cv2.CAP_PROP_FRAME_WIDTH)), 3)
        last_ns = 0
        backlog = Backlog()
        try:
            while not stop.is_set():
                began_ns = now_ns()
                if not capture.grab():
                    raise SourceError(
                        f"camera '{self.name}' stopped sending pictures",
                        where=self.name,
                        fix="check its cable: mmedge devices",
                    )
                arrive_ns = now_ns()
                if backlog.holds(arrive_ns - began_ns):
                    self.counters["flushed_frames"] += 1
                    continue
                capture_ns, uncertainty_ns, quality = clock.capture(round(capture.get(msec) * 1e6), arrive_ns)
                if clock.broken:
                    log.warning("%s: its time stamps jumped; a new epoch starts", self.name)
                    self.counters["clock_jumps"] += 1
                    self.new_epoch()
                    last_ns = 0
                last_ns = capture_ns = max(capture_ns, last_ns)
                lent = {name: loan for name, track in tracks.items() if (loan := track.slot(shape, stop)) is not None}
                self.counters["dropped_frames"] += len(tracks) - len(lent)
                if not lent:
                    continue
                _, picture = capture.retrieve(next(iter(lent.values()))[0])
                if picture is None or picture.shape != shape:
                    for _, release in lent.values():
                        release()
                    got = "nothing" if picture is None else picture.shape
                    raise SourceError(
                        f"camera '{self.name}' gave {got}, expected {shape}",
                        where=self.name,
                        fix="set width and height in its address",
                    )
                unchanged_ns = watch.unchanged_ns(picture, capture_ns)
                for name, (slot, release) in lent.items():
                    # OpenCV decodes into the first slot, or anew if the type is another; a slot that was emitted keeps
                    # its picture until this thread lends it again.
                    if slot is not picture:
                        slot[...] = picture
                    emit(
                        self.frame(
                            name,
                            slot,
                            release,
                            format="bgr24",
                            size=(shape[1], shape[0]),
                            capture_ns=capture_ns,
                            arrive_ns=arrive_ns,
                            uncertainty_ns=uncertainty_ns,
                            unchanged_ns=unchanged_ns,
                            quality=quality,
                        )
                    )
        finally:
            capture.release()
