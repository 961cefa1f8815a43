"""Record and replay: what a run decided and answered comes back bit by bit, however the recording ended."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import CheckError, ConfigError, MmedgeError, SourceError
from mmedge.recording import writer as writer_module
from mmedge.recording.reader import Recording
from mmedge.replay.explain import explain
from mmedge.replay.inputs import plain_seats
from mmedge.replay.replay import Replay
from tests import tiny
from tests.lines import replayed_line
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

RATE = 8000
ROOT = Path(__file__).parents[2]
ASYNC = {**tiny.MANIFEST["stages"]["ear"], "callable": "tests.integration.test_replay:slow_ear", "mode": "async"}


def slow_ear(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Loudness, in as many ms as the environment says, never twice the same."""
    time.sleep(float(os.environ.get("MMEDGE_TEST_EAR_MS", "0")) / 1e3 * (0.5 + abs(float(x[0, -1]))))
    return np.abs(x).mean(keepdims=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


@pytest.fixture
def clip(write_clip) -> Path:  # type: ignore[no-untyped-def]
    """1.2 seconds whose answers change all the time."""
    sound = np.random.default_rng(0).uniform(-1, 1, (1, 12 * RATE // 10)) * np.linspace(0, 1, 12 * RATE // 10)
    return write_clip(times_s=tuple(k / 25 for k in range(30)), picture=lambda t: 16 + int(190 * t), sound=sound)  # type: ignore[no-any-return]


def play(path: Path, clip: Path, folder: Path, **options: Any) -> list[bytes]:
    inputs = {"image": str(clip), "audio": str(clip)}
    with mmedge.Pipeline(path, inputs, record=folder, **options) as pipe:
        lines = [replayed_line(result) for result in pipe]
    assert pipe.statistics.recording["state"] == "OK"
    return lines


def replay(folder: Path, path: Path, **options: Any) -> tuple[list[bytes], Replay]:
    with mmedge.load(path) as opened:
        again = Replay(folder, opened, **options)
        return [replayed_line(result) for result in again], again


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "mmedge", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, cwd=ROOT, **options)


def test_a_chosen_channel_is_recorded_and_replayed(bundle: Path, write_clip: Any, tmp_path: Path) -> None:
    sound = np.zeros((2, RATE))
    sound[1] = np.random.default_rng(0).uniform(-1, 1, RATE) * np.linspace(0, 1, RATE)
    both = write_clip(sound=sound, layout="stereo")
    alone = write_clip("alone.nut", times_s=None, sound=sound[1:])
    lines = {}
    for name, address in (("chosen", f"{both}?channel=1"), ("alone", str(alone)), ("mean", str(both))):
        inputs = {"image": str(both), "audio": address}
        with mmedge.Pipeline(bundle, inputs, record=tmp_path / name, latency="offline") as pipe:
            lines[name] = [result.tasks for result in pipe]
        assert Recording(tmp_path / name).header.inputs["audio"].uri == address
    assert len(lines["chosen"]) > 20
    assert lines["chosen"] == lines["alone"] != lines["mean"]
    _, again = replay(tmp_path / "chosen", bundle)
    assert again.differs == 0


@pytest.mark.parametrize("latency", ["balanced", "low", "offline"])
def test_a_replay_is_the_live_run(bundle: Path, clip: Path, tmp_path: Path, latency: str) -> None:
    live = play(bundle, clip, tmp_path / "r", latency=latency)
    assert live
    first, again = replay(tmp_path / "r", bundle)
    assert first == live
    assert again.differs == 0
    assert again.answers == {"equal": len(live)}
    assert again.cut is None
    assert replay(tmp_path / "r", bundle)[0] == first


def test_two_replays_print_the_same_bytes(bundle: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    inputs = ("--image", clip, "--audio", clip)
    live = command("run", bundle, *inputs, "--record", folder, "--json")
    assert live.returncode == 0, live.stderr
    first, second = (command("replay", folder, bundle, "--json") for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout == replayed_line(live.stdout)
    assert first.stdout.count(b"\n") > 1
    refused = command("run", bundle, *inputs, "--record", folder, "--json")
    assert refused.returncode == 2
    assert "new or empty" in json.loads(refused.stdout)["message"]


def test_devices_in_trouble_are_replayed_too(bundle: Path, tmp_path: Path) -> None:
    uri = "test://?fps=30&resize_at_s=0.5&jitter_ms=20&jump_at_s=1&time_jump_ms=3600000&xrun=0.05&drift_ppm=300"
    options = {"record": tmp_path / "r", "duration_s": 4.0, "isolation": "process", "results": "all"}
    with mmedge.Pipeline(bundle, {"image": uri, "audio": uri}, **options) as pipe:  # type: ignore[arg-type]
        live = [replayed_line(result) for result in pipe]
    lines, again = replay(tmp_path / "r", bundle)
    assert len(lines) > 5
    assert lines == live
    assert again.cut is None
    assert len(list((tmp_path / "r").glob("image.*.mkv"))) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end_ends_a_recording_in_order(tmp_path: Path, number: int) -> None:
    line = [sys.executable, "-m", "mmedge", "record", tmp_path / "r", "--image", "test://?fps=30", "--json"]
    with subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        log = tmp_path / "r" / "events.jsonl"
        deadline = time.monotonic() + 60
        while (not log.exists() or log.stat().st_size < 4000) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert json.loads(out)["counters"]["frames"] > 5
    recording = Recording(tmp_path / "r")
    assert sum(len(turn.packets) for turn in recording.turns()) > 5
    assert recording.cut is None


def test_duration_overruns_and_drops_are_replayed(bundle: Path, clip: Path, tmp_path: Path) -> None:
    live = play(bundle, clip, tmp_path / "r", speed=20, duration_s=1.1)
    lines, again = replay(tmp_path / "r", bundle)
    assert lines == live
    assert again.statistics.triggers == len(live) + again.statistics.dropped


def test_background_stages_are_replayed_as_they_were(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(tmp_path / "a.mmedge", stages={**tiny.MANIFEST["stages"], "ear": ASYNC})
    monkeypatch.setenv("MMEDGE_TEST_EAR_MS", "80")
    live = play(bundle, clip, tmp_path / "r")
    triggers = [event for turn in Recording(tmp_path / "r").turns(media=False) for event in turn.triggers.values()]
    assert 0 < sum(event.busy == ("ear",) for event in triggers) < len(triggers)
    for ear_ms in ("0", "40"):
        monkeypatch.setenv("MMEDGE_TEST_EAR_MS", ear_ms)
        lines, again = replay(tmp_path / "r", bundle)
        assert lines == live
        assert again.answers == {"equal": len(live)}
    with mmedge.load(bundle) as opened:
        stale = next(event for event in triggers[5:] if event.busy)
        stage = explain(tmp_path / "r", opened, stale.seq)["stages"]["ear"]
    assert stage["still_running"] is True
    assert stage["age_ms"] == pytest.approx((stale.t_ns - stale.used_ns["ear"]) / 1e6, abs=0.001)
    assert stage["age_ms"] > 30


def test_a_run_that_failed_fails_again(tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    bundle = tiny_bundle(tmp_path / "f.mmedge", missing={"audio": {"policy": "fail"}})
    silent = write_clip()
    inputs = {"image": str(silent), "audio": str(silent)}
    options = {"record": tmp_path / "r", "latency": "offline"}
    with pytest.raises(SourceError, match="policy is 'fail'"), mmedge.Pipeline(bundle, inputs, **options) as pipe:  # type: ignore[arg-type]
        list(pipe)
    with pytest.raises(SourceError, match="policy is 'fail'"):
        replay(tmp_path / "r", bundle)


def test_another_version_of_the_rules_is_noticed(bundle: Path, clip: Path, tmp_path: Path) -> None:
    play(bundle, clip, tmp_path / "r", latency="offline")
    log = tmp_path / "r" / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    index = next(i for i, line in enumerate(lines) if '"seq":9' in line and '"trigger"' in line)
    lines[index] = lines[index].replace('"skew_ms":0.0', '"skew_ms":1.5')
    log.write_text("".join(lines))
    with pytest.raises(CheckError, match="1 of 30 triggers were decided differently"):
        replay(tmp_path / "r", bundle)


def test_another_bundle_on_the_same_recording(
    bundle: Path, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = play(bundle, clip, tmp_path / "r", latency="offline")
    tasks = {**tiny.MANIFEST["tasks"], "scene": {**tiny.MANIFEST["tasks"]["scene"], "threshold": 0.9}}
    strict = tiny_bundle(tmp_path / "strict.mmedge", tasks=tasks)
    lines = [json.loads(line) for line in replay(tmp_path / "r", strict)[0]]
    assert [line["t_ns"] for line in lines] == [json.loads(line)["t_ns"] for line in live]
    assert {line["tasks"]["scene"]["label"] for line in lines} > {None}
    assert set(lines[0]["latency_ms"]) == {"deliver", "ready"}
    hops = tiny_bundle(tmp_path / "hops.mmedge", sync={"trigger": "audio", "every_ms": 20})
    with caplog.at_level(logging.WARNING):
        first, again = replay(tmp_path / "r", hops)
    assert "made again" in caplog.text
    assert len(first) > 50
    assert not again.answers
    assert replay(tmp_path / "r", hops)[0] == first


def test_inputs_that_do_not_fit_the_bundle(bundle: Path, tmp_path: Path) -> None:
    for names, message in ((("image",), "recorded as audio"), (("ear", "eye"), "not a validated mask")):
        uris = dict.fromkeys(names, "mic://default")
        seats = plain_seats(uris)
        header = writer_module.make_header(uris, dict.fromkeys(names, True), seats, started_ns=0)
        writer_module.Recorder(tmp_path / names[0], header).close()
        with mmedge.load(bundle) as opened, pytest.raises(ConfigError, match=message):
            Replay(tmp_path / names[0], opened)
    with pytest.raises(ConfigError, match="pictures and sound"):
        plain_seats({"front": "clip.mp4"})


def test_inputs_alone_are_recorded_at_another_rate(bundle: Path, tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    tone = 0.8 * np.sin(np.arange(RATE) * 0.3)[None] * np.linspace(0, 1, RATE)
    clip = write_clip(times_s=tuple(k / 25 for k in range(30)), picture=lambda t: 16 + int(190 * t), sound=tone)
    done = command("record", tmp_path / "r", "--image", clip, "--audio", clip, "--rate", 16000, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "mmedge.record/1"
    assert document["counters"]["frames"] == 30
    first, again = replay(tmp_path / "r", bundle)
    assert replay(tmp_path / "r", bundle)[0] == first
    results = [json.loads(line) for line in first]
    assert len(results) == again.statistics.triggers == 30
    assert all(line["present"] == {"image": True, "audio": True} for line in results[5:24])
    loud = json.loads(play(bundle, clip, tmp_path / "live", latency="offline")[20])["tasks"]["same"]["score"]
    assert results[20]["tasks"]["same"]["score"] == pytest.approx(loud, abs=0.02)


def test_a_recorder_that_is_killed_leaves_what_it_had(bundle: Path, tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    clip = write_clip(times_s=tuple(k / 25 for k in range(500)), sound=rng.uniform(-1, 1, (1, 20 * RATE)))
    folder = tmp_path / "r"
    line = [sys.executable, "-m", "mmedge", "run", bundle, "--image", clip, "--audio", clip]
    line += ["--record", folder, "--json"]
    with subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        assert process.stdout is not None
        live = [replayed_line(process.stdout.readline()) for _ in range(100)]
        process.send_signal(signal.SIGKILL)
    lines, again = replay(folder, bundle)
    assert "cut off" in (again.cut or "") or "ends before" in (again.cut or "")
    # All but what waited for its cluster.
    assert len(lines) >= 30
    assert [line + b"\n" for line in lines[:30]] == live[:30]


def test_cut_off_anywhere_a_replay_is_a_prefix(bundle: Path, clip: Path, tmp_path: Path) -> None:
    live = play(bundle, clip, tmp_path / "r", latency="offline")
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "r").iterdir()):
        for share in (0.0, *rng.uniform(0, 1, 5), 1.0):
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(tmp_path / "r", copy)
            size = path.stat().st_size
            os.truncate(copy / path.name, min(round(size * share), size - 3))
            if path.name == "recording.json":
                with pytest.raises(MmedgeError):
                    replay(copy, bundle)
                continue
            lines, again = replay(copy, bundle)
            assert lines == live[: len(lines)]
            assert again.cut is not None or len(lines) == len(live)
    (tmp_path / "r" / "events.jsonl").unlink()
    assert replay(tmp_path / "r", bundle)[0] == []


def test_a_full_disk_ends_the_recording_and_not_the_run(bundle: Path, tmp_path: Path, write_clip: Any) -> None:
    rng = np.random.default_rng(0)
    clip = write_clip(times_s=tuple(k / 25 for k in range(125)), sound=rng.uniform(-1, 1, (1, 5 * RATE)))
    line = [sys.executable, "-m", "mmedge", "run", bundle, "--image", clip, "--audio", clip]
    line += ["--record", tmp_path / "r", "--json"]
    with subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        live, full = [], 0
        while len(live) < 8 or full < 4000:
            live.append(replayed_line(process.stdout.readline().rstrip()))
            full = max(path.stat().st_size for path in (tmp_path / "r").iterdir())
        # No file of the process may grow beyond what the largest of the recording has now.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, full))
        live += replayed_line(process.stdout.read()).splitlines()
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert len(live) > 20
    assert b"the recording has ended: cannot write the recording: File too large" in said
    assert b"warning: the recording ended" in said
    lines, again = replay(tmp_path / "r", bundle)
    assert 0 < len(lines) < len(live)
    assert lines == live[: len(lines)]
    assert again.cut is not None


def test_a_slow_disk_never_holds_the_run(
    bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, later, waits = writer_module.Recorder._store, threading.Event(), []

    def stalled(self: Any, event: Any, data: Any) -> None:
        if self.written["frames"] == 10:  # before that a busy machine may be slow, too
            monkeypatch.setattr(writer_module, "BUDGET_BYTES", 2 * 64 * 72)
            waits.append(later.wait(20))
        store(self, event, data)

    monkeypatch.setattr(writer_module.Recorder, "_store", stalled)
    inputs = {"image": str(clip), "audio": str(clip)}
    with mmedge.Pipeline(bundle, inputs, record=tmp_path / "r") as pipe:
        live = []
        for result in pipe:
            live.append(replayed_line(result))
            if result.t_ns > pipe.statistics.started_ns + 800_000_000:
                later.set()
        report = pipe.health()["@recording"]
    assert report["state"] == pipe.statistics.recording["state"] == "LATE"
    assert waits
    assert all(waits)  # answers went on while the disk did not
    lines, again = replay(tmp_path / "r", bundle)
    assert 0 < len(lines) < len(live)
    assert lines == live[: len(lines)]
    assert "too slow" in (again.cut or "")


def test_pushed_pictures_of_changing_size_and_pace(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://", "audio": "push://"}, record=tmp_path / "r") as pipe:
        start, live = time.monotonic_ns(), []
        for k in range(20):
            now = start + (k + 1) * 20_000_000
            time.sleep(max(0, (now - time.monotonic_ns()) / 1e9))
            pipe.push("audio", np.full(160, 0.05 * k, np.float32), now)
            side = 9 if k > 10 else 8
            pipe.push("image", np.full((side, side, 3)[: 2 + k % 2], 12 * k, np.uint8), now)
            live.append(next(iter(pipe)))  # a busy machine answers each before the next one comes
    clock = SimpleNamespace(now_ns=0, monotonic_ns=lambda: clock.now_ns)
    clock.sleep = lambda seconds: setattr(clock, "now_ns", clock.now_ns + round(seconds * 1e9))
    monkeypatch.setattr("mmedge.replay.replay.time", clock)
    lines, again = replay(tmp_path / "r", bundle, speed=2)
    assert (live[-1].t_ns - live[0].t_ns) / 2 < clock.now_ns < (time.monotonic_ns() - start) / 2
    assert lines[: len(live)] == [replayed_line(result) for result in live]
    assert again.cut is None


def test_explain_says_why(tmp_path: Path, bundle: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    sound = np.full((1, RATE), 0.5, np.float32)
    clip = write_clip(sound=sound, drop_audio_s=(0.4, 0.9), interleave=True)
    live = play(bundle, clip, tmp_path / "r")
    results = [json.loads(line) for line in live]
    behind = [line for line in results if "behind" in (line["reason"] or "")]
    lacking = min(behind, key=lambda line: abs(line["t_ns"] - results[0]["t_ns"] - 800_000_000))
    done = command("replay", tmp_path / "r", bundle, "--explain", lacking["t_ns"], "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "mmedge.explain/1"
    assert document["t_ns"] == lacking["t_ns"]
    assert document["outcome"] == "answered"
    assert document["reason"] == lacking["reason"]
    audio = document["inputs"]["audio"]
    assert audio["why"].startswith("audio: ")
    assert audio["newest"]["capture_ms"] < -200
    assert "next" in audio
    assert document["inputs"]["image"] == {**document["inputs"]["image"], "present": True, "age_ms": 0.0}
    text = command("replay", tmp_path / "r", bundle, "--explain", document["trigger"]).stdout.decode()
    assert f"trigger {document['trigger']}, t_ns {lacking['t_ns']}" in text
    assert "input audio: absent, audio: " in text
    waited = next(line for line in results if line["latency_ms"]["ready"] > 1)
    with mmedge.load(bundle) as opened:
        document = explain(tmp_path / "r", opened, waited["t_ns"])
        assert document["waited_for"] == ["audio"]
        assert 0 < document["inputs"]["audio"]["waited_ms"] <= document["waited_ms"] + 0.001
        with pytest.raises(ConfigError, match="has no snapshot"):
            explain(tmp_path / "r", opened, 10_000)
    missing = command("replay", tmp_path / "nowhere", bundle, "--explain", 1, "--json")
    assert missing.returncode == 2
    assert "not a recording" in json.loads(missing.stdout)["message"]
