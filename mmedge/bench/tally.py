"""The counts of a benchmark: every due trigger has a latency, also one that was shed."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mmedge.bench.samples import Samples
from mmedge.types import Result

MOST = 100_000  # answers that are kept with all their times: half a kilobyte each
_SAME_NS = 1_000
_HEAD, _RUN = struct.Struct("=5q"), struct.Struct("=5q")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a stage, in ns on CLOCK_MONOTONIC: when it was fed, when its engine ran."""

    place: int
    stage: str
    fed_from_ns: int
    fed_until_ns: int
    ran_from_ns: int
    ran_until_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of one answer, in ns on CLOCK_MONOTONIC.

    Attributes:
        t_ns: The trigger.
        delivered_ns: Its data had come.
        complete_ns: That of the other inputs had been handed over, as far as that is known.
        ready_ns: The runtime had them all.
        start_ns: The graph began.
        inferred_ns: The graph had ended.
        done_ns: Its tasks were interpreted.
        received_ns: The reader had it.
        runs: ``Result.spans`` of the stages, packed.
    """

    t_ns: int
    delivered_ns: int
    complete_ns: int
    ready_ns: int
    start_ns: int
    inferred_ns: int
    done_ns: int
    received_ns: int
    runs: bytes

    @property
    def took_ns(self) -> int:
        """End to end."""
        return self.done_ns - self.t_ns

    @classmethod
    def of_call(cls, due_ns: int, start_ns: int, fed_ns: int, done_ns: int) -> Answer:
        """Return that of a network which was called by itself."""
        runs = _RUN.pack(0, start_ns, fed_ns, fed_ns, done_ns)
        return cls(due_ns, due_ns, due_ns, due_ns, start_ns, done_ns, done_ns, done_ns, runs)

    def stages(self, names: Sequence[str]) -> list[Run]:
        """Return its runs; ``names`` are those of the stages in their order."""
        # A bundle that took over in mid-run may have more stages.
        return [
            Run(place, names[place] if place < len(names) else f"#{place}", *times)
            for place, *times in _RUN.iter_unpack(self.runs)
        ]


def read_answer(result: Result, complete_ns: int | None = None) -> Answer:
    """Return what is kept of a result that was made with ``spans``.

    Args:
        result: The answer.
        complete_ns: As ``Answer`` has it; None: it is not known, so all that passed until it was ready was waiting.
    """
    head = result.spans[: _HEAD.size]
    delivered, waited, start, inferred, done = _HEAD.unpack(head)
    received = result.t_ns + round(result.latency_ms["received"] * 1e6)
    ready = delivered + waited
    complete = ready if complete_ns is None else min(max(complete_ns, delivered), ready)
    return Answer(result.t_ns, delivered, complete, ready, start, inferred, done, received, result.spans[_HEAD.size :])


@dataclass(slots=True)
class StageSamples:
    """Times of one stage: writing its tensors, running its engine."""

    preprocess: Samples = field(default_factory=Samples)
    engine: Samples = field(default_factory=Samples)


class Tally:
    """Latencies of answers, from ``begin`` on.

    Args:
        stages: Names of the bundle's stages, in their order.
        complete_ns: When all data of a trigger of some time had been handed over: what passes from then on is the
            runtime's own. None: it is not known, as with cameras, and all that passes until it is ready is waiting.
        alone: Without ``complete_ns``: whether triggers wait for no other input, so that only their own data's way to
            the runtime is waiting.

    Attributes:
        latencies: ``end_to_end``, ``overhead`` and each step.
        stages: Of each stage that ran.
        share: End to end without waiting for data over the time of the engines, in millionths.
        skew: Of the answers.
        uncertainty: Of the answers.
        ages: Of each input that was older than the trigger.
        answers: Those that were counted; every second, fourth... of them once there are too many to keep.
        worst: The one that took longest; None without any.
        marks: When something happened that answers were made anew by, and what.
        answered: How many there are.
        from_ns: From when on it counts; None until ``begin``.
    """

    def __init__(
        self,
        stages: Sequence[str] = (),
        *,
        complete_ns: Callable[[int], int] | None = None,
        alone: bool = False,
    ) -> None:
        self.latencies: dict[str, Samples] = {"end_to_end": Samples()}
        self.names = tuple(stages)
        self.stages = {name: StageSamples() for name in stages}
        self.share, self.skew, self.uncertainty = Samples(), Samples(), Samples()
        self.ages: dict[str, Samples] = {}
        self.answers: list[Answer] = []
        self.worst: Answer | None = None
        self._step, self._number = 1, -1  # of the newest answer
        self.marks: list[tuple[int, str]] = []
        self.answered = 0
        self.from_ns: int | None = None
        self._epoch: dict[str, int] = {}
        self._complete_ns, self._alone = complete_ns, alone

    def begin(self, from_ns: int) -> None:
        """Count what comes from now on."""
        self.from_ns = from_ns

    def add(self, result: Result) -> None:
        """Count an answer."""
        if self.from_ns is not None:
            self._add(result, "end_to_end")

    def _add(self, result: Result, own: str) -> None:
        self.answered += 1
        said = result.latency_ms
        for name, value in said.items():
            key = own if name == "end_to_end" else name
            self._latency(key, round(value * 1e6))
        self.skew.add(round(result.skew_ms * 1e6))
        self.uncertainty.add(round(result.uncertainty_ms * 1e6))
        for name, age_ms in result.age_ms.items():
            self.ages.setdefault(name, Samples()).add(round(age_ms * 1e6))
        if any(self._epoch.get(name, epoch) != epoch for name, epoch in result.epoch.items()):
            restarted = [n for n, epoch in result.epoch.items() if self._epoch.get(n, epoch) != epoch]
            self.marks.append((result.t_ns, f"restart of {', '.join(restarted)}"))
        self._epoch.update(result.epoch)
        ready_ns = result.t_ns + round(1e6 * (said["deliver"] + said["ready"]))
        if self._complete_ns is not None:
            complete_ns = min(self._complete_ns(result.t_ns), ready_ns)
        else:
            complete_ns = result.t_ns + round(1e6 * said["deliver"]) if self._alone else ready_ns
        if said["inferred"] > 0:
            own_ms = said["end_to_end"] - (complete_ns - result.t_ns) / 1e6
            self.share.add(round(1e6 * own_ms / said["inferred"]))
        if result.spans:
            self._keep(read_answer(result, complete_ns))

    def _keep(self, answer: Answer) -> None:
        if self.worst is None or answer.took_ns > self.worst.took_ns:
            self.worst = answer
        self._number += 1
        if self._number % self._step == 0:
            self.answers.append(answer)
        if len(self.answers) > MOST:
            del self.answers[1::2]
            self._step *= 2
        for run in answer.stages(self.names):
            samples = self.stages.setdefault(run.stage, StageSamples())
            samples.preprocess.add(run.fed_until_ns - run.fed_from_ns)
            samples.engine.add(run.ran_until_ns - run.ran_from_ns)

    def _latency(self, name: str, duration_ns: int) -> None:
        self.latencies.setdefault(name, Samples()).add(duration_ns)


class OpenLoop(Tally):
    """Latencies of the triggers that were due within the measured time.

    A system that lets triggers go would look fast if only those that it answered counted. So ``end_to_end`` is of each
    due trigger, which lasts until there is an answer as new as it: its own, or that of a later one. Of those that were
    answered themselves ``answered`` counts.

    Args:
        due_ns: When each trigger is due, in order, without end; None: of hops, whose grid the first answer shows.
        period_ns: From one to the next.
        stages: As ``Tally`` has it.
        complete_ns: As ``Tally`` has it.

    Attributes:
        due: Triggers that were due within the measured time; ``answered`` of them had an answer of their own.
        missed: When those were due that had none.
        until_ns: Where the measured time ends; None until ``begin``.
    """

    def __init__(
        self,
        due_ns: Iterator[int] | None,
        period_ns: float,
        stages: Sequence[str] = (),
        *,
        complete_ns: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(stages, complete_ns=complete_ns)
        self.latencies["answered"] = Samples()
        self.due = 0
        self.missed: list[int] = []
        self.until_ns: int | None = None
        self._hops = due_ns is None
        self._due_ns, self._period_ns = due_ns, period_ns
        self._next_ns = None if due_ns is None else next(due_ns)
        self._waiting: deque[int] = deque()

    def begin(self, from_ns: int, until_ns: int | None = None) -> None:
        """Count the triggers that are due between two times on CLOCK_MONOTONIC; none of them may be due by now."""
        self.from_ns, self.until_ns = from_ns, until_ns

    def add(self, result: Result) -> None:
        """Count an answer, and all triggers that it is the answer to."""
        done_ns = result.t_ns + round(result.latency_ms["end_to_end"] * 1e6)
        if self._due_ns is None:
            self._due_ns = self._grid(result.t_ns)
            self._next_ns = next(self._due_ns)
        slack_ns = round(self._period_ns / 2) if self._hops else _SAME_NS
        last_ns = self._wait_until(result.t_ns + slack_ns)
        if last_ns is None or result.t_ns - last_ns > slack_ns:
            return  # a hop in place of a picture that was thought missing: no answer to any that was due
        if self._measured(last_ns):
            self._add(result, "answered")
        self._waiting.pop()
        self._over(done_ns)
        self._count(last_ns, done_ns)

    def note(self, answer: Answer) -> None:
        """Count the answer of a network that was called by itself: each call is answered, in order."""
        self._wait_until(answer.t_ns)
        if self._measured(answer.t_ns):
            self.answered += 1
            (run,) = answer.stages(self.names)
            engine_ns = run.ran_until_ns - run.ran_from_ns
            for name, duration_ns in (
                ("answered", answer.done_ns - answer.t_ns),
                ("ready", answer.start_ns - answer.ready_ns),
                ("preprocessed", run.fed_until_ns - run.fed_from_ns),
                ("inferred", engine_ns),
            ):
                self._latency(name, duration_ns)
            self.share.add(round(1e6 * (answer.done_ns - answer.start_ns) / max(engine_ns, 1)))
            self._keep(answer)
        self._waiting.pop()
        self._count(answer.t_ns, answer.done_ns)

    def close(self, now_ns: int) -> None:
        """Count those that nothing answered: they last until now at least."""
        if self.until_ns is not None:
            self._wait_until(min(now_ns, self.until_ns - 1))
        self._over(now_ns)

    def _measured(self, due_ns: int) -> bool:
        from_ns, until_ns = self.from_ns, self.until_ns
        return from_ns is not None and until_ns is not None and from_ns <= due_ns < until_ns

    def _grid(self, first_ns: int) -> Iterator[int]:
        # From the begin of what is measured on, however late the first answer is.
        number = 0 if self.from_ns is None else min(0, math.floor((self.from_ns - first_ns) / self._period_ns))
        while True:
            yield first_ns + round(number * self._period_ns)
            number += 1

    def _wait_until(self, t_ns: int) -> int | None:
        """Let all that are due until then wait; return the last of them."""
        while self._due_ns is not None and self._next_ns is not None and self._next_ns <= t_ns:
            self._waiting.append(self._next_ns)
            self._next_ns = next(self._due_ns)
        return self._waiting[-1] if self._waiting else None

    def _over(self, done_ns: int) -> None:
        while self._waiting:
            due_ns = self._waiting.popleft()
            if self._measured(due_ns):
                self.missed.append(due_ns)
                self._count(due_ns, done_ns)

    def _count(self, due_ns: int, done_ns: int) -> None:
        if self._measured(due_ns):
            self.due += 1
            self.latencies["end_to_end"].add(max(0, done_ns - due_ns))
