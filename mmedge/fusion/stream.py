"""Streaming stages: each sample is processed once, in steps of equal length, independent of triggers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import Engine
from mmedge.errors import MmedgeError
from mmedge.fusion.failures import StageError
from mmedge.fusion.feed import Feed, ReadAudio, ReadMember, no_members
from mmedge.fusion.life import Life
from mmedge.fusion.stage import StageRunner
from mmedge.types import NS_PER_S, AnyArray, Snapshot


class StreamStage(StageRunner):
    """A stage with a state that hears sound in steps of ``every_ms``, counted in samples from the start of the epoch.

    At a trigger it runs as often as steps have come. Its window holds the step and the sound before it. While its
    sound is absent it gives zeros and keeps its state: what it has not heard yet it hears later. Before its first
    step, in a new epoch as well, and after a failure it has heard nothing: to the stages behind it its sound is absent.
    It has no other input: a step that was heard is never heard again, and so must never have to be taken back.

    Attributes:
        overruns: How often sound was overwritten before it was heard; the state begins anew behind it.

    Raises:
        BundleError: If it does not keep to what ``check_stream`` asks for.
    """

    waits = True

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
        self._heard = self._steps = 0
        self._origin = (-1, -1)
        self._joins = False
        self._snapshot: Snapshot | None = None
        self._read: ReadAudio | None = None
        self.overruns = 0
        super().__init__(name, spec, inputs, engine, upstream, raw=raw, read=read)
        hears = self.plan.hears
        assert hears is not None
        self._sound, self._step, self._window, self._rate_hz = hears.seat, hears.step, hears.window, hears.rate_hz
        # Readers see zeros while the sound is absent; the engine's arrays hold the state.
        self.outputs = {n: np.zeros_like(a) for n, a in engine.outputs.items()}
        own = engine.inputs
        self._sounds: list[tuple[AnyArray, Feed]] = [
            (own[t], feed) for t, (source, feed) in self._feeds.items() if source == self._sound
        ]
        self._feeds = {tensor: pair for tensor, pair in self._feeds.items() if pair[0] != self._sound}

    def join(self) -> None:
        """Begin with the newest step at the next trigger: it came into a run that goes on."""
        self._origin, self._joins = (-1, -1), True

    def due(self, snapshot: Snapshot, bits: int, moment: core.Moment) -> bool:
        """Tell whether steps have come that were not heard."""
        end = snapshot.audio_end.get(self._sound) if snapshot.present[self._sound] else None
        if end is None:
            self._steps = 0
            self._hide()
            return False
        begin, oldest = snapshot.audio_span[self._sound]
        origin = (snapshot.epoch[self._sound], begin)
        if origin != self._origin:
            self._origin, self._heard = origin, begin
            if self._joins:  # not all that was heard before it came, which may be minutes
                self._heard += max((end - begin) // self._step - 1, 0) * self._step
                self._joins = False
            self.forget()
            self._hide()
            self.life = Life.COLD
        if max(self._heard + self._step - self._window, begin) < oldest:
            self._heard += -(-(oldest + self._window - self._step - self._heard) // self._step) * self._step
            self.overruns += 1
            self.forget()
        self._steps = max((end - self._heard) // self._step, 0)
        if not self._steps and self.life is Life.HIDDEN:
            self.publish()
            self.life = Life.WARM
            self.version += 1
        return self._steps > 0

    def feed(self, snapshot: Snapshot, bits: int, moment: core.Moment, read_audio: ReadAudio) -> None:
        """Write every input tensor but the sound, which each step writes for itself."""
        super().feed(snapshot, bits, moment, read_audio)
        self._snapshot, self._read = snapshot, read_audio

    def stamp(self, snapshot: Snapshot) -> int:
        """Return the capture time at which the newest step ends."""
        rest = snapshot.audio_end[self._sound] - self._heard - self._steps * self._step
        return snapshot.t_ns - rest * NS_PER_S // self._rate_hz

    def _feed_states(self, snapshot: Snapshot) -> None:
        pass  # each step feeds its own back

    def _run(self) -> None:
        snapshot, self._snapshot = self._snapshot, None  # kept no longer: pictures hang on it
        read = self._read
        assert snapshot is not None
        assert read is not None
        while self._steps:
            for out, feed in self._sounds:
                feed.fill(snapshot, out, read, self._heard + self._step)
            super()._run()
            self.carry()
            self._heard += self._step
            self._steps -= 1

    def finish(self, t_ns: int | None = None) -> None:
        """Take up the outputs of the newest step."""
        super().finish(t_ns)
        self.publish()

    def failed(self, error: MmedgeError, bits: int) -> StageError:
        """Forget the state; the steps that have come are not tried again."""
        self._heard += self._steps * self._step
        self._steps = 0
        return super().failed(error, bits)

    def absent(self) -> None:
        """Give zeros, and remember the state: sound that is late comes later."""
        self._hide()

    def _hide(self) -> None:
        if self.life is Life.WARM:
            self.life = Life.HIDDEN
            self.version += 1
            for array in self.outputs.values():
                array.fill(0)
