"""Pictures with what was said of them, and the sound, as a video; both at their capture times."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.errors import ConfigError, MmedgeError
from mmedge.extras import require
from mmedge.privacy import Privacy, heard, shown
from mmedge.sinks.base import Event, Run
from mmedge.types import NS_PER_S, ByteArray, FloatArray, Result

log = logging.getLogger("mmedge.sinks")
_PURPOSE = "the sink 'video'"
_SUFFIXES = (".mp4", ".mov", ".mkv")
_TICKS = 90_000  # a second
_APART_S = 0.02  # by which sound may be off its time before samples are put in or left out
_LONGEST_S = 60  # of silence that is put in at once
_LATE_S = 1.0  # that sound may lie behind the picture before it counts as missing
_AGAIN_S = 5.0  # after a failure, until a new file is begun
_CHUNK = 1024  # samples of one AAC frame


class VideoSink:
    """Writes a video that ends where the process does, however that comes: it is made of fragments of two seconds.

    A file that is there is never overwritten: the next free name, ``NAME.2.mp4``, is taken, as it is after a failure.

    Args:
        path: Where; the suffix says the format.
        image: Which image input; by default the trigger, or the first one.
        audio: Which audio input, ``none`` for no sound; by default the first one.
        overlay: Whether results are drawn on the pictures.
        privacy: What of pictures and sound is written: all (``picture``), a blurred picture without sound, or answers
            alone, on black.

    Attributes:
        wants_pictures: The run keeps its results' pictures for it.

    Raises:
        ConfigError: If no such file can be written.
        MissingDependencyError: If PyAV is not installed.
    """

    wants_pictures = True

    def __init__(
        self, path: Path, *, image: str = "", audio: str = "", overlay: bool = True, privacy: Privacy = "picture"
    ) -> None:
        self._av = require("av", _PURPOSE)
        if overlay:
            require("cv2", _PURPOSE)
        if path.suffix not in _SUFFIXES or not path.parent.is_dir():
            what = (
                "the folder does not exist"
                if path.suffix in _SUFFIXES
                else f"the file must end in {', '.join(_SUFFIXES)}"
            )
            raise ConfigError(what, where=str(path), fix="video:FILE.mp4")
        self._path, self._image, self._overlay, self._privacy = path, image, overlay, privacy
        self._audio = audio if heard(privacy) else "none"
        self._rate_hz = 0
        self._picture: ByteArray | None = None  # the last one, which stays while there is no other
        self._file: _File | None = None
        self._again_s = 0.0
        self._failure = ""
        self.files: list[Path] = []

    def begin(self, run: Run) -> None:
        """Choose the inputs.

        Raises:
            ConfigError: If the bundle has no such inputs.
        """
        seats = run.bundle.inputs
        kinds = {name: type(seat).__name__ for name, seat in seats.items()}
        images = [name for name, kind in kinds.items() if kind == "ImageInput"]
        audios = [name for name, kind in kinds.items() if kind == "AudioInput"]
        trigger = run.bundle.manifest.sync.trigger
        self._image = self._image or (trigger if trigger in images else next(iter(images), ""))
        self._audio = self._audio or next(iter(audios), "none")
        for name, known in ((self._image, images), (self._audio, [*audios, "none"])):
            if name not in known:
                raise ConfigError(f"there is no such input '{name}'", where="sink 'video'", fix=f"one of {known}")
        self._rate_hz = 0 if self._audio == "none" else seats[self._audio].sample_rate_hz

    def write(self, result: Result | Event) -> None:
        """Add a picture, and the sound since the one before.

        Raises:
            MmedgeError: If the picture is gone, or cannot be written; a new file is begun a moment later.
        """
        if isinstance(result, Event):
            raise MmedgeError("events have no pictures", where="sink 'video'", fix="leave out on=event")
        if time.monotonic() < self._again_s:
            raise MmedgeError(self._failure, where=str(self._path), fix="free space or choose another path")
        try:
            if self._file is not None:
                self._file.hear(result, self._audio)
            at_ns = result.t_ns
            if result.present.get(self._image):
                frame = result.frame(self._image)
                picture, at_ns = frame.to_rgb(), frame.capture_ns
                allowed = shown(picture, self._privacy)
                self._picture = np.zeros_like(picture) if allowed is None else allowed
            if self._picture is None:  # there was none yet
                return
            picture = result.draw(self._picture) if self._overlay else self._picture  # after it was blurred
            if self._file is None:
                self._file = self._open(picture, at_ns)
                self._file.hear(result, self._audio)
            self._file.see(picture, at_ns)
        except (OSError, self._av.FFmpegError) as error:
            self._failure = f"cannot write the video: {getattr(error, 'strerror', None) or error}"
            self._again_s = time.monotonic() + _AGAIN_S
            self._drop()
            raise MmedgeError(self._failure, where=str(self._path), fix="free space or choose another path") from error

    def _open(self, picture: ByteArray, began_ns: int) -> _File:
        path, number = self._path, 1
        while path.exists():
            number += 1
            path = self._path.with_suffix(f".{number}{self._path.suffix}")
        if number > 1:
            log.warning("sink 'video': %s is there already; writing to %s", self._path, path)
        self.files.append(path)
        return _File(self._av, path, picture, self._rate_hz, began_ns)

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError, self._av.FFmpegError):
                file.close()
        if self.files and self.files[-1].exists() and not self.files[-1].stat().st_size:
            self.files.pop().unlink()

    def report(self) -> dict[str, object]:
        """Return which file is written."""
        file = str(self.files[-1]) if self.files else None
        return {"state": "OK", "reason": None, "counters": {}, "file": file}

    def close(self) -> None:
        """Finish the file; idempotent.

        Raises:
            MmedgeError: If its end cannot be written.
        """
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
                if not self.files[-1].stat().st_size:  # the muxer's last write is the only one, and says nothing
                    raise OSError(errno.EIO, "nothing could be written")
        except (OSError, self._av.FFmpegError) as error:
            told = f"the end of the video is missing: {error}"
            raise MmedgeError(told, where=str(self._path), fix="free space") from error


class _File:
    """One file; times count from its first picture."""

    def __init__(self, av: Any, path: Path, picture: ByteArray, rate_hz: int, began_ns: int) -> None:
        self._av, self._began_ns, self._rate_hz = av, began_ns, rate_hz
        fragments = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
        self._container = av.open(str(path), "w", options={} if path.suffix == ".mkv" else fragments)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        height, width = (side // 2 * 2 or 2 for side in picture.shape[:2])
        self._video: Any = self._container.add_stream(codec, rate=30)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.codec_context.time_base = self._video.time_base = Fraction(1, _TICKS)
        self._video.codec_context.gop_size = 60
        if codec == "libx264":
            self._video.options = {"preset": "veryfast", "crf": "23", "tune": "zerolatency"}
        self._sound: Any = None
        if rate_hz:
            self._sound = self._container.add_stream("aac", rate=rate_hz, layout="mono")
        self._last_pts = -1
        self._rest: FloatArray = np.empty(0, np.float32)
        self._taken = 0  # samples, counted from the first picture
        self._encoded = 0
        self._heard: tuple[int, int] | None = None  # epoch and index after the last sample

    def see(self, picture: ByteArray, capture_ns: int) -> None:
        """Add a picture, uint8 [height, width, 3], unless it is there already."""
        pts = round((capture_ns - self._began_ns) * _TICKS / NS_PER_S)
        if pts <= self._last_pts:  # one that a later trigger used again
            return
        self._last_pts = pts
        whole = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = whole.reformat(width=self._video.width, height=self._video.height, format="yuv420p")
        frame.pts, frame.time_base = pts, Fraction(1, _TICKS)
        self._mux(self._video, frame)
        if self._sound is not None:  # without it the muxer keeps pictures in memory, to put sound between them
            silent = round((pts / _TICKS - _LATE_S) * self._rate_hz) - self._taken
            if silent > 0:
                self._append(np.zeros(min(silent, _LONGEST_S * self._rate_hz), np.float32))

    def hear(self, result: Result, name: str) -> None:
        """Add the sound from where it was left, at its time."""
        if self._sound is None or not result.present.get(name):
            return
        epoch = result.epoch.get(name, 0)
        since = self._heard[1] if self._heard is not None and self._heard[0] == epoch else None
        sound = result.sound(name, since)
        self._heard = epoch, sound.end
        samples = sound.samples
        at = round((sound.end_ns - self._began_ns) * self._rate_hz / NS_PER_S) - len(samples)
        off = at - self._taken
        if off > _APART_S * self._rate_hz:
            gap = min(off, _LONGEST_S * self._rate_hz)
            samples = np.concatenate([np.zeros(gap, np.float32), samples])
        elif off < -_APART_S * self._rate_hz or self._taken == 0:
            samples = samples[max(-off, 0) :]
        self._append(samples)

    def _append(self, samples: FloatArray) -> None:
        self._taken += len(samples)
        self._rest = np.concatenate([self._rest, samples])
        for frame in self._chunks(_CHUNK):
            self._mux(self._sound, frame)

    def _chunks(self, least: int) -> Iterator[Any]:
        while len(self._rest) >= least and len(self._rest):
            chunk, self._rest = self._rest[:_CHUNK], self._rest[_CHUNK:]
            frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk[None]), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self._rate_hz, self._encoded, Fraction(1, self._rate_hz)
            self._encoded += len(chunk)
            yield frame

    def _mux(self, stream: Any, frame: Any) -> None:
        for packet in stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is left, and the end."""
        try:
            if self._sound is not None:
                for frame in self._chunks(1):
                    self._mux(self._sound, frame)
                self._mux(self._sound, None)
            self._mux(self._video, None)
        finally:
            self._container.close()


def make(
    target: str, *, image: str = "", audio: str = "", overlay: bool = True, privacy: Privacy = "picture"
) -> VideoSink:
    """Return the sink of ``video:FILE.mp4``.

    Args:
        target: The file.
        image: Which image input.
        audio: Which audio input, or ``none``.
        overlay: Whether results are drawn on the pictures.
        privacy: What of pictures and sound is written: ``picture``, ``blur`` or ``none``.

    Raises:
        ConfigError: If no such file can be written.
        MissingDependencyError: If PyAV, or OpenCV for drawing, is not installed.
    """
    if not target:
        raise ConfigError("the sink 'video' needs a file", where="sinks", fix="video:FILE.mp4")
    return VideoSink(Path(target), image=image, audio=audio, overlay=overlay, privacy=privacy)
