"""What the page gets of pictures and sound: right colours, upright, bounded, and nothing that may not leave."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.preprocess.fit import Seen
from mmedge.privacy import CELLS, Privacy, shown
from mmedge.sound_cut import Sound
from mmedge.types import PLAIN, Description, Frame
from mmedge.view.picture import PictureMaker, shown_size
from mmedge.view.sound import BANDS, COLUMNS_PER_S, KEPT_S, SoundTrack

RATE_HZ = 8000


def frame(data: np.ndarray, kind: str, description: Description = PLAIN) -> Frame:
    height, width = (data.shape[0] * 2 // 3, data.shape[1]) if kind == "yuv420p" else data.shape[:2]
    return Frame(
        stream="image", seq=0, capture_ns=0, arrive_ns=0, data=data, format=kind,  # type: ignore[arg-type]
        width=width, height=height, description=description,
    )  # fmt: skip


def decoded(made: Frame, privacy: Privacy = "picture", longest: int = 640) -> np.ndarray:
    jpeg = PictureMaker(privacy, longest)(made)
    assert jpeg is not None
    picture = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == (jpeg.height, jpeg.width)
    return np.asarray(picture[..., ::-1])


def yuv(y: int, u: int, v: int, height: int = 64, width: int = 96) -> np.ndarray:
    data = np.empty((height * 3 // 2, width), np.uint8)
    data[:height], data[height : height * 5 // 4], data[height * 5 // 4 :] = y, u, v
    return data


def test_matrix_and_range_are_those_of_the_stream() -> None:
    """The red of BT.709 in limited range, which another matrix makes orange."""
    red = decoded(frame(yuv(63, 102, 240), "yuv420p", Description(matrix="bt709", full_range=False)))
    assert np.abs(red.mean((0, 1)) - [255, 0, 0]).max() < 8
    white = decoded(frame(yuv(235, 128, 128), "yuv420p", Description(full_range=False)))
    assert white.mean() > 250


def test_a_picture_is_turned_and_has_the_shape_that_is_shown() -> None:
    data = np.zeros((60, 100, 3), np.uint8)
    data[:, :50, 0] = 255  # the left half is red
    upright = decoded(frame(data, "rgb24", Description(rotation=90)))
    assert upright.shape[:2] == (100, 60)
    assert upright[10, 30, 0] > 200
    assert upright[90, 30, 0] < 60
    wide = decoded(frame(data, "rgb24", Description(pixel_aspect=(2, 1))))
    assert wide.shape[1] / wide.shape[0] == pytest.approx(200 / 60, rel=0.03)


@given(
    st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(1, 1), (16, 11), (64, 45), (1, 8)]),
    st.sampled_from([0, 90, 180, 270]),
)  # fmt: skip
def test_pictures_are_bounded(height: int, width: int, aspect: tuple[int, int], rotation: int) -> None:
    seen = Seen(height, width, Description(rotation=rotation, pixel_aspect=aspect))  # type: ignore[arg-type]
    down, across = shown_size(seen, 640)
    assert 1 <= max(down, across) <= 640


@given(st.integers(2, 300), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_a_blurred_picture_says_no_more_than_its_cells(height: int, width: int, seed: int) -> None:
    """Pictures whose cells have the same means look the same, whatever is in them."""
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    blurred = shown(picture, "blur")
    assert blurred is not None
    assert blurred.shape == picture.shape
    longer = max(height, width)
    cells = (max(1, width * CELLS // max(longer, CELLS)), max(1, height * CELLS // max(longer, CELLS)))
    assert max(cells) <= CELLS
    means = cv2.resize(picture, cells, interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(blurred, cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR))
    assert shown(picture, "none") is None


def test_nothing_is_made_of_a_picture_that_may_not_leave() -> None:
    assert PictureMaker("none")(frame(np.zeros((8, 8, 3), np.uint8), "rgb24")) is None


def sound(samples: np.ndarray, end: int, start_ns: int = 0) -> Sound:
    end_ns = start_ns + end * 1_000_000_000 // RATE_HZ
    data = samples.astype(np.float32)
    return Sound(samples=data, real=len(data), rate_hz=RATE_HZ, end=end, end_ns=end_ns, epoch=0)


def tone(hz: float, n: int, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(n) / RATE_HZ)


def columns(track: SoundTrack) -> tuple[np.ndarray, np.ndarray]:
    raw = np.array([np.frombuffer(column.data, np.uint8) for column in track.columns])
    return raw[:, :2].view(np.int8), raw[:, 2:]


@pytest.mark.parametrize("hz", [150.0, 600.0, 1500.0, 3200.0])
def test_a_tone_is_where_it_belongs(hz: float) -> None:
    track = SoundTrack(RATE_HZ, "picture")
    track.take(sound(tone(hz, RATE_HZ), RATE_HZ))
    extent, levels = columns(track)
    assert len(extent) == COLUMNS_PER_S
    assert abs(int(extent[10:, 1].max()) - 64) <= 4  # a sample need not meet the crest
    assert abs(int(extent[10:, 0].min()) + 64) <= 4
    pitch = 1127 * np.log1p(np.array([60.0, hz, RATE_HZ / 2]) / 700)
    expected = (pitch[1] - pitch[0]) / (pitch[2] - pitch[0]) * BANDS
    assert abs(int(levels[20].argmax()) - expected) <= 1.5


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30))
def test_pieces_give_the_columns_of_the_whole(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.2, sum(sizes)).astype(np.float32)
    whole, pieces = SoundTrack(RATE_HZ, "picture"), SoundTrack(RATE_HZ, "picture")
    whole.take(sound(samples, len(samples)))
    end = 0
    for size in sizes:
        pieces.take(sound(samples[end : end + size], end + size))
        end += size
    assert [c.data for c in pieces.columns] == [c.data for c in whole.columns]
    for a, b in zip(pieces.columns, whole.columns, strict=True):
        assert abs(a.end_ns - b.end_ns) < 1000


def test_columns_are_bounded_and_timed() -> None:
    track = SoundTrack(RATE_HZ, "picture")
    seconds = 2 * KEPT_S
    for second in range(seconds):
        track.take(sound(tone(440, RATE_HZ), (second + 1) * RATE_HZ, start_ns=7_000))
    assert len(track.columns) == KEPT_S * COLUMNS_PER_S
    assert track.columns[-1].end_ns == 7_000 + seconds * 1_000_000_000


def test_sound_that_may_not_leave() -> None:
    nothing = SoundTrack(RATE_HZ, "none")
    nothing.take(sound(tone(440, RATE_HZ), RATE_HZ))
    assert not nothing.columns
    loudness = SoundTrack(RATE_HZ, "blur")
    loudness.take(sound(tone(440, RATE_HZ), RATE_HZ))
    assert len(loudness.columns) == COLUMNS_PER_S
    assert {len(column.data) for column in loudness.columns} == {2}
    # Loudness alone: another tone of the same level looks the same.
    other = SoundTrack(RATE_HZ, "blur")
    other.take(sound(tone(880, RATE_HZ), RATE_HZ))
    assert [c.data for c in other.columns] == [c.data for c in loudness.columns]
