"""A dead input costs no trigger, and no clock is read."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mmedge.clock.estimator
import mmedge.sync
from mmedge.bundle.manifest import Sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, EndOfStream, Frame, Packet, Tensor
from tests.sync_model import (
    MS,
    PIXELS,
    S,
    Setup,
    syncs,
)

PERIODS = {"image": S // 30, "front": 40 * MS, "audio": 10 * MS, "imu": 10 * MS}
DELAYS = {"image": 35 * MS, "front": 20 * MS, "audio": 12 * MS, "imu": 2 * MS}


def watch(setup: Setup, victim: str | None, dead: tuple[int, int], said: bool) -> tuple[list[int], Synchronizer]:
    """Three seconds of steady sources, one of which is dead for a while; when the triggers were."""
    events: list[tuple[int, Packet]] = []
    for name in setup.attached:
        for k in range(1, 3 * S // PERIODS[name]):
            capture = k * PERIODS[name]
            arrive = capture + DELAYS[name] + (k * 7919 % 11) * MS // 10
            stamp: dict[str, Any] = {"stream": name, "seq": k, "capture_ns": capture, "arrive_ns": arrive}
            if name == victim and dead[0] <= arrive < dead[1]:
                continue
            if name == "audio":
                events.append((arrive, Block(**stamp, samples=np.ones(10, np.float32))))
            elif name == "imu":
                events.append((arrive, Tensor(**stamp, data=PIXELS)))
            else:
                events.append((arrive, Frame(**stamp, data=PIXELS, format="gray8", width=8, height=8)))
    if said and victim is not None:
        stamp = {"stream": victim, "seq": 0, "capture_ns": dead[0], "arrive_ns": dead[0]}
        events.append((dead[0], EndOfStream(**stamp, reason="unplugged")))
    sync, times = setup.make(), []
    for now, packet in sorted(events, key=lambda event: event[0]):
        sync.push(packet)
        sync.advance(now)
        times += [snapshot.t_ns for snapshot in sync.poll()]
        sync.trim()
    sync.advance(4 * S)
    return times + [snapshot.t_ns for snapshot in sync.poll()], sync


@settings(max_examples=60, deadline=None)
@given(
    attached=st.sets(st.sampled_from(list(PERIODS)), min_size=2),
    sync=syncs,
    data=st.data(),
    start_ms=st.integers(500, 1500),
    for_ms=st.one_of(st.integers(300, 700), st.just(10_000)),  # less than a quarter of a second is no death
    said=st.booleans(),
)
def test_a_dead_input_never_lowers_the_trigger_rate(
    attached: set[str], sync: Sync, data: st.DataObject, start_ms: int, for_ms: int, said: bool
) -> None:
    setup = Setup(dict.fromkeys(sorted(attached), True), {}, sync)
    assume(sync.trigger in PERIODS or sync.trigger == "timer")
    victim = data.draw(st.sampled_from(sorted(attached)))
    dead = start_ms * MS, (start_ms + for_ms) * MS
    alive, _ = watch(setup, None, dead, said=False)
    times, core = watch(setup, victim, dead, said=said)
    # One for the step in which it is missed or returns; at the very end some may still be made up for.
    rate, rate_alive = (sum(t < 2500 * MS for t in run) for run in (times, alive))
    assert rate >= rate_alive - 1, (rate, rate_alive, core.drops)
    if sync.trigger in attached - {victim}:
        assert times == alive, "what is not the trigger's own changes no trigger"


def test_no_clock_is_read() -> None:
    """No step of the wall clock can reach the core, which has no clock, or the clock, which is another one."""
    sync = list(Path(mmedge.sync.__file__).parent.glob("*.py"))
    here = Path(mmedge.clock.estimator.__file__)
    clock = [path for path in here.parent.glob("*.py") if path.name != "anchor.py"]  # which is for people
    assert len(sync) >= 3
    for path in [*sync, *clock]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                    assert node.attr == "monotonic_ns", f"{path.name}:{node.lineno}"
                continue
            foreign = {
                "datetime",
                "calendar",
                "time.time",
                "time.time_ns",
                "mmedge.clock.now_ns",
                "mmedge.clock.anchor",
            }
            if path.name == "__init__.py":
                names.discard("mmedge.clock.anchor")
            assert not names & (foreign if path in clock else foreign | {"time", "mmedge.clock"}), path.name
    native = Path(__file__).parents[2] / "native"
    sources = [path for folder in ("clock", "sync") for path in (native / folder).glob("*.[ch]pp")]
    assert len(sources) >= 10
    for path in sources:
        if path.name == "monotonic.hpp":  # the clock itself, for who captures
            continue
        assert not re.search(r"<c?time(\.h)?>|<chrono>|clock_gettime|sys/time|monotonic\.hpp", path.read_text()), (
            path.name
        )
