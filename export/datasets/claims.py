"""What people type when they name a digit, and what they type when they do not."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..tokenizer import train_tokenizer
from .base import Split
from .speech import DIGITS, OTHER_WORDS

NONE = len(DIGITS)
VOCABULARY = 160
# Whoever types a digit mostly types it alone, so the bare form is in every split; all others are in one only.
_BARE = {"train": 0.35, "validation": 0.4, "test": 0.4}
TEMPLATES: dict[Split, tuple[str, ...]] = {
    "train": (
        *("it's a {}", "i say {}", "{} please", "number {}", "the answer is {}", "i see a {}", "this is a {}"),
        *("my digit is {}", "i think {}", "should be {}", "digit {}", "the {}", "{} i guess", "ok {}", "ok, {} then"),
        *("i wrote {}", "you see {}", "{} of course", "it says {}", "just {}", "showing {}", "that one is {}"),
    ),
    "validation": ("looks like {}", "i meant {}", "must be a {}", "{} for sure", "that was {}", "a clear {}"),
    "test": ("it is {}", "this is number {}", "{}, i believe", "call it {}", "i choose {}", "probably {}", "see: {}"),
}
NOTHING: dict[Split, tuple[str, ...]] = {
    "train": (
        *OTHER_WORDS,
        *("what time is it", "no idea", "i do not know", "not sure", "a letter", "help", "ok", "phone", "alone"),
        *("weight", "canine", "often", "stone", "fore", "won", "ate", "for you", "tow", "sick", "heaven", "thee"),
        *("nothing here", "an empty page", "wait", "can you see it", "none", "?", "...", "this is a test", "height"),
    ),
    "validation": (
        "who are you",
        "good evening",
        "later",
        "a picture",
        "someone",
        "freight",
        "tonight",
        "fever",
        "then",
    ),
    "test": ("hi there", "what is this", "my hand", "let me think", "tone", "eighth note", "line", "sever", "zebra"),
}
_TEENS = ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
_JOINED: dict[Split, tuple[str, ...]] = {
    "train": ("{} {}", "{} and {}", "{}, {}", "{} or maybe {}", "between {} and {}"),
    "validation": ("{} or {}", "{}/{}"),
    "test": ("{} then {}", "{} plus {}", "either {} or {}"),
}
_KEYS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_ENDS = ("", "", "", "", ".", "!", "?", " ")


class Claims:
    """Makes the texts of one split.

    Args:
        split: Phrases, and numbers of several digits, are disjoint between splits.

    Example:
        >>> Claims("test").make(7, np.random.default_rng(5))
        'CALL IT SEVEN.'
    """

    def __init__(self, split: Split) -> None:
        self._split: Split = split

    def make(self, label: int, rng: np.random.Generator, slips: float = 0.0) -> str:
        """Return a text.

        Args:
            label: 0..9, or 10 for a text that names no digit, or more than one.
            rng: Where every choice comes from.
            slips: How likely a slip of the finger is. One on a lone digit claims another digit.
        """
        text = self._nothing(rng) if label == NONE else self._digit(label, rng)
        text += _ENDS[rng.integers(len(_ENDS))] if text else ""
        if rng.random() < slips:
            text = slip(text, rng)
        return (text, text, text.capitalize(), text.upper())[rng.integers(4)]

    def _digit(self, label: int, rng: np.random.Generator) -> str:
        name = _named(label, rng)
        if rng.random() < _BARE[self._split]:
            return name
        return _any(TEMPLATES[self._split], rng).format(name)

    def _nothing(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.08:
            return ""
        if kind < 0.45:
            return _any(NOTHING[self._split], rng)
        if kind < 0.55:
            return "".join(chr(c) for c in rng.integers(ord("a"), ord("z") + 1, int(rng.integers(1, 9))))
        if kind < 0.7:
            one, other = rng.choice(NONE, 2, replace=False)
            return _any(_JOINED[self._split], rng).format(_named(int(one), rng), _named(int(other), rng))
        number = self._number(rng) if kind < 0.85 else _any(_TEENS + _TENS, rng)
        return number if rng.random() < 0.4 else _any(TEMPLATES[self._split], rng).format(number)

    def _number(self, rng: np.random.Generator) -> str:
        shares: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
        while True:
            number = int(rng.integers(10, 1000 if rng.random() < 0.4 else 100))
            if number // 7 % 5 in shares[self._split]:
                return str(number)


def slip(text: str, rng: np.random.Generator) -> str:
    """Return ``text`` with one slip of the finger: a key beside the right one, two swapped, one twice, one left out."""
    keys = [index for index, letter in enumerate(text) if any(letter in row for row in _KEYS)]
    if not keys:
        return text
    at = int(rng.choice(keys))
    kind = rng.random()
    if kind < 0.4 or len(text) == 1:
        row = next(row for row in _KEYS if text[at] in row)
        place = row.index(text[at]) + int(rng.choice((-1, 1)))
        beside = row[place] if 0 <= place < len(row) else row[1 if place < 0 else -2]
        return text[:at] + beside + text[at + 1 :]
    if kind < 0.6:
        at = min(at, len(text) - 2)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + (text[at] * 2 if kind < 0.8 else "") + text[at + 1 :]


def _named(digit: int, rng: np.random.Generator) -> str:
    return str(digit) if rng.random() < 0.4 else DIGITS[digit]


def _any(texts: tuple[str, ...], rng: np.random.Generator) -> str:
    return texts[rng.integers(len(texts))]


def make_tokenizer() -> bytes:
    """Return the ``tokenizer.json`` learnt from claims of the train split."""
    claims, rng = Claims("train"), np.random.default_rng(0)
    return train_tokenizer([claims.make(k % (NONE + 1), rng, 0.3) for k in range(20_000)], VOCABULARY)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the tokenizer of AV-digits.")
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_bytes(make_tokenizer())
