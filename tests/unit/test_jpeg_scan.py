"""The codes of JPEG pictures: intact ones add up whatever made them, damaged ones do not."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.media_clips import KINDS, hurt, scene
from mmedge._native import core
from mmedge.extras import require


def jpegs(pictures: int = 3, **options: str) -> list[bytes]:
    """Return pictures as FFmpeg's encoder makes them."""
    av = require("av", "this test")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"qscale": "4", "flags": "+qscale", **options})
        stream.width, stream.height, stream.pix_fmt = 320, 240, options.get("pixels", "yuvj420p")
        for index in range(pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(index), format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def unused(data: bytes) -> int:
    return core.jpeg_unused(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("pixels", ["yuvj420p", "yuvj422p", "yuvj444p"])
@pytest.mark.parametrize("huffman", ["default", "optimal"])
def test_what_ffmpeg_makes_is_whole(pixels: str, huffman: str) -> None:
    assert [unused(data) for data in jpegs(pixels=pixels, huffman=huffman)] == [0, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (33, 50), (640, 360)])
@pytest.mark.parametrize("restart", [0, 1, 7])
@pytest.mark.parametrize("grey", [True, False])
def test_what_libjpeg_makes_is_whole(size: tuple[int, int], restart: int, grey: bool) -> None:
    cv2 = require("cv2", "this test")
    picture = np.random.default_rng(1).integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)
    for subsampling in (0x411111, 0x420, 0x221111, 0x111111) if not grey else (0x111111,):
        options = [cv2.IMWRITE_JPEG_QUALITY, 60, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
        if subsampling in (0x411111, 0x221111, 0x111111):
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, subsampling]
        _, data = cv2.imencode(".jpg", picture, options)
        assert unused(data.tobytes()) == 0


def test_a_picture_without_its_tables_has_those_of_the_standard() -> None:
    data = jpegs(1, huffman="default")[0]
    while (at := data.find(b"\xff\xc4")) >= 0:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert unused(data) == 0


def test_other_kinds_are_not_judged() -> None:
    cv2 = require("cv2", "this test")
    _, data = cv2.imencode(".jpg", scene(0), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert unused(data.tobytes()) == -2


def test_two_fields_and_a_missing_end_are_whole_and_bytes_before_the_end_are_counted() -> None:
    first, second = jpegs(2)
    assert unused(first + second) == 0
    assert unused(first[:-2]) == 0
    assert unused(first[:-2] + bytes(5) + first[-2:]) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_most_damage_is_seen(kind: str) -> None:
    chance = random.Random(2)
    seen = [unused(hurt(data, kind, chance)) != 0 for data in jpegs(8) for _ in range(5)]
    # A byte may change values without changing how many bits they take.
    assert sum(seen) >= (16 if kind == "byte" else 34)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_nothing_that_is_sent_can_break_it(data: Any) -> None:
    whole = _one()
    at = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=60))
    assert unused(whole[:at] + junk + whole[at + data.draw(st.integers(0, 200)) :]) >= -2
    assert unused(junk) >= -2
    assert unused(b"\xff\xd8" + junk) >= -2


def _one(cache: list[bytes] = []) -> bytes:  # noqa: B006  (made once)
    if not cache:
        cache.append(jpegs(1)[0])
    return cache[0]
