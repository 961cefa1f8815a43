"""Packets: what sources deliver. Times are int ns on CLOCK_MONOTONIC."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from mmedge.errors import FrameExpiredError

PixelFormat = Literal[
    "gray8", "bgr24", "rgb24", "yuv420p", "nv12", "yuv422p", "yuv444p", "yuyv422", "p010le", "yuv420p10le"
]
Matrix: TypeAlias = Literal["bt601", "bt709", "fcc", "smpte240m", "bt2020"]
AspectPart: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
ClockQuality = Literal["A", "B", "C"]
FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]


class Packet(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What every packet carries, whatever its modality.

    Attributes:
        stream: Name of the input it feeds.
        seq: Running number within the epoch.
        epoch: Rises on reconnect or gap reset; nothing is matched across epochs.
        capture_ns: When the world was sensed; of a block, the instant after its last sample.
        arrive_ns: When it reached this process.
        uncertainty_ns: Bound on the error of ``capture_ns``.
        quality: Class of the time stamp (A driver, B stream, C arrival).
    """

    stream: str
    seq: int
    capture_ns: int
    arrive_ns: int
    epoch: int = 0
    uncertainty_ns: int = 0
    quality: ClockQuality = "B"

    def stamp(self) -> dict[str, Any]:
        """Return what every packet carries, by name."""
        return {name: getattr(self, name) for name in Packet.__struct_fields__}


class Description(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a stream says about its pictures; it travels with every frame. The defaults are upright, square, 0..255.

    Attributes:
        matrix: What turns luma and chroma into colours; without a meaning for gray and RGB pictures.
        full_range: False when luma spans 16..235 instead of 0..255.
        transfer: ``pq`` and ``hlg`` are HDR: it is said, and pixels are taken as they are.
        rotation: Degrees by which the stored picture is turned clockwise to be upright.
        mirrored: Whether the turned picture is then flipped left to right.
        pixel_aspect: Width and height of one stored pixel.
        fields: How the lines were taken: at once, or in two fields, of which the ``top`` or ``bottom`` one is first.
    """

    matrix: Matrix = "bt601"
    full_range: bool = True
    transfer: Literal["sdr", "pq", "hlg"] = "sdr"
    rotation: Literal[0, 90, 180, 270] = 0
    mirrored: bool = False
    pixel_aspect: tuple[AspectPart, AspectPart] = (1, 1)
    fields: Literal["progressive", "interlaced", "top", "bottom"] = "progressive"


PLAIN = Description()


class Slot(Protocol):
    """Where a frame's bytes lie: called, it is given back to its pool."""

    def __call__(self) -> None:
        """Give the slot back; idempotent."""

    def copy(self, data: ByteArray, out: ByteArray) -> bool:
        """Copy ``data``, which lies in the slot, to ``out``; False if it was used again meanwhile.

        Both are uint8 of one shape, [...].
        """


class Frame(Packet, frozen=True, kw_only=True, eq=False):
    """One image in its source's own pixel format.

    Attributes:
        data: uint8, owned by the source's frame pool until ``release`` is called. ``gray8``
            (height, width); ``bgr24`` and ``rgb24`` (height, width, 3); planes packed one after the other: ``yuv420p``
            and ``nv12`` (height * 3 / 2, width), ``yuv422p`` (height * 2, width), ``yuv444p`` (height * 3, width);
            ``yuyv422`` (height, width, 2); samples of two bytes, the lower first, ``p010le`` and ``yuv420p10le``
            (height * 3 / 2, 2 * width): a view of uint16 as uint8.
        width: Of the picture as it is stored, which may lie on its side.
        height: Of the picture as it is stored.
        description: What its stream says about it.
        release: The slot, which gives itself back when called; None when the data is never reused.
        unchanged_ns: For how long the picture has been bit-identical, a sign of a frozen camera.
        damaged: Its data was damaged on the way, or refers to what was: it says that its source is alive, no more.
    """

    data: ByteArray
    format: PixelFormat
    width: int
    height: int
    description: Description = PLAIN
    release: Slot | None = None
    unchanged_ns: int = 0
    damaged: bool = False

    @property
    def full_range(self) -> bool:
        """False when luma spans 16..235 instead of 0..255."""
        return self.description.full_range

    def copy(self) -> Frame:
        """Return a copy whose data is the caller's, also after this frame was released.

        Raises:
            FrameExpiredError: If its slot holds another picture by now.
        """
        data = np.empty_like(self.data)
        if self.release is None:
            data[...] = self.data
        elif not self.release.copy(self.data, data):
            raise FrameExpiredError(
                f"the picture of {self.capture_ns} ns is gone", where=self.stream, fix="copy it as its result arrives"
            )
        return replace(self, data=data, release=None)

    def to_rgb(self) -> ByteArray:
        """Return the picture as it is shown: full-range RGB, turned and mirrored as the description says.

        Pixels stay pixels: where they are not square (``description.pixel_aspect``), nothing is stretched, and the
        values of an HDR picture are taken as they are.

        Returns:
            uint8 [height, width, 3], a copy; height and width change places where the picture is turned by 90 degrees.

        Raises:
            ConfigError: If data, format, width and height do not agree.

        Example:
            >>> frame = Frame(stream="image", seq=0, capture_ns=0, arrive_ns=0, data=np.full((2, 2), 235, np.uint8),
            ...               format="gray8", width=2, height=2, description=Description(full_range=False))
            >>> frame.to_rgb()[0, 0].tolist()
            [255, 255, 255]
        """
        shown: ByteArray = import_module("mmedge.preprocess.shown").shown(self, "rgb")
        return shown

    def to_bgr(self) -> ByteArray:
        """Return what ``to_rgb`` does in the order that OpenCV expects: uint8 [height, width, 3], a copy."""
        shown: ByteArray = import_module("mmedge.preprocess.shown").shown(self, "bgr")
        return shown


class Block(Packet, frozen=True, kw_only=True, eq=False):
    """One audio buffer: mono float32 at the input's own sample rate.

    Attributes:
        samples: float32 (n,), -1..1, copied by the reader before it returns.
        lost: Samples that are missing directly before this block; they become timed silence.
    """

    samples: FloatArray
    lost: int = 0


class Text(Packet, frozen=True, kw_only=True, eq=False):
    """One text value, valid from its capture time."""

    text: str


class Tensor(Packet, frozen=True, kw_only=True, eq=False):
    """One array pushed by the user's own driver (IMU, thermal...)."""

    data: AnyArray


class Arrival(Packet, frozen=True, kw_only=True, eq=True):
    """A picture that came while the runtime was busy and made room for a newer one: when it came is all that is left.

    It says that its source is alive, which only arrivals can say.
    """


class EndOfStream(Packet, frozen=True, kw_only=True, eq=True):
    """The source has nothing more to say; ``reason`` is None when it simply ended."""

    reason: str | None = None
