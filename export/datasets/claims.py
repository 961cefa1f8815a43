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
# What else is around a digit: with phrases alone, an unknown word would be a sign that none is named.
FILLERS: dict[Split, tuple[str, ...]] = {
    "train": (
        *(
            "a",
            "the",
            "it",
            "is",
            "was",
            "i",
            "you",
            "he",
            "we",
            "they",
            "my",
            "your",
            "this",
            "that",
            "here",
            "now",
            "so",
        ),
        *("well", "um", "er", "at", "to", "of", "for", "and", "be", "can", "do", "have", "not", "very", "with", "want"),
        *(
            "draw",
            "show",
            "hand",
            "give",
            "take",
            "big",
            "small",
            "good",
            "bad",
            "new",
            "old",
            "day",
            "man",
            "in",
            "on",
        ),
        *("who", "how", "where", "why", "today", "there", "really", "again", "figure", "value", "pen", "read", "yeah"),
        *(
            "mine",
            "ours",
            "first",
            "last",
            "next",
            "said",
            "wrote",
            "drew",
            "came",
            "went",
            "made",
            "got",
            "put",
            "try",
        ),
        *(word for word in OTHER_WORDS if " " not in word),
    ),
    "validation": ("hmm", "surely", "friend", "exactly", "thing", "bright", "kitchen", "quick", "nice"),
    "test": ("oh", "perhaps", "buddy", "indeed", "stuff", "purple", "market", "slow", "fine"),
}
_TEENS = ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
_JOINED: dict[Split, tuple[str, ...]] = {
    "train": ("{} {}", "{} and {}", "{}, {}", "{} or maybe {}", "between {} and {}"),
    "validation": ("{} or {}", "{}/{}"),
    "test": ("{} then {}", "{} plus {}", "either {} or {}"),
}
_STARTS = ("", *"bcdfghjklmnprstvwyz", "br", "ch", "fr", "gr", "pl", "qu", "sh", "st", "th", "tr", "wh")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "ou")
_STOPS = ("", "d", "ght", "k", "l", "ly", "m", "n", "nd", "ng", "r", "s", "ss", "st", "t", "y")
_KEYS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_ENDS = ("", "", "", "", ".", "!", "?", " ")


class Claims:
    """Makes the texts of one split.

    Args:
        split: Phrases, and numbers of several digits, are disjoint between splits.

    Example:
        >>> Claims("train").make(7, np.random.default_rng(34))
        "it's a 7!"
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
        if rng.random() < 0.4:
            return self._phrase(rng).format(name)
        words = [self._filler(rng) for _ in range(rng.integers(1, 5))]
        words.insert(int(rng.integers(len(words) + 1)), name)
        return " ".join(words)

    def _phrase(self, rng: np.random.Generator) -> str:
        return _any(TEMPLATES[self._split], rng)

    def _filler(self, rng: np.random.Generator) -> str:
        return _letters(rng) if rng.random() < 0.35 else _any(FILLERS[self._split], rng)

    def _nothing(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.08:
            return ""  # in a run, blank is taken back; padding alone is fed for a text of accents or other marks
        if kind < 0.35:
            return _any(NOTHING[self._split], rng)
        if kind < 0.4:
            return _glued(rng)
        if kind < 0.58:
            return " ".join(self._filler(rng) for _ in range(rng.integers(1, 6)))
        if kind < 0.73:
            one, other = (_named(int(digit), rng) for digit in rng.choice(NONE, 2, replace=False))
            if rng.random() < 0.5:
                return f"{one} {self._filler(rng)} {other}"
            return _any(_JOINED[self._split], rng).format(one, other)
        number = self._number(rng) if kind < 0.85 else _any(_TEENS + _TENS, rng)
        return number if rng.random() < 0.4 else self._phrase(rng).format(number)

    def _number(self, rng: np.random.Generator) -> str:
        shares: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
        while True:
            number = int(rng.integers(10, 1000 if rng.random() < 0.4 else 100))
            if number // 7 % 5 in shares[self._split]:
                return str(number)


def _letters(rng: np.random.Generator) -> str:
    """Return text that is not a word, or sounds like one."""
    if rng.random() < 0.4:
        letters = "".join(chr(c) for c in rng.integers(ord("a"), ord("z") + 1, int(rng.integers(1, 8))))
    else:
        letters = "".join(_any(_STARTS, rng) + _any(_VOWELS, rng) for _ in range(rng.integers(1, 4)))
        letters += _any(_STOPS, rng)
    return "" if letters in DIGITS else letters


def _glued(rng: np.random.Generator) -> str:
    """Return a longer word that has the name of a digit in it, as "someone" has."""
    name, more = DIGITS[rng.integers(NONE)], _any(_STARTS[1:], rng) + _any(_VOWELS, rng) + _any(_STOPS, rng)
    return name + more if rng.random() < 0.3 else more + name


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
