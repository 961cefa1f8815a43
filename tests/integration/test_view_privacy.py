"""What may not be shown is in no recording, where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.capture.picture import DEEP, frame_shape
from mmedge.errors import ConfigError
from mmedge.privacy import CELLS, Privacy
from mmedge.recording.conceal import conceal
from mmedge.recording.event_log import FrameEvent
from mmedge.recording.frames import samples
from mmedge.recording.reader import Recording
from mmedge.replay.replay import Replay
from mmedge.types import Block, Frame, PixelFormat
from tests.pages import CLIP, DIGITS

pytest.importorskip("av")
pytestmark = pytest.mark.parallel
FED = {"image": str(CLIP), "audio": str(CLIP)}
FORMATS = st.sampled_from(get_args(PixelFormat))


def event(kind: Any, height: int, width: int) -> FrameEvent:
    return FrameEvent(stream="image", seq=0, capture_ns=0, arrive_ns=0, format=kind, width=width, height=height)


@given(FORMATS, st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_nothing_fine_is_left_of_any_format(kind: Any, rows: int, columns: int, seed: int) -> None:
    height, width = 2 * rows, 2 * columns
    data = np.random.default_rng(seed).integers(0, 255, frame_shape(kind, height, width), np.uint8)
    kept, black = data.copy(), data.copy()
    conceal(kept, event(kind, height, width), "blur")
    conceal(black, event(kind, height, width), "none")
    assert len(np.unique(black)) <= 2
    # Within a cell the picture is a plane between the means of its neighbours: no step is larger than between these.
    if kind in ("yuyv422", *DEEP):
        luma = samples(kept, kind, height)[0] >> {"yuyv422": 0, "p010le": 8, "yuv420p10le": 2}[kind]
    else:
        luma = kept.reshape(-1)[: height * width * (3 if kind in ("rgb24", "bgr24") else 1)]
    across = luma.reshape(height, width, -1).astype(int)
    if width >= 2 * CELLS:
        cell = width / max(1, width * CELLS // max(height, width, CELLS))
        assert np.abs(np.diff(across, axis=1)).max() <= 255 / cell + 2
    untouched = data.copy()
    conceal(untouched, event(kind, height, width), "picture")
    np.testing.assert_array_equal(untouched, data)


def recorded(folder: Path, privacy: Privacy) -> tuple[list[Any], list[Frame], list[Block]]:
    with mmedge.Pipeline(DIGITS, FED, latency="offline", record=folder, record_privacy=privacy, duration_s=3.0) as pipe:
        results = list(pipe)
    packets = [packet for turn in Recording(folder).turns() for packet in turn.packets]
    return (
        results,
        [packet for packet in packets if isinstance(packet, Frame)],
        [packet for packet in packets if isinstance(packet, Block)],
    )


def test_a_recording_keeps_what_it_may(tmp_path: Path) -> None:
    results, frames, blocks = recorded(tmp_path / "all", "picture")
    assert max(float(np.abs(block.samples).max(initial=0)) for block in blocks) > 0.05
    assert max(float(frame.data[: frame.height].std()) for frame in frames) > 20
    for privacy, spread in (("blur", 70.0), ("none", 0.0)):
        folder = tmp_path / privacy
        again, hidden, silent = recorded(folder, privacy)  # type: ignore[arg-type]
        # The run itself saw and heard everything.
        both = min(len(again), len(results))  # the last one may be beyond the end
        assert both > 30
        assert [result.tasks for result in again[:both]] == [result.tasks for result in results[:both]]
        assert all(not block.samples.any() for block in silent)
        fine = [float(np.abs(np.diff(frame.data[: frame.height].astype(int), axis=1)).max()) for frame in hidden]
        sharp = [float(np.abs(np.diff(frame.data[: frame.height].astype(int), axis=1)).max()) for frame in frames]
        assert max(fine) <= max(sharp) / 3 if spread else max(fine) == 0
        with mmedge.load(DIGITS) as bundle:
            replay = Replay(folder, bundle)
            assert len(list(replay)) == len(again)  # its decisions hold, its answers are others
            assert replay.cut is None


def test_other_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown record_privacy 'some'"):
        mmedge.Pipeline(DIGITS, FED, record_privacy="some")  # type: ignore[arg-type]
