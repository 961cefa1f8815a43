"""Stages that take long and do not need each other run at the same time."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mmedge.errors import MmedgeError
from mmedge.fusion.stage import StageRunner


class Crew:
    """Runs the heavy ones of independent stages on threads, where there are cores for it.

    Which stages these are the native graph sees from their own run times, so it changes when and where something runs,
    never what comes out.

    Args:
        stages: In topological order.
        cores: So many may run at once; those this process may use by default.

    Attributes:
        cores: As given.
        running: What runs on a thread now.
    """

    def __init__(self, stages: Sequence[StageRunner], cores: int | None = None) -> None:
        self.cores = len(os.sched_getaffinity(0)) if cores is None else cores
        waited = [stage for stage in stages if not stage.asynchronous]
        self._peers = {
            stage: tuple(
                other
                for other in waited
                if other is not stage and other.name not in stage.ancestors and stage.name not in other.ancestors
            )
            for stage in waited
        }
        self._pool: ThreadPoolExecutor | None = None
        self.running: dict[StageRunner, Future[None]] = {}

    def peers(self, stage: StageRunner) -> tuple[StageRunner, ...]:
        """Return the stages that may run at the same time as one that the trigger waits for."""
        return self._peers.get(stage, ())

    def start(self, stage: StageRunner) -> None:
        """Run a stage, which was fed, on a thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.cores, thread_name_prefix="mmedge-stage")
        self.running[stage] = self._pool.submit(stage.native.execute)

    def wait(self, stages: Collection[StageRunner]) -> dict[StageRunner, MmedgeError]:
        """Wait for those of ``stages`` that run and take up what they give; return who failed."""
        failed: dict[StageRunner, MmedgeError] = {}
        for stage in [stage for stage in self.running if stage in stages]:
            error = self.running.pop(stage).exception()
            if error is None:
                stage.native.finish()
            elif isinstance(error, MmedgeError):
                failed[stage] = error
            else:
                raise error
        return failed

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
