"""What the network is given of pictures whose streams describe them in every way: colours and shapes.

Clips are written with their description, read by the product, and turned into the network's input by its kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from benchmarks.harness import Row
from mmedge.bundle.manifest import ImageInput
from mmedge.capture.media import MediaSource
from mmedge.preprocess import ImagePreprocessor, reference
from mmedge.types import AnyArray, ByteArray, Frame, Packet

# Matrix: FFmpeg's number of it, swscale's name, shares of red and blue.
MATRICES = {
    "bt601": (6, "ITU601", 0.299, 0.114),
    "bt470bg": (5, "ITU601", 0.299, 0.114),
    "bt709": (1, "ITU709", 0.2126, 0.0722),
    "fcc": (4, "FCC", 0.30, 0.11),
    "smpte240m": (7, "SMPTE240M", 0.212, 0.087),
    "bt2020": (9, "BT2020", 0.2627, 0.0593),
    "none": (2, "ITU601", 0.299, 0.114),  # FFmpeg's rule
}
RANGES = {"limited": 1, "full": 2, "none": 0}
YUV = (
    "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p",
    "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv444p16le",
)  # fmt: skip
GRAY = ("gray", "gray10le", "gray16le", "ya8")
RGB = ("rgb24", "bgr0", "gbrp", "gbrp10le", "rgb48le", "rgba")
# What FFV1 in Matroska cannot hold.
CODECS = {"rgb24": "png", "rgba": "png", "ya8": "png", "gbrp": "utvideo"}
PATCH, SIDES = 16, (96, 128)  # every patch has pixels that no other patch's chroma reaches


class Colours(NamedTuple):
    """One way to write colours."""

    format: str
    matrix: str
    range: str


def every_colour() -> Iterator[Colours]:
    """Yield each combination of layout, depth, matrix and range."""
    yield from (Colours(*way) for way in product(YUV, MATRICES, RANGES))
    for name, span in product(GRAY, RANGES):
        if name not in CODECS or span != "limited":  # PNG knows full range alone
            yield Colours(name, "none", span)
    yield from (Colours(name, "none", "none") for name in RGB)


def patches(seed: int) -> ByteArray:
    """Return a picture of flat patches, uint8 [96, 128, 3]: the corners of the colour cube, and colours at random."""
    corners = np.array(list(product((0, 255), repeat=3)), np.uint8)
    others = np.random.default_rng(seed).integers(0, 256, (40, 3)).astype(np.uint8)
    colours = np.concatenate([corners, others]).reshape(SIDES[0] // PATCH, SIDES[1] // PATCH, 3)
    return colours.repeat(PATCH, 0).repeat(PATCH, 1)


def _samples(rgb: ByteArray, way: Colours) -> tuple[AnyArray, bool]:
    """Return luma and chroma of ``rgb``, float64 [h, w, 3] in 0..1 of their own range, and whether that is full."""
    _, _, red, blue = MATRICES[way.matrix]
    full = way.range == "full" or (way.range == "none" and way.format in GRAY)
    r, g, b = np.moveaxis(rgb / 255.0, 2, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    return np.stack([luma, (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)], 2), full


def _frame(rgb: ByteArray, way: Colours) -> Any:
    """Return ``rgb``, uint8 [h, w, 3], as an ``av.VideoFrame``; planes are written sample by sample."""
    height, width = rgb.shape[:2]
    if way.format in RGB:
        return VideoReformatter().reformat(av.VideoFrame.from_ndarray(rgb, format="rgb24"), format=way.format)
    frame = av.VideoFrame(width, height, way.format)
    samples, full = _samples(rgb, way)
    for number, plane in enumerate(frame.planes):
        bits = frame.format.components[min(number, len(frame.format.components) - 1)].bits
        kind, unit = np.dtype("<u2" if bits > 8 else "u1"), 1 << (bits - 8)
        if number == 3 or way.format == "ya8":
            stored = np.full((height, width), (1 << bits) - 1)
        if number < 3:
            middle = 128 * unit if number else 0
            span = (256 * unit - 1) if full else (224 if number else 219) * unit
            black = middle if number or full else 16 * unit
            step = height // plane.height, width // plane.width
            stored = np.floor(samples[:: step[0], :: step[1], number] * span + black + 0.5).clip(0, 256 * unit - 1)
            if way.format == "ya8":
                stored = np.stack([stored, np.full_like(stored, 255)], 2).reshape(height, -1)
        rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        data = np.ascontiguousarray(stored.astype(kind)).view(np.uint8)
        rows[:, : data.shape[1]] = data
    return frame


def write(path: Path, rgb: ByteArray, way: Colours) -> Any:
    """Write a clip of one picture without loss; return the picture as it was written."""
    frame = _frame(rgb, way)
    with av.open(str(path), "w") as container:
        stream = cast("Any", container.add_stream(CODECS.get(way.format, "ffv1"), rate=25))
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], frame.format.name
        context = stream.codec_context
        frame.colorspace, frame.color_range = MATRICES[way.matrix][0], RANGES[way.range]
        if way.format in YUV:
            context.colorspace = MATRICES[way.matrix][0]
        else:
            frame.colorspace = 2
        context.color_range = RANGES[way.range]
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return frame


def read(path: Path, count: int = 1) -> list[Frame]:
    """Return the first pictures of a file, as the product reads it."""
    frames: list[Frame] = []
    done = threading.Event()

    def emit(packet: Packet) -> None:
        if isinstance(packet, Frame):
            if len(frames) < count:
                frames.append(packet.copy())
            if packet.release is not None:
                packet.release()
        else:
            done.set()

    source = MediaSource(str(path), images=("image",), realtime=False)
    source.start(emit)
    try:
        if not done.wait(30):
            raise TimeoutError(f"{path} does not end")
    finally:
        source.stop()
    return frames


def pixels(frame: Frame, color: str = "rgb") -> ByteArray:
    """Return what a TensorRT variant is given of ``frame`` at its own size: uint8 [h, w, channels]."""
    channels = 1 if color == "gray" else 3
    shown = reference.upright(frame.data[: frame.height, : frame.width], frame).shape[:2]
    spec = ImageInput(
        size=shown, color=color, mean=(0.0,) * channels, std=(1.0,) * channels, frame=shown  # type: ignore[arg-type]
    )  # fmt: skip
    out = np.empty(spec.raw_shape, np.uint8)
    ImagePreprocessor(spec).raw(frame, out)
    return out[0]


def colour_errors(folder: Path, way: Colours, seed: int = 0) -> tuple[float, float]:
    """Return the largest difference from swscale with the right matrix, and from the colours that were meant."""
    rgb = patches(seed)
    if way.format in GRAY:
        rgb = rgb[..., :1].repeat(3, 2)
    path = folder / ("colours.nut" if way.format in CODECS else "colours.mkv")
    frame = write(path, rgb, way)
    got = pixels(read(path)[0]).astype(int)
    _, full = _samples(rgb, way)
    span = "JPEG" if full or way.format in RGB else "MPEG"
    # Without these its tables of 4:2:0 and 4:2:2 are off by up to three levels themselves.
    rounding = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    if way.format in GRAY:  # swscale takes gray as of full range whatever its stream says
        frame = _frame(rgb, way._replace(format="yuv444p", range="full" if full else "limited"))
    peer = VideoReformatter().reformat(
        frame, format="rgb24", src_colorspace=MATRICES[way.matrix][1], src_color_range=span,
        dst_colorspace=MATRICES[way.matrix][1], dst_color_range="JPEG", interpolation=rounding,
    ).to_ndarray()  # fmt: skip
    middle = slice(PATCH // 2 - 2, None, PATCH)
    return tuple(float(np.abs(got[middle, middle] - want[middle, middle].astype(int)).max()) for want in (peer, rgb))  # type: ignore[return-value]


def colour_rows(folder: Path, *, quick: bool) -> tuple[list[Row], float]:
    """Return a row for each layout, and the largest error of all."""
    rows, worst = [], 0.0
    ways: dict[str, list[Colours]] = {}
    for way in every_colour():
        ways.setdefault(way.format, []).append(way)
    for format, same in ways.items():
        errors = [colour_errors(folder, way) for way in (same[::5] if quick else same)]
        ours, meant = (max(error[k] for error in errors) for k in (0, 1))
        worst = max(worst, ours)
        what = f"{format}: largest difference from swscale ({len(errors)} matrices and ranges)"
        rows.append(Row(what, "levels", ours, {}, None, beside={"from what was meant": meant}))
    return rows, worst


class Shape(NamedTuple):
    """One way to store a picture that shows a circle."""

    width: int
    height: int
    pixel_aspect: tuple[int, int] = (1, 1)
    rotation: int = 0  # clockwise
    mirrored: bool = False


SHAPES = (
    Shape(640, 480),
    Shape(1280, 720),
    Shape(1920, 804),
    Shape(480, 640),
    Shape(720, 576, (64, 45)),
    Shape(720, 576, (16, 15)),
    Shape(1440, 1080, (4, 3)),
    Shape(1920, 1080, rotation=90),
    Shape(640, 360, rotation=270, mirrored=True),
    Shape(720, 480, (32, 27), 90),
    Shape(352, 288, (12, 11), 180),
    Shape(160, 1000),
)


def circle(shape: Shape) -> ByteArray:
    """Return what is stored of a white circle on black, uint8 [height, width], a little off the centre."""
    across, down = shape.pixel_aspect
    y, x = np.mgrid[: shape.height, : shape.width]
    short = min(shape.width * across, shape.height * down)
    from_left = (x + 0.5 - 0.5 * shape.width) * across + 0.05 * short
    from_top, radius = (y + 0.5 - 0.5 * shape.height) * down + 0.05 * short, 0.35 * short
    return np.where(from_left**2 + from_top**2 < radius**2, 255, 0).astype(np.uint8)


def write_shape(path: Path, shape: Shape, gray: ByteArray) -> None:
    """Write a clip of one gray picture, uint8 [height, width], with its description."""
    with av.open(str(path), "w") as container:
        stream = cast("Any", container.add_stream("libx264", rate=25, options={"qp": "10", "preset": "ultrafast"}))
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*shape.pixel_aspect)
        if shape.rotation or shape.mirrored:
            stream.set_display_rotation(-shape.rotation, hflip=shape.mirrored)
        frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p", dst_color_range="MPEG")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def ratio(picture: AnyArray) -> float:
    """Return width over height of what is white in a float picture [h, w] of 0..1, by its second moments."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weight = np.clip(picture, 0.0, 1.0)
    total = weight.sum()
    spread = [(weight * (axis - (weight * axis).sum() / total) ** 2).sum() for axis in (x, y)]
    return float(np.sqrt(spread[0] / spread[1]))


def network_input(frame: Frame, spec: ImageInput, *, raw: bool = False) -> AnyArray:
    """Return what a network sees, float32 [h, w]: its tensor, or what the graph makes of its raw frame."""
    preprocess = ImagePreprocessor(spec)
    if raw:
        pixels = np.empty(spec.raw_shape, np.uint8)
        preprocess.raw(frame, pixels)
        return reference.image(pixels[0], spec)[0, 0]
    out = np.empty(spec.tensor_shape, np.float32)
    preprocess.tensor(frame, out)
    return out[0, 0]


def circle_rows(folder: Path) -> tuple[list[Row], float]:
    """Return a row for each shape, and the ratio that is furthest from 1."""
    rows, ratios = [], []
    for shape in SHAPES:
        path = folder / "circle.mp4"
        write_shape(path, shape, circle(shape))
        (frame,) = read(path)
        found = {}
        for fit, raw in product(("letterbox", "crop"), (False, True)):
            spec = ImageInput(size=(320, 320), color="gray", fit=fit, mean=(0.0,), std=(1.0,), reduce=1)  # type: ignore[arg-type]
            found[f"{fit}{', raw frame' if raw else ''}"] = ratio(network_input(frame, spec, raw=raw))
        ratios += found.values()
        turned = f", turned {shape.rotation}{' and mirrored' if shape.mirrored else ''}" if shape.rotation else ""
        what = f"circle in {shape.width}x{shape.height}, pixels {shape.pixel_aspect[0]}:{shape.pixel_aspect[1]}{turned}"
        ours = found.pop("letterbox")
        rows.append(Row(f"{what}: width over height", "", ours, {}, None, beside=dict(found)))
    return rows, max(ratios, key=lambda value: abs(value - 1.0))
