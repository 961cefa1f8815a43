"""Where a tensor comes from: the one reader and writer of ``audio``, ``STAGE.OUTPUT``, ``@state:OUTPUT`` and the like.

Manifests and recipes hold the text; all code that asks what it means asks ``parse_source``.
"""

from __future__ import annotations

from math import isfinite
from typing import TypeAlias

import msgspec


class Seat(msgspec.Struct, frozen=True):
    """An input of the bundle. Its name has no '.' and does not begin with '@'."""

    name: str

    def __str__(self) -> str:
        return self.name


class Output(msgspec.Struct, frozen=True):
    """An output of another stage: ``STAGE.OUTPUT``. A stage's name has no '.', that of an output may."""

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}.{self.name}"


class State(msgspec.Struct, frozen=True):
    """An output of the stage itself, as its run before gave it: ``@state:OUTPUT``."""

    output: str

    def __str__(self) -> str:
        return f"@state:{self.output}"


class Constant(msgspec.Struct, frozen=True):
    """A finite number that fills the tensor: ``@const:NUMBER``."""

    number: float

    def __str__(self) -> str:
        return f"@const:{repr(float(self.number)).removesuffix('.0')}"


class Presence(msgspec.Struct, frozen=True):
    """Which inputs are present, 1 or 0 each, in the order of the bundle's inputs: ``@present``."""

    def __str__(self) -> str:
        return "@present"


class Age(msgspec.Struct, frozen=True):
    """How old each input is, in ms, in the order of the bundle's inputs: ``@age_ms``."""

    def __str__(self) -> str:
        return "@age_ms"


Source: TypeAlias = Seat | Output | State | Constant | Presence | Age


def parse_source(text: str) -> Source:
    """Return what a text of ``stages.NAME.inputs`` means; whether the name exists is not asked.

    Raises:
        ValueError: If it is none of the forms, or its number is not finite; says so for people.

    Example:
        >>> parse_source("ear.h.next"), str(parse_source("@const:16000.0"))
        (Output(stage='ear', name='h.next'), '@const:16000')
    """
    if not text.startswith("@"):
        stage, dot, name = text.partition(".")
        return Output(stage, name) if dot else Seat(text)
    kind, colon, value = text.partition(":")
    if text in ("@present", "@age_ms"):
        return Presence() if text == "@present" else Age()
    if kind == "@state" and colon:
        return State(value)
    if kind != "@const" or not colon:
        raise ValueError(f"unknown tensor '{text}'")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise ValueError(f"'{text}' is not a finite number")
    return Constant(number)


def parse_output(text: str) -> Output:
    """Return what ``STAGE.OUTPUT`` names.

    Raises:
        ValueError: If it is another form; says so for people.
    """
    source = None if text.startswith("@") else parse_source(text)
    if not isinstance(source, Output):
        raise ValueError(f"unknown tensor '{text}'")
    return source
