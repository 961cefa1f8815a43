"""What a stage hears of is known by looking at each stream before it once, however many ways lead to it."""

from __future__ import annotations

import time

from mmedge._native import core

SEATS = 3


def stage(depends: int, direct: int, producers: list[core.Stage], *, stream: bool = False) -> core.Stage:
    return core.Stage(
        depends=depends,
        direct=direct,
        masks=depends,
        watches=[],
        follows=True,
        every_ns=None,
        differs=False,
        stream=stream,
        background=False,
        seats=SEATS,
        producers=producers,
    )


def test_two_ways_through_each_of_thirty_layers_cost_no_more_than_one() -> None:
    streams = stage(0b001, 0b001, [], stream=True), stage(0b010, 0b010, [], stream=True)
    streams[1].life = core.Life.HIDDEN
    layer = list(streams)
    for _ in range(30):
        layer = [stage(0b111, 0b100, layer), stage(0b111, 0b100, layer)]
    begin_s = time.monotonic()
    assert (layer[0].hears(0b111), layer[1].hears(0b011), layer[1].unheard()) == (0b110, 0b010, 0b001)
    assert time.monotonic() - begin_s < 1  # 2 ** 30 ways would take many
    streams[0].life = core.Life.WARM
    assert (layer[0].hears(0b111), layer[0].unheard()) == (0b111, 0)


def test_what_does_not_feed_a_stage_stays_as_it_is() -> None:
    ear = stage(0b001, 0b001, [], stream=True)
    behind = stage(0b011, 0b010, [ear])
    assert behind.hears(0b101) == 0b100
    assert stage(0b011, 0b011, []).hears(0b101) == 0b101
    assert stage(0b011, 0b011, []).unheard() == 0
