"""A program's side of a pipeline that it attaches to, in Python."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.capture.picture import frame_shape
from mmedge.clients.wire import DTYPES, MAX_PUSH
from mmedge.errors import ConfigError, DeviceError, FrameExpiredError
from mmedge.learn import learn
from mmedge.types import AnyArray, Description, Frame, PixelFormat, Result

_NUMBERS = {name: number for number, name in DTYPES.items()}
_OK, _FULL, _REFUSED, _INVALID = 0, 5, 6, 7  # mmedge_status


def attach(path: str | Path) -> Attached:
    """Attach to a pipeline that runs with ``attach=path``, or ``mmedge run ... --attach PATH``.

    Raises:
        ConfigError: If a socket cannot have that path.
        DeviceError: If none listens there, or it is another user's.

    Example:
        >>> with mmedge.attach("/run/mmedge/door.sock") as pipe:  # doctest: +SKIP
        ...     for result in pipe:
        ...         print(result.tasks["digit"], result.frame("image").to_rgb().mean())
    """
    return Attached(path)


class Attached:
    """A pipeline of another process: its results, pictures out of its memory, and a way in for data of one's own.

    It loses its own oldest results if it reads slowly (64 wait), and never holds the pipeline up. One thread uses it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        try:
            self._client = core.AttachClient(self._path)
        except OSError as error:
            what = error.args[-1] if error.args else str(error)
            fix = "start the pipeline with --attach PATH (attach=PATH in Python), as this user"
            raise DeviceError(f"no pipeline to attach to: {what}", where=self._path, fix=fix) from error
        except (ValueError, TypeError) as error:  # too long, a NUL in it, not UTF-8
            what = "a socket has a path of 1 to 107 bytes of UTF-8"
            raise ConfigError(what, where=ascii(self._path), fix="give the run another one with --attach") from error
        self._left = False
        self._decoder: msgspec.json.Decoder[Result] = msgspec.json.Decoder(learn(Result))

    def __iter__(self) -> Iterator[Result]:
        """Yield results in order until the run ends; raises as ``results`` does."""
        return self.results()

    def results(self, deadline_s: float | None = None) -> Iterator[Result]:
        """Yield results in order until the run ends, or until ``deadline_s`` on ``time.monotonic``.

        A result's ``frame`` works for a moment, as in the pipeline itself; it has no sound, and its description says
        nothing of HDR and interlacing.

        Raises:
            DeviceError: If the run has ended by an error, or its process has died.
        """
        while True:
            left_ms = -1 if deadline_s is None else max(0, round(1000 * (deadline_s - time.monotonic())))
            try:
                found = self._client.next(left_ms)
            except EOFError:
                return
            except OSError as error:
                what = str(error.args[-1] if error.args else error)
                raise DeviceError(what, where=self._path, fix="see what the pipeline said") from error
            if found is None:
                return
            line, pictures = found
            result = self._decoder.decode(line)
            copies = {picture[0]: partial(self._copy, *picture) for picture in pictures}
            yield result.attach(copies, from_ns=result.t_ns)

    def _copy(
        self,
        name: str,
        ring: int,
        slot: int,
        seq: int,
        size: int,
        format: PixelFormat,
        matrix: str,
        width: int,
        height: int,
        capture_ns: int,
        uncertainty_ns: int,
        rotation: int,
        mirrored: int,
        full_range: int,
        pixel_aspect: tuple[int, int],
    ) -> Frame:
        data = np.empty(size, np.uint8)
        if self._left or not self._client.copy(ring, slot, seq, data):
            raise FrameExpiredError("the picture is gone", where=f"input '{name}'", fix="copy it as its result arrives")
        said = {"matrix": matrix, "rotation": rotation, "mirrored": bool(mirrored), "full_range": bool(full_range)}
        said["pixel_aspect"] = pixel_aspect
        return Frame(
            data=data.reshape(frame_shape(format, height, width)),
            format=format,
            width=width,
            height=height,
            description=msgspec.convert(said, learn(Description)),
            stream=name,
            seq=seq,
            capture_ns=capture_ns,
            arrive_ns=capture_ns,
            uncertainty_ns=uncertainty_ns,
        )

    def push(self, name: str, array: AnyArray, capture_ns: int) -> None:
        """Feed an input that is fed by ``push://``.

        Args:
            name: The input.
            array: Image: uint8 (h, w) gray or (h, w, 3) RGB. Audio: float32 (n,) mono at the input's sample rate.
                Tensor: the manifest's shape and dtype. It is copied.
            capture_ns: When it was sensed, on CLOCK_MONOTONIC; of sound, the instant after the last sample.

        Raises:
            ConfigError: If it cannot be an input's, the pipeline refused what was pushed to it before, or is behind.
            DeviceError: If the run has ended.
        """
        array = np.atleast_1d(array)
        number = _NUMBERS.get(array.dtype.name)
        where = f"input '{name}'"
        fits = array.ndim <= 8 and 0 < array.nbytes <= MAX_PUSH
        if number is None or not fits or not array.dtype.isnative:  # the dtype's name does not tell the order of bytes
            what = f"{array.dtype} {list(array.shape)} cannot be pushed"
            raise ConfigError(what, where=where, fix="see the docstring of push")
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._told(where, *self._client.push(name, data, number, list(array.shape), int(capture_ns)))

    def text(self, text: str, name: str, *, capture_ns: int | None = None) -> None:
        """Set a text input from now on; a blank one takes the text back. Raises as ``push`` does."""
        said_ns = time.monotonic_ns() if capture_ns is None else int(capture_ns)
        where = f"input '{name}'"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the text is not valid UTF-8: {error.reason}", where=where, fix="clean it first"
            ) from error
        self._told(where, *self._client.push_text(name, text, said_ns))

    def _told(self, where: str, status: int, text: str) -> None:
        if status == _OK:
            return
        if status == _FULL:
            raise ConfigError("the pipeline is behind", where=where, fix="push again later, or less often")
        if status in (_REFUSED, _INVALID):
            raise ConfigError(text, where=where, fix="see the docstring of push; inputs need the URI push://")
        raise DeviceError(text, where=self._path, fix="see what the pipeline said")

    @property
    def dropped(self) -> int:
        """Results that were lost because they were read too slowly."""
        return int(self._client.dropped)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a result may be there."""
        return int(self._client.fd)

    def close(self) -> None:
        """Leave the pipeline; idempotent."""
        self._left = True
        self._client.close()

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
