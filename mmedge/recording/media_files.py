"""The media files of a recording: pictures and sound in Matroska, arrays as they are. Written and read in order.

Pictures are H.264 without loss (``libx264 -qp 0``): of what Matroska can hold it costs the least time by far. The
files' own times are there for players and to find a picture again; what counts is in the event log.
"""

from __future__ import annotations

import os
import zlib
from fractions import Fraction
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.capture.description import FFMPEG_MATRICES, FFMPEG_TRANSFERS
from mmedge.capture.picture import frame_shape
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.files import private_file
from mmedge.recording.event_log import BlockEvent, FrameEvent, TensorEvent, write_all
from mmedge.recording.frames import CODEC, pack, unpacked, without_unused
from mmedge.recording.matroska import PURPOSE, MatroskaFrames
from mmedge.recording.reused import PictureMemory
from mmedge.types import AnyArray, ByteArray, Description, FloatArray, PixelFormat, Slot, Video

# A cluster is on the disk once the next one begins: so much is lost when the recorder is killed.
CLUSTER_MS = 100
_MS = Fraction(1, 1000)
_MAX_STEP_MS = 60_000  # between two pictures of a file; a longer or backward step counts as 1 ms
_SEVERAL_THREADS = 1 << 20  # pixels from which one core may not keep up with a camera


class _Times:
    """Times of a media file, whole and rising ms: those of the capture clock where it is sane."""

    def __init__(self) -> None:
        self._last_ms = -1
        self._capture_ns: int | None = None

    def next(self, capture_ns: int) -> int:
        step_ms = 1 if self._capture_ns is None else round((capture_ns - self._capture_ns) / 1e6)
        self._capture_ns = capture_ns
        self._last_ms += step_ms if 1 <= step_ms <= _MAX_STEP_MS else 1
        return self._last_ms


class _Track:
    """One Matroska file with one track, being written."""

    def __init__(self, path: Path) -> None:
        av = require("av", PURPOSE)
        private_file(path).close()
        options = {"cluster_time_limit": str(CLUSTER_MS), "flush_packets": "1"}
        self.container: Any = av.open(str(path), "w", format="matroska", options=options)
        self.stream: Any = None
        self.times = _Times()

    def write(self, frame: Any) -> None:
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def close(self) -> None:
        try:
            self.write(None)
        finally:
            self.container.close()


class PictureWriter:
    """Writes one stream of pictures; a new geometry, format or description begins a new file.

    Args:
        folder: Of the recording.
        stem: How the files are named.
        video: ``lossless`` or ``visual``.
    """

    def __init__(self, folder: Path, stem: str, video: Video) -> None:
        self._folder, self._stem, self._lossless = folder, stem, video == "lossless"
        self._track: _Track | None = None
        self._kind: tuple[PixelFormat, int, int, Description | None] | None = None
        self._file = -1

    def write(self, picture: ByteArray, event: FrameEvent) -> None:
        """Append ``picture`` and note in ``event`` where it is. It is uint8, of the shape [...] that its format has."""
        kind = (event.format, event.width, event.height, event.description)
        if kind != self._kind or self._track is None:
            self.close()
            self._file += 1
            self._track = _Track(self._folder / picture_file(self._stem, self._file))
            self._kind = kind
            self._add_stream(self._track, event)
        event.file, event.at_ms = self._file, self._track.times.next(event.capture_ns)
        picture = without_unused(picture, event.format)
        event.crc = zlib.crc32(picture.data) if self._lossless else None
        frame = unpacked(picture, event)
        frame.pts, frame.time_base = event.at_ms, _MS
        frame.color_range = 2 if event.full_range else 1
        if event.description is not None:
            frame.colorspace = FFMPEG_MATRICES[event.description.matrix]
            frame.color_trc = FFMPEG_TRANSFERS[event.description.transfer]
        self._track.write(frame)

    def _add_stream(self, track: _Track, event: FrameEvent) -> None:
        codec, pixels = CODEC[event.format]
        quality = {"qp": "0"} if self._lossless else {"crf": "17"}
        stream = track.container.add_stream(
            codec, rate=30, options={"preset": "ultrafast", "tune": "zerolatency", "g": "60", **quality}
        )
        stream.width, stream.height, stream.pix_fmt = event.width, event.height, pixels
        stream.codec_context.time_base = stream.time_base = _MS
        if event.description is not None:
            _tag(stream, event)
        large = event.width * event.height >= _SEVERAL_THREADS
        stream.codec_context.thread_count = min(4, os.cpu_count() or 1) if large else 1
        track.stream = stream

    def close(self) -> None:
        """Finish the file; idempotent."""
        track, self._track = self._track, None
        if track is not None:
            track.close()


class SoundWriter:
    """Writes one stream of sound as float32 PCM.

    Args:
        folder: Of the recording.
        stem: How the file is named.
        rate_hz: Sample rate.
    """

    def __init__(self, folder: Path, stem: str, rate_hz: int) -> None:
        self._path, self._rate_hz = folder / f"{stem}.mka", rate_hz
        self._track: _Track | None = None

    def write(self, samples: FloatArray, event: BlockEvent) -> None:
        """Append ``samples`` and note in ``event`` where they are. They are float32 [n], -1..1."""
        if self._track is None:
            self._track = _Track(self._path)
            self._track.stream = self._track.container.add_stream("pcm_f32le", rate=self._rate_hz, layout="mono")
        event.at_ms = self._track.times.next(event.capture_ns)
        event.crc = zlib.crc32(samples.data)
        frame = require("av", PURPOSE).AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate, frame.time_base = self._rate_hz, Fraction(1, self._rate_hz)
        frame.pts = round(event.at_ms * self._rate_hz / 1000)
        self._track.write(frame)

    def close(self) -> None:
        """Finish the file; idempotent."""
        track, self._track = self._track, None
        if track is not None:
            track.close()


class TensorWriter:
    """Appends one stream of arrays to a file of their bytes.

    Args:
        folder: Of the recording.
        stem: How the file is named.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._path = folder / f"{stem}.bin"
        self._file: FileIO | None = None
        self._at = 0

    def write(self, data: AnyArray, event: TensorEvent) -> None:
        """Append ``data`` and note in ``event`` where it is. It has any shape and dtype of numbers."""
        if self._file is None:
            self._file = private_file(self._path)
        event.at, event.crc = self._at, zlib.crc32(data.data)
        self._at += data.nbytes
        write_all(self._file, data.tobytes())

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            self._file.close()


def picture_file(stem: str, number: int) -> str:
    """Return the name of a stream's media file number ``number``."""
    return f"{stem}.{number}.mkv"


class MediaReader:
    """Reads the media of one stream back, in the order of the log.

    Args:
        folder: Of the recording.
        stem: How its files are named.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._path = folder / f"{stem}.mka"
        self._frames: MatroskaFrames | None = None
        self._file: int | None = None
        self._bin: Any = None
        self._memory = PictureMemory()

    def picture(self, event: FrameEvent) -> tuple[ByteArray, Slot]:
        """Return the picture of ``event``, which was written, and what gives its memory back; yours until then.

        It is uint8, of the shape [...] that its format has.

        Raises:
            SourceError: If it is not there, or damaged.
        """
        assert event.at_ms is not None
        if self._frames is None or self._file != event.file:
            self.close()
            self._path = self._folder / picture_file(self._stem, event.file)
            self._frames, self._file = MatroskaFrames(self._path, "video"), event.file
        path, frame = self._path, self._frames.at(event.at_ms)
        if (frame.width, frame.height) != (event.width, event.height):
            raise SourceError("the pictures in the media file have another size", where=str(path), fix="record again")
        picture, release = self._memory.lend(frame_shape(event.format, event.height, event.width))
        pack(frame, event.format, picture)
        self._check(picture, event.crc, path)
        return picture, release

    def sound(self, event: BlockEvent) -> FloatArray:
        """Return the samples of ``event``; yours.

        They are float32 [n], -1..1.

        Raises:
            SourceError: If they are not there, or damaged.
        """
        if not event.samples:
            return np.empty(0, np.float32)
        if event.at_ms is None:
            raise self._missing("sound", event)
        if self._frames is None:
            self._frames = MatroskaFrames(self._path, "audio")
        samples = _mono(self._frames.at(event.at_ms))
        if len(samples) != event.samples:
            fix = "replay the part that is there"
            raise SourceError("a block of sound is incomplete", where=str(self._path), fix=fix)
        self._check(samples, event.crc, self._path)
        return samples

    def tensor(self, event: TensorEvent) -> AnyArray:
        """Return the array of ``event``; yours.

        It has the recorded shape [...] and dtype.

        Raises:
            SourceError: If it is not there, or damaged.
        """
        if event.at is None:
            raise self._missing("array", event)
        path = self._folder / f"{self._stem}.bin"
        size = prod(event.shape) * np.dtype(event.dtype).itemsize
        try:
            if self._bin is None:
                self._bin = path.open("rb")
            self._bin.seek(event.at)
            raw = self._bin.read(size) if size <= path.stat().st_size else b""
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}", where=str(path), fix="check the folder") from error
        if len(raw) != size:
            raise SourceError(f"'{path.name}' ends too early", where=str(path), fix="replay the part that is there")
        array: AnyArray = np.frombuffer(raw, event.dtype).reshape(event.shape).copy()
        self._check(array, event.crc, path)
        return array

    def _missing(self, what: str, event: BlockEvent | TensorEvent) -> SourceError:
        return SourceError(
            f"{what} {event.seq} of '{event.stream}' was not recorded, the disk was too slow",
            where=str(self._folder),
            fix="record to a faster disk, or with --video visual",
        )

    def _check(self, data: AnyArray, crc: int | None, path: Path) -> None:
        if crc is not None and zlib.crc32(data.data) != crc:
            raise SourceError(f"'{path.name}' is damaged", where=str(path), fix="copy the recording again")

    def close(self) -> None:
        """Close the files; idempotent."""
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.close()
        if self._bin is not None:
            self._bin.close()
            self._bin = None


def _mono(frame: Any) -> FloatArray:
    """Return the samples of a decoded block, float32 [n], -1..1; a copy."""
    if frame.format.name == "flt" and frame.layout.nb_channels == 1:  # as they were written
        samples: FloatArray = np.frombuffer(frame.planes[0], np.float32, frame.samples).copy()
        return samples
    return np.ascontiguousarray(frame.to_ndarray()[0], np.float32)


def _tag(stream: Any, event: FrameEvent) -> None:
    """Say in the file what players need; a replay reads it in the log."""
    said, context = event.described, stream.codec_context
    context.sample_aspect_ratio = Fraction(*said.pixel_aspect)
    context.color_range = 2 if said.full_range else 1
    if event.format not in ("gray8", "rgb24", "bgr24"):
        context.colorspace = FFMPEG_MATRICES[said.matrix]
        context.color_trc = FFMPEG_TRANSFERS[said.transfer]
    if said.rotation or said.mirrored:
        stream.set_display_rotation(-said.rotation, hflip=said.mirrored)
