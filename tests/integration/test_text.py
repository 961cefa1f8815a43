"""Texts in a whole run: set from Python, typed, followed in a file; taken back, too old, refused; replayed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pytest

import mmedge
from mmedge.errors import ConfigError, MissingDependencyError, SourceError
from mmedge.ipc.channel import MAX_TEXT
from mmedge.recording.reader import Recording
from mmedge.replay.inputs import plain_seats, record
from mmedge.replay.replay import Replay
from mmedge.types import Result, Text
from tests.conftest import WriteClip
from tests.lines import replayed_line
from tests.texts import text_bundle

pytestmark = pytest.mark.parallel

Isolation = Literal["thread", "process"]
BOTH = pytest.mark.parametrize("isolation", ["thread", "process"])


@pytest.fixture
def clip(write_clip: WriteClip) -> str:
    """Twenty seconds, more than any test takes."""
    return str(write_clip(times_s=tuple(k / 25 for k in range(500)), size=(16, 16)))


@pytest.fixture
def short_clip(write_clip: WriteClip) -> str:
    return str(write_clip("short.nut", times_s=tuple(k / 25 for k in range(25)), size=(16, 16)))


def until(results: Iterator[Result], wanted: Callable[[Result], bool]) -> Result:
    """Return the first result that is as wanted."""
    give_up = time.monotonic() + 60
    for result in results:
        if wanted(result):
            return result
        assert time.monotonic() < give_up, result
    raise AssertionError("the run ended")


def says(word: str | None) -> Callable[[Result], bool]:
    return lambda result: result.tasks["word"].label == word and result.present["text"] == (word is not None)


@BOTH
def test_a_text_set_from_python_and_taken_back(tmp_path: Path, clip: str, isolation: Isolation) -> None:
    bundle = text_bundle(tmp_path / "b.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}, isolation=isolation) as pipe:
        results = iter(pipe)
        first = until(results, lambda result: True)
        assert first.present == {"image": True, "text": False}
        assert first.reason == "text: nothing has come yet"
        assert first.tasks["word"].label is None
        pipe.text("It is DARK")
        dark = until(results, says("dark"))
        assert 0 <= dark.age_ms["text"] < 5000
        pipe.text("bright, bright, dark")
        bright = until(results, says("bright"))
        assert until(results, says("bright")).age_ms["text"] > bright.age_ms["text"]
        pipe.text("")
        assert until(results, says(None)).reason == "text: taken back"
        pipe.text("dark", name="text")
        until(results, says("dark"))
        pipe.text(" \n ")
        assert until(results, says(None)).reason == "text: taken back"
        assert pipe.health()["text"]["state"] == "OK"


@BOTH
def test_a_text_that_is_too_old_is_absent(tmp_path: Path, clip: str, isolation: Isolation) -> None:
    bundle = text_bundle(tmp_path / "b.mmedge", ttl_ms=1500)
    with mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}, isolation=isolation) as pipe:
        results = iter(pipe)
        for _ in range(2):
            pipe.text("dark")
            until(results, says("dark"))
            ages = []
            for result in results:
                if not result.present["text"]:
                    break
                ages.append(result.age_ms["text"])
            said = re.fullmatch(r"text: (\d+) ms old", result.reason or "")
            assert said is not None, result.reason
            assert max(ages) <= 1500 <= int(said[1])


@pytest.mark.parametrize(
    ("inputs", "sinks", "fix"),
    [
        ({"image": 0}, (), "{'image': '0'}"),
        ({"image": Path("a.mp4")}, (), "{'image': 'a.mp4'}"),
        ({"image": None}, (), "clip.mp4"),
        (["image"], (), '{"image": "0"}'),
        ({"image": "push://"}, "jsonl:x", "sinks=['jsonl:x']"),
        ({"image": "push://"}, None, 'sinks=["console"]'),
        ({"image": "push://"}, [Path("x")], "video; or an object with write and close"),
    ],
)
def test_sources_and_sinks_of_another_type_are_refused(tmp_path: Path, inputs: Any, sinks: Any, fix: str) -> None:
    bundle = text_bundle(tmp_path / "b.mmedge")
    with pytest.raises(ConfigError) as caught:
        mmedge.Pipeline(bundle, inputs, sinks=sinks)
    assert fix in str(caught.value.fix)


@BOTH
def test_what_is_no_text_is_refused(tmp_path: Path, clip: str, isolation: Isolation) -> None:
    bundle = text_bundle(tmp_path / "b.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}, isolation=isolation) as pipe:
        results = iter(pipe)
        for bad, message in (
            ("x" * (MAX_TEXT + 1), "longer than 65536 bytes"),
            ("ü" * (MAX_TEXT // 2 + 1), "longer than 65536 bytes"),
            ("dark\0", "NUL"),
            ("\ud800", "the text is not valid Unicode"),
            (None, "text must be a str, got NoneType"),
            (b"dark", "text must be a str, got bytes"),
        ):
            with pytest.raises(ConfigError, match=message) as caught:
                pipe.text(bad)  # type: ignore[arg-type]
            assert caught.value.fix
        with pytest.raises(ConfigError, match="does not take text") as caught:
            pipe.push("text", "dark", time.monotonic_ns())  # type: ignore[arg-type]
        assert "pipe.text(" in str(caught.value.fix)
        with pytest.raises(ConfigError, match="text inputs are"):
            pipe.text("dark", name="image")
        pipe.text("dark " + "x" * (MAX_TEXT - 5))
        until(results, says("dark"))
        assert pipe.health()["text"]["counters"]["refused_pushes"] == 7  # type: ignore[index]
    with pytest.raises(ConfigError, match="has ended"):
        pipe.text("dark")
    with mmedge.Pipeline(bundle, {"image": clip}) as pipe, pytest.raises(ConfigError, match="not fed by push"):
        pipe.text("dark")


@BOTH
def test_a_file_is_followed(tmp_path: Path, clip: str, isolation: Isolation) -> None:
    path = tmp_path / "said.txt"
    path.write_text("dark\nbright\n")
    bundle = text_bundle(tmp_path / "b.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "text": f"text://{path}"}, isolation=isolation) as pipe:
        results = iter(pipe)
        until(results, says("bright"))
        with path.open("ab", buffering=0) as file:
            file.write(b"dark\n\xff\n" + b"x" * 1_000_000 + b"\n")
            until(results, says("dark"))
            give_up = time.monotonic() + 60
            while pipe.health()["text"]["counters"].get("refused_lines", 0) < 2:  # type: ignore[attr-defined]
                assert time.monotonic() < give_up
                until(results, says("dark"))
            file.write(b"\n")
        until(results, says(None))
        path.write_text("bright\n")
        until(results, says("bright"))
    assert pipe.health()["text"]["counters"]["refused_too_long"] == 1  # type: ignore[index]
    assert pipe.statistics.refused["text_lines"] == 2


def test_a_followed_file_ends_with_the_clip(tmp_path: Path, short_clip: str) -> None:
    path = tmp_path / "said.txt"
    path.write_text("dark\n")
    bundle = text_bundle(tmp_path / "b.mmedge")
    for uri in (f"text://{path}", "push://"):
        with mmedge.Pipeline(bundle, {"image": short_clip, "text": uri}) as pipe:
            statistics = pipe.run(60)
        assert statistics.triggers == 25
        assert statistics.unaccounted == 0
    with pytest.raises(ConfigError, match="not with live sources"):
        mmedge.Pipeline(bundle, {"image": short_clip, "text": f"text://{path}"}, latency="offline").start()


@BOTH
def test_each_line_is_an_answer_where_texts_trigger(tmp_path: Path, isolation: Isolation) -> None:
    path = tmp_path / "said.txt"
    path.write_text("")
    bundle = text_bundle(tmp_path / "b.mmedge", trigger="text")
    with mmedge.Pipeline(bundle, {"text": f"text://{path}"}, isolation=isolation) as pipe:
        results = iter(pipe)
        with path.open("ab", buffering=0) as file:
            for word in ("dark", "bright", "dark"):
                file.write(f"{word}\n".encode())
                assert next(results).tasks["word"].label == word
            file.write(b"dark\nbright\n\ndark\n")
            assert [next(results).tasks["word"].label for _ in range(4)] == ["dark", "bright", None, "dark"]


@BOTH
def test_a_bad_line_ends_the_run_where_the_policy_is_fail(tmp_path: Path, clip: str, isolation: Isolation) -> None:
    path = tmp_path / "said.txt"
    path.write_bytes(b"dark\n")
    bundle = text_bundle(tmp_path / "b.mmedge", policy="fail")
    with mmedge.Pipeline(bundle, {"image": clip, "text": f"text://{path}"}, isolation=isolation) as pipe:
        results = iter(pipe)
        until(results, says("dark"))
        with path.open("ab", buffering=0) as file:
            file.write(b"bright\n\xff\xfe\n")
        with pytest.raises(SourceError, match="line 3 of input 'text' was refused: it is not UTF-8") as caught:
            until(results, lambda result: False)
    assert caught.value.exit_code == 5
    assert caught.value.where == f"text://{path}:3"


def test_a_text_that_is_gone_ends_the_run_where_the_policy_is_fail(tmp_path: Path, clip: str) -> None:
    bundle = text_bundle(tmp_path / "b.mmedge", policy="fail")
    with mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}) as pipe:
        results = iter(pipe)
        assert [next(results).reason for _ in range(3)] == ["text: nothing has come yet"] * 3
        pipe.text("dark")
        until(results, says("dark"))
        pipe.text("")
        with pytest.raises(SourceError, match="input 'text' is missing") as caught:
            until(results, lambda result: False)
    assert caught.value.where == "text: taken back"


def test_the_bench_types_texts(tmp_path: Path) -> None:
    report = mmedge.bench(text_bundle(tmp_path / "b.mmedge"), duration_s=2)
    assert report.statistics.absent.get("text", 0) < report.statistics.results / 2


def test_a_missing_library_gives_the_install_line(tmp_path: Path, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    bundle = text_bundle(tmp_path / "b.mmedge")
    with pytest.raises(MissingDependencyError) as caught:
        mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}).start()
    assert caught.value.fix == "pip install 'mmedge[text]'"
    with mmedge.Pipeline(bundle, {"image": clip}, isolation="thread") as pipe:  # a run without texts needs none
        assert next(iter(pipe)).present == {"image": True, "text": False}


def cli(*arguments: str, stdin: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmedge", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


@pytest.mark.parametrize("image", ["CLIP", "test://?width=160&height=64&fps=25"])
def test_the_command_line_reads_what_is_typed(tmp_path: Path, clip: str, image: str) -> None:
    bundle = str(text_bundle(tmp_path / "b.mmedge"))
    image = clip if image == "CLIP" else image  # the runtime is in this process, or in one of its own
    said = {"dark": "it is dark", "bright": "BRIGHT"}
    with cli("run", bundle, "--image", image, "--text", "text://stdin", "--duration", "100", "--json") as run:
        assert run.stdin is not None
        assert run.stdout is not None
        for word in ("dark", "bright", "dark"):
            run.stdin.write(said[word] + "\n")
            run.stdin.flush()
            while json.loads(run.stdout.readline())["tasks"]["word"]["label"] != word:
                pass
        run.stdin.write("\n")
        run.stdin.close()  # the end of what is typed is not the end of the run
        while json.loads(run.stdout.readline())["present"]["text"]:
            pass
        last = json.loads(run.stdout.readline())
        assert (last["reason"], last["present"]["text"]) == ("text: taken back", False)
        run.terminate()
        run.stdout.read()


def test_the_command_line_ends_with_code_5_where_the_policy_is_fail(tmp_path: Path, clip: str) -> None:
    bundle = str(text_bundle(tmp_path / "b.mmedge", policy="fail"))
    with cli("run", bundle, "--image", clip, "--text", "text://stdin", "--json") as run:
        output, errors = run.communicate("dark\n" + "x" * 1_000_000 + "\n", timeout=60)
    assert run.returncode == 5, errors
    assert "line 2 of input 'text' was refused: it is longer than 65536 bytes" in errors + output


@pytest.mark.parametrize("trigger", ["image", "text"])
def test_texts_are_replayed_bit_by_bit(tmp_path: Path, write_clip: WriteClip, trigger: str) -> None:
    clip = str(write_clip("clip.nut", times_s=tuple(k / 25 for k in range(75)), size=(16, 16)))
    bundle = text_bundle(tmp_path / "b.mmedge", ttl_ms=300, trigger=trigger)
    folder = tmp_path / "recorded"
    odd = 'dark "x"\n\u2028 \\ \U0001f600'
    with mmedge.Pipeline(bundle, {"image": clip, "text": "push://"}, record=folder) as pipe:
        said = [odd, "bright", "", "dark", "x" * MAX_TEXT, "\x01" * MAX_TEXT, "bright"]
        expected, lines = len(said) if trigger == "text" else 75, []
        pipe.text(said.pop(0))
        for result in islice(pipe.results(time.monotonic() + 60), expected):
            lines.append(replayed_line(result))
            if said:
                pipe.text(said.pop(0))
    assert pipe.statistics.recording["state"] == "OK"
    assert len(lines) == expected - pipe.statistics.dropped
    labels = {json.loads(line)["tasks"]["word"]["label"] for line in lines}
    assert labels <= {None, "dark", "bright"} if trigger == "image" else labels == {None, "dark", "bright"}
    texts = [p.text for turn in Recording(folder).turns() for p in turn.packets if isinstance(p, Text)]
    assert texts[0] == odd
    assert [len(text) for text in texts[4:6]] == [MAX_TEXT, MAX_TEXT]
    with mmedge.load(bundle) as opened:
        replay = Replay(folder, opened)
        assert [replayed_line(result) for result in replay] == lines
        assert replay.cut is None
        assert replay.differs == 0


def test_texts_are_recorded_without_a_bundle(tmp_path: Path, short_clip: str) -> None:
    path = tmp_path / "said.txt"
    path.write_text("dark\nbright\n")
    uris = {"image": short_clip, "text": f"text://{path}"}
    report = record(tmp_path / "recorded", uris, plain_seats(uris))  # ends with the clip
    assert report["state"] == "OK"
    recording = Recording(tmp_path / "recorded")
    assert [p.text for turn in recording.turns() for p in turn.packets if isinstance(p, Text)] == ["bright"]
    with mmedge.load(text_bundle(tmp_path / "b.mmedge")) as bundle:
        labels = [result.tasks["word"].label for result in Replay(tmp_path / "recorded", bundle)]
    assert len(labels) == 25
    assert labels[-1] == "bright"
