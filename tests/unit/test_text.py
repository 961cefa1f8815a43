"""Texts become token numbers, by the bundle's tokenizer alone, for any text."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle import load
from mmedge.bundle.manifest import TextInput
from mmedge.errors import BundleError, ConfigError, EngineError
from mmedge.fusion import load_graph
from mmedge.fusion.feed import make_feed
from mmedge.preprocess import Tokenizer
from mmedge.types import Snapshot, Text
from tests.texts import TOKENS, WORDS, text_bundle, tokenizer_json

SPEC = TextInput(max_tokens=TOKENS, tokenizer="tokenizer/text.json")
TOKENIZER = Tokenizer(tokenizer_json(), SPEC)


def ids(text: str, tokenizer: Tokenizer = TOKENIZER, tokens: int = TOKENS) -> list[int]:
    out = np.full((1, tokens), -7, np.int64)
    tokenizer.ids(text, out)
    return [int(token) for token in out[0]]


def test_a_text_is_cut_and_padded() -> None:
    assert ids("It is DARK") == [4, 5, 2, 0, 0, 0]
    assert ids("dark " * 10) == [2] * TOKENS
    assert ids("") == [0] * TOKENS
    assert ids("nonsense") == [1, 0, 0, 0, 0, 0]
    assert TOKENIZER.size == len(WORDS)


def test_padding_and_truncation_are_the_seat_s_own() -> None:
    own = tokenizer_json(
        padding={
            "strategy": {"Fixed": 3},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 9,
            "pad_type_id": 0,
            "pad_token": "x",
        },
        truncation={"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    )
    spec = TextInput(max_tokens=4, pad=5)
    assert ids("it dark bright", Tokenizer(own, spec), 4) == [4, 2, 3, 5]


@given(st.text(max_size=200))
def test_any_text_fits(text: str) -> None:
    found = ids(text)
    assert len(found) == TOKENS
    assert all(0 <= token < TOKENIZER.size for token in found)


@pytest.mark.parametrize("text", ["x" * 65_536, "dark " * 13_000, " " * 65_536, "\u0301" * 30_000, "\n\t\x7f\ufffd"])
def test_a_text_of_any_size_fits(text: str) -> None:
    assert all(0 <= token < TOKENIZER.size for token in ids(text))


NINE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2] * 9, "tokens": ["[CLS]"] * 9}},
}


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a tokenizer"),
        (b"{}", "not a tokenizer"),
        (b"[" * 100_000, "not a tokenizer"),
        (b"\xff\xfe\x00", "not a tokenizer"),
        (cut(tokenizer_json()), "not a tokenizer"),
        (tokenizer_json({"[UNK]": -1}), "not a tokenizer"),
        (tokenizer_json({"[UNK]": 1 << 63}), "not a tokenizer"),
        (tokenizer_json({"dark": 0}), "not a tokenizer"),  # nothing stands for unknown words
        (tokenizer_json(post_processor=NINE), "9 special tokens"),
    ],
)
def test_a_damaged_tokenizer_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Tokenizer(raw, SPEC)
    assert caught.value.where == "tokenizer/text.json"


def test_a_pad_that_is_no_int64_is_refused() -> None:
    with pytest.raises(BundleError, match="int64"):
        Tokenizer(tokenizer_json(), TextInput(max_tokens=4, pad=1 << 63))
    assert Tokenizer(tokenizer_json(), TextInput(max_tokens=4, pad=99)).size == 100


@given(st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 6))
def test_a_tokenizer_damaged_anywhere_works_or_is_refused(at: int, inserted: bytes, removed: int) -> None:
    raw = tokenizer_json()
    at %= len(raw)
    try:
        tokenizer = Tokenizer(raw[:at] + inserted + raw[at + removed :], SPEC)
    except BundleError:
        return
    with suppress(EngineError):
        assert len(ids("it is dark \U0010ffff", tokenizer)) == TOKENS


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be int64"):
        TOKENIZER.ids("dark", np.empty((1, TOKENS), np.int32))
    with pytest.raises(ConfigError, match="must be int64"):
        TOKENIZER.ids("dark", np.empty((1, TOKENS + 1), np.int64))
    with pytest.raises(ConfigError, match="surrogates"):
        ids("\ud800")


def snapshot(text: str) -> Snapshot:
    value = Text(stream="text", seq=0, capture_ns=0, arrive_ns=0, text=text)
    return Snapshot(t_ns=0, seq=0, present={"text": True}, values={"text": value})


def test_the_same_text_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = make_feed("text", SPEC, raw=False, read=lambda name: tokenizer_json())
    seen: list[str] = []
    real = Tokenizer.ids

    def counted(self: Tokenizer, text: str, out: np.ndarray) -> None:  # type: ignore[type-arg]
        seen.append(text)
        real(self, text, out)

    monkeypatch.setattr(Tokenizer, "ids", counted)
    out = np.empty((1, TOKENS), np.int64)
    for text in ("dark", "dark", "bright", "dark", "dark"):
        feed.fill(snapshot(text), out, lambda *_: 0)
        assert out[0, 0] == WORDS[text]
        feed.fill_absent(out)
        assert not out.any()
    assert seen == ["dark", "bright"]


def test_golden_tokens_are_copied_and_checked() -> None:
    feed = make_feed("text", SPEC, raw=True, read=lambda name: tokenizer_json())
    out = np.empty((1, TOKENS), np.int64)
    feed.fill_raw(np.arange(TOKENS), out)
    assert out.tolist() == [list(range(TOKENS))]
    for wrong in (np.arange(TOKENS, dtype=np.int32), np.arange(TOKENS + 1)):
        with pytest.raises(ConfigError, match="expected int64"):
            feed.fill_raw(wrong, out)


def test_a_bundle_with_a_damaged_tokenizer_does_not_load(tmp_path: Path) -> None:
    bad = text_bundle(tmp_path / "bad.mmedge", tokenizer=b'{"version": "9"}')
    with load(bad) as bundle, pytest.raises(BundleError, match="not a tokenizer"):
        load_graph(bundle)
    with load(text_bundle(tmp_path / "good.mmedge")) as bundle:
        load_graph(bundle).close()


def test_the_tokenizer_of_the_tests_is_plain_json() -> None:
    assert json.loads(tokenizer_json())["model"]["vocab"] == WORDS


LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
INSERT = {"pattern": {"Regex": "(?=.)"}, "content": "x"}
BYTES = {"type": "ByteLevel"}
LETTERS = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
# A map of SentencePiece: a table of one entry, and what letters become.
MAP = base64.b64encode(struct.pack("<II", 4, 0) + b"x" * 1000 + b"\0").decode()


def meta(letter: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": letter, "prepend_scheme": "always", "split": True}


def sequence(*parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": parts}


@pytest.mark.parametrize(
    "normalizer",
    [
        sequence(*[LONGER] * 3),
        sequence(*[BYTES] * 12),
        sequence(*[{"type": "Replace", **INSERT}] * 12),
        sequence(*[INSERT] * 12),  # the library takes these spellings too
        sequence(*[[{"Regex": "(?=.)"}, "x"]] * 12),
        sequence(*[{"type": {"ByteLevel": None}}] * 12),
        {"normalizers": [sequence(*[INSERT] * 12)] * 2},
        sequence(*[{"type": "Replace", "pattern": {"String": ""}, "content": "x"}] * 12),
        sequence(*[{"type": "Prepend", "prepend": "xx"}] * 12),
        sequence(*[{"type": "Replace", "pattern": {"Regex": "."}, "content": "\ufdfa"}, {"type": "NFKD"}] * 6),
        {"type": "Precompiled", "precompiled_charsmap": MAP},
    ],
)
def test_normalizers_that_would_fill_the_memory_are_refused(normalizer: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="more than 256 times longer"):
        Tokenizer(tokenizer_json(normalizer=normalizer), SPEC)


@pytest.mark.parametrize(
    "parts",
    [
        [{**BYTES, "add_prefix_space": True, "trim_offsets": True, "use_regex": False}] * 12,
        [LETTERS, meta("_"), LETTERS, meta("+")] * 6,
    ],
)
def test_pre_tokenizers_that_would_fill_the_memory_are_refused(parts: list[Any]) -> None:
    with pytest.raises(BundleError, match="more than 256 times longer"):
        Tokenizer(tokenizer_json(pre_tokenizer={"type": "Sequence", "pretokenizers": parts}), SPEC)


@pytest.mark.parametrize(
    "model",
    [
        {
            "type": "WordPiece",
            "unk_token": "u",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 10**9,
            "vocab": {"u": 0, "a": 1, "##a": 2},
        },
        {"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], *(["a" * count, -1.0] for count in range(1, 3000))]},
    ],
)
def test_vocabularies_that_take_a_text_apart_for_ever_are_refused(model: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="letters"):
        Tokenizer(tokenizer_json(model=model), SPEC)


def test_added_and_special_tokens_that_would_fill_the_memory_are_refused() -> None:
    token = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    added = [{"id": 6, "content": "a" * 1_000_000, "normalized": True, **token}]
    with pytest.raises(BundleError, match="1000000 letters and may become 128 times longer"):
        Tokenizer(tokenizer_json(normalizer=sequence(*[INSERT] * 7), added_tokens=added), SPEC)
    many = {**NINE, "single": NINE["single"] * 3000}
    many["special_tokens"] = {"[CLS]": {"id": "[CLS]", "ids": [2] * 100_000, "tokens": ["c"] * 100_000}}
    with pytest.raises(BundleError, match="300000000 special tokens"):
        Tokenizer(tokenizer_json(post_processor=many), SPEC)


SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
QUOTES = [{"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")]
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (None, {**BYTES, "add_prefix_space": False, "trim_offsets": True, "use_regex": True}),  # GPT-2
        ({**BERT, "lowercase": True}, {"type": "BertPreTokenizer"}),
        (sequence({"type": "Prepend", "prepend": "\u2581"}, {**QUOTES[0], "content": "\u2581"}), None),  # Llama
        (
            sequence(*QUOTES, *({"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")), SPACES),  # ALBERT
            {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta("\u2581")]},
        ),
        (sequence(*QUOTES * 20), None),
    ],
)
def test_what_published_tokenizers_are_made_of_is_taken(normalizer: Any, pre_tokenizer: Any) -> None:
    Tokenizer(tokenizer_json(normalizer=normalizer, pre_tokenizer=pre_tokenizer), SPEC)
