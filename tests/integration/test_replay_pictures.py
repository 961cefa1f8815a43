"""Pictures of a replay: kept for whoever wants them, and otherwise read into memory that is used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.recording.reader import Recording
from mmedge.replay.replay import Replay
from mmedge.types import Frame
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel


def test_pictures_that_are_wanted_stay_and_the_memory_of_others_is_used_again(write_clip: Any, tmp_path: Path) -> None:
    bundle, folder = tiny_bundle(tmp_path / "tiny.mmedge"), tmp_path / "r"
    clip = write_clip(times_s=tuple(k / 25 for k in range(30)), picture=lambda t: 16 + int(190 * t))
    with mmedge.Pipeline(bundle, {"image": str(clip), "audio": str(clip)}, record=folder, latency="offline") as pipe:
        assert len(list(pipe)) == 30
    read = [packet for turn in Recording(folder).turns() for packet in turn.packets if isinstance(packet, Frame)]
    recorded = {frame.capture_ns: frame.data for frame in read}
    with mmedge.load(bundle) as opened:
        again = Replay(folder, opened)
        again.keeps_media = True
        results = list(again)
    assert len(results) == 30
    for result in results:
        np.testing.assert_array_equal(result.frame("image").data, recorded[result.t_ns])
    places = set()
    for turn in Recording(folder).turns(reuse=True):
        for frame in (packet for packet in turn.packets if isinstance(packet, Frame)):
            np.testing.assert_array_equal(frame.data, recorded[frame.capture_ns])
            places.add(frame.data.ctypes.data)
            assert frame.release is not None
            frame.release()
    assert len(places) < len(recorded)
