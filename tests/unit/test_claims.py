from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from mmedge.bundle.manifest import TextInput
from mmedge.export.datasets.base import SPLITS, Split
from mmedge.export.datasets.claims import NONE, NOTHING, TEMPLATES, Claims, make_tokenizer, slip
from mmedge.export.datasets.speech import DIGITS
from mmedge.export.shipped import shipped_recipe
from mmedge.export.tokenizer import read_tokenizer
from mmedge.preprocess import Tokenizer


def named(text: str) -> list[int]:
    """Read a claim as a person would: whole words and lone figures."""
    words = re.findall(r"[a-z]+|\d+", text.lower().replace("that one is", "that is"))
    return [DIGITS.index(w) if w in DIGITS else int(w) for w in words if w in DIGITS or (w.isdigit() and len(w) == 1)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, NONE), st.integers(0, 2**32))
def test_a_claim_names_its_digit_and_nothing_names_none(split: Split, label: int, seed: int) -> None:
    text = Claims(split).make(label, np.random.default_rng(seed))
    assert text == Claims(split).make(label, np.random.default_rng(seed))
    found = named(text)
    if label == NONE:
        assert len(found) != 1
    else:
        assert found == [label]


def test_no_phrase_is_in_two_splits() -> None:
    for index, one in enumerate(SPLITS):
        for other in SPLITS[index + 1 :]:
            assert not set(TEMPLATES[one]) & set(TEMPLATES[other])
            assert not set(NOTHING[one]) & set(NOTHING[other])
    numbers = {split: set() for split in SPLITS}
    for split in SPLITS:
        rng = np.random.default_rng(0)
        numbers[split] = {n for _ in range(3000) for n in re.findall(r"\d\d+", Claims(split).make(NONE, rng))}
    assert all(numbers.values())
    assert not numbers["train"] & numbers["test"]
    assert not numbers["validation"] & numbers["test"]


@settings(max_examples=300, deadline=None)
@given(st.text("7seven, it's", max_size=12), st.integers(0, 2**32))
def test_a_slip_is_one_key(text: str, seed: int) -> None:
    made = slip(text, np.random.default_rng(seed))
    assert abs(len(made) - len(text)) <= 1
    changed = [k for k, (a, b) in enumerate(zip(made, text, strict=False)) if a != b]
    if len(made) == len(text) and changed:
        assert changed[-1] - changed[0] <= 1
    if not re.search(r"\w", text):
        assert made == text


def test_the_shipped_tokenizer_is_the_one_that_the_claims_make() -> None:
    recipe = shipped_recipe("av_digits")
    raw = read_tokenizer(recipe, "text")
    assert raw == make_tokenizer()
    assert len(raw) < 20_000
    spec = recipe.inputs["text"]
    assert isinstance(spec, TextInput)
    tokenizer, ids = Tokenizer(raw, spec), np.empty(spec.tensor_shape, np.int64)
    rng = np.random.default_rng(0)
    lengths = []
    for index in range(500):
        tokenizer.ids(Claims("test").make(index % (NONE + 1), rng, 0.3), ids)
        lengths.append(int(np.count_nonzero(ids)))
    # Hardly any claim is cut.
    assert np.mean(np.array(lengths) == spec.max_tokens) < 0.02


def test_an_empty_claim_is_what_a_text_of_accents_alone_is_in_a_run() -> None:
    # A blank text is never fed to the network: it takes the one before back. These are fed, and leave padding alone.
    recipe = shipped_recipe("av_digits")
    spec = recipe.inputs["text"]
    assert isinstance(spec, TextInput)
    tokenizer, ids = Tokenizer(read_tokenizer(recipe, "text"), spec), np.empty(spec.tensor_shape, np.int64)
    for text in ("", "\u0301", "\u0308\u0301", "\ufe0f"):
        assert text == "" or text.strip()
        tokenizer.ids(text, ids)
        assert (ids == spec.pad).all()
    made = [Claims("train").make(NONE, np.random.default_rng(seed)) for seed in range(300)]
    assert "" in made
    assert all(text == "" or text.strip() for text in made)
