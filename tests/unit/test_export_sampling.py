"""Whatever a recording's length: every trigger at most once, over the whole of it, and its last third is held out."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import CheckError, ConfigError
from mmedge.export import compare
from mmedge.export.int8.compare import HELD_OUT
from mmedge.export.int8.quantize import networks_of
from mmedge.export.int8.search import Search
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.parts import held_out_of, shares, spread
from mmedge.export.preprocess.onnx_prefix import Preprocessor
from mmedge.export.recordings import RawSamples, as_samples, raw_samples
from mmedge.export.spool import IN_MEMORY, Spool
from tests.unit.test_export_pack import RECIPE, encoder, fusion, recipe_in, samples, sound

LENGTHS = st.integers(1, 3000)


@given(total=LENGTHS, count=st.integers(1, 3000))
def test_spread_takes_each_at_most_once_and_leaves_no_gap(total, count):
    chosen = spread(total, count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < total
    step = total / len(chosen)
    gaps = np.diff([-1, *chosen, total])
    assert gaps.max() <= step + 1
    assert gaps[0] <= step / 2 + 1.5
    assert gaps[-1] <= step / 2 + 1.5


@given(triggers=st.lists(LENGTHS, min_size=1, max_size=20), total=st.integers(1, 5000))
def test_recordings_share_evenly_as_far_as_they_have_triggers(triggers, total):
    given_ = shares(triggers, total)
    assert sum(given_) == min(total, sum(triggers))
    for own, share in zip(triggers, given_, strict=True):
        assert share <= own
        if share < own:  # nobody who has more left gives less than another by more than one
            assert share >= max(given_) - 1


@given(
    triggers=st.lists(LENGTHS, min_size=1, max_size=12).filter(lambda t: sum(t) >= 3),
    total=st.integers(3, 2000),
    other=st.integers(3, 2000),
)
def test_what_is_held_out_never_calibrates_whatever_the_count(triggers, total, other):
    sets = []
    for asked in (total, other):
        count = max(asked, 3 * len(triggers))
        chosen = [spread(*pair) for pair in zip(triggers, shares(triggers, count), strict=True)]
        late = held_out_of(triggers, chosen)
        picked = [
            (s, i, x) for s, both in enumerate(zip(chosen, late, strict=True)) for i, x in zip(*both, strict=True)
        ]
        sets.append(picked)
        assert any(x for _, _, x in picked)
    long = [s for s, own in enumerate(triggers) if own >= 3]
    for s in long:
        for _, index, held in (p for part in sets for p in part if p[0] == s):
            assert held == (3 * index >= 2 * triggers[s])
    if long == list(range(len(triggers))) and min(triggers) >= 3:
        calibrating = {p[:2] for p in sets[0] if not p[2]}
        assert not calibrating & {p[:2] for p in sets[1] if p[2]}


@pytest.mark.parametrize(("frames", "triggers"), [(128, 50), (8, 50), (40, 50), (500, 31)])
def test_a_clip_with_few_triggers_is_sampled_to_its_end(tmp_path, write_clip, frames, triggers):
    write_clip("clip.mkv", sound=sound(triggers / 25), times_s=[k / 25 for k in range(triggers)])
    recipe = recipe_in(tmp_path, RECIPE + f'[calibration]\nrecordings = "clip.mkv"\nframes = {frames}\n')
    found = raw_samples(recipe)
    grey = [float(s.arrays["image"].mean()) for s in (*found.calibration, *found.held_out)]
    # The first picture comes before any sound, and does not count.
    assert len(set(grey)) == len(grey) == min(frames * 3 // 2, triggers - 1)
    assert grey == sorted(grey)
    step = (grey[-1] - grey[0]) / (len(grey) - 1)
    last = (16 + 100 * (triggers - 1) / 25 - 16) * 255 / 219  # of limited range
    assert grey[-1] > last - step - 2, "the end is missing"
    assert abs(len(found.calibration) - len(grey) * 2 / 3) <= 1
    only = raw_samples(recipe, HELD_OUT * 3, held_out_only=True)
    assert len(only.held_out) >= triggers // 3
    calibrating = {float(s.arrays["image"].mean()) for s in found.calibration}
    assert not calibrating & {float(s.arrays["image"].mean()) for s in only.held_out}


def test_recordings_of_one_trigger_are_held_out_whole(tmp_path, write_clip):
    (tmp_path / "clips").mkdir()
    for number in range(4):
        clip = write_clip(
            f"c{number}.mkv", times_s=[0.0, 0.04], picture=lambda t, n=number: 40 * n + 20, sound=sound(0.3)
        )
        clip.rename(tmp_path / "clips" / clip.name)
    text = RECIPE.replace("window_ms = 200", "window_ms = 40")
    recipe = recipe_in(tmp_path, text + '[calibration]\nrecordings = "clips"\n')
    found = raw_samples(recipe)
    assert [s.name for s in found.calibration] == ["c0 0", "c1 0", "c3 0"]
    assert [s.name for s in found.held_out] == ["c2 0"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (
            {"image": np.zeros((1, 3, 12, 14), np.float32)},
            r"'image' is float32 \[1, 3, 12, 14\] in 0..0, not raw uint8",
        ),
        ({"image": np.full((1, 48, 64, 1), -1.5, np.float32)}, r"in -1.5..-1.5, not raw uint8 \[1, 48, 64, 1\]"),
        ({"audio": np.zeros((1600,), np.float32)}, r"'audio' is float32 \[1600\]"),
        ({"audio": np.zeros((1, 1600), np.int16)}, r"'audio' is int16"),
    ],
)
def test_samples_that_do_not_fit_are_named_with_shape_and_range(tmp_path, bad, told):
    good = dict(samples(3).calibration[0].arrays)
    found = as_samples([good, good, {**good, **bad}, good], recipe_in(tmp_path))
    with pytest.raises(ConfigError, match=told) as caught:
        list(found.held_out + found.calibration if isinstance(found.held_out, list) else found.held_out)
    assert "sample 2" in str(caught.value)


def test_a_missing_input_and_numbers_that_are_none_are_named(tmp_path):
    good = dict(samples(3).calibration[0].arrays)
    recipe = recipe_in(tmp_path)
    with pytest.raises(ConfigError, match="no array for input 'audio'"):
        list(as_samples([{"image": good["image"]}] * 3, recipe).calibration)
    nan = {**good, "audio": np.full((1, 1600), np.nan, np.float32)}
    with pytest.raises(CheckError, match="sample 'sample 1': input 'audio' has NaN"):
        list(as_samples([good, nan, good], recipe).calibration)


def test_a_generator_is_kept_and_can_be_read_again():
    once = RawSamples.split({"x": np.full((2, 3), k, np.int16)} for k in range(9))
    for _ in range(2):
        assert [int(s.arrays["x"][0, 0]) for s in once.calibration] == [0, 1, 2, 3, 4, 5]
        assert [s.name for s in once.held_out[1:]] == ["sample 7", "sample 8"]


@given(shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_spool_gives_back_what_it_got(shapes, seed):
    rng = np.random.default_rng(seed)
    spool, kept = Spool(), []
    for shape in shapes:
        arrays = {"a": rng.normal(size=shape).astype(np.float32), "b": rng.integers(0, 255, shape, dtype=np.uint8)}
        assert spool.add(arrays) == len(kept)
        kept.append(arrays)
    for place in reversed(range(len(kept))):
        for name, array in kept[place].items():
            got = spool[place][name]
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(got, array)


def test_a_large_spool_lies_on_the_disk():
    spool = Spool()
    block = np.zeros(IN_MEMORY // 4, np.uint8)
    for number in range(6):
        spool.add({"x": block + np.uint8(number)})
    assert [int(spool[k]["x"][-1]) for k in range(6)] == list(range(6))
    assert spool._file.name is not None  # a file, not memory


@pytest.fixture
def fp32(tmp_path) -> OnnxModels:
    networks = {"image_encoder": encoder([1, 1, 12, 14]), "audio_encoder": encoder([1, 15, 10]), "fusion": fusion()}
    return OnnxModels(recipe=recipe_in(tmp_path), precision="fp32", models=networks)


def test_fewer_than_thirty_samples_are_no_gate(fp32, caplog):
    few = compare(fp32, fp32, None, samples(87))
    assert not few.enough
    with caplog.at_level(logging.WARNING):
        few.raise_for_status()
    assert "not checked: 29 samples held out are too few" in caplog.text
    assert few.to_dict()["checked"] is False
    assert "29 samples" in str(few.to_dict()["warning"])
    assert "WARNING: not checked" in str(few.table().caption)
    enough = compare(fp32, fp32, None, samples(90))
    assert enough.enough
    assert "warning" not in enough.to_dict()


def test_layers_are_ranked_on_samples_of_the_whole_calibration(fp32):
    given = samples(180)
    networks, _ = networks_of(fp32.recipe, fp32.models)
    search = Search(fp32.recipe, fp32.models, networks, given.calibration, given.held_out)
    search._collect(values=False)
    preprocess = Preprocessor(fp32.recipe.inputs, fp32.recipe.export.opset)
    for stage, seat in (("image_encoder", "image"), ("audio_encoder", "audio")):
        want = [preprocess(given.calibration[place].arrays)[seat] for place in spread(120, 8)]
        np.testing.assert_array_equal([feed["x"] for feed in networks[stage].feeds], want)


def test_a_recipe_may_require_a_verdict(tmp_path):
    recipe = recipe_in(tmp_path, RECIPE + '[calibration]\ngate = "required"\n')
    networks = {"image_encoder": encoder([1, 1, 12, 14]), "audio_encoder": encoder([1, 15, 10]), "fusion": fusion()}
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models=networks)
    with pytest.raises(CheckError, match="too few") as caught:
        compare(fp32, fp32, None, samples(30)).raise_for_status()
    assert "calibration.gate" in caught.value.fix
    compare(fp32, fp32, None, samples(90)).raise_for_status()
