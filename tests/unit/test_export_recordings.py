"""Calibration takes what ``mmedge record`` made."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.errors import ConfigError
from mmedge.export.recording_files import recording_files
from mmedge.export.recordings import raw_samples
from mmedge.replay.inputs import record
from tests.unit.test_export_pack import RECIPE, recipe_in, sound


def test_what_mmedge_recorded_is_a_recording(tmp_path, write_clip):
    clip = write_clip("clip.mkv", sound=sound(1.0), times_s=[k / 25 for k in range(25)])
    uris = {"image": str(clip), "audio": str(clip)}
    recipe = recipe_in(tmp_path, RECIPE + '[calibration]\nrecordings = "lab"\nframes = 8\n')
    record(tmp_path / "lab", uris, recipe.inputs)
    from_recording = raw_samples(recipe)
    files = {file.name for file in recording_files(recipe)}
    assert files == {"recording.json", "events.jsonl", "image.0.mkv", "audio.mka"}
    from_clip = raw_samples(recipe_in(tmp_path, RECIPE + '[calibration]\nrecordings = "clip.mkv"\nframes = 8\n'))
    assert len(from_recording.calibration) == len(from_clip.calibration) > 3
    for one, other in zip(from_recording.calibration, from_clip.calibration, strict=True):
        np.testing.assert_array_equal(one.arrays["image"], other.arrays["image"])
        np.testing.assert_allclose(one.arrays["audio"], other.arrays["audio"], atol=0.03)
    (tmp_path / "lab" / "audio.mka").unlink()
    with pytest.raises(ConfigError, match=r"not enough|no moment"):
        raw_samples(recipe)
