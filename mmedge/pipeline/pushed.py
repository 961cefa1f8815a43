"""What the user's own code pushes, as packets: checked, and copied."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.capture.picture import sides_of
from mmedge.errors import ConfigError
from mmedge.ipc.limits import MAX_SAMPLES
from mmedge.pipeline.arguments import check_capture, check_text, described
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.types import Block, Description, Frame, Packet, PixelFormat, Tensor, Text


class Fed(Protocol):
    """A runtime, here or in another process."""

    spec: RunSpec

    def push(self, packet: Packet) -> bool:
        """Feed a packet; False when the run has ended."""


class Pushes:
    """What the user's own code feeds into a run: checked, counted, handed over.

    Args:
        inputs: The seats of the bundle.
        runtime: Takes the packets.

    Attributes:
        inputs: The seats of the bundle.
        refused: Pushes that were refused, by input.
    """

    def __init__(self, inputs: Mapping[str, Input], runtime: Fed) -> None:
        self.inputs, self._runtime = inputs, runtime
        self._pushed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Return how many packets came, of each input that is fed this way."""
        return {name: self._pushed[name] for name, uri in self._runtime.spec.inputs.items() if uri == PUSH}

    def push(
        self,
        name: str,
        array: npt.NDArray[np.generic],
        capture_ns: int,
        *,
        format: PixelFormat | None = None,
        description: Description | None,
        started: bool,
    ) -> None:
        """Do what ``Pipeline.push`` says; ``array`` has the shape [...] and the dtype that the input takes."""
        self._check_pushed(name)
        now_ns = time.monotonic_ns()
        for sharing in self._runtime.spec.sharing.get(name, ()):
            self.push(sharing, array, capture_ns, format=format, description=description, started=started)
        with self._counted(name):
            check_capture(capture_ns, now_ns, f"input '{name}'")
            spec, seq = self.inputs[name], self._pushed[name]
            stamp = {"seq": seq, "capture_ns": int(capture_ns), "arrive_ns": now_ns}
            packet = pushed_packet(name, spec, array, **stamp, format=format)
            if description is not None:
                packet = described(packet, description)
        self._put(packet, started)

    def text(self, text: str, name: str | None, *, capture_ns: int | None, started: bool) -> None:
        """Do what ``Pipeline.text`` says."""
        names = [n for n, spec in self.inputs.items() if isinstance(spec, TextInput)]
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise ConfigError(f"the bundle's text inputs are {names}", where="text", fix="name one of them")
        self._check_pushed(name)
        now_ns = time.monotonic_ns()
        with self._counted(name):
            check_text(text, f"input '{name}'")
            said_ns = now_ns if capture_ns is None else capture_ns
            check_capture(said_ns, now_ns, f"input '{name}'")
            packet = Text(stream=name, seq=self._pushed[name], capture_ns=said_ns, arrive_ns=now_ns, text=text)
        self._put(packet, started)

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count what is pushed to an input, or refused."""
        try:
            yield
        except ConfigError:
            self.refused[name] += 1
            raise
        self._pushed[name] += 1

    def _put(self, packet: Packet, started: bool) -> None:
        if not started:
            raise ConfigError(
                "the run has not started", where=f"input '{packet.stream}'", fix="call start() first, or use with"
            )
        if not self._runtime.push(packet):
            raise ConfigError("the run has ended", where=f"input '{packet.stream}'", fix="push while it is running")

    def _check_pushed(self, name: str) -> None:
        if self._runtime.spec.inputs.get(name) != PUSH:
            raise ConfigError(
                "this input is not fed by push", where=f"input '{name}'", fix=f"give it the URI '{PUSH}' in inputs"
            )


def pushed_packet(
    name: str,
    spec: Input,
    array: npt.NDArray[np.generic],
    *,
    seq: int,
    capture_ns: int,
    arrive_ns: int,
    format: PixelFormat | None = None,
) -> Packet:
    """Return a copy of what the user pushes to an input, as its sources would give it.

    Args:
        name: Of the input.
        spec: Its seat.
        array: Image: uint8 (h, w) gray or (h, w, 3) RGB, or as ``format`` has it. Audio: float32 (n,) mono at the
            input's sample rate. Tensor: the seat's shape and dtype.
        seq: Its number.
        capture_ns: When it was sensed, on CLOCK_MONOTONIC.
        arrive_ns: When it was pushed.
        format: Of an image, if it is neither gray nor RGB.

    Raises:
        ConfigError: If the array does not fit the seat.
    """
    where = f"input '{name}'"
    try:
        array = np.array(array, order="C", copy=True)
    except Exception as error:  # an object of the user's own may raise anything
        raise ConfigError(f"the value is not an array: {error}", where=where, fix="push a numpy array") from error
    if isinstance(spec, TextInput):
        raise ConfigError("push() does not take text", where=where, fix=f"pipe.text('...', name={name!r})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError(
            "the array has values that are not finite", where=where, fix="clean the data before it is pushed"
        )
    if not array.size:
        raise ConfigError("the array is empty", where=where, fix="push at least one value")
    stamp = {"stream": name, "seq": seq, "capture_ns": capture_ns, "arrive_ns": arrive_ns}
    if format is not None and (not isinstance(spec, ImageInput) or format not in get_args(PixelFormat)):
        raise ConfigError(
            f"this input takes no '{format}'",
            where=where,
            fix=f"of an image, one of {', '.join(get_args(PixelFormat))}",
        )
    if isinstance(spec, ImageInput) and array.dtype == np.uint8:
        kind: PixelFormat = format or ("gray8" if array.ndim == 2 else "rgb24")
        sides = sides_of(kind, array.shape)
        if sides is not None:
            return Frame(data=array, format=kind, height=sides[0], width=sides[1], quality="A", **stamp)  # type: ignore[arg-type]
        if format is not None:
            raise ConfigError(
                f"uint8 {list(array.shape)} is no picture of {format}", where=where, fix="see mmedge.types.Frame"
            )
    if isinstance(spec, AudioInput) and array.dtype == np.float32 and array.ndim == 1:
        if len(array) > MAX_SAMPLES:
            raise ConfigError(
                f"a block of {len(array)} samples is too long", where=where, fix=f"push up to {MAX_SAMPLES}"
            )
        return Block(samples=array, quality="A", **stamp)  # type: ignore[arg-type]
    if isinstance(spec, TensorInput) and array.dtype == spec.dtype and array.shape == tuple(spec.shape):
        return Tensor(data=array, quality="A", **stamp)  # type: ignore[arg-type]
    raise ConfigError(
        f"{array.dtype} {list(array.shape)} does not fit this input",
        where=where,
        fix="image: uint8 (h, w[, 3]); audio: float32 (n,); tensor: as in the manifest",
    )
