"""A recording of what the user's own code pushes: sensors of which there is no source address, and no bundle yet."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import Input, TextInput
from mmedge.clock import now_ns
from mmedge.errors import ConfigError
from mmedge.pipeline.arguments import check_capture, check_text, described
from mmedge.pipeline.pushed import pushed_packet
from mmedge.pipeline.spec import PUSH
from mmedge.recording.writer import Recorder as Writer
from mmedge.recording.writer import make_header
from mmedge.types import Description, EndOfStream, Packet, Text, Video


class Recorder:
    """Records pushed arrays and texts into a folder, which ``mmedge replay`` and ``calibration.recordings`` read.

    Nothing is lost: where the disk is slow, ``push`` waits.

    Args:
        folder: New or empty; the owner alone may read it.
        inputs: Name -> what is pushed; those of a bundle (``bundle.inputs``) or of a recipe fit.
        video: Keep pictures bit by bit, or so that they look the same.

    Raises:
        ConfigError: If there are no inputs, or the folder is not empty or cannot be written.

    Example:
        >>> import mmedge
        >>> from mmedge.bundle.manifest import TensorInput
        >>> with mmedge.Recorder("walk", {"imu": TensorInput(shape=(6,), rate_hz=100)}) as recorder:  # doctest: +SKIP
        ...     recorder.push("imu", np.zeros(6, np.float32))
    """

    def __init__(self, folder: str | Path, inputs: Mapping[str, Input], *, video: Video = "lossless") -> None:
        if not inputs:
            raise ConfigError(
                "there are no inputs", where="Recorder", fix='name some: {"imu": TensorInput(shape=(6,))}'
            )
        self._inputs = dict(inputs)
        self._pushed: Counter[str] = Counter()
        self._lock = threading.Lock()
        header = make_header(
            dict.fromkeys(self._inputs, PUSH),
            dict.fromkeys(self._inputs, True),
            self._inputs,
            started_ns=now_ns(),
            lossless=True,
            video=video,
        )
        self._writer = Writer(Path(folder), header)
        self._closed = False

    def push(
        self,
        name: str,
        array: npt.NDArray[np.generic],
        capture_ns: int | None = None,
        *,
        description: Description | None = None,
    ) -> None:
        """Record an array, as ``Pipeline.push`` takes it; it is copied.

        Args:
            name: The input.
            array: Image: uint8 (h, w) gray or (h, w, 3) RGB. Audio: float32 (n,) mono at the input's sample rate.
                Tensor: the input's shape and dtype.
            capture_ns: When it was sensed, on CLOCK_MONOTONIC; now by default.
            description: Of an image.

        Raises:
            ConfigError: If there is no such input, the array does not fit it, or the recorder was closed.
            SourceError: If the recording has ended, as on a full disk.
        """
        arrive_ns = now_ns()
        capture_ns = arrive_ns if capture_ns is None else capture_ns
        spec = self._spec(name)
        check_capture(capture_ns, arrive_ns, f"input '{name}'")
        with self._lock:
            seq = self._pushed[name]
            packet = pushed_packet(name, spec, array, seq=seq, capture_ns=int(capture_ns), arrive_ns=arrive_ns)
            self._put(packet if description is None else described(packet, description), arrive_ns)

    def text(self, name: str, text: str, capture_ns: int | None = None) -> None:
        """Record a text; ``push`` says what it raises."""
        arrive_ns = now_ns()
        if not isinstance(self._spec(name), TextInput):
            raise ConfigError("this input takes no text", where=f"input '{name}'", fix="push an array")
        check_text(text, f"input '{name}'")
        said_ns = arrive_ns if capture_ns is None else capture_ns
        check_capture(said_ns, arrive_ns, f"input '{name}'")
        with self._lock:
            seq = self._pushed[name]
            self._put(Text(stream=name, seq=seq, capture_ns=int(said_ns), arrive_ns=arrive_ns, text=text), arrive_ns)

    def _spec(self, name: str) -> Input:
        if name not in self._inputs:
            raise ConfigError(f"there is no input '{name}'", where="push", fix=f"one of {list(self._inputs)}")
        return self._inputs[name]

    def _put(self, packet: Packet, at_ns: int) -> None:
        if self._closed:
            raise ConfigError("the recorder was closed", where=f"input '{packet.stream}'", fix="make a new one")
        if self._writer.error is not None:
            raise self._writer.error
        self._writer.turn([packet], at_ns, [])
        self._pushed[packet.stream] += 1

    def close(self) -> None:
        """Write what waits and finish the files; idempotent.

        Raises:
            SourceError: If the recording ended before, as on a full disk.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        at_ns = now_ns()
        ends = [
            EndOfStream(stream=name, seq=self._pushed[name], capture_ns=at_ns, arrive_ns=at_ns) for name in self._inputs
        ]
        self._writer.turn(ends, at_ns, [])
        self._writer.close()
        if self._writer.error is not None:
            raise self._writer.error

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
