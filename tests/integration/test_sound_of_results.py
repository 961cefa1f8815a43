"""A result gives the sound it was made from, in whichever process the runtime is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import mmedge
from mmedge.errors import ConfigError, FrameExpiredError
from mmedge.types import Result

pytestmark = pytest.mark.parallel
ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
CLIP = str(ASSETS / "clips" / "clean.mp4")


def heard(isolation: Literal["thread", "process"], seconds: float) -> tuple[np.ndarray, int, list[Result]]:
    """Return the sound of a run in one piece, the index of its first sample, and the results."""
    pieces, first, end = [], 0, None
    results = []
    with mmedge.Pipeline(
        ASSETS / "digits.mmedge", {"image": CLIP, "audio": CLIP}, isolation=isolation, duration_s=seconds, results="all"
    ) as pipe:
        for result in pipe:
            results.append(result)
            if not result.present["audio"]:
                with pytest.raises(ConfigError, match="no sound of 'audio'"):
                    result.sound("audio")
                continue
            sound = result.sound("audio", end)
            assert sound.rate_hz == 8000
            assert abs(sound.end_ns - result.t_ns) < 1_000_000
            if end is None:
                first = sound.end - len(sound.samples)
            else:
                assert sound.real == len(sound.samples) == sound.end - end
            end = sound.end
            pieces.append(sound.samples)
        window = results[-1].sound("audio").samples
    stream = np.concatenate(pieces)
    np.testing.assert_array_equal(window, stream[-len(window) :])
    return stream, first, results


def test_a_stream_without_gaps_and_the_same_from_another_process() -> None:
    own, first, _ = heard("thread", 3.0)
    other, other_first, _ = heard("process", 3.0)
    begin = max(first, other_first)  # a busy machine may not have answered the first picture
    own, other = own[begin - first :], other[begin - other_first :]
    assert min(len(own), len(other)) > 4000
    assert float(np.abs(own).max()) > 0.1
    np.testing.assert_array_equal(own[: len(other)], other[: len(own)])


def test_sound_is_gone_after_a_while() -> None:
    _, _, results = heard("thread", 6.0)
    with pytest.raises(FrameExpiredError, match="is gone"):
        next(r for r in results if r.present["audio"]).sound("audio")
