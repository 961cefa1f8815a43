"""Programs that attach to a running pipeline: what they get, what they push, and that none holds it up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.cli import run
from mmedge.clients.server import WAITING
from mmedge.errors import ConfigError, FrameExpiredError, MmedgeError
from mmedge.types import Result
from tests.attaching import Isolation, following, programs, push, pushed
from tests.processes import family, until
from tests.tiny import imu_bundle, tiny_bundle

pytestmark = pytest.mark.parallel


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_program_gets_what_the_pipeline_s_reader_gets(bundle: Path, door: Path, isolation: Isolation) -> None:
    with pushed(bundle, door, isolation) as pipe, mmedge.attach(door) as attached:
        for value in (0, 255, 100):
            now = push(pipe, value)
            own, theirs = following(pipe), following(attached)
            assert theirs.t_ns == own.t_ns == now
            latency_ms = {name: ms for name, ms in own.latency_ms.items() if name != "received"}
            assert theirs.latency_ms == latency_ms
            for name in ("schema", "unix_ns", "status", "tasks", "present", "age_ms", "epoch", "reason"):
                assert getattr(theirs, name) == getattr(own, name)
            if isolation == "process":
                seen = theirs.frame("image")
                assert (seen.data == value).all()
                assert (seen.data.shape, seen.format, seen.capture_ns) == ((8, 8), "gray8", now)
                assert seen.description == own.frame("image").description
                assert (seen.to_rgb() == own.frame("image").to_rgb()).all()
            else:  # what was pushed into a pipeline of one process lies in no shared memory
                with pytest.raises(ConfigError, match="no picture of 'image'"):
                    theirs.frame("image")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_pictures_of_a_source_are_seen_where_they_lie(bundle: Path, door: Path, isolation: Isolation) -> None:
    uri = "test://?width=160&height=120&fps=30"
    with mmedge.Pipeline(bundle, {"image": uri}, attach=door, isolation=isolation) as pipe:
        with mmedge.attach(door) as attached:
            whole = 0
            while not whole:  # a machine that stalls may be too late for one of them
                result = following(attached)
                try:
                    frame = result.frame("image")
                except FrameExpiredError:
                    continue
                assert (frame.width, frame.height, frame.capture_ns) == (160, 120, result.t_ns)
                whole += 1
        kept = result
        assert until(lambda: gone(kept), 60)  # the client has left, and the slot is used again: never other pixels
        assert pipe.statistics.unaccounted == 0


def refused(push_again: Callable[[], None], why: str) -> None:
    """Push until it is told why that is refused, which the pipeline finds out later."""

    def told() -> bool:
        try:
            push_again()
        except ConfigError as error:
            return re.search(why, error.message) is not None
        return False

    assert until(told, 60)


def gone(result: Result) -> bool:
    try:
        result.frame("image")
    except (FrameExpiredError, MmedgeError):
        return True
    return False


def test_a_picture_that_is_asked_for_too_late_is_gone_and_never_another(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as attached:
        push(pipe, 77)
        first = following(attached)
        assert (first.frame("image").data == 77).all()
        for value in range(200):
            push(pipe, value)
            following(attached)
        with pytest.raises(FrameExpiredError):
            first.frame("image")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_program_pushes_what_it_senses(tmp_path: Path, door: Path, isolation: Isolation) -> None:
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="tests.entries:shaken")
    inputs = {"image": "push://", "imu": "push://"}
    with mmedge.Pipeline(bundle, inputs, attach=door, isolation=isolation, allow=["tests.entries"]) as pipe:
        spec: Any = pipe.bundle.inputs["imu"]
        with mmedge.attach(door) as attached:
            for k in range(20):
                attached.push("imu", np.full(spec.shape, k, spec.dtype), time.monotonic_ns())
                now = push(attached, 10 * k)
                result = following(pipe)
                assert result.t_ns == now
                assert result.present["image"]
        assert until(lambda: programs(pipe) == 0, 60)
        assert programs(pipe, "refused") == 0


def test_text_and_sound_are_pushed_too(tmp_path: Path, bundle: Path, door: Path) -> None:
    inputs = {"image": "push://", "audio": "push://"}
    with mmedge.Pipeline(bundle, inputs, attach=door, isolation="process") as pipe, mmedge.attach(door) as attached:
        heard = False
        begin = time.monotonic_ns()
        for k in range(1, 200):
            end = begin + k * 100_000_000  # of 0.1 s each, pushed as they end
            time.sleep(max(0.0, (end - time.monotonic_ns()) / 1e9))
            attached.push("audio", np.full(800, 0.5, np.float32), end)
            push(attached, 128)
            if following(pipe).present["audio"]:
                heard = True
                break
        assert heard
        refused(lambda: attached.text("hello", "image"), "text")


def test_what_is_refused_is_told_by_the_next_push(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as attached:
        attached.push("image", np.zeros((8, 8), np.float32), time.monotonic_ns())
        assert until(lambda: programs(pipe, "refused") == 1, 60)
        with pytest.raises(ConfigError, match="does not fit this input"):
            push(attached, 50)
        assert following(pipe).present["image"]  # that one was taken all the same
        push(attached, 60)
        assert following(pipe).present["image"]
        for name, value in (("audio", np.zeros(80, np.float32)), ("other", np.zeros(1, np.uint8))):
            refused(partial(attached.push, name, value, time.monotonic_ns()), r"not fed by push|no input 'other'")
        for strange in (
            np.array(["x"]),
            np.zeros((8, 8), np.dtype(np.float32).newbyteorder()),
            np.zeros((1,) * 9, np.uint8),
            np.broadcast_to(np.uint8(0), (20_000, 20_000)),
        ):
            with pytest.raises(ConfigError, match="cannot be pushed"):
                attached.push("image", strange, time.monotonic_ns())
        with pytest.raises(ConfigError, match="not valid UTF-8"):
            attached.text("\udcff", "image")


def test_packets_that_grow_get_a_larger_way(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as attached:
        for side in (8, 300, 16, 800, 8):
            attached.push("image", np.full((side, side, 3), side % 251, np.uint8), time.monotonic_ns())
            assert following(pipe).frame("image").data.shape == (side, side, 3)


def test_who_reads_slowly_loses_its_own_oldest_results(bundle: Path, door: Path) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as slow, mmedge.attach(door) as quick:
        sent = []
        for k in range(WAITING + 10):
            sent.append(push(pipe, k))
            assert following(quick).t_ns == sent[-1]
        assert [following(slow).t_ns for _ in range(WAITING)] == sent[10:]
        assert (slow.dropped, quick.dropped) == (10, 0)
        assert pipe.statistics.dropped == 0
        slow.close()
        assert until(lambda: programs(pipe, "lost") == 10, 60)


def test_who_pushes_without_a_pause_holds_up_nobody(tmp_path: Path, door: Path) -> None:
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="tests.entries:shaken")
    inputs = {"image": "push://", "imu": "push://"}
    with mmedge.Pipeline(bundle, inputs, attach=door, isolation="process", allow=["tests.entries"]) as pipe:
        values, over = np.zeros((1, 6), np.float32), threading.Event()

        def flood() -> None:
            with mmedge.attach(door) as attached:
                while not over.is_set():
                    with suppress(ConfigError):  # it is told that the pipeline is behind
                        attached.push("imu", values, time.monotonic_ns())

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            for k in range(60):
                now = push(pipe, k)
                assert following(pipe).t_ns == now
        finally:
            over.set()
            flooding.join()
        assert pipe.statistics.dropped == 0


HOLDS = """
import sys, time
import mmedge
attached = mmedge.attach(sys.argv[1])
result = next(iter(attached))
picture = result.frame("image")
print("holding", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_program_that_dies_or_hangs_while_it_holds_something_harms_nobody(
    bundle: Path, door: Path, how: signal.Signals
) -> None:
    with pushed(bundle, door) as pipe, mmedge.attach(door) as other:
        program = subprocess.Popen([sys.executable, "-c", HOLDS, str(door)], stdout=subprocess.PIPE, text=True)
        try:
            assert until(lambda: programs(pipe) == 2, 60)
            push(pipe, 1)
            assert following(other)
            assert program.stdout is not None
            assert program.stdout.readline() == "holding\n"
            program.send_signal(how)
            for k in range(3 * WAITING):
                now = push(pipe, k % 250)
                assert following(other).t_ns == now
        finally:
            program.kill()
            program.communicate()
        assert until(lambda: programs(pipe) == 1, 60)
        push(pipe, 5)
        assert following(other)


def test_health_waits_for_a_result(bundle: Path, door: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["health", str(door)]) == 3  # nobody listens
    with mmedge.Pipeline(bundle, {"image": "test://?fps=30"}, attach=door, isolation="process"):
        assert run(["health", str(door), "--within", "20", "--json"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert document["schema"] == "mmedge.health/1"
        assert document["status"] == "ok"
        assert document["waited_ms"] < 20_000
    with pushed(bundle, door):  # it runs, and nothing is pushed
        assert run(["health", str(door), "--within", "0.3"]) == 1
        assert "no result within 0.3 s" in capfd.readouterr().err
        assert run(["health", str(door), "--within", "nan"]) == 2
    with pushed(bundle, door) as pipe:
        dies = threading.Timer(1.0, os.kill, (family(pipe)[0], signal.SIGKILL))
        dies.start()
        assert run(["health", str(door), "--within", "20"]) == 1
        dies.join()
        assert "died" in capfd.readouterr().err
