"""What chooses an INT8 form does not judge it: what is held out is split, by whole recordings if it can be."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.export import compare, quantize
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.parts import CHOOSING, MIN_SAMPLES, choosing_counts
from mmedge.export.recordings import RawSamples, raw_samples
from tests.unit.test_export_pack import RECIPE, encoder, fusion, recipe_in, samples
from tests.unit.test_export_sampling import sound


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_both_parts_have_enough_or_there_are_none(held: list[int]) -> None:
    counts = choosing_counts(held)
    if counts is None:
        assert sum(held) < 2 * MIN_SAMPLES + len(held)
        return
    assert all(0 <= count <= own for count, own in zip(counts, held, strict=True))
    assert min(sum(counts), sum(held) - sum(counts)) >= MIN_SAMPLES
    whole = [own if sum(held[:0]) + own else 0 for own in held]
    if all(count in (0, own) for count, own in zip(counts, whole, strict=True)):
        assert sum(counts) <= sum(held) // 2


def test_of_several_recordings_whole_ones_are_kept_apart() -> None:
    assert choosing_counts([40, 40]) == [40, 0]
    assert choosing_counts([200, 40, 40]) == [0, 40, 40]
    assert choosing_counts([500, 10]) == [250, 5]  # the small one alone is too few to choose
    assert choosing_counts([29, 29]) is None


@pytest.fixture
def fp32(tmp_path) -> OnnxModels:
    networks = {"image_encoder": encoder([1, 1, 12, 14]), "audio_encoder": encoder([1, 15, 10]), "fusion": fusion()}
    return OnnxModels(recipe=recipe_in(tmp_path), precision="fp32", models=networks)


class Watched(list):
    """Samples that note which of them were read."""

    def __init__(self, items) -> None:
        super().__init__(items)
        self.seen: list[int] = []

    def __getitem__(self, index):
        self.seen.append(index)
        return super().__getitem__(index)


def test_the_search_and_the_verdict_read_different_samples(fp32, caplog) -> None:
    made = samples(240)
    watched = Watched([s.arrays for part in (made.calibration, made.held_out) for s in part])
    split = RawSamples.split(watched)
    int8 = quantize(fp32, None, split)
    held_out = [place for place in watched.seen if place >= 160][80:]  # behind the look for glitches in both
    first = next(n for n, place in enumerate(held_out) if place >= 200)
    assert first > 40  # more than one form was tried
    assert set(held_out[:first]) == set(range(160, 200))
    assert set(held_out[first:]) == set(range(200, 240))  # the noise of what was chosen
    watched.seen.clear()
    with caplog.at_level(logging.WARNING):
        found = compare(fp32, int8, None, split)
        found.raise_for_status(100)
    assert set(watched.seen) == set(range(200, 240))
    assert found.note is None
    assert "optimistic" not in caplog.text


def test_where_there_are_too_few_to_split_it_is_said(fp32, caplog) -> None:
    few = samples(120)
    int8 = quantize(fp32, None, few)
    with caplog.at_level(logging.WARNING):
        found = compare(fp32, int8, None, few)
        found.raise_for_status(100)
    assert found.enough
    assert "chosen on the samples that judge it, so the figures are optimistic" in caplog.text
    assert "60 or more" in str(found.to_dict()["note"])
    assert "optimistic" in str(found.table().caption)
    assert compare(fp32, fp32, None, few).note is None  # nothing was chosen


@pytest.mark.parametrize("recordings", [1, 2])
def test_recordings_are_split_alike_whatever_count_is_read(tmp_path, write_clip, recordings) -> None:
    (tmp_path / "clips").mkdir()
    triggers = 240 // recordings
    for number in range(recordings):
        clip = write_clip(f"c{number}.mkv", sound=sound(triggers / 25), times_s=[k / 25 for k in range(triggers)])
        clip.rename(tmp_path / "clips" / clip.name)
    recipe = recipe_in(tmp_path, RECIPE + '[calibration]\nrecordings = "clips"\nframes = 60\n')
    found, only = raw_samples(recipe), raw_samples(recipe, 1200, held_out_only=True)
    assert found.choosing is not None
    assert found.judging is not None

    def keys(part) -> set[tuple[str | None, bytes]]:
        return {(s.recording, s.arrays["audio"].tobytes()) for s in part}

    chosen, judged, many = keys(found.choosing), keys(found.judging), keys(only.held_out)
    assert MIN_SAMPLES <= len(found.choosing) <= CHOOSING
    assert len(only.held_out) >= MIN_SAMPLES
    assert judged <= keys(found.held_out)
    assert not chosen & (judged | many | keys(found.calibration))
    assert not many & keys(found.calibration)
    if recordings > 1:
        assert {name for name, _ in chosen} != {name for name, _ in many}
        assert not {name for name, _ in chosen} & {name for name, _ in many}
