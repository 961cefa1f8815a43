"""A stage: preprocessing and an engine, run only when it is due, its outputs kept until the next run."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import Engine
from mmedge.errors import BundleError
from mmedge.fusion.feed import Feed, ReadAudio, ReadMember, expected_shape, make_feed, no_members
from mmedge.types import AnyArray, Snapshot


class Stage:
    """One network of the fused graph.

    Args:
        name: Its name in the manifest.
        spec: Its manifest entry.
        inputs: Every seat of the bundle.
        engine: Its engine; the stage owns it from now on.
        raw: Whether the engine takes raw frames and PCM (TensorRT variants).
        read: Gives a member of the bundle; texts need their tokenizer.

    Attributes:
        outputs: Output name -> array, kept until the next run; zeros while its inputs are absent.
        depends: Seats it is fed by, directly or through other stages.
        version: Counts its runs.
        t_ns: Capture time its outputs belong to.
    """

    def __init__(
        self,
        name: str,
        spec: StageSpec,
        inputs: Mapping[str, Input],
        engine: Engine,
        upstream: Mapping[str, Stage],
        *,
        raw: bool,
        read: ReadMember = no_members,
    ) -> None:
        self.name, self.spec, self.engine, self.raw = name, spec, engine, raw
        self._seats = tuple(inputs)
        self._feeds: dict[str, tuple[str, Feed]] = {}
        self._links: dict[str, tuple[Stage, str]] = {}
        self._states: dict[str, str] = {}
        self._graph: dict[str, str] = {}
        self._check_signature()
        self.depends: frozenset[str] = frozenset()
        self.outputs: dict[str, AnyArray] = {}
        depends: set[str] = set()
        for tensor, source in spec.inputs.items():
            if source in inputs:
                self._check_shape(tensor, expected_shape(inputs[source], raw=raw))
                self._feeds[tensor] = (source, make_feed(source, inputs[source], raw=raw, read=read))
                depends.add(source)
            elif source.startswith("@state:"):
                self._states[tensor] = source[7:]
            elif source.startswith("@"):
                self._check_shape(tensor, (1, len(inputs)))
                self._graph[tensor] = source
            else:
                producer, _, output = source.partition(".")
                stage = upstream[producer]
                self._check_shape(tensor, stage.outputs[output].shape)
                self._links[tensor] = (stage, output)
                depends |= stage.depends
        self.depends = frozenset(depends)
        self.asynchronous = spec.mode == "async"
        # A background run writes the engine's arrays at any time: readers get a copy.
        self.outputs = {n: a.copy() for n, a in engine.outputs.items()} if self.asynchronous else engine.outputs
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"mmedge-{name}") if self.asynchronous else None
        self._future: Future[None] | None = None
        self._cold = True
        self._future_t_ns = 0
        self.version = 0
        self.t_ns = 0
        self._key: object = None
        self._epoch: dict[str, int] = {}
        self.reset()

    def _check_signature(self) -> None:
        for kind, declared, own in (
            ("inputs", self.spec.inputs, self.engine.inputs),
            ("outputs", self.spec.outputs, self.engine.outputs),
        ):
            if set(declared) != set(own):
                raise BundleError(
                    f"the network's {kind} are {sorted(own)}, the manifest says {sorted(declared)}",
                    where=f"manifest.json: $.stages.{self.name}.{kind}",
                    fix="name them as the network does",
                )
        for name, dims in self.spec.outputs.items():
            self._check_shape(name, tuple(1 if isinstance(d, str) else d for d in dims), output=True)

    def _check_shape(self, tensor: str, want: tuple[int, ...], *, output: bool = False) -> None:
        own = (self.engine.outputs if output else self.engine.inputs)[tensor]
        if own.shape != want:
            raise BundleError(
                f"tensor '{tensor}' of the network is {list(own.shape)}, the graph has {list(want)}",
                where=f"manifest.json: $.stages.{self.name}.{'outputs' if output else 'inputs'}.{tensor}",
                fix="correct the manifest or export the network again",
            )

    def reset(self) -> None:
        """Forget cached outputs and states, after a background run has ended."""
        if self._future is not None:
            self._future.result()
            self._future = None
        self._key, self._cold = None, True
        for tensor in self._states:
            self.engine.inputs[tensor].fill(0)
        for array in self.outputs.values():
            array.fill(0)

    def present(self, snapshot: Snapshot) -> bool:
        """Tell whether any seat this stage depends on is present."""
        return not self.depends or any(snapshot.present[name] for name in self.depends)

    def due(self, snapshot: Snapshot) -> bool:
        """Tell whether the stage must run for this trigger, by its rule."""
        key = self._current_key(snapshot)
        if self.version == 0 or self._key is None:
            return True
        if self.spec.every_ms is not None:
            return snapshot.t_ns - self.t_ns >= self.spec.every_ms * 1e6 - 500_000
        return key != self._key

    def _current_key(self, snapshot: Snapshot) -> object:
        seats = [s for s, _ in self._feeds.values()] if self.spec.on in (None, "change") else [self.spec.on]
        parts: list[object] = [snapshot.present[s] for s in sorted(self.depends)]
        for seat in seats:
            if seat in snapshot.frames:
                parts.append((snapshot.epoch.get(seat), snapshot.frames[seat].seq))
            elif seat in snapshot.audio_end:
                parts.append((snapshot.epoch.get(seat), snapshot.audio_end[seat]))
            elif seat in snapshot.values:
                parts.append((snapshot.epoch.get(seat), snapshot.values[seat].seq))
        if self.spec.on in (None, "change"):
            parts.extend(stage.version for stage, _ in self._links.values())
        return tuple(parts)

    def feed(self, snapshot: Snapshot, read_audio: ReadAudio) -> None:
        """Write every input tensor; absent seats become zeros."""
        if self._states and snapshot.epoch != self._epoch:
            self._epoch = dict(snapshot.epoch)
            for tensor in self._states:
                self.engine.inputs[tensor].fill(0)
        for tensor, (seat, feed) in self._feeds.items():
            out = self.engine.inputs[tensor]
            if snapshot.present[seat]:
                feed.fill(snapshot, out, read_audio)
            else:
                feed.fill_absent(out)
        for tensor, (stage, output) in self._links.items():
            np.copyto(self.engine.inputs[tensor], stage.outputs[output])
        for tensor, source in self._graph.items():
            row = self.engine.inputs[tensor][0]
            for index, seat in enumerate(self._seats):
                row[index] = snapshot.present[seat] if source == "@present" else snapshot.age_ms.get(seat, 0.0)
        self._key = self._current_key(snapshot)

    def run(self, t_ns: int) -> None:
        """Run the engine on what ``feed`` wrote."""
        self.engine.run()
        self._finish(t_ns)

    def start(self, t_ns: int) -> None:
        """Run the engine in the background; the first time, and after an absence, wait for it."""
        if self._worker is None or self._cold:
            self.run(t_ns)
            self._publish()
            return
        self._future_t_ns = t_ns
        self._future = self._worker.submit(self.engine.run)

    def busy(self, running: bool | None = None) -> bool:
        """Publish a finished background run; tell whether one is still going on.

        Args:
            running: In a replay, what the recorded run found: False waits for the end of the background run.
        """
        if self._future is None:
            return False
        if not self._future.done() if running is None else running:
            return True
        self._future.result()
        self._future = None
        self._finish(self._future_t_ns)
        self._publish()
        return False

    def _finish(self, t_ns: int) -> None:
        self._cold = False
        self.version += 1
        self.t_ns = t_ns
        for tensor, output in self._states.items():
            np.copyto(self.engine.inputs[tensor], self.engine.outputs[output])

    def _publish(self) -> None:
        if self.asynchronous:
            for name, array in self.engine.outputs.items():
                np.copyto(self.outputs[name], array)

    def fill_raw(self, tensors: Mapping[str, AnyArray]) -> None:
        """Write one golden sample (``in.NAME`` without its leading axis) into the engine's inputs."""
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
