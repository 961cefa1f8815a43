"""The synchroniser under everything that sources do, in virtual time, against a slow reference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmedge.bundle.manifest import Missing, Sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, EndOfStream, Frame, Packet, Snapshot, Tensor, Text
from tests.oracle.synchronizer import Synchronizer as PlainSynchronizer
from tests.sync_model import (
    AHEAD,
    HOUR,
    IDLE,
    INPUTS,
    MS,
    PIXELS,
    RATE,
    WINDOW,
    Pictures,
    S,
    Setup,
    Sound,
    encode,
    names,
    policies,
    syncs,
)


class Machine(RuleBasedStateMachine):
    """Sources that are late, early, repeat, jump, die and return; one synchroniser; what must hold at every step."""

    @initialize(
        attached=st.dictionaries(names, st.sampled_from([True, True, True, False]), min_size=1),
        missing=st.dictionaries(names, policies.filter(lambda p: p is not None)),
        sync=syncs,
        lossless=st.sampled_from([False, False, False, True]),
    )
    def begin(self, attached: dict[str, bool], missing: dict[str, Missing], sync: Sync, lossless: bool) -> None:
        if lossless:
            attached = dict.fromkeys(attached, False)
        self.setup = Setup(attached, missing, sync, lossless)
        self.sync = self.setup.make()
        self.now = self.polled_at = 0
        self.calls: list[tuple[str, Any]] = []
        self.encoded: list[bytes] = []
        self.snapshots: list[Snapshot] = []
        self.frames: dict[str, list[Frame]] = {"image": [], "front": []}
        self.released: Counter[int] = Counter()
        wait_ns = 29 * S if lossless else self.setup.longest_wait_ns
        self.sounds = {"audio": Sound(attached.get("audio", False), WINDOW + (wait_ns + S) * RATE // S)}
        self.pictures = {name: Pictures(attached.get(name, False)) for name in self.frames}
        self.epoch = dict.fromkeys(INPUTS, 0)
        self.origin = dict.fromkeys(INPUTS, 0)
        self.last = dict.fromkeys(INPUTS, 0)
        self.seq = 0
        self.newest_t: dict[tuple[str, int], int] = {}
        self.over: set[str] = set()  # the trigger's source, once it said that all has come
        self.forward = True  # so far each trigger was later than the one before, as far as can be seen

    def push(self, packet: Packet) -> None:
        self.calls.append(("push", packet))
        self.forward &= packet.stream not in self.over
        if isinstance(packet, EndOfStream) and packet.reason is None and packet.stream == self.setup.sync.trigger:
            self.over.add(packet.stream)
        if isinstance(packet, Block):
            self.sounds[packet.stream].push(packet)
        elif isinstance(packet, Frame):
            self.pictures[packet.stream].push(packet)
        self.sync.push(packet)

    def stamp(self, name: str, capture_ns: int, old_epoch: bool) -> dict[str, Any]:
        self.seq += 1
        self.last[name] = capture_ns
        return {
            "stream": name,
            "seq": self.seq,
            "capture_ns": capture_ns,
            "arrive_ns": self.now,
            "epoch": self.epoch[name] - old_epoch,
            "uncertainty_ns": (3 + self.seq % 5) * 100_000,
        }

    def time_of(self, name: str, how: str, by_ms: int) -> int:
        """When the world was sensed, as the source says."""
        if how == "same":
            return self.last[name]
        if how == "back":
            return self.last[name] - by_ms * MS
        odd = self.seq * 137_011 % MS  # no time falls on a sample
        return self.now + self.origin[name] - (by_ms * MS if how == "late" else 5 * MS) + odd

    hows = st.sampled_from(["on time", "late", "same", "back"])
    lags = st.integers(1, 400)
    old = st.integers(0, 5)

    @rule(steps=st.integers(1, 40), dead=st.sets(names, max_size=2), poll_every=st.sampled_from([1, 1, 1, 7]))
    def flow(self, steps: int, dead: set[str], poll_every: int) -> None:
        """Steady sources, some of them silent: sound and arrays every 10 ms, pictures every 30 ms."""
        for step in range(steps):
            self.now += 10 * MS
            for name in sorted(set(self.setup.attached) - dead - {"text"}):
                if name == "audio":
                    self.sound(n=10, lost=0, how="on time", by_ms=0, old=1)
                elif name == "imu":
                    self.value(name=name, how="on time", by_ms=0)
                elif step % 3 == (name == "front"):
                    self.picture(name=name, how="on time", by_ms=0, frozen=False, old=1)
            if step % poll_every == 0:
                self.poll()

    @rule(name=st.sampled_from(["image", "front"]), how=hows, by_ms=lags, frozen=st.booleans(), old=old)
    def picture(self, name: str, how: str, by_ms: int, frozen: bool, old: int) -> None:
        if name not in self.setup.attached:
            return
        stamp = self.stamp(name, self.time_of(name, how, by_ms), old == 0 and self.epoch[name] > 0)
        seq = self.seq

        def release() -> None:
            self.released[seq] += 1

        frame = Frame(
            **stamp,
            data=PIXELS,
            format="gray8",
            width=8,
            height=8,
            unchanged_ns=1_500 * MS if frozen else 0,
            release=release,
        )
        self.frames[name].append(frame)
        self.push(frame)

    @rule(n=st.integers(0, 60), lost=st.sampled_from([0, 0, 0, 7, 40, 150]), how=hows, by_ms=lags, old=old)
    def sound(self, n: int, lost: int, how: str, by_ms: int, old: int) -> None:
        if "audio" not in self.setup.attached:
            return
        capture = self.time_of("audio", how, by_ms)
        if how == "on time" and abs(self.last["audio"] + (n + lost) * MS - capture) < 50 * MS:
            capture = self.last["audio"] + (n + lost) * MS  # a steady microphone: where its samples end
        samples = np.arange(self.seq * 64 + 1, self.seq * 64 + n + 1, dtype=np.float32)
        stamp = self.stamp("audio", capture, old == 0 and self.epoch["audio"] > 0)
        self.push(Block(**stamp, samples=samples, lost=lost))

    @rule(name=st.sampled_from(["text", "imu"]), how=hows, by_ms=lags)
    def value(self, name: str, how: str, by_ms: int) -> None:
        if name not in self.setup.attached:
            return
        stamp = self.stamp(name, self.time_of(name, how, by_ms), False)
        self.push(Text(**stamp, text="seven") if name == "text" else Tensor(**stamp, data=PIXELS))

    @rule(name=names, by_ns=st.sampled_from([HOUR, -HOUR, 3 * S, -3 * S, -300 * MS]), reconnect=st.booleans())
    def jump(self, name: str, by_ns: int, reconnect: bool) -> None:
        """A source's time gets another origin, and it may or may not know."""
        if self.setup.lossless and by_ns > 0:
            return  # an hour of a file is an hour to wait for
        self.origin[name] += by_ns
        self.last[name] += by_ns
        self.epoch[name] += reconnect

    @rule(name=names)
    def reconnect(self, name: str) -> None:
        self.epoch[name] += 1

    @rule(name=names, reason=st.sampled_from([None, "unplugged"]), old=st.booleans())
    def end(self, name: str, reason: str | None, old: bool) -> None:
        if name in self.setup.attached:
            stamp = self.stamp(name, self.last[name], old and self.epoch[name] > 0)
            self.push(EndOfStream(**stamp, reason=reason))

    @rule(ms=st.sampled_from([0, 1, 10, 33, 100, 300, 2500]))
    def pass_time(self, ms: int) -> None:
        self.now += ms * MS

    @rule()
    def poll(self) -> None:
        self.calls.append(("poll", self.now))
        self.sync.advance(self.now)
        for snapshot in self.sync.poll():
            self.encoded.append(encode(self.sync, snapshot))
            self.check(snapshot)
            self.snapshots.append(snapshot)
        self.sync.trim()
        self.polled_at = self.now
        self.check_held()

    def check(self, snapshot: Snapshot) -> None:
        setup, t = self.setup, snapshot.t_ns
        unseen = {cause for cause in self.sync.drops if cause not in ("old_epoch", "time_backwards")}
        self.forward &= not unseen and (not self.snapshots or t > self.snapshots[-1].t_ns)
        assert list(snapshot.present) == list(INPUTS)
        there = {name for name, on in snapshot.present.items() if on}
        assert there == {*snapshot.frames, *snapshot.audio_end, *snapshot.values}
        assert there == set(snapshot.age_ms) == set(snapshot.epoch)
        assert there <= set(setup.attached)
        assert (snapshot.reason is None) == (there == set(setup.attached)), "a reason iff something is absent"
        if not setup.lossless:
            assert snapshot.wait_ns <= setup.longest_wait_ns + self.now - self.polled_at, "nobody waits longer"
        skews = [0.0]
        for name, frame in snapshot.frames.items():
            assert not self.released[frame.seq], "a frame that was given back"
            assert snapshot.age_ms[name] == max(t - frame.capture_ns, 0) / MS
            skews.append(abs(t - frame.capture_ns) / MS)
            self.check_picture(name, snapshot, frame)
        for name in {"audio"} & set(setup.attached):
            self.check_sound(name, snapshot, skews)
        for value in snapshot.values.values():
            assert setup.sync.policy == "latest" or value.capture_ns <= t
        assert snapshot.skew_ms == max(skews), "the skew is what the packets' own times say"
        for name in there - {"text"}:
            key = name, snapshot.epoch[name]
            before = self.newest_t.get(key)
            assert before is None or t > before, "time runs forward within an epoch"
            self.newest_t[key] = t

    def check_picture(self, name: str, snapshot: Snapshot, frame: Frame) -> None:
        t, frames, sync = snapshot.t_ns, self.pictures[name].frames, self.setup.sync
        if snapshot.on_frame and name == sync.trigger:
            assert frame.capture_ns == t
        elif sync.policy == "latest":
            assert frame is frames[-1]
        elif self.forward if self.setup.lossless else frames[-1].capture_ns - t < self.setup.hold_ns:
            assert abs(t - frame.capture_ns) == min(abs(t - f.capture_ns) for f in frames), "the nearest of its epoch"

    def check_sound(self, name: str, snapshot: Snapshot, skews: list[float]) -> None:
        sound, missing = self.sounds[name], self.setup.missing.get(name)
        if sound.source_epoch is None:
            assert not snapshot.present[name]
            return
        needed = snapshot.t_ns + AHEAD[self.setup.sync.align]
        want, real, cut_ns = sound.window(needed, latest=self.setup.sync.policy == "latest")
        limit = IDLE if missing is None or missing.policy != "hold" else round((missing.max_age_ms or 0) * 1e6)
        assert snapshot.present[name] == (real > 0 and abs(needed - cut_ns) <= limit), (real, needed - cut_ns)
        if snapshot.present[name]:
            out = np.full(WINDOW, np.nan, np.float32)
            assert self.sync.read_audio(name, snapshot, out) == real
            assert out.tolist() == want
            assert snapshot.epoch[name] == sound.epoch
            assert snapshot.age_ms[name] == max(snapshot.t_ns - cut_ns, 0) / MS
            skews.append(abs(needed - cut_ns) / MS)

    def check_held(self) -> None:
        """While no trigger waits, no frame older than ``hold_ns`` is held, but for one."""
        for frames in self.frames.values():
            held = [frame for frame in frames if not self.released[frame.seq]]
            if held and not self.setup.lossless and not self.sync.pending:
                newest = held[-1].capture_ns
                assert sum(abs(newest - frame.capture_ns) > self.setup.hold_ns for frame in held[:-1]) <= 1

    @invariant()
    def conserved(self) -> None:
        if hasattr(self, "sync"):
            sync = self.sync
            assert sync.triggers == len(self.snapshots) + sum(sync.drops.values()) + sync.pending
            due = sync.next_deadline_ns()
            assert (due is not None) or not sync.pending or self.setup.lossless
            if "audio" in self.setup.attached:
                assert sync.lost_samples()["audio"] == self.sounds["audio"].lost

    def teardown(self) -> None:
        if not hasattr(self, "sync"):
            return
        self.now += 10 * S
        if not self.setup.lossless:
            self.poll()
            assert self.sync.pending == 0, "nothing waits for ever"
        self.sync.close()
        frames = [frame for frames in self.frames.values() for frame in frames]
        assert all(self.released[frame.seq] == 1 for frame in frames), "each frame is given back once"
        assert self.replay(Synchronizer) == self.encoded, "the same calls give the same bytes"
        assert self.replay(PlainSynchronizer) == self.encoded, "and those of the plain one"

    def replay(self, cls: type[Any]) -> list[bytes]:
        again, encoded = self.setup.make(cls), []
        for call, argument in self.calls:
            if call == "push":
                again.push(argument)
            else:
                again.advance(argument)
                encoded += [encode(again, snapshot) for snapshot in again.poll()]
                again.trim()
        return encoded


Machine.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
