"""A slow reference of the stage graph: everything is kept, nothing is clever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmedge.bundle import stage_order
from mmedge.bundle.manifest import AudioInput, Input, TensorInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import EngineBase
from mmedge.errors import EngineError
from mmedge.fusion import StageError, StageGraph, StageRunner
from mmedge.fusion.stream import StreamStage
from mmedge.plan.stream import is_stream
from mmedge.types import FloatArray, Snapshot, Tensor
from tests.graph_reach import seen

MS, RATE = 1_000_000, 1000
STEP, WINDOW = 20, 25
SEATS: dict[str, Input] = {
    "a": TensorInput(shape=(1, 2)),
    "b": TensorInput(shape=(1, 2)),
    "sound": AudioInput(sample_rate_hz=RATE, window_ms=WINDOW),
}
NAMES = tuple(SEATS)
ZERO: FloatArray = np.zeros((1, 2), np.float32)
POISON = 900.0  # a value that no stage can stand


def compute(tensors: dict[str, Any], *, cured: bool = False) -> FloatArray:
    """What every stage computes: order of its inputs and everything fed matter."""
    total = sum((k + 1) * float(np.asarray(v, np.float64).sum()) for k, (_, v) in enumerate(sorted(tensors.items())))
    if not cured and any((np.asarray(v) == POISON).any() for n, v in tensors.items() if n.startswith("seat")):
        raise EngineError("poison", where="tensor 'y'", fix="none")
    return np.full((1, 2), np.float32(total % 97.0), np.float32)


class Engine(EngineBase):
    """``compute`` behind the engine interface; counts its runs."""

    def __init__(self, spec: StageSpec, *, cured: bool = False) -> None:
        super().__init__("test")
        self._cured = cured
        shapes = {"@present": (1, len(SEATS)), "@age_ms": (1, len(SEATS)), "sound": (1, WINDOW), "@const:7": ()}
        self.inputs = {t: np.zeros(shapes.get(source, (1, 2)), np.float32) for t, source in spec.inputs.items()}
        self.outputs = {"y": np.zeros((1, 2), np.float32)}
        self.runs = 0

    def _run_impl(self) -> None:
        self.runs += 1
        self.outputs["y"][...] = np.nan  # of a run that fails
        self.outputs["y"][...] = compute(self.inputs, cured=self._cured)


@dataclass
class Plan:
    """A trigger: its time, the values and numbers of its inputs, epochs, and the background stages that still run."""

    t_ms: int
    values: dict[str, tuple[int, float]]
    end: int | None
    epoch: dict[str, int]
    busy: tuple[str, ...]


@dataclass
class Memory:
    """What the reference knows of a stage."""

    output: FloatArray = field(default_factory=lambda: ZERO)
    shown: FloatArray = field(default_factory=lambda: ZERO)
    state: FloatArray = field(default_factory=lambda: ZERO)
    before: FloatArray = field(default_factory=lambda: ZERO)
    started: Any = None  # outputs (or an error) of a background run, and its time
    stale: bool = False  # its inputs were away since
    fault: bool = False  # it has failed, and gave nothing since
    seen: Any = None
    t_ms: float | None = None
    due: float = 0.0
    change: int = 0  # how often its output changed
    ran: bool = False
    epochs: dict[str, int] = field(default_factory=dict)
    heard: int = 0
    skip: int = 0
    origin: Any = None
    runs: int = 0


class Reference:
    """Runs a graph trigger by trigger, as DESIGN says it."""

    def __init__(self, specs: dict[str, StageSpec], sound: FloatArray) -> None:
        self.specs = {name: specs[name] for name in stage_order(specs)}
        self.memory = {name: Memory() for name in specs}
        self.sound = sound
        self.depends: dict[str, set[str]] = {}
        for name, spec in self.specs.items():
            sources = spec.inputs.values()
            self.depends[name] = {s for s in sources if s in SEATS}.union(
                *(self.depends[s.partition(".")[0]] for s in sources if s not in SEATS and not s.startswith("@"))
            )
        self.age: dict[str, float] = {}
        self.errors: dict[str, int] = {}
        self.begin = 0

    def trigger(self, plan: Plan, begin: int) -> set[str]:
        """Run a trigger; return what was present in the end."""
        present = set(plan.values) | ({"sound"} if plan.end is not None else set())
        self.age = dict.fromkeys(present, 0.0)
        self.begin = begin
        fallen: list[str] = []
        for memory in self.memory.values():
            memory.ran = False
        for name, spec in self.specs.items():
            memory = self.memory[name]
            away = not self.depends[name] & present
            if spec.mode == "async" and memory.started and name not in plan.busy:
                got, t_ms = memory.started
                stale, memory.started, memory.stale = memory.stale, None, False
                if isinstance(got, EngineError) and (away or stale):
                    self.errors[name] = self.errors.get(name, 0) + 1
                elif isinstance(got, EngineError):
                    fallen.append(name)
                elif not stale:
                    self._take(memory, got, t_ms)
                    self._show(memory, got)
            if spec.mode == "async" and away:
                self._away(memory)
        for name in fallen:
            self._fail(name, present)
        while True:
            self.age = dict.fromkeys(present, 0.0)
            broken: list[str] = []
            for name in self.specs:
                if not self._ancestors(name) & set(broken) and not self._stage(name, plan, present):
                    broken.append(name)
            if not broken:
                break
            waiting = [name for name in broken if self._pending(name)]
            for name in broken:
                if name in waiting:
                    if name == broken[0]:
                        self._lose(name, present)
                elif name == broken[0] or not self.depends[name] & present:
                    self._fail(name, present)
                else:
                    self.memory[name].seen = None
        for name, spec in self.specs.items():
            memory, there = self.memory[name], seen(self, SEATS, name, present)
            if (
                not self.depends[name] & there
                or spec.mode != "async"
                or memory.t_ms is None
                or memory.started
                or memory.ran
            ):
                continue
            if self._due(name, plan, there):
                self._start(name, plan, there)
        return present

    def _start(self, name: str, plan: Plan, present: set[str]) -> None:
        memory, feeds = self.memory[name], self._feeds(name, plan, present)
        memory.seen = self._look(name, plan, present, feeds)
        self._schedule(name, plan)
        try:
            memory.started = compute(feeds), plan.t_ms
        except EngineError as error:
            memory.started = error, plan.t_ms

    def _schedule(self, name: str, plan: Plan) -> None:
        memory, every = self.memory[name], self.specs[name].every_ms
        memory.runs += 1
        if every is not None:
            on_time = memory.due - 0.5 <= plan.t_ms < memory.due + every
            memory.due = (memory.due if on_time else plan.t_ms) + every

    def _ancestors(self, name: str) -> set[str]:
        sources = (s for s in self.specs[name].inputs.values() if s not in SEATS and not s.startswith("@"))
        fed = {source.partition(".")[0] for source in sources}
        return fed.union(*(self._ancestors(producer) for producer in fed))

    def _fail(self, name: str, present: set[str]) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1
        memory = self.memory[name]
        self._forget(memory)
        memory.heard, memory.fault = memory.skip, self.specs[name].mode == "async"
        self._lose(name, present)

    def _lose(self, name: str, present: set[str]) -> None:
        for seat in self.depends[name] & present:
            present.discard(seat)
            self.age.pop(seat)

    def _pending(self, name: str) -> bool:
        memory = self.memory[name]
        return self.specs[name].mode == "async" and memory.t_ms is None and bool(memory.fault or memory.started)

    def _away(self, memory: Memory) -> None:
        if memory.seen is not None or memory.t_ms is not None or memory.started:
            self._forget(memory)
        memory.fault, memory.stale = False, memory.started is not None

    def _forget(self, memory: Memory) -> None:
        memory.output = memory.state = memory.before = ZERO
        memory.seen = memory.t_ms = None
        self._show(memory, ZERO)

    def _show(self, memory: Memory, output: FloatArray) -> None:
        memory.change += memory.shown is not output
        memory.shown = output

    def _take(self, memory: Memory, output: FloatArray, t_ms: float) -> None:
        memory.output, memory.t_ms, memory.fault = output, t_ms, False

    def _stage(self, name: str, plan: Plan, present: set[str]) -> bool:
        spec, memory, stream = self.specs[name], self.memory[name], is_stream(self.specs[name], SEATS)
        there, present = present, seen(self, SEATS, name, present)
        if not self.depends[name] & present:
            if stream:
                self._show(memory, ZERO)
            elif not self._pending(name):
                self._away(memory)
            return True
        try:
            if self._pending(name):
                if not memory.started:
                    self._start(name, plan, present)
                return False
            if stream:
                self._listen(name, plan, present)
            elif (spec.mode != "async" or memory.t_ms is None or memory.ran) and self._due(name, plan, present):
                feeds = self._feeds(name, plan, present)
                memory.seen = self._look(name, plan, present, feeds)
                self._schedule(name, plan)
                output = compute(feeds)
                memory.ran = True
                self._take(memory, output, plan.t_ms)
                self._show(memory, output)
        except EngineError:
            return False
        if memory.t_ms is not None:
            for seat in self.depends[name] & there:
                self.age[seat] = max(self.age[seat], plan.t_ms - memory.t_ms)
        return True

    def _listen(self, name: str, plan: Plan, present: set[str]) -> None:
        memory, begin = self.memory[name], self.begin
        if "sound" not in present or plan.end is None:
            self._show(memory, ZERO)
            return
        if (plan.epoch["sound"], begin) != memory.origin:
            memory.origin, memory.heard = (plan.epoch["sound"], begin), begin
            memory.state, memory.t_ms = ZERO, None
            self._show(memory, ZERO)
        steps = max(plan.end - memory.heard, 0) // STEP
        rest = plan.end - memory.heard - steps * STEP
        feeds = self._feeds(name, plan, present) if steps else {}
        for _ in range(steps):
            memory.heard += STEP
            window = [self.sound[k] if k >= begin else 0.0 for k in range(memory.heard - WINDOW, memory.heard)]
            for tensor, source in self.specs[name].inputs.items():
                if source == "sound":
                    feeds[tensor] = np.array([window], np.float32)
                elif source.startswith("@state"):
                    feeds[tensor] = memory.state
            memory.runs += 1
            try:
                memory.state = compute(feeds)
            except EngineError:
                memory.heard, memory.skip = memory.heard - STEP, plan.end - rest
                raise
            self._take(memory, memory.state, plan.t_ms - rest * 1000 / RATE)
        if memory.t_ms is not None:
            self._show(memory, memory.output)

    def _feeds(self, name: str, plan: Plan, present: set[str]) -> dict[str, FloatArray]:
        memory = self.memory[name]
        if any(memory.epochs.get(s, plan.epoch[s]) != plan.epoch[s] for s in self.depends[name] if s in plan.epoch):
            memory.output = memory.before = ZERO
        memory.epochs.update(plan.epoch)
        if not memory.ran:
            memory.before = memory.output
        feeds: dict[str, Any] = {}
        for tensor, source in self.specs[name].inputs.items():
            if source == "sound":
                on = "sound" in present and plan.end is not None
                window = range(plan.end - WINDOW, plan.end) if on and plan.end is not None else range(0)
                feeds[tensor] = np.array([self.sound[k] if k >= self.begin else 0.0 for k in window], np.float32)
            elif source in SEATS:
                feeds[tensor] = np.full((1, 2), plan.values[source][1] if source in present else 0.0, np.float32)
            elif source == "@present":
                feeds[tensor] = np.array([seat in present for seat in SEATS], np.float32)
            elif source == "@age_ms":
                feeds[tensor] = np.array([self.age[s] if s in present else 0.0 for s in SEATS], np.float32)
            elif source.startswith("@const"):
                feeds[tensor] = np.float32(7)
            elif source.startswith("@state"):
                feeds[tensor] = memory.before
            else:
                feeds[tensor] = self.memory[source.partition(".")[0]].shown
        return feeds

    def _look(self, name: str, plan: Plan, present: set[str], feeds: dict[str, Any]) -> dict[str, Any]:
        """What decides whether a stage is due: marks of its inputs, its links, presence, and the values themselves."""
        spec = self.specs[name]
        seats = [s for s in spec.inputs.values() if s in SEATS] if spec.on in (None, "change") else [spec.on]
        marks = {}
        for seat in seats:
            number = plan.end if seat == "sound" else plan.values.get(seat, (None, None))[0]
            marks[seat] = (plan.epoch.get(seat), number) if seat in present else None
        linked = [s.partition(".")[0] for s in spec.inputs.values() if s not in SEATS and not s.startswith("@")]
        every = {producer: self.memory[producer].change for producer in linked}
        if spec.on not in (None, "change"):
            linked = []
        shown = set(NAMES) if {"@present", "@age_ms"} & set(spec.inputs.values()) else self.depends[name]
        values = {
            tensor: np.asarray(feeds[tensor]).tolist()
            for tensor, source in spec.inputs.items()
            if source in ("a", "b") or not (source.startswith("@") or source in SEATS)
        }
        return {
            "marks": marks,
            "all links": every,
            "links": {producer: self.memory[producer].change for producer in linked},
            "present": present & shown,
            "values": values,
        }

    def _due(self, name: str, plan: Plan, present: set[str]) -> bool:
        spec, memory = self.specs[name], self.memory[name]
        seen, epochs, before, output = memory.seen, dict(memory.epochs), memory.before, memory.output
        feeds = self._feeds(name, plan, present)
        memory.epochs, memory.before, memory.output = epochs, before, output  # only looked
        now = self._look(name, plan, present, feeds)
        if seen is None:
            return True
        if memory.ran:
            return bool((seen["present"], seen["all links"]) != (now["present"], now["all links"]))
        if seen["present"] != now["present"]:
            return True
        if spec.every_ms is not None and plan.t_ms < memory.due - 0.5:
            return False
        if (seen["marks"], seen["links"]) == (now["marks"], now["links"]):
            return False
        if spec.on != "change":
            return True
        sound = "sound" in seen["marks"] and seen["marks"]["sound"] != now["marks"]["sound"] and "sound" in present
        if sound or seen["values"] != now["values"]:
            return True
        seen["marks"], seen["links"] = now["marks"], now["links"]
        return False


def make_graph(specs: dict[str, StageSpec], cores: int = 2, *, cured: bool = False) -> StageGraph:
    """Return the real graph of the same stages; cured, they stand any value."""
    stages: dict[str, StageRunner] = {}
    for name in stage_order(specs):
        kind = StreamStage if is_stream(specs[name], SEATS) else StageRunner
        stages[name] = kind(name, specs[name], SEATS, Engine(specs[name], cured=cured), stages, raw=False)
    return StageGraph(list(stages.values()), cores=cores)


def run_plan(
    graph: StageGraph, plan: Plan, begin: int, sound: FloatArray, seq: int, recorded: Sequence[dict[str, str]] = ()
) -> tuple[set[str], list[str], list[str]]:
    """Run a trigger on the real graph, without the inputs whose stages fail.

    Return what was present, who failed, and who failed without a consequence.
    """
    present = {name: name in plan.values or (name == "sound" and plan.end is not None) for name in SEATS}
    shot = Snapshot(t_ns=plan.t_ms * MS, seq=seq, present=present, epoch=dict(plan.epoch))
    shot.age_ms = {name: 0.0 for name, on in present.items() if on}
    for name, (number, value) in plan.values.items():
        stamp: dict[str, Any] = {"stream": name, "seq": number, "capture_ns": shot.t_ns, "arrive_ns": shot.t_ns}
        shot.values[name] = Tensor(data=np.full((1, 2), value, np.float32), **stamp)
    if plan.end is not None:
        shot.audio_end["sound"], shot.audio_span["sound"] = plan.end, (begin, begin)

    def read(name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None, /) -> int:
        last = snapshot.audio_end[name] if end is None else end
        for place, index in enumerate(range(last - out.size, last)):
            out[place] = sound[index] if index >= begin else 0.0
        return out.size

    failed = []
    while True:
        try:
            graph.run(shot, read, plan.busy, recorded)
            return {name for name, on in shot.present.items() if on}, failed, [error.stage for error in graph.lost]
        except StageError as error:
            if not error.again:
                failed.append(error.stage)
            for name in error.depends:
                shot.present[name] = False
                shot.age_ms.pop(name, None)
