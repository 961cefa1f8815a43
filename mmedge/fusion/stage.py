"""A stage: preprocessing and an engine, run only when it is due, its outputs kept until the next run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.source import parse_output
from mmedge.engine.base import Engine
from mmedge.errors import EngineError, MmedgeError
from mmedge.fusion.change import Change
from mmedge.fusion.failures import FiniteCheck, StageError
from mmedge.fusion.feed import Feed, ReadAudio, ReadMember, make_feed, no_members
from mmedge.fusion.life import Life
from mmedge.fusion.signature import check_signature
from mmedge.fusion.tensors import age_limit, array_of, fill
from mmedge.plan import StagePlan, plan_stage
from mmedge.types import AnyArray, Snapshot

__all__ = ["StageRunner", "array_of"]
_LIVES = tuple(Life)  # in the order of native/graph/stage.hpp
_DIFFERENT = 2  # what ``core.Stage.due`` says where it matters whether what is new is the same as before


def _held(name: str) -> Any:
    """Return a property of a stage that its ``memory`` holds."""
    return property(lambda self: getattr(self.memory, name), lambda self, value: setattr(self.memory, name, value))


class StageRunner:
    """One network of the fused graph.

    Args:
        name: Its name in the manifest.
        spec: Its manifest entry.
        inputs: Every seat of the bundle.
        engine: Its engine; the stage owns it from now on.
        upstream: The stages it may be fed by, by name.
        raw: Whether the engine takes raw frames and PCM (TensorRT variants).
        read: Gives a member of the bundle; texts need their tokenizer.

    Attributes:
        plan: When it runs and what feeds it.
        memory: What it knows from one trigger to the next, in C++ (native/graph/stage.hpp).
        outputs: Output name -> array, kept until the next run; zeros while its inputs are absent.
        seats: All seats of the bundle, in its order.
        depends: Seats it is fed by, directly or through other stages.
        ancestors: Stages it is fed by, directly or through others.
        bits: ``depends`` as bits, in the order of the seats.
        version: Rises whenever its outputs change.
        t_ns: Capture time its outputs belong to.
        cost_ns: Moving median of the time of a run.
        took_ns: The time of the newest run.
        ran: Whether it has run for this trigger.
        check: Raises EngineError if an output is not finite.
        producers, direct, behind: Stages and, as bits, seats that feed it directly; whether a stream feeds it at all.
        file: The member of the bundle that its engine was made of; empty for a callable.
        tested_ms: How long its self-test took.
        fault: Why a background stage has no output, from a failure until the next run that ends well.

    Raises:
        BundleError: If the network and the graph differ in names, shapes or dtypes.
    """

    waits = False  # until a first step has come, though its seat is there: a stream
    version, t_ns, cost_ns, took_ns = _held("version"), _held("t_ns"), _held("cost_ns"), _held("took_ns")
    ran, _carry, _blank = _held("ran"), _held("carry"), _held("blank")

    def __init__(
        self,
        name: str,
        spec: StageSpec,
        inputs: Mapping[str, Input],
        engine: Engine,
        upstream: Mapping[str, StageRunner],
        *,
        raw: bool,
        read: ReadMember = no_members,
    ) -> None:
        self.name, self.engine, self.raw, self.file, self.tested_ms = name, engine, raw, "", 0.0
        plans = {other: stage.plan for other, stage in upstream.items()}
        self.plan: StagePlan = plan_stage(name, spec, inputs, plans)
        plan = self.plan
        check_signature(name, spec, engine, inputs, partial(array_of, upstream), raw=raw)
        where = f"manifest.json: $.stages.{name}.inputs"
        own, seats = engine.inputs, tuple(inputs)
        self._constants = tuple((own[t], number, f"{where}.{t}") for t, number in plan.constants.items())
        self._all_feeds = self._make_feeds(inputs, read)
        self._feeds = self._all_feeds  # at each run
        self._states = tuple((own[tensor], engine.outputs[output]) for tensor, output in plan.states.items())
        links = {tensor: parse_output(link) for tensor, link in plan.links.items()}
        self._links = {tensor: (upstream[link.stage], link.name) for tensor, link in links.items()}
        # And whether it is presence, else the largest age.
        self._rows = [
            (own[tensor][0], tensor in plan.presence, age_limit(own[tensor].dtype))
            for tensor in (*plan.presence, *plan.ages)
        ]
        self.asynchronous, self.behind = plan.background, plan.behind
        self.depends, self.ancestors = frozenset(plan.depends), frozenset(plan.ancestors)
        self.producers = tuple(upstream[producer] for producer in plan.producers)
        self.seats, self._seats = seats, tuple(enumerate(seats))
        self.bits, self.direct = self._bits_of(plan.depends), self._bits_of(plan.seats.values())
        self._watched = tuple((index, seat) for index, seat in self._seats if seat in plan.due.watches)
        self.memory: core.Stage = core.Stage(
            depends=self.bits,
            masks=self._bits_of(seats if plan.due.masks else plan.depends),
            watches=[index for index, _ in self._watched],
            follows=plan.due.links,
            every_ns=plan.due.every_ns,
            seats=len(seats),
            producers=[producer.memory for producer in self.producers],
        )
        engine.on_ran = self.memory.ran_within
        self.outputs = dict(engine.outputs)
        if self.asynchronous:
            # A background run writes the engine's arrays at any time: readers get a copy.
            self.outputs = {n: a.copy() for n, a in engine.outputs.items()}
        self.check = FiniteCheck(engine.outputs)
        self._worker: ThreadPoolExecutor | None = None
        self._future: Future[None] | None = None
        self._future_t_ns = 0
        self.fault: MmedgeError | None = None
        self._epoch: dict[str, int] = {}
        self._change: Change | None = None
        if plan.due.differs:
            linked = {tensor: stage.outputs[output] for tensor, (stage, output) in self._links.items()}
            self._change = Change(own, linked, plan.seats)
        self.reset()

    def _make_feeds(self, inputs: Mapping[str, Input], read: ReadMember) -> dict[str, tuple[str, Feed]]:
        seats = self.plan.seats.items()
        return {tensor: (seat, make_feed(seat, inputs[seat], raw=self.raw, read=read)) for tensor, seat in seats}

    def _bits_of(self, names: Collection[str]) -> int:
        return sum(1 << index for index, seat in self._seats if seat in names)

    @property
    def life(self) -> Life:
        """What its outputs are."""
        return _LIVES[self.memory.life]

    @life.setter
    def life(self, life: Life) -> None:
        self.memory.life = _LIVES.index(life)

    def due(self, snapshot: Snapshot, bits: int, moment: core.Moment) -> bool:
        """Tell whether the stage must run for this trigger, by its rule.

        Args:
            snapshot: The trigger.
            bits: Which seats are present to it, bit by bit: see ``hearing.seen``.
            moment: What is new.
        """
        due = self.memory.due(moment, bits)
        if due != _DIFFERENT or self._change is None or self._change.differs(snapshot):
            return due > 0
        # Pictures and sound that are new never are the same.
        if any(self.memory.is_new(moment, index) for index, seat in self._watched if seat not in snapshot.values):
            return True
        self.memory.see(moment, bits)
        return False

    def feed(self, snapshot: Snapshot, bits: int, moment: core.Moment, read_audio: ReadAudio) -> None:
        """Write every input tensor; absent seats become zeros.

        Raises:
            MmedgeError: If what came cannot be fed.
        """
        own = self.engine.inputs
        if not self.in_background:
            self.t_ns = self.stamp(snapshot)
        self._blank = False
        self.memory.schedule(snapshot.t_ns)
        if self._states:
            self._feed_states(snapshot)
        for tensor, (seat, feed) in self._feeds.items():
            if snapshot.present[seat]:
                feed.fill(snapshot, own[tensor], read_audio)
            else:
                feed.fill_absent(own[tensor])
        for tensor, (stage, output) in self._links.items():
            own[tensor][...] = stage.outputs[output]
        ages_ms = moment.ages_ms if self._rows else ()
        for row, is_presence, limit in self._rows:
            for index, _ in self._seats:
                there = bits >> index & 1
                row[index] = there if is_presence else min(ages_ms[index], limit) if there else 0
        if self._change is not None:
            self._change.note(snapshot)
        self.memory.see(moment, bits)

    def linked(self) -> list[tuple[AnyArray, AnyArray]]:
        """Return the outputs of other stages that feed it, each with the tensor that it is copied to.

        Both have the shape [...] and dtype of the tensor.
        """
        own = self.engine.inputs
        return [(stage.outputs[output], own[tensor]) for tensor, (stage, output) in self._links.items()]

    def seat_feeds(self) -> list[tuple[int, Callable[..., None], Callable[[AnyArray], None], AnyArray]]:
        """Return of each tensor that a seat feeds: the seat's number, what fills it there or absent, the tensor.

        The tensor has the shape [...] and dtype of the engine's input.
        """
        own, number = self.engine.inputs, {seat: index for index, seat in self._seats}
        return [
            (number[seat], feed.fill, feed.fill_absent, own[tensor]) for tensor, (seat, feed) in self._feeds.items()
        ]

    def _feed_states(self, snapshot: Snapshot) -> None:
        epoch = snapshot.epoch
        known = self._epoch
        if any(seat in epoch and known.get(seat, epoch[seat]) != epoch[seat] for seat in self.depends):
            self.forget()
        self._epoch.update(epoch)
        if self._carry and not self.ran:  # a second run for one trigger starts where the first one did
            self.carry()

    def carry(self) -> None:
        """Feed the states back."""
        for state, output in self._states:
            state[...] = output

    def forget(self) -> None:
        """Begin with empty states."""
        self._carry = False
        for state, _ in self._states:
            state.fill(0)

    def execute(self) -> None:
        """Run the engine on what ``feed`` wrote; nothing else is touched, so any thread may do it."""
        begin_ns = time.monotonic_ns()
        try:
            self._run()
        finally:
            self.memory.took(begin_ns, time.monotonic_ns())

    def _run(self) -> None:
        self.engine.run()
        self.check()

    def stamp(self, snapshot: Snapshot) -> int:
        """Return the capture time that a run for this trigger belongs to."""
        return snapshot.t_ns

    def finish(self, t_ns: int | None = None) -> None:
        """Take up the outputs of a run, of a background run for capture time ``t_ns``."""
        self.memory.finish()
        self.fault = None
        if t_ns is not None:
            self.t_ns = t_ns
        if self.asynchronous:
            self.publish()

    def publish(self) -> None:
        """Copy the engine's outputs to where readers see them."""
        for name, array in self.engine.outputs.items():
            self.outputs[name][...] = array

    def failed(self, error: MmedgeError, bits: int) -> StageError:
        """Forget everything after a failure; return what to raise. ``bits`` are the seats it was run for."""
        self.reset()
        if self.asynchronous:
            self.fault = error
            self.life = Life.FAILED if self.life is Life.COLD else self.life
        return StageError(self.name, self.names(bits), error)

    def waiting(self, bits: int) -> StageError:
        """Return what to raise while it is pending; it goes on in the background."""
        away = EngineError(
            "an earlier background run has not finished, and its inputs were missing since then",
            where="its background run",
            fix="make the stage faster",
        )
        return StageError(self.name, self.names(bits), self.fault or away, again=True)

    def names(self, bits: int) -> tuple[str, ...]:
        """Return those of its own seats that are in ``bits``."""
        return tuple(seat for index, seat in self._seats if bits & self.bits & (1 << index))

    def discard(self) -> None:
        """Forget a run that failed beside another one, which is told first: it is tried again."""
        self.memory.forget_seen()
        self._carry = False

    @property
    def in_background(self) -> bool:
        """Whether its next run is one in the background; the first one, and that after an absence, are waited for."""
        return self.asynchronous and not self.life.cold and (not self.ran or self._future is not None)

    def start(self, t_ns: int) -> None:
        """Run the engine in the background on what ``feed`` wrote."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"mmedge-{self.name}")
        self._future_t_ns, self._carry = t_ns, False
        self.ran = True
        self.life = Life.RENEWING if self.life is Life.WARM else self.life
        self._future = self._worker.submit(self.execute)

    def busy(self, running: bool | None = None, fault: EngineError | None = None) -> bool:
        """Take up a finished background run; tell whether one is still going on.

        Args:
            running: In a replay, what the recorded run found: False waits for the end of the background run.
            fault: In a replay, how the recorded background run failed.

        Raises:
            EngineError: If the background run failed.
        """
        future = self._future
        if future is None:
            return False
        if not future.done() if running is None else running:
            return True
        error = future.exception()
        self._future = None
        stale = self.life is Life.STALE
        if stale:
            self.life = Life.COLD if self.fault is None else Life.FAILED
            self._wipe()
        elif self.life is Life.RENEWING:
            self.life = Life.WARM
        if fault is not None:
            raise fault
        if error is not None:
            raise error
        if not stale:
            self.finish(self._future_t_ns)
        self.ran = False
        return False

    @property
    def running(self) -> bool:
        """Whether a background run has not been taken up yet."""
        return self._future is not None

    def absent(self) -> None:
        """Give zeros while none of its inputs is there."""
        self.reset()

    def reset(self) -> None:
        """Forget cached outputs and states; outputs of a background run are discarded. Idempotent and then cheap."""
        self.fault = None
        if self._blank and not self.memory.has_seen and (self._future is None or self.life is Life.STALE):
            self.life = Life.COLD if self.life is Life.FAILED else self.life
            return
        self.memory.forget_seen()
        self._blank = True
        self.version += self.life.shown
        for array in self.outputs.values():
            array.fill(0)
        if self._future is None:
            self.life = Life.COLD
            self._wipe()
        else:  # the engine's arrays are in use until its end
            self.life = Life.STALE

    def _wipe(self) -> None:
        self.forget()
        for array, number, where in self._constants:
            fill(array, number, where)

    def fill_raw(self, tensors: Mapping[str, AnyArray]) -> None:
        """Write one golden sample (``in.NAME`` without its leading axis) into the engine's inputs.

        Arrays have the raw shapes [...] and dtypes of the inputs.
        """
        self._blank = False
        for tensor, own in self.engine.inputs.items():
            raw = tensors[f"in.{tensor}"]
            if tensor in self._all_feeds:
                self._all_feeds[tensor][1].fill_raw(raw, own)
            else:
                np.copyto(own.reshape(-1), raw.reshape(-1), casting="same_kind")

    def close(self) -> None:
        """Wait for a background run and free the engine; idempotent."""
        if self._worker is not None:
            self._worker.shutdown(wait=True)
        self.engine.close()
