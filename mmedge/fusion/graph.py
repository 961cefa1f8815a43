"""The stage graph: topological order, what is due at a trigger, outputs by name."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmedge.fusion.feed import ReadAudio
from mmedge.fusion.stage import Stage
from mmedge.types import AnyArray, Evidence, Snapshot


@dataclass(slots=True)
class Timing:
    """Nanoseconds that one trigger spent in preprocessing and in engines."""

    preprocess_ns: int = 0
    infer_ns: int = 0


class StageGraph:
    """Runs the stages of one bundle, in order, each only when it is due.

    Args:
        stages: In topological order; the graph owns them from now on.

    Attributes:
        timing: What the newest ``run`` cost.
        used_ns: Stage -> capture time of the outputs that the newest ``run`` used, for stages with a rule of their own.
        busy: Background stages that were still running at the newest ``run``.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self._by_name = {stage.name: stage for stage in stages}
        self.timing = Timing()
        self.used_ns: dict[str, int] = {}
        self.busy: list[str] = []

    def run(self, snapshot: Snapshot, read_audio: ReadAudio, busy: Collection[str] | None = None) -> None:
        """Run what is due for ``snapshot``; results are read with ``output``.

        ``snapshot.age_ms`` is raised to the age of the cached or background output that was used.

        Args:
            snapshot: What to run on.
            read_audio: Gives its sound.
            busy: The background stages to take as still running, and no others, as a recorded run found them;
                None looks.
        """
        timing = self.timing = Timing()
        self.used_ns, self.busy = {}, []
        for stage in self.stages:
            if not stage.present(snapshot):
                stage.reset()
                continue
            running = stage.asynchronous and stage.busy(None if busy is None else stage.name in busy)
            if running:
                self.busy.append(stage.name)
            elif stage.due(snapshot):
                before = time.monotonic_ns()
                stage.feed(snapshot, read_audio)
                fed = time.monotonic_ns()
                (stage.start if stage.asynchronous else stage.run)(snapshot.t_ns)
                timing.preprocess_ns += fed - before
                timing.infer_ns += time.monotonic_ns() - fed
            if stage.asynchronous or stage.spec.every_ms is not None:
                self.used_ns[stage.name] = stage.t_ns
            stale_ms = (snapshot.t_ns - stage.t_ns) / 1e6
            if stale_ms > 0:
                for seat in stage.depends:
                    if snapshot.present[seat]:
                        snapshot.age_ms[seat] = max(snapshot.age_ms.get(seat, 0.0), stale_ms)

    def output(self, tensor: str) -> AnyArray:
        """Return ``STAGE.OUTPUT``; a view, valid until the next ``run``."""
        stage, _, output = tensor.partition(".")
        return self._by_name[stage].outputs[output]

    @property
    def evidence(self) -> Evidence:
        """Where a figure of this run was measured: on the CPU, a GPU or a Jetson."""
        if not all(stage.engine.backend.startswith("tensorrt") for stage in self.stages):
            return "cpu"
        return "jetson" if Path("/etc/nv_tegra_release").exists() else "gpu"

    def describe(self) -> Mapping[str, str]:
        """Return stage name -> backend that serves it."""
        return {stage.name: stage.engine.backend for stage in self.stages}

    def close(self) -> None:
        """Free every stage; idempotent."""
        for stage in self.stages:
            stage.close()
