"""Processes, control line and packets across the border."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmedge.errors import ConfigError, DeviceError, EngineError, InternalError, MmedgeError
from mmedge.fusion import StageError
from mmedge.ipc.control import Control, Log, Ready, Ring, Stop
from mmedge.ipc.process import Child, error_from
from mmedge.ipc.wake import Wake
from tests.processes import child, end, gone, hear


def test_a_child_answers_logs_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with child("wait", b"xyz") as started, caplog.at_level(logging.INFO):
        hear(started, Ready)
        started.stop(60.0)
        assert started.reason() == "its process ended with exit code 0"
        assert gone(started.pid)
    assert "got 3 bytes" in caplog.text


def test_errors_cross_the_border() -> None:
    with child("refuse") as started:
        end(started)
        assert isinstance(started.error, DeviceError)
        assert (started.error.message, started.error.where, started.error.fix) == (
            "no such thing",
            "here",
            "look there",
        )
    with child("bug") as started:
        end(started)
        assert isinstance(started.error, InternalError)
        assert "ZeroDivisionError: one over nothing" in started.reason()
        assert 'raise ZeroDivisionError("one over nothing")' in str(started.error.__cause__)


@pytest.mark.parametrize("times", [1, 2])
def test_the_traceback_of_a_bug_is_logged_once(caplog: pytest.LogCaptureFixture, times: int) -> None:
    with caplog.at_level(logging.ERROR):
        for _ in range(times):
            with child(f"bug_{times}") as started:
                end(started)
    (record,) = caplog.records
    assert "in deeper" in record.getMessage()
    assert f"TypeError: {times} is no int" in record.getMessage()


def test_a_traceback_of_any_length_arrives() -> None:
    with child("long_bug") as started:
        end(started)
        assert isinstance(started.error, InternalError)
        text = str(started.error.__cause__)
    assert text.startswith("Traceback")
    assert "in long_bug" in text
    assert text.endswith("xxx")
    assert len(text) <= 16_000


def test_a_crash_is_reported_with_its_last_words() -> None:
    with child("crash") as started:
        end(started)
        assert "SIGABRT" in started.reason()
        assert "last words" in started.reason()


def test_who_holds_the_interpreter_is_killed() -> None:
    with child("hold_the_interpreter") as started:
        hear(started, Ready)
        before = time.monotonic()
        started.stop(0.3)
        assert time.monotonic() - before < 60
        assert "SIGKILL" in started.reason()


@pytest.mark.parametrize("entry", ["wait", "hold_the_interpreter"])
def test_a_killed_parent_leaves_no_orphan(entry: str) -> None:
    code = (
        "import os, sys; from mmedge.ipc.process import Child; from mmedge.ipc.control import Ready\n"
        f"c = Child('tests.entries:{entry}', b'', name='x')\n"
        "while not c.receive(1.0): pass\n"
        "print(c.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid, 0.2)
    parent.kill()
    parent.communicate()
    assert gone(pid)


def test_an_interrupt_is_left_to_the_parent() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, signal.SIGINT)
        assert not gone(started.pid, 0.3)


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(Child, "tests.entries:wait", b"", name="x").result()
    try:
        hear(started, Ready)
        assert not gone(started.pid, 0.3)
    finally:
        started.close()


def test_control_carries_whole_messages_and_descriptors() -> None:
    here, there = Control.pair()
    wake = Wake()
    assert here.send(Ring(7, "slots"), [wake.fileno()])
    assert here.send(Stop())
    received = there.receive(60.0)
    assert received is not None
    assert received[0] == Ring(7, "slots")
    assert not os.get_inheritable(received[1][0])
    Wake(received[1][0]).set()
    assert wake.wait(60.0)
    assert not wake.wait(0.0)
    assert there.receive(60.0) == (Stop(), [])
    assert there.receive(0.0) is None
    here.close()
    with pytest.raises(EOFError):
        there.receive(60.0)
    assert not there.send(Stop())
    there.close()


def test_what_was_said_before_the_end_is_heard_although_something_was_left_unread() -> None:
    here, there = Control.pair()
    here.send(Stop())  # nobody reads it: closing resets the connection
    there.send(Ready())
    there.close()
    assert here.receive(60.0) == (Ready(), [])
    with pytest.raises(EOFError):
        here.receive(60.0)
    here.close()


def test_nobody_waits_for_one_who_does_not_read() -> None:
    here, there = Control.pair()
    before = time.monotonic()
    sent = sum(here.send(Log(20, "x", "y" * 1000), wait=False) for _ in range(5000))
    assert 0 < sent < 5000
    assert time.monotonic() - before < 60
    here.close()
    there.close()


def test_an_error_of_any_length_arrives() -> None:
    with child("talk_at_length") as started:
        end(started)
        assert isinstance(started.error, DeviceError)
        assert started.error.message.startswith("xxx")


def test_a_program_left_behind_does_not_hide_the_end() -> None:
    with child("leave_a_program_behind") as started:
        hear(started, Ready)
        os.kill(started.pid, signal.SIGKILL)
        before = time.monotonic()
        end(started)
        assert time.monotonic() - before < 30


def test_a_signal_without_a_name_is_a_reason() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, 40)
        end(started)
        assert "signal 40" in started.reason()


@pytest.mark.parametrize("request_to_end", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_left_to_the_parent(request_to_end: signal.Signals) -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(started.pid, request_to_end)
        assert not gone(started.pid, 0.3)


def test_children_live_on_when_the_main_thread_has_ended() -> None:
    code = (
        "import sys, threading, time; from mmedge.ipc.process import Child; from mmedge.ipc.control import Ready\n"
        "def work():\n"
        "    c = Child('tests.entries:wait', b'', name='x')\n"
        "    while not c.receive(1.0): pass\n"
        "    time.sleep(0.5)\n"
        "    print(c._process.poll()); c.stop(5); c.close()\n"
        "threading.Thread(target=work).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "None\n", done.stderr


def test_a_child_finds_the_modules_of_its_parent_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text("def run(link):\n    link.ready()\n")
    (tmp_path / "task.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "random.py").write_text("raise SystemExit('not the library')\n")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.insert(0, 'mine')\n"
        "from mmedge.ipc.process import Child\n"
        "c = Child('task:run', b'', name='x')\n"
        "try:\n    while True: print(type((c.receive(60.0) or [None])[0]).__name__)\n"
        "except EOFError: print(c.reason())\n"
        "c.close()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["Ready", "Done"], done.stdout + done.stderr


def errors_of(base: type[MmedgeError]) -> list[type[MmedgeError]]:
    return [base, *(error for cls in base.__subclasses__() for error in errors_of(cls))]


def test_every_error_crosses_the_border_as_the_nearest_that_users_know() -> None:
    public = {cls for cls in errors_of(MmedgeError) if cls.__module__ == "mmedge.errors"}
    assert len(public) > 8
    for cls in public:
        assert type(error_from(cls("m", where="w", fix="f").to_dict())) is cls
    fault = StageError("s", ("image",), EngineError("m", where="w", fix="f"))
    again = error_from(fault.to_dict())
    assert (type(again), again.message, again.where) == (EngineError, "m", "stage 's': w")


def test_unknown_errors_keep_their_message() -> None:
    assert type(error_from({"error": "exit", "message": "m"})).__name__ == "MmedgeError"
    assert isinstance(error_from({"error": "ConfigError", "message": "m"}), ConfigError)


@pytest.mark.parametrize(
    ("state", "works"),
    [
        ("S (sleeping)", True),
        ("t (tracing stop)", True),
        ("T (stopped)", False),
        ("Z (zombie)", False),
        ("gone", False),
    ],
)
def test_a_spawner_that_is_traced_is_waited_for(monkeypatch: pytest.MonkeyPatch, state: str, works: bool) -> None:
    """`strace -f` stops it at each call, for a moment."""
    from mmedge.ipc import spawned

    monkeypatch.setattr(spawned, "state_of", lambda pid: state)
    line, other = Control.pair()
    assert spawned._Spawner(os.getpid(), (), line, 1, -1).works() is works
    line.close()
    other.close()
