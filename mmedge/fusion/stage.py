"""A stage: preprocessing and an engine, run only when it is due, its outputs kept until the next run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from mmedge.fusion.feed import Feed, ReadMember, make_feed, no_members
from mmedge.fusion.signature import check_signature
from mmedge.fusion.tensors import array_of, fill
from mmedge.fusion.work import stage_work
from mmedge.plan import StagePlan, plan_stage
from mmedge.types import AnyArray

__all__ = ["StageRunner", "array_of"]


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
        native: Feeds and runs it, in C++ (native/graph/runner.hpp, stream.hpp).
        outputs: Output name -> array, kept until the next run; zeros while its inputs are absent.
        seats: All seats of the bundle, in its order.
        depends: Seats it is fed by, directly or through other stages.
        ancestors: Stages it is fed by, directly or through others.
        bits: ``depends`` as bits, in the order of the seats.
        t_ns: Capture time its outputs belong to.
        cost_ns: Moving median of the time of a run.
        took_ns: The time of the newest run.
        check: Raises EngineError if an output is not finite.
        behind: Whether a stream feeds it, directly or through others.
        running: Whether a background run has not been taken up yet.
        file: The member of the bundle that its engine was made of; empty for a callable.
        tested_ms: How long its self-test took.
        fault: Why a background stage has no output, from a failure until the next run that ends well.

    Raises:
        BundleError: If the network and the graph differ in names, shapes or dtypes.
    """

    t_ns, cost_ns, took_ns, running = _held("t_ns"), _held("cost_ns"), _held("took_ns"), _held("running")

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
        self.seats = tuple(inputs)
        self._feeds = self._make_feeds(inputs, read)
        links = {tensor: parse_output(link) for tensor, link in plan.links.items()}
        self._links = {tensor: (upstream[link.stage], link.name) for tensor, link in links.items()}
        self.asynchronous, self.behind = plan.background, plan.behind
        self.depends, self.ancestors = frozenset(plan.depends), frozenset(plan.ancestors)
        self.bits = self._bits_of(plan.depends)
        self.memory: core.Stage = core.Stage(
            depends=self.bits,
            direct=self._bits_of(plan.seats.values()),
            masks=self._bits_of(self.seats if plan.due.masks else plan.depends),
            watches=[index for index, seat in enumerate(self.seats) if seat in plan.due.watches],
            follows=plan.due.links,
            every_ns=plan.due.every_ns,
            differs=plan.due.differs,
            stream=plan.hears is not None,
            background=plan.background,
            seats=len(self.seats),
            producers=[upstream[producer].memory for producer in plan.producers],
        )
        engine.on_ran = self.memory.ran_within
        self.outputs = dict(engine.outputs)
        if self.asynchronous or plan.hears is not None:
            # A background run writes the engine's arrays at any time, a stream's hold its state: readers get a copy.
            self.outputs = {n: np.zeros_like(a) for n, a in engine.outputs.items()}
        self.check = FiniteCheck(engine.outputs)
        self._worker: ThreadPoolExecutor | None = None
        self._future: Future[None] | None = None
        self.fault: MmedgeError | None = None
        self._change: Change | None = None
        self.native = self._make_native()
        self.serve()
        self.reset()

    def _make_native(self) -> core.Runner:
        return core.Runner(self.memory)

    def serve(self) -> None:
        """Take the engine that it has, and the arrays of the stages that feed it, from now on."""
        own, plan = self.engine.inputs, self.plan
        if plan.due.differs:
            self._change = Change(own, plan.seats, self._change)
        links = [(stage.outputs[output], own[tensor]) for tensor, (stage, output) in self._links.items()]
        constants = []
        for tensor, number in plan.constants.items():
            value = np.empty_like(own[tensor])
            fill(value, number, f"manifest.json: $.stages.{self.name}.inputs.{tensor}")
            constants.append((value, own[tensor]))
        self.native.serve(stage_work(self, links, constants, self._feeds, self._change))

    def _make_feeds(self, inputs: Mapping[str, Input], read: ReadMember) -> dict[str, tuple[str, Feed]]:
        seats = self.plan.seats.items()
        return {tensor: (seat, make_feed(seat, inputs[seat], raw=self.raw, read=read)) for tensor, seat in seats}

    def _bits_of(self, names: Collection[str]) -> int:
        return sum(1 << index for index, seat in enumerate(self.seats) if seat in names)

    def failed(self, error: MmedgeError, bits: int) -> StageError:
        """Forget everything after a failure; return what to raise. ``bits`` are the seats it was run for."""
        self.native.fail()
        self.fault = error if self.asynchronous else None
        return StageError(self.name, self.names(bits), error)

    def waiting(self, bits: int) -> StageError:
        """Return what to raise while it is pending; it goes on in the background."""
        away = EngineError(
            "an earlier background run has not finished, and its inputs were missing since then",
            where="its background run",
            fix="make the stage faster",
        )
        why = self.fault if self.memory.faulty and self.fault is not None else away
        return StageError(self.name, self.names(bits), why, again=True)

    def names(self, bits: int) -> tuple[str, ...]:
        """Return those of its own seats that are in ``bits``."""
        return tuple(seat for index, seat in enumerate(self.seats) if bits & self.bits & (1 << index))

    def start(self) -> None:
        """Run the engine in the background on what was fed."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"mmedge-{self.name}")
        self._future = self._worker.submit(self.native.execute)

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
        self.native.take_up(failed=fault is not None or error is not None)
        if fault is not None:
            raise fault
        if error is not None:
            raise error
        self.fault = None
        return False

    def reset(self) -> None:
        """Forget cached outputs and states; outputs of a background run are discarded. Idempotent and then cheap."""
        self.native.reset()

    def fill_raw(self, tensors: Mapping[str, AnyArray]) -> None:
        """Write one golden sample (``in.NAME`` without its leading axis) into the engine's inputs.

        Arrays have the raw shapes [...] and dtypes of the inputs.
        """
        self.memory.blank = False
        for tensor, own in self.engine.inputs.items():
            raw = tensors[f"in.{tensor}"]
            if tensor in self._feeds:
                self._feeds[tensor][1].fill_raw(raw, own)
            else:
                np.copyto(own.reshape(-1), raw.reshape(-1), casting="same_kind")

    def close(self) -> None:
        """Wait for a background run and free the engine; idempotent."""
        if self._worker is not None:
            self._worker.shutdown(wait=True)
        self.engine.close()
