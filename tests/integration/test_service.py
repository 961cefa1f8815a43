"""A run as a service: what it tells systemd over a real socket, how it is stopped, `mmedge service`."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.address import Address
from mmedge.cli import run
from mmedge.fusion.consent import project_text
from mmedge.service import Notifier, Unit
from tests.processes import children, until
from tests.tiny import imu_bundle, members, tiny_bundle
from tests.versions import turned, version

pytestmark = pytest.mark.parallel

CAMERA = "test://?width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


class Manager:
    """What systemd is to a service: a socket of datagrams."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._lines: list[str] = []

    def next(self, pattern: str, timeout_s: float = 60.0) -> str | None:
        """Return the next line of this pattern; None if none comes in time."""
        until_s = time.monotonic() + timeout_s
        while True:
            while self._lines:
                if re.fullmatch(pattern, line := self._lines.pop(0)):
                    return line
            self._socket.settimeout(max(until_s - time.monotonic(), 0.001))
            try:
                self._lines += self._socket.recv(8192).decode().split("\n")
            except TimeoutError:
                return None

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@mmedge-test-{os.getpid()}"
    made = Manager(address)
    yield made
    made.close()


def started(
    manager: Manager, *arguments: object, stderr: Any = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmedge", "run", *map(str, arguments)],
        env={**os.environ, "NOTIFY_SOCKET": manager.address, **environment},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # `nohup` ignores it, and that is inherited
    )


def test_a_run_says_that_it_is_ready_and_lives(bundle: Path, manager: Manager) -> None:
    service = started(manager, bundle, "--image", CAMERA, "--json", WATCHDOG_USEC="1000000")
    try:
        assert manager.next("READY=1")
        for _ in range(6):
            assert manager.next("WATCHDOG=1")
        assert manager.next(r"STATUS=[1-9]\d*\.\d results/s, \d+ ms")
        for process in children(service.pid):  # none of them speaks in its name
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{process}/environ").read_bytes()
        service.send_signal(signal.SIGTERM)
        assert manager.next("STOPPING=1")
        _, err = service.communicate(timeout=60)
        assert service.returncode == 0, err
        assert "Traceback" not in err
    finally:
        service.kill()
        service.communicate()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_reload_puts_in_the_bundle_that_lies_there_by_then(bundle: Path, tmp_path: Path, manager: Manager) -> None:
    said = tmp_path / "said"
    with said.open("w") as stderr:
        run = started(manager, bundle, "--image", CAMERA, "--audio", "test://", "--json", stderr=stderr)
    assert run.stdout is not None
    try:
        assert manager.next("READY=1") is not None
        first = json.loads(run.stdout.readline())
        assert first.get("tasks", first).keys() == {"scene", "same"}, first
        (tmp_path / "broken").write_bytes(b"no bundle")
        (tmp_path / "broken").replace(bundle)
        run.send_signal(signal.SIGHUP)  # nothing of it is put in, and the run goes on
        assert until(lambda: "was not reloaded" in said.read_text(), 60)
        labels = {"labels/scene.txt": b"night\nday\n"}
        version(tmp_path / "new.mmedge", labels, name="renamed", outputs=[]).replace(bundle)
        run.send_signal(signal.SIGHUP)
        newest = (json.loads(line) for line in run.stdout)
        first = next(result for result in newest if result["tasks"]["scene"]["label"] in ("night", "day"))
        assert any(result["t_ns"] > first["t_ns"] + 2_000_000_000 for result in newest)
        run.terminate()
    except BaseException:
        run.kill()
        raise
    finally:
        run.communicate(timeout=60)
    err = said.read_text()
    assert run.returncode == 0, err
    assert "the bundle was not reloaded: not a bundle" in err
    assert "note: bundle 'renamed'" in err


def test_a_stuck_stage_is_not_fed(tmp_path: Path, manager: Manager) -> None:
    bundle = imu_bundle(tmp_path / "stuck.mmedge", "tests.entries:never_answers")
    service = started(
        manager,
        *(bundle, "--image", CAMERA, "--allow-callable", "tests.entries", "--json"),
        WATCHDOG_USEC="1000000",
        PYTHONPATH=str(Path(__file__).parents[2]),
    )
    try:
        assert manager.next("READY=1")
        assert until(lambda: manager.next("WATCHDOG=1", 4) is None, 60)
        assert service.poll() is None
        assert manager.next(r"STATUS=0\.0 results/s.*")
    finally:
        service.kill()
        service.communicate()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
@pytest.mark.parametrize("what", ["stuck", "unplugged", "watched by another", "none"])
def test_what_feeds_the_watchdog(bundle: Path, manager: Manager, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("WATCHDOG_PID", "1" if what == "watched by another" else str(os.getpid()))
    camera = f"{CAMERA}&unplug_at_s=0.5" if what == "unplugged" else CAMERA
    with mmedge.Pipeline(bundle, {"image": camera}) as pipe, Notifier(pipe):
        assert manager.next("READY=1")
        fed = 0

        def feeds(count: int) -> bool:
            """Read for a while; tell whether it has been fed so often by now."""
            nonlocal fed
            for _ in pipe.results(time.monotonic() + 0.2):
                pass
            while manager.next("WATCHDOG=1", 0.01):
                fed += 1
            return fed >= count

        if what in ("unplugged", "none"):
            assert until(lambda: feeds(20), 60)
            return
        next(pipe.results(time.monotonic() + 60))
        if what == "stuck":
            assert until(lambda: feeds(1), 60)
        fed = 0
        time.sleep(2.5)
        while manager.next("WATCHDOG=1", 0.01):
            fed += 1
    assert fed <= (3 if what == "stuck" else 0)


def test_a_manager_that_is_gone_ends_no_run(bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for address in (str(tmp_path / "nothing"), "vsock:2:1234", ""):
        os.environ["NOTIFY_SOCKET"] = address
        with mmedge.Pipeline(bundle, {"image": CAMERA}, duration_s=2.0, isolation="thread") as pipe, Notifier(pipe):
            assert pipe.run().results > 0
    assert len([record for record in caplog.records if record.name == "mmedge.service"]) == 2


def test_a_stop_at_any_time_is_orderly(bundle: Path) -> None:
    """Also while it is loading: systemd counts 0, and death by SIGTERM itself, as well done."""
    random.seed(1)
    for step in range(8):
        service = subprocess.Popen(
            [sys.executable, "-m", "mmedge", "run", str(bundle), "--image", CAMERA, "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep((step + random.random()) * 0.15)
        service.send_signal(signal.SIGTERM)
        _, err = service.communicate(timeout=60)
        assert service.returncode in (0, -signal.SIGTERM), (step, service.returncode, err)
        assert "Traceback" not in err, err


def service(capfd: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run(["service", *map(str, arguments), "--json"])
    return code, json.loads(capfd.readouterr().out)


def test_a_unit_is_installed_once(bundle: Path, tmp_path: Path, capfd: Any) -> None:
    units, secrets = tmp_path / "units", tmp_path / "secrets"
    units.mkdir()
    line = (bundle, "--image", "rtsp://me:pw@camera/live", "--install", "--to", units, "--secrets", secrets)
    code, said = service(capfd, *line)
    assert code == 0
    (secret,) = secrets.iterdir()
    assert (secret.stat().st_mode & 0o777, secret.read_text()) == (0o600, "rtsp://me:pw@camera/live\n")
    unit = units / said["file"]
    assert said["written"] == [str(secret), str(unit)]
    assert unit.stat().st_mode & 0o777 == 0o644
    assert "pw" not in unit.read_text()
    assert service(capfd, *line)[0] == 0  # the same again
    unit.write_text("another one")
    code, said = service(capfd, *line)
    assert (code, said["fix"]) == (2, "use --force to replace it, or --name NAME")
    assert unit.read_text() == "another one"
    assert service(capfd, *line, "--force")[0] == 0
    assert "ExecStart" in unit.read_text()


def test_an_update_checks_replaces_and_reloads(
    bundle: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands for `systemctl`, which is not here: it says what it was asked for."""
    monkeypatch.setattr("mmedge.service.unit._HIDDEN", ())
    code, said = service(capfd, bundle, "--image", CAMERA, "--audio", "test://", "--install", "--to", tmp_path)
    assert code == 0
    assert "ExecReload=kill -HUP $MAINPID" in said["unit"]
    control = tmp_path / "systemctl"
    control.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    old = bundle.read_bytes()
    other = version(tmp_path / "other.mmedge", sync={"trigger": "audio"}, outputs=[])
    broken = version(
        tmp_path / "wrong.mmedge", turned() | {"golden/join.npz": members()["golden/join.npz"]}, outputs=[]
    )
    for wrong, expected in ((other, 2), (broken, 1), (tmp_path / "none", 4)):
        assert service(capfd, "update", "tiny", wrong, "--to", tmp_path)[0] == expected
    assert service(capfd, "update", "nobody", other, "--to", tmp_path)[0] == 2
    assert service(capfd, "update", "tiny", "--to", tmp_path)[0] == 2
    assert bundle.read_bytes() == old
    assert not (tmp_path / "asked").exists()
    new = version(tmp_path / "new.mmedge", turned(), outputs=[])
    code, said = service(capfd, "update", "tiny", new, "--to", tmp_path)
    assert code == 0
    assert bundle.read_bytes() == new.read_bytes()
    assert Path(said["before"]).read_bytes() == old
    assert (tmp_path / "asked").read_text() == "reload mmedge-tiny.service\n"
    control.write_text("#!/bin/sh\necho no such unit >&2; exit 5\n")
    code, said = service(capfd, "update", "tiny", new, "--to", tmp_path)
    assert (code, "no such unit" in said["message"]) == (3, True)


def test_a_bundle_that_a_service_sees_as_it_was_is_not_updated(bundle: Path, tmp_path: Path, capfd: Any) -> None:
    assert service(capfd, bundle, "--image", CAMERA, "--install", "--to", tmp_path)[0] == 0
    code, said = service(capfd, "update", "tiny", bundle, "--to", tmp_path)
    assert (code, "restart the service" in said["fix"]) == (2, True)


def test_a_unit_is_printed(bundle: Path, capfd: Any) -> None:
    assert run(["service", str(bundle), "--image", "0", "--", "--latency", "low"]) == 0
    told = capfd.readouterr()
    assert told.out.startswith("#")
    assert "--latency low" in told.out
    assert "--install" in told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "0", "--", "--latencies", "low"], "No such option"),
        (["--image", "0", "--", "--sink", "console"], "before the --"),
        (["--input", "front=0"], "no input 'front'"),
        ([], "no source was given"),
        (["--image", "0", "--install", "--to", "/nowhere"], "cannot be written"),
        (["--image", "0", "--memory", "lots"], "not an amount"),
        (["--image", "0", "--sink", "jsnl:x"], "did you mean 'jsonl'"),
        (["--image", "0", "--sink", "jsonl:x?max_m=1"], "did you mean 'max_mb'"),
        (["--image", "0", "--sink", "jsonl:x?tasks=nothing"], "no task 'nothing'"),
        (["--image", "0", "--sink", "mqtt://me:${NO_SUCH_VARIABLE}@h/t"], "NO_SUCH_VARIABLE"),
    ],
)
def test_what_cannot_work_is_said(bundle: Path, capfd: Any, arguments: list[str], said: str) -> None:
    code, document = (
        service(capfd, bundle, *arguments) if "--" not in arguments else _with_options(capfd, bundle, arguments)
    )
    assert code == 2
    assert said in document["message"] + document["fix"]


def _with_options(capfd: Any, bundle: Path, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    code = run(["service", str(bundle), "--json", *arguments])
    return code, json.loads(capfd.readouterr().out)


def test_a_projects_rule_is_found(tmp_path: Path, capfd: Any) -> None:
    bundle = imu_bundle(tmp_path / "rule.mmedge", "tests.entries:shaken")
    code, said = service(capfd, bundle, "--image", "0", "--allow-callable", "tests.entries")
    assert code == 0
    assert "--allow-callable" in said["unit"]
    assert "mmedge.toml" in said["unit"]  # that of all tests' temporary folders


def test_the_command_of_a_unit_runs_as_another_user_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's rule is found from anywhere: no PYTHONPATH, no list of the user's own projects."""
    project = tmp_path / "my project"
    project.mkdir()
    rule = "import numpy as np\n\n\ndef same(image, imu):\n    return np.ones((1, 1), 'f')\n"
    (project / "odd_rule.py").write_text(rule)
    (project / "mmedge.toml").write_text(project_text(["odd_rule"]))
    inputs = {"image": Address(CAMERA)}
    bundle = imu_bundle(project / "rule.mmedge", "odd_rule:same")
    unit = Unit(name="x", bundle=bundle, inputs=inputs, projects=[project / "mmedge.toml"], options=["--duration", "3"])
    line = shlex.split(unit.text.partition("ExecStart=")[2].partition("\n")[0])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run([*line, "--json"], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "failed stages" not in done.stderr
    assert done.stdout.splitlines()
