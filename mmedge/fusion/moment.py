"""A trigger as the stages see it: ``core.Moment`` numbers the seats that a snapshot names; and what it cost."""

from __future__ import annotations

import msgspec

from mmedge._native import core
from mmedge.types import Snapshot


class Timing(msgspec.Struct):
    """Nanoseconds that one trigger spent in preprocessing and in engines."""

    preprocess_ns: int = 0
    infer_ns: int = 0


def marks_of(snapshot: Snapshot) -> tuple[list[tuple[int, int] | None], int]:
    """Return epoch and number of each seat's data, None where it is absent; and the seats that are there, as bits."""
    marks: list[tuple[int, int] | None] = []
    bits, bit = 0, 1
    epoch, frames, sounds, values = snapshot.epoch, snapshot.frames, snapshot.audio_end, snapshot.values
    for seat, present in snapshot.present.items():
        if not present:
            marks.append(None)
            bit <<= 1
            continue
        bits |= bit
        bit <<= 1
        if seat in frames:
            number = frames[seat].seq
        elif seat in sounds:
            number = sounds[seat]
        else:
            number = values[seat].seq
        marks.append((epoch.get(seat, 0), number))
    return marks, bits


def ages_of(snapshot: Snapshot) -> list[float]:
    """Return the age of each seat in ms, 0 where it has none."""
    age_ms = snapshot.age_ms
    return [age_ms.get(seat, 0.0) for seat in snapshot.present]


def raise_ages(snapshot: Snapshot, moment: core.Moment) -> None:
    """Raise the ages of a snapshot to those of the outputs that were used."""
    for seat, age_ms in zip(snapshot.present, moment.ages_ms, strict=True):
        if age_ms > snapshot.age_ms.get(seat, 0.0):
            snapshot.age_ms[seat] = age_ms
