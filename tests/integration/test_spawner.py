"""The process that starts all others: what it shares, and what happens when it dies or hangs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.ipc.control import Ready, State
from tests.processes import alive, asked_by, child, children, command, end, family, gone, hear, reopened, run_until
from tests.processes import spawners as spawners_of
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

CAMERA = "test://?width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def spawner() -> int:
    """Return the newest of this process."""
    return max(spawners_of(os.getpid()))


def told(**options: Any) -> dict[str, Any]:
    with child("tell", **options) as started:
        found: dict[str, Any] = json.loads(hear(started, State)[0].body)
        return found


def private_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_processes_are_told_apart_and_share_their_memory(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA, "audio": "test://?seed=3"}) as pipe:
        run_until(pipe, 60, lambda results: len(results) == 30)
        runtime, workers = family(pipe)
        assert len(workers) == 2
        assert set(children(spawner())) >= {runtime, *workers}
        assert len(list(Path(f"/proc/{spawner()}/task").iterdir())) == 1
        assert Path(f"/proc/{workers[0]}/comm").read_text() == "mmedge-capture\n"
        assert command(runtime).endswith(f"-m mmedge.ipc.worker mmedge.pipeline.worker:main --for {os.getpid()}")
        assert max(map(private_kb, workers)) < 20_000  # 43 MB where each imports everything anew


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_goes_on_without_its_spawner_and_starts_workers_again(
    bundle: Path, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        runtime, (worker,) = family(pipe)
        run_until(pipe, 60, lambda results: len(results) == 20)
        first = spawner()
        os.kill(first, how)
        assert run_until(pipe, 60, lambda results: len(results) == 20)[-1].epoch["image"] == 0
        os.kill(worker, signal.SIGKILL)
        assert reopened(run_until(pipe, 60, reopened))
        assert family(pipe)[0] == runtime
        pids = [first, *spawners_of(runtime), runtime, *asked_by(runtime)]
        assert len(pids) == 4
    assert "the process that starts others" in caplog.text
    assert "another is started" in caplog.text
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        assert run_until(pipe, 60, lambda results: len(results) == 5)
    assert all(gone(pid) for pid in pids[1:])


def test_nothing_is_left_of_a_user_whose_spawner_has_died_before_it(bundle: Path) -> None:
    code = (
        "import mmedge, sys\n"
        f"with mmedge.Pipeline({str(bundle)!r}, {{'image': {CAMERA!r}}}) as pipe:\n"
        "    for result in pipe: print('x', flush=True)\n"
    )
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert user.stdout is not None
    user.stdout.readline()
    (runtime,) = asked_by(user.pid)
    pids = [runtime, *asked_by(runtime)]
    (first,) = spawners_of(user.pid)
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert alive(pids) == pids
    user.kill()
    user.communicate()
    assert all(map(gone, pids))


def test_how_a_child_ended_is_not_known_without_the_spawner() -> None:
    with child("wait") as started:
        hear(started, Ready)
        os.kill(spawner(), signal.SIGKILL)
        started.kill()
        assert "has ended, and so has the process that could say how" in started.reason()


def test_children_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_TEST_A", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    first = told()
    monkeypatch.setenv("MMEDGE_TEST_A", "2")
    monkeypatch.delenv("NOTIFY_SOCKET")
    second = told()
    assert [each["environment"]["MMEDGE_TEST_A"] for each in (first, second)] == ["1", "2"]
    assert "NOTIFY_SOCKET" not in first["environment"]
    assert first["stdin"] == "/dev/null"
    assert first["random"] != told()["random"]


def test_an_import_that_starts_a_thread_costs_the_sharing_alone(caplog: pytest.LogCaptureFixture) -> None:
    os.environ["MMEDGE_TEST_B"] = "1"  # a spawner of its own, which is left with the thread
    try:
        with caplog.at_level(logging.WARNING), child("wait", modules=("tests.threaded",)) as started:
            hear(started, Ready)
            assert "tests.entries:wait --for" in command(started.pid)
            started.stop(60.0)
            assert started.reason() == "its process ended with exit code 0"
    finally:
        del os.environ["MMEDGE_TEST_B"]
    assert "an import has started 1 thread" in caplog.text


def test_a_copy_of_the_user_s_process_has_a_spawner_of_its_own() -> None:
    code = (
        "import os, sys, tests.processes as p\n"
        "from mmedge.ipc.control import Ready\n"
        "with p.child('wait') as one:\n"
        "    p.hear(one, Ready)\n"
        "    copy = os.fork()\n"
        "    with p.child('wait') as two:\n"
        "        p.hear(two, Ready)\n"
        "        print(len(p.spawners(os.getpid())), flush=True)\n"
        "    if not copy: os._exit(0)\n"
        "    os.waitpid(copy, 0)\n"
        "    print(one._process.poll())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root, check=False
    )
    assert sorted(done.stdout.split()) == ["1", "1", "None"], done.stderr


def test_a_child_that_has_ended_leaves_nothing() -> None:
    with child("refuse") as started:
        end(started)
        assert started._process.wait(60) == 0
        fds = len(list(Path(f"/proc/{spawner()}/fd").iterdir()))
    for _ in range(3):
        with child("refuse") as started:
            end(started)
            started._process.wait(60)
    assert len(list(Path(f"/proc/{spawner()}/fd").iterdir())) == fds
    assert not children(spawner())


def in_a_process_of_its_own(code: str) -> str:
    """Run a program that uses the spawner; return what it prints."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_ignores_the_end_of_children_can_start_some() -> None:
    told = in_a_process_of_its_own(
        "import signal, tests.processes as p\n"
        "from mmedge.ipc.control import Ready\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "with p.child('wait') as one:\n"
        "    p.hear(one, Ready)\n"
        "    print('started')\n"
    )
    assert told == "started\n"


def test_children_run_as_the_user_s_process_does_now() -> None:
    told = in_a_process_of_its_own(
        "import os, tests.processes as p\n"
        "from mmedge.ipc.control import Ready\n"
        "for _ in range(2):\n"
        "    with p.child('wait') as one:\n"
        "        p.hear(one, Ready)\n"
        "        print(os.getpriority(os.PRIO_PROCESS, one.pid) == os.getpriority(os.PRIO_PROCESS, 0))\n"
        "    os.nice(3)\n"
    )
    assert told.split() == ["True", "True"]


def test_all_threads_that_find_the_spawner_dead_start_their_children() -> None:
    told = in_a_process_of_its_own(
        "import logging, os, signal, threading, time, tests.processes as p\n"
        "from mmedge.ipc.control import Ready\n"
        "logging.disable()\n"
        "failed = []\n"
        "def start():\n"
        "    try:\n"
        "        with p.child('wait') as one: p.hear(one, Ready)\n"
        "    except BaseException as error: failed.append(repr(error))\n"
        "start()\n"
        "for _ in range(5):\n"
        "    for pid in p.spawners(os.getpid()): os.kill(pid, signal.SIGKILL)\n"
        "    time.sleep(0.05)\n"
        "    threads = [threading.Thread(target=start) for _ in range(4)]\n"
        "    for thread in threads: thread.start()\n"
        "    for thread in threads: thread.join()\n"
        "print(failed)\n"
    )
    assert told == "[]\n"
