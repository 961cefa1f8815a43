"""What a decoded picture's stream says about it: matrix, range, transfer, turning, shape of a pixel, fields.

What a stream leaves open follows FFmpeg's rule: matrix BT.601; limited range where there is chroma, full range for
gray and RGB; square pixels; upright. What cannot be applied is a remark in the source's ``health()``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from mmedge.capture.base import ThreadSource
from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.types import Description, Matrix, PixelFormat

# FFmpeg's numbers (AVColorSpace, AVColorRange, AVColorTransferCharacteristic).
_MATRICES: dict[int, Matrix] = {
    0: "bt601", 1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"
}  # fmt: skip
_REFUSED = {
    3: "a reserved number", 8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085",
    12: "one derived from the primaries", 13: "one derived from the primaries", 14: "ICtCp", 15: "IPT-C2",
    16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
_INSTEAD: dict[int, Matrix] = {10: "bt2020", 14: "bt2020", 15: "bt2020"}
FFMPEG_MATRICES: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "fcc": 4, "smpte240m": 7, "bt2020": 9}
FFMPEG_TRANSFERS = {"sdr": 2, "pq": 16, "hlg": 18}
_LIMITED, _FULL = 1, 2
_TRANSFERS: dict[int, Literal["pq", "hlg"]] = {16: "pq", 18: "hlg"}
_MATRIX = struct.Struct("=9i")  # rows of a display matrix: [x' y' w'] = [x y 1] M, the first two columns are 16.16
_LOOK_EVERY = 50  # pictures between two looks at a display matrix whose angle stays
_SLANT = 0.0175  # tangent of one degree
_LARGEST_PART = 65_536
# Layouts that frames have; which range they are of is another question.
_DIRECT: dict[str, PixelFormat] = {
    "gray": "gray8", "rgb24": "rgb24", "bgr24": "bgr24", "nv12": "nv12",
    "yuv420p": "yuv420p", "yuvj420p": "yuv420p", "yuv422p": "yuv422p", "yuvj422p": "yuv422p",
    "yuv444p": "yuv444p", "yuvj444p": "yuv444p", "p010le": "p010le", "yuv420p10le": "yuv420p10le",
}  # fmt: skip


def colourless(format: Any) -> bool:
    """Tell whether an ``av.VideoFormat`` has neither chroma nor colours, only gray (and perhaps alpha)."""
    return len(format.components) <= 2 and not format.is_rgb and not format.has_palette


def coloured(format: Any) -> bool:
    """Tell whether an ``av.VideoFormat`` holds red, green and blue themselves."""
    return bool(format.is_rgb or format.has_palette)


def layout_of(format: Any) -> tuple[PixelFormat, str]:
    """Return the layout in which a picture of an ``av.VideoFormat`` travels, and the format to bring it to before.

    It is the nearest one that has as much chroma; RGB stays RGB. Samples of 10 bits stay where two rows and two columns
    share chroma; others of more than 8 are kept until the picture is copied.
    """
    if format.name in _DIRECT:
        return _DIRECT[format.name], format.name
    deep = format.components[0].bits > 8
    if coloured(format):
        return "rgb24", "rgb24"
    if colourless(format):
        layout: PixelFormat = "gray8"
    elif format.chroma_width(64) > 32:
        layout = "yuv444p"
    else:
        layout = "yuv420p" if format.chroma_height(64) <= 32 else "yuv422p"
    base = "gray" if layout == "gray8" else layout
    if not deep:
        return layout, base
    own = re.fullmatch(rf"{base}(9|1[0246])le", format.name)
    return layout, format.name if own else f"{base}16le"


@lru_cache(maxsize=1)
def _reader_of_side_data() -> Any:
    """Return what reads a frame's side data, also data that PyAV has no name for (EXIF, of FFmpeg 8).

    ``frame.side_data`` would keep the frame in a circle with it: the memory of each picture that was looked at would
    come back only when Python's collector runs, which is many pictures later.
    """
    sidedata = require("av", "reading media").sidedata.sidedata
    kinds = sidedata.Type

    def unnamed(cls: Any, number: int) -> Any:
        kind = object.__new__(cls)
        kind._name_, kind._value_ = f"NUMBER_{number}", number
        return kind

    if "_missing_" not in vars(kinds):
        kinds._missing_ = classmethod(unnamed)  # it raises otherwise
    return sidedata.SideDataContainer


class Describer:
    """Reads what is said of each picture; remarks go to the health of its source.

    Args:
        source: Whose ``health()`` says what cannot be applied.
        stream: The ``av.VideoStream`` that is decoded.
        aspect_of: Returns the sample aspect ratio that the stream stated for a picture; None where it states none.
    """

    def __init__(self, source: ThreadSource, stream: Any, aspect_of: Callable[[Any], Fraction | None]) -> None:
        self._side_data_of = _reader_of_side_data()
        self._aspect_of = aspect_of
        self._source, self._stream = source, stream
        probed, guessed = stream.codec_context.sample_aspect_ratio, stream.sample_aspect_ratio
        self._probed_aspect: Fraction | None = guessed
        self._container_aspect: Fraction | None = guessed if guessed and guessed != probed else None
        self._first_aspect: Fraction | None = None
        self._known: tuple[Any, Description] | None = None
        self._matrix_held: bytes | None = None
        self._unlooked = 0
        self._keyed = False  # whether the picture before was a key frame

    def __call__(self, frame: Any) -> Description:
        """Return the description of a decoded ``av.VideoFrame``."""
        said = (
            frame.format.name,
            frame.width,
            frame.height,
            frame.colorspace,
            frame.color_range,
            frame.color_trc,
            frame.interlaced_frame,
            frame.rotation,
            self._aspect(frame),
        )
        self._unlooked += 1
        # What a key frame said holds until the next one; where every picture is one, few are looked at.
        ends = frame.key_frame and not self._keyed and self._matrix_held is not None
        look, self._keyed = ends or (frame.key_frame and self._unlooked > _LOOK_EVERY), frame.key_frame
        changed = self._known is None or self._known[0] != said  # streams change what they say, though seldom
        if self._known is None or changed or look:
            self._unlooked = 0
            matrix = self._side_data_of(frame).get("DISPLAYMATRIX")
            # A camera that writes it into its stream (H.264, HEVC) does so with its key frames, for those that follow.
            if matrix is not None or frame.key_frame:
                self._matrix_held = None if matrix is None else bytes(matrix)
            self._known = said, self._describe(frame, said[-1], self._matrix_held)
        return self._known[1]

    def _aspect(self, frame: Any) -> Fraction | None:
        # What a container says of its own counts before the stream's word (av_guess_sample_aspect_ratio), until the
        # stream says another thing than it did.
        now = self._aspect_of(frame)
        if self._first_aspect is None:
            self._first_aspect = now or Fraction(0)
        if now and (self._container_aspect is None or now != self._first_aspect):
            return now
        return self._container_aspect or self._probed_aspect

    def _describe(self, frame: Any, aspect: Fraction | None, display: bytes | None) -> Description:
        plain = colourless(frame.format) or coloured(frame.format)
        full = frame.color_range == _FULL or (plain and frame.color_range != _LIMITED)
        if coloured(frame.format) and not full:
            self._warn(
                "rgb range",
                "its RGB is said to be of limited range and taken as of full range",
                "-vf scale=in_range=tv:out_range=pc",
            )
            full = True
        transfer: Literal["sdr", "pq", "hlg"] = _TRANSFERS.get(frame.color_trc, "sdr")
        if transfer != "sdr":
            name = {"pq": "PQ", "hlg": "HLG"}[transfer]
            told = f"its pictures are HDR ({name}) and taken as they are, without tone mapping"
            self._warn("hdr", told, "-vf zscale=t=linear,tonemap=hable,zscale=t=bt709,format=yuv420p")
        rotation, mirrored = (0, False) if display is None else self._turn(display)
        return Description(
            matrix="bt601" if plain else self._matrix(frame.colorspace),
            full_range=full,
            transfer=transfer,
            rotation=rotation,  # type: ignore[arg-type]
            mirrored=mirrored,
            pixel_aspect=pixel_aspect(aspect),
            fields=self._fields(frame),
        )

    def _warn(self, cause: str, told: str, filters: str) -> None:
        fix = f"let the camera send something else, or convert a file: ffmpeg -i IN {filters} OUT"
        self._source.warn(cause, SourceError(told, where=self._source.name, fix=fix))

    def _matrix(self, number: int) -> Matrix:
        if number in _MATRICES:
            return _MATRICES[number]
        instead = _INSTEAD.get(number, "bt601")
        what = _REFUSED.get(number, f"number {number}")
        self._warn(
            "matrix",
            f"its colours are wrong: their matrix is {what}, {instead} is taken instead",
            "-vf zscale=matrix=709",
        )
        return instead

    def _turn(self, display: bytes) -> tuple[int, bool]:
        turn = turning(display)
        if turn is None:
            told = "its pictures are to be turned by an angle that is no multiple of 90 degrees, and are not turned"
            self._warn("turned", told, "-c:v libx264")
            return 0, False
        return turn

    def _fields(self, frame: Any) -> Literal["progressive", "interlaced", "top", "bottom"]:
        if not frame.interlaced_frame:
            return "progressive"
        order = str(self._stream.codec_context.field_order)
        if order in ("tt", "tb"):
            return "top"
        return "bottom" if order in ("bb", "bt") else "interlaced"


def pixel_aspect(aspect: Fraction | None) -> tuple[int, int]:
    """Return width and height of a pixel from a sample aspect ratio; unknown, zero and negative ones are square.

    Example:
        >>> pixel_aspect(Fraction(64, 45)), pixel_aspect(None)
        ((64, 45), (1, 1))
    """
    if not aspect or aspect < 0:
        return 1, 1
    flipped = aspect > 1  # the larger part is the bounded one
    part = (1 / aspect if flipped else aspect).limit_denominator(_LARGEST_PART)
    across, down = (part.denominator, part.numerator) if flipped else (part.numerator, part.denominator)
    return (across, down) if across and down else (1, 1)


def turning(display: bytes) -> tuple[int, bool] | None:
    """Return rotation (degrees, clockwise) and mirroring of a display matrix; None if it is no quarter turn.

    Example:
        >>> turning(_MATRIX.pack(0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
        (90, False)
    """
    if len(display) < _MATRIX.size:
        return None
    a, b, _, c, d, *_ = _MATRIX.unpack(display[: _MATRIX.size])
    across, along = (a, d), (b, c)
    swap = abs(b) + abs(c) > abs(a) + abs(d)
    main, other = (along, across) if swap else (across, along)
    if min(map(abs, main)) == 0 or max(map(abs, other)) > _SLANT * min(map(abs, main)):
        return None
    if not swap:
        return (180 if d < 0 else 0), (a < 0) != (d < 0)
    rotation = 270 if b < 0 else 90
    return rotation, (c < 0) != (rotation == 90)
