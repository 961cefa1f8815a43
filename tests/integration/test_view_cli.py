"""The page from the command line: run --view, demo --view, view."""

from __future__ import annotations

import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.cli import app
from tests.pages import CLIP, DIGITS, follow, read, viewer

pytestmark = pytest.mark.parallel
exceptions = pytest.importorskip("websockets.exceptions")
FED = ["--image", str(CLIP), "--audio", str(CLIP)]


class Started:
    """A command that runs; its lines as they come."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "mmedge", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._told: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._told.put(line)
        self._told.put(None)

    def port(self) -> int:
        """Wait for the link; return its port."""
        while (line := self._told.get(timeout=60)) is not None:
            if match := re.match(r"page: http://127\.0\.0\.1:(\d+)/\s*$", line):
                return int(match[1])
        raise AssertionError("".join(self.lines))

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return exit code and standard output."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        code = self.process.wait(60)
        self._reader.join()
        return code, out


@contextmanager
def started(*arguments: str) -> Iterator[Started]:
    running = Started(*arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                running._reader.join()
                stream.close()


def parsed(*arguments: str) -> dict[str, Any]:
    import typer

    group: Any = typer.main.get_command(app)
    context = group.make_context("mmedge", [arguments[0], "--help"], resilient_parsing=True)
    context.resilient_parsing = False
    context.invoked_subcommand = arguments[0]
    command = group.get_command(context, arguments[0])
    params: dict[str, Any] = command.make_context(arguments[0], list(arguments[1:])).params
    return params


@pytest.mark.parametrize(
    ("arguments", "view", "bundle"),
    [
        (("b.mmedge", "--view"), "", "b.mmedge"),
        (("--view", "b.mmedge"), "", "b.mmedge"),
        (("--view", "8000", "b.mmedge"), "8000", "b.mmedge"),
        (("b.mmedge", "--view", "0.0.0.0:80", "--image", "0"), "0.0.0.0:80", "b.mmedge"),
        (("b.mmedge", "--view=:80"), ":80", "b.mmedge"),
        (("b.mmedge", "--view", "--duration", "3"), "", "b.mmedge"),
        (("b.mmedge",), None, "b.mmedge"),
    ],
)
def test_the_place_may_be_left_out(arguments: tuple[str, ...], view: str | None, bundle: str) -> None:
    found = parsed("run", *arguments)
    assert found["view"] == view
    assert str(found["bundle"]) == bundle


def test_a_run_is_shown_and_its_results_stay_json(tmp_path: Path) -> None:
    with started("run", str(DIGITS), *FED, "--view", "127.0.0.1:0", "--json") as run:
        with viewer(run.port()) as socket:
            found = follow(socket, 12)
        assert found[0][0]["name"] == "digits"
        assert found[0][0]["typed"] == ["text"]
        assert any(header["pictures"] for header, _ in found[1:])
        code, out = run.end(signal.SIGTERM)
    assert code == 0, run.lines
    results = [json.loads(line) for line in out.splitlines()]
    assert len(results) > 5
    assert {line["schema"] for line in results} == {"mmedge.result/1"}


def test_the_token_is_printed_once_and_never_logged() -> None:
    with started("-v", "run", str(DIGITS), *FED, "--view", "0.0.0.0:0", "--duration", "2") as run:
        run.process.wait(60)
        run._reader.join()
    links = [line for line in run.lines if "#token=" in line]
    assert len(links) == 1
    token = links[0].partition("#token=")[2].strip()
    assert len(token) >= 32
    assert sum(token in line for line in run.lines) == 1


@pytest.mark.long
@pytest.mark.slow
def test_the_demo_is_shown_clip_after_clip(tmp_path: Path) -> None:
    bundle = tmp_path / "digits.mmedge"
    shutil.copyfile(DIGITS, bundle)
    with started("demo", "--output", str(bundle), "--view", "127.0.0.1:0") as demo:
        port = demo.port()
        with viewer(port) as socket:
            assert "clip 'clean'" in follow(socket, 2)[0][0]["name"]
            with pytest.raises(exceptions.ConnectionClosed) as left:
                follow(socket, 100_000, within_s=120)  # the next run has to load
        assert left.value.rcvd.code == 1012
        with viewer(port) as socket:
            assert "clip 'noise'" in read(socket.recv(timeout=60))[0]["name"]
        assert demo.end(signal.SIGTERM)[0] == 0


def test_a_recording_is_shown_until_it_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    with mmedge.Pipeline(
        DIGITS, {"image": str(CLIP), "audio": str(CLIP)}, latency="offline", record=folder, duration_s=4.0
    ) as pipe:
        pipe.run()
    with started("view", str(folder), "--at", "127.0.0.1:0", "--json") as shown:
        with viewer(shown.port()) as socket:
            hello = read(socket.recv(timeout=60))[0]
            assert hello["triggers"] == pipe.statistics.results
            socket.send('{"at":20}')
            header, _ = read(socket.recv(timeout=60))
            assert header["at"] == 20
            socket.send('{"ack":true}')
            socket.send('{"text":"no"}')
        code, out = shown.end(signal.SIGINT)
    assert code == 130
    document = json.loads(out)
    assert document["schema"] == "mmedge.view/1"
    assert document["triggers"] == hello["triggers"]


def test_what_is_no_recording_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmedge", "view", str(CLIP.parent), "--at", "127.0.0.1:0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "not a recording" in done.stderr
