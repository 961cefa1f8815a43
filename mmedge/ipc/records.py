"""What is said of a packet that crosses a process border: one record each, its data lies in it or beside it."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from mmedge.types import ClockQuality, Description, Frame, Packet, PixelFormat, Tensor

# A writer may be anybody. A length of -1 would let numpy find one that fits; of too long ones it fails otherwise.
Shape: TypeAlias = tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 40)], ...]
# Plain numbers, as ``numpy.dtype.str`` tells them: neither addresses of objects nor what numpy would have to parse.
DataType: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[<>|][biufc][1-9][0-9]?\Z")]


class PacketStamp(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What every packet carries."""

    stream: str
    seq: int
    capture_ns: int
    arrive_ns: int
    epoch: int
    uncertainty_ns: int
    quality: ClockQuality


def stamp_of(packet: Packet) -> PacketStamp:
    """Return what every packet carries, of this one."""
    return PacketStamp(
        stream=packet.stream,
        seq=packet.seq,
        capture_ns=packet.capture_ns,
        arrive_ns=packet.arrive_ns,
        epoch=packet.epoch,
        uncertainty_ns=packet.uncertainty_ns,
        quality=packet.quality,
    )


def fields_of(stamp: PacketStamp) -> dict[str, Any]:
    """Return a stamp as the arguments of a packet."""
    return {name: getattr(stamp, name) for name in PacketStamp.__struct_fields__}


class FrameHeader(msgspec.Struct, frozen=True, array_like=True, tag="frame"):
    """A frame without its data."""

    stamp: PacketStamp
    shape: Shape
    format: PixelFormat
    width: int
    height: int
    description: Description
    unchanged_ns: int
    damaged: bool = False


def frame_header(frame: Frame) -> FrameHeader:
    """Return all that is to be said of a frame but its data."""
    return FrameHeader(
        stamp_of(frame),
        frame.data.shape,
        frame.format,
        frame.width,
        frame.height,
        frame.description,
        frame.unchanged_ns,
        frame.damaged,
    )


class TensorHeader(msgspec.Struct, frozen=True, array_like=True, tag="tensor"):
    """A tensor without its data."""

    stamp: PacketStamp
    shape: Shape
    dtype: DataType


def tensor_header(tensor: Tensor) -> TensorHeader:
    """Return all that is to be said of a tensor but its data."""
    return TensorHeader(stamp_of(tensor), tensor.data.shape, tensor.data.dtype.str)


class Lent(msgspec.Struct, frozen=True, array_like=True, tag="lent"):
    """A tensor whose data lies in a slot, as long as that holds ``seq``: the newest take the slots."""

    ring: int
    index: int
    seq: int
    header: TensorHeader


class Small(msgspec.Struct, frozen=True, array_like=True, tag="small"):
    """A tensor with its data."""

    header: TensorHeader
    data: bytes


class Said(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """A text."""

    stamp: PacketStamp
    text: str


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """The end of a stream."""

    stamp: PacketStamp
    reason: str | None


Record: TypeAlias = Lent | Small | Said | End
