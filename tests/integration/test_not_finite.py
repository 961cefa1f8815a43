"""Sound of a file that is not finite, in a whole run: a hole that is counted, or the end where the policy says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import SourceError
from tests.tiny import MANIFEST, tiny_bundle

pytestmark = pytest.mark.parallel


@pytest.fixture
def clip(write_clip: Any) -> str:
    """A second of sound with one sample that is no number; pictures from 0.1 s on."""
    sound = np.full((1, 8000), 0.25, np.float32)
    sound[0, 4000] = np.nan
    return str(write_clip(times_s=[0.1 + k / 25 for k in range(20)], size=(64, 64), sound=sound))


def test_what_is_not_finite_is_a_hole_that_is_counted(tmp_path: Path, clip: str) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, latency="offline") as pipe:
        results = list(pipe)
    assert [r.present["audio"] for r in results] == [True] * 20
    assert pipe.statistics.lost_samples == {"audio": 160}
    assert pipe.statistics.refused["audio_not_finite"] == 1
    audio = pipe.health()["audio"]
    assert audio["counters"]["refused_not_finite"] == 1  # type: ignore[index]
    assert "sound of input 'audio' was refused: it has samples that are not finite" in str(audio["reason"])


def test_what_is_not_finite_ends_the_run_where_the_policy_is_fail(tmp_path: Path, clip: str) -> None:
    missing = {**MANIFEST["missing"], "audio": {"policy": "fail"}}
    bundle = tiny_bundle(tmp_path / "tiny.mmedge", missing=missing)
    with (
        mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, latency="offline") as pipe,
        pytest.raises(SourceError, match=r"sound of input 'audio' was refused: .* not finite") as caught,
    ):
        list(pipe)
    assert caught.value.where == f"{clip}: 0.500 s"
    assert caught.value.exit_code == 5
