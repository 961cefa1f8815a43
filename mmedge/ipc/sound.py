"""Blocks of sound that cross a process border: a record of fixed size each; a reader gets runs of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple, TypeAlias, get_args

from mmedge._native import core
from mmedge.types import Block, ClockQuality, Packet


class SoundRecord(NamedTuple):
    """A block whose ``n`` samples lie before index ``end`` of a ring; ``native/sound_records.hpp`` reads it.

    It comes a hundred times a second, so its size is fixed and it is no msgpack.
    """

    quality: ClockQuality
    ring: int
    seq: int
    capture_ns: int
    arrive_ns: int
    epoch: int
    uncertainty_ns: int
    end: int
    n: int
    lost: int

    def encode(self) -> bytes:
        """Return it as it lies in the queue."""
        return _SOUND.pack(SOUND, _QUALITIES.index(self.quality), 0, *self[1:])


SOUND = 1  # the first byte of such a record; one of msgpack begins with an array
_SOUND = struct.Struct("<BBHI8q")
_QUALITIES: tuple[ClockQuality, ...] = get_args(ClockQuality)


def blocks_of(run: core.SoundRun) -> list[Block]:
    """Return the blocks of a run; their samples are float32 [n], copies."""
    stream = run.stream
    return [
        Block(
            stream=stream,
            seq=seq,
            capture_ns=capture_ns,
            arrive_ns=arrive_ns,
            epoch=epoch,
            uncertainty_ns=uncertainty_ns,
            quality=_QUALITIES[quality],
            lost=lost,
            samples=samples,
        )
        for seq, capture_ns, arrive_ns, epoch, uncertainty_ns, quality, lost, samples in run.blocks()
    ]


Found: TypeAlias = Packet | core.SoundRun


def in_order(found: list[Found]) -> list[Found]:
    """Return packets and runs of blocks in order of arrival; a run is cut where another packet came between.

    Of what arrived at the same time, what was found first comes first.
    """
    if _ordered(found):
        return found
    runs = [each for each in found if isinstance(each, core.SoundRun)]
    if len(runs) > 1 and _interleave(runs):
        return sorted(packets_of(found), key=attrgetter("arrive_ns"))
    others = [(each.arrive_ns, at) for at, each in enumerate(found) if not isinstance(each, core.SoundRun)]
    others.sort()
    pieces: list[Found] = []
    for at, each in enumerate(found):
        rest = each
        if isinstance(rest, core.SoundRun):
            for arrive_ns, place in others:
                later = rest.split(arrive_ns + (at < place))
                if len(rest):
                    pieces.append(rest)
                rest = later
                if not len(rest):
                    break
            if not len(rest):
                continue
        pieces.append(rest)
    pieces.sort(key=attrgetter("arrive_ns"))
    return pieces


def _ordered(found: list[Found]) -> bool:
    """Tell whether each has arrived, with all its blocks, before the next one: so it is mostly."""
    if len(found) < 2:
        return True
    until_ns = found[0].arrive_ns
    for each in found:
        if each.arrive_ns < until_ns:
            return False
        until_ns = each.newest[0] if isinstance(each, core.SoundRun) else each.arrive_ns
    return True


def _interleave(runs: list[core.SoundRun]) -> bool:
    """Tell whether runs have blocks between each other's, or are of several streams, and so may have."""
    return any(run.stream != runs[0].stream for run in runs) or any(
        later.arrive_ns < run.newest[0] for run, later in pairwise(runs)
    )


def packets_of(found: Iterable[Found]) -> list[Packet]:
    """Return what was found with the blocks of each run in its place."""
    return [packet for each in found for packet in (blocks_of(each) if isinstance(each, core.SoundRun) else (each,))]
