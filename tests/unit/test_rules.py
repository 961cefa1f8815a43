"""Decision fusion by rule, and the steps of the face cascade that are no networks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.fusion import faces
from mmedge.fusion.rules import joint_of_two, product_of_experts, weighted_log_probs

share = st.floats(0.01, 1.0)
distribution = st.lists(share, min_size=3, max_size=3).map(lambda p: np.array([p], np.float32) / np.sum(p))


@given(distribution, distribution, distribution)
def test_weights_of_one_are_bayes_rule(a, b, prior):
    """Of independent experts: p(class | a, b) is proportional to p(class | a) p(class | b) / p(class)."""
    want = a * b / prior
    np.testing.assert_allclose(weighted_log_probs(a=a, b=b, prior=prior), want / want.sum(), rtol=1e-4)


@given(distribution, distribution)
def test_equal_priors_make_the_product_of_experts(a, b):
    want = a * b / (a * b).sum()
    np.testing.assert_allclose(product_of_experts(a=a, b=b), want, rtol=1e-4)
    assert product_of_experts(a=a, b=b).dtype == np.float32


@given(distribution, distribution, st.floats(0, 3))
def test_a_weight_is_a_power(a, b, weight):
    want = a * b**weight
    np.testing.assert_allclose(weighted_log_probs(a=a, b=b, weight_b=weight), want / want.sum(), rtol=1e-3)


@given(distribution, distribution)
def test_an_absent_expert_has_no_say(a, prior):
    nobody = np.zeros((1, 3), np.float32)
    np.testing.assert_allclose(weighted_log_probs(a=a, b=nobody, prior=prior), a, rtol=1e-4)
    np.testing.assert_allclose(weighted_log_probs(a=nobody, b=nobody, prior=prior), prior, rtol=1e-4)


def test_a_certain_expert_does_not_silence_the_others():
    """A probability of exactly zero would."""
    joined = product_of_experts(a=[[1.0, 0.0]], b=[[1e-6, 1.0]])
    assert np.isfinite(joined).all()
    assert joined[0, 0] > 0


@pytest.mark.parametrize("tensors", [{"a": [[0.5, 0.5]], "b": [[1.0]]}, {"a": [[1.0]], "weight_b": 1}, {}])
def test_experts_that_do_not_fit(tensors):
    with pytest.raises(ValueError, match="experts need the same size"):
        weighted_log_probs(**tensors)


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_detectors_make_four_states(first, second):
    neither, one, other, both = joint_of_two(first=[[first]], second=[[second]])[0]
    assert neither + one + other + both == pytest.approx(1)
    assert one + both == pytest.approx(first, abs=1e-6)
    assert other + both == pytest.approx(second, abs=1e-6)


PICTURE = np.random.default_rng(0).normal(0, 1, (1, 3, 60, 80)).astype(np.float32)


def cells(*rows):
    """Box, probability, level; no offsets."""
    return np.array([[[*box, p, 0, 0, 0, 0, level] for box, p, level in rows]], np.float32)


def test_candidates_are_the_best_of_each_place():
    found = faces.propose(
        PICTURE,
        cells(
            ((10, 10, 30, 30), 0.9, 0),
            ((11, 10, 31, 30), 0.95, 0),  # the same place, better
            ((50, 20, 70, 40), 0.7, 1),
            ((0, 40, 20, 60), 0.5, 1),  # below what the first network asks for
        ),
    )
    assert found["boxes"].shape == (32, 4)
    np.testing.assert_array_equal(found["boxes"][:2], [[11, 10, 31, 30], [50, 20, 70, 40]])
    assert not found["boxes"][2:].any()
    assert not found["crops"][2:].any()


def test_offsets_move_the_sides_and_boxes_become_squares():
    one = cells(((20, 20, 40, 40), 0.9, 0))
    one[0, 0, 5:9] = (0.1, 0.2, 0.1, -0.2)
    box = faces.propose(PICTURE, one)["boxes"][0]
    np.testing.assert_allclose(box, [22, 20, 42, 40], atol=1e-4)  # 22..42 wide, 24..36 high: 20 x 20 around 32, 30


@pytest.mark.parametrize("box", [(-10, -10, 10, 10), (70, 50, 100, 80), (200, 200, 220, 220)])
def test_crops_beyond_the_picture_are_cut_off(box):
    crops = faces.propose(PICTURE, cells((box, 0.9, 0)))["crops"]
    assert np.isfinite(crops).all()
    assert crops[0].any() == (box[0] < 80)


def test_crops_are_those_of_a_picture_with_channels_last_without_a_copy_of_it():
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).normal(0, 1, (1, 3, 240, 320)).astype(np.float32)
    picture.flags.writeable = False  # what a callable is given
    for left, top, size in ((-5, 30, 40), (60, 20, 24), (10, 10, 21), (5, 40, 190), (200, 100, 96)):
        box = (left, top, left + size, top + size)
        tracemalloc.start()
        crop = faces.propose(picture, cells((box, 0.9, 0)))["crops"][0]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < picture.nbytes / 2
        part = picture[0, :, max(top, 1) - 1 : box[3], max(left, 1) - 1 : box[2]].transpose(1, 2, 0)
        rule = cv2.INTER_AREA if min(part.shape[:2]) >= 24 else cv2.INTER_LINEAR
        want = cv2.resize(np.ascontiguousarray(part), (24, 24), interpolation=rule).transpose(2, 0, 1)
        np.testing.assert_allclose(crop, want, atol=1e-6)


def test_only_so_many_candidates_and_faces():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (500, 2))
    rows = [((x, y, x + 6, y + 6), 0.6 + 0.3 * rng.random(), 0) for x, y in corners]
    found = faces.propose(PICTURE, cells(*rows))
    assert np.all(found["boxes"][:, 2] > found["boxes"][:, 0])
    sure = np.full((32, 1), 0.99, np.float32)
    last = faces.refine(PICTURE, found["boxes"], sure, np.zeros((32, 4), np.float32))
    assert last["boxes"].shape == (8, 4)
    assert last["crops"].shape == (8, 3, 48, 48)


def test_nothing_in_nothing_out():
    nothing = np.zeros((1, 5, 10), np.float32)
    first = faces.propose(PICTURE, nothing)
    # The networks still say something about empty crops.
    second = faces.refine(PICTURE, first["boxes"], np.ones((32, 1), np.float32), np.zeros((32, 4), np.float32))
    last = faces.decide(second["boxes"], np.ones((8, 1), np.float32), np.zeros((8, 4), np.float32))
    assert not last["faces"].any()
    assert last["face"] == 0


def test_a_face_inside_a_face_is_one():
    boxes = np.zeros((8, 4), np.float32)
    boxes[:3] = [[10, 10, 50, 50], [20, 20, 40, 40], [55, 10, 75, 30]]
    probability = np.array([[0.9], [0.99], [0.8], [1], [1], [1], [1], [1]], np.float32)
    found = faces.decide(boxes, probability, np.zeros((8, 4), np.float32))
    np.testing.assert_allclose(found["faces"][0, :3, 4], [0.99, 0.8, 0])
    assert found["face"].item() == pytest.approx(0.99)


def test_a_doubtful_face_counts_for_the_probability_alone():
    boxes = np.zeros((8, 4), np.float32)
    boxes[0] = [10, 10, 50, 50]
    found = faces.decide(boxes, np.full((8, 1), 0.4, np.float32), np.zeros((8, 4), np.float32))
    assert not found["faces"].any()
    assert found["face"].item() == pytest.approx(0.4)
