"""What C++ needs of one stage to feed and run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.fusion.change import Change
from mmedge.fusion.feed import Feed
from mmedge.fusion.odd import Odd, Pair, is_plain, same
from mmedge.types import AnyArray

if TYPE_CHECKING:
    from mmedge.fusion.stage import StageRunner


class StageWork(msgspec.Struct, frozen=True, kw_only=True):
    """What ``core.Runner`` needs of one stage. Arrays have the shapes [...] and dtypes of its engine's.

    Attributes:
        name: Of the stage.
        links: Outputs of other stages, and the tensors that they are copied to.
        rows: Tensors [seats] of presence (True) or age.
        states: Outputs, and the tensors that they are fed back to.
        stateful: Whether there are states, odd ones too.
        constants: Arrays, and the tensors that they are copied to when the stage begins anew.
        copies: The engine's outputs, and where others read them, unless they read the engine's.
        shown: What others read.
        outputs: What must be finite after a run.
        odd: Takes care of the arrays that cannot be copied byte by byte.
        seats: Of each tensor that a seat feeds: the seat's number, what fills it, what fills it when the seat is
            absent, the tensor.
        sounds: Of each tensor that a stream hears: what fills it, the tensor.
        change: Compares values with those that were fed, where only another one counts.
        run: Runs the engine; one that C++ calls by itself does so without Python's lock.
        infinite: Raises the error that says which output is not finite.
    """

    name: str
    links: list[Pair]
    rows: list[tuple[AnyArray, bool]]
    states: list[Pair]
    stateful: bool
    constants: list[Pair]
    copies: list[Pair]
    shown: list[AnyArray]
    outputs: list[AnyArray]
    odd: Odd | None
    seats: list[tuple[int, Callable[..., None], Callable[[AnyArray], None], AnyArray]]
    sounds: list[tuple[Callable[..., None], AnyArray]]
    change: Change | None
    run: Callable[[], None] | core.NativeRun
    infinite: Callable[[], None]


def stage_work(
    stage: StageRunner,
    links: list[Pair],
    constants: list[Pair],
    feeds: dict[str, tuple[str, Feed]],
    change: Change | None,
) -> StageWork:
    """Return what C++ needs of a stage.

    Args:
        stage: The stage.
        links: Outputs of other stages, and the tensors that they feed. Arrays are [...] of any dtype.
        constants: Arrays, and the tensors that have their values.
        feeds: Tensor -> the seat that feeds it, and how.
        change: Compares values, where only another one counts.
    """
    own, given, plan = stage.engine.inputs, stage.engine.outputs, stage.plan
    rows = [(own[tensor], tensor in plan.presence) for tensor in (*plan.presence, *plan.ages)]
    plain_rows = [row for row in rows if row[0].dtype == np.float32 and is_plain(row[0])]
    states = [(given[output], own[tensor]) for tensor, output in plan.states.items()]
    copies = [(array, stage.outputs[name]) for name, array in given.items() if stage.outputs[name] is not array]
    shown = list(stage.outputs.values())
    odd = Odd(
        [pair for pair in links if not same(pair)],
        [row for row in rows if all(row is not plain for plain in plain_rows)],
        [pair for pair in states if not same(pair)],
        [pair for pair in copies if not same(pair)],
        [array for array in shown if not is_plain(array)],
    )
    number = {seat: index for index, seat in enumerate(stage.seats)}
    heard = None if plan.hears is None else plan.hears.seat
    return StageWork(
        name=stage.name,
        links=[pair for pair in links if same(pair)],
        rows=[(row.reshape(-1), is_presence) for row, is_presence in plain_rows],
        states=[pair for pair in states if same(pair)],
        stateful=bool(states),
        constants=constants,
        copies=[pair for pair in copies if same(pair)],
        shown=[array for array in shown if is_plain(array)],
        outputs=[array for array in given.values() if array.dtype.kind == "f"],
        odd=odd if odd.needed else None,
        seats=[
            (number[seat], feed.fill, feed.fill_absent, own[tensor])
            for tensor, (seat, feed) in feeds.items()
            if seat != heard
        ],
        sounds=[(feed.fill, own[tensor]) for tensor, (seat, feed) in feeds.items() if seat == heard],
        change=change,
        run=stage.engine.native or stage.engine.run,
        infinite=stage.check,
    )
