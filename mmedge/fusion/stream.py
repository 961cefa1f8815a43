"""Streaming stages: each sample is processed once, in steps of equal length, independent of triggers."""

from __future__ import annotations

from mmedge._native import core
from mmedge.fusion.stage import StageRunner


class StreamStage(StageRunner):
    """A stage with a state that hears sound in steps of ``every_ms``, counted in samples from the start of the epoch.

    At a trigger it runs as often as steps have come. Its window holds the step and the sound before it. While its
    sound is absent it gives zeros and keeps its state: what it has not heard yet it hears later. Before its first
    step, in a new epoch as well, and after a failure it has heard nothing: to the stages behind it its sound is absent.
    It has no other input: a step that was heard is never heard again, and so must never have to be taken back.

    Raises:
        BundleError: If it does not keep to what ``check_stream`` asks for.
    """

    native: core.StreamRunner

    def _make_native(self) -> core.Runner:
        hears = self.plan.hears
        assert hears is not None
        return core.StreamRunner(
            self.memory,
            seat=self.seats.index(hears.seat),
            step=hears.step,
            window=hears.window,
            rate_hz=hears.rate_hz,
        )

    def join(self) -> None:
        """Begin with the newest step at the next trigger: it came into a run that goes on."""
        self.native.join()

    @property
    def overruns(self) -> int:
        """How often sound was overwritten before it was heard; the state begins anew behind it."""
        return self.native.overruns
