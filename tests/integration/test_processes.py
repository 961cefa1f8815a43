"""The runtime and its devices in processes of their own: what dies is reported, what hangs is started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import mmedge
from benchmarks.loopback import PulseAudio, Sender
from mmedge.calibration.offsets import Offset, device_name, store
from mmedge.capture.pattern import read_time_code
from mmedge.errors import ConfigError, DeviceError, FrameExpiredError, MmedgeError, SourceError
from mmedge.types import Result
from tests.conftest import WriteClip
from tests.processes import alive, asked_by, family, reopened, run_until, spawners, until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

CAMERA = "test://?width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def test_a_live_device_runs_in_processes_of_its_own(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA, "audio": CAMERA}, duration_s=3) as pipe:
        runtime, workers = family(pipe)
        assert len(workers) == 1  # one address is one device
        results = list(pipe)
        health = pipe.health()
    assert len(results) > 20
    assert all(a.t_ns < b.t_ns for a, b in pairwise(results))
    assert {"image": True, "audio": True} in [result.present for result in results]
    assert health["image"]["state"] in ("OK", "MISSING")
    statistics = pipe.statistics
    assert statistics.results == len(results) + statistics.undelivered
    assert statistics.triggers == statistics.results + statistics.dropped
    assert not alive([runtime, *workers])


def test_a_file_stays_in_the_user_s_process(bundle: Path, write_clip: WriteClip) -> None:
    with mmedge.Pipeline(bundle, {"image": str(write_clip())}, latency="offline") as pipe:
        assert not asked_by(os.getpid())
        assert len(list(pipe)) == 25


def test_both_isolations_give_the_same_offline_results(bundle: Path, write_clip: WriteClip) -> None:
    clip = str(write_clip(times_s=tuple(k / 25 for k in range(200)), sound=np.ones((1, 64000), np.float32) / 2))

    def run(isolation: str) -> list[object]:
        with mmedge.Pipeline(
            bundle,
            {"image": clip, "audio": clip},
            latency="offline",
            isolation=isolation,  # type: ignore[arg-type]
        ) as pipe:
            results = []
            for result in pipe:
                time.sleep(0.001)  # slower than the runtime: it must wait, not drop
                results.append((result.tasks, result.present, result.age_ms, result.skew_ms))
            assert pipe.statistics.undelivered == 0
            return results

    results = run("process")
    assert len(results) == 200
    assert results == run("thread")


def test_a_killed_runtime_is_reported_at_once(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        runtime, workers = family(pipe)
        results = iter(pipe)
        next(results)
        os.kill(runtime, signal.SIGKILL)
        with pytest.raises(MmedgeError, match=r"the runtime has died.*SIGKILL"):  # not that it is silent
            list(results)
        assert until(lambda: not alive(workers), 60)


def test_a_killed_user_process_leaves_no_orphan(bundle: Path) -> None:
    code = (
        "import mmedge, sys\n"
        f"with mmedge.Pipeline({str(bundle)!r}, {{'image': {CAMERA!r}}}) as pipe:\n"
        "    for result in pipe:\n"
        "        print('x', flush=True)\n"
    )
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert user.stdout is not None
    user.stdout.readline()
    (runtime,) = asked_by(user.pid)
    pids = [*spawners(user.pid), runtime, *asked_by(runtime)]
    assert len(pids) == 3
    user.kill()
    user.communicate()
    assert until(lambda: not alive(pids), 60)


def test_a_killed_worker_is_started_again_in_a_new_epoch(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        _, (worker,) = family(pipe)
        results = run_until(pipe, 60, lambda results: len(results) == 30)
        os.kill(worker, signal.SIGKILL)
        results += run_until(pipe, 60, lambda results: sum(r.epoch.get("image", 0) for r in results) > 20)
        health = pipe.health()["image"]
    epochs = [result.epoch["image"] for result in results if result.present["image"]]
    restarts: int = health["counters"]["restarts"]  # type: ignore[index]
    assert restarts >= 1  # on a starved machine the next one may have been silent for too long
    assert set(epochs) <= set(range(restarts + 1))
    assert epochs == sorted(epochs)
    assert epochs[0] == 0 < epochs[-1]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang_at_s=1.5", "has delivered nothing"),
        ("unplug_at_s=1.5", "vanished|unplugged"),
        pytest.param("freeze_at_s=1", "picture has not changed", marks=pytest.mark.slow),
        ("freeze_at_s=1.5&stale=1", "time stamps stand still"),
    ],
)
def test_a_sick_device_is_started_again(
    bundle: Path, fault: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with mmedge.Pipeline(bundle, {"image": f"{CAMERA}&{fault}"}) as pipe:
        assert reopened(run_until(pipe, 60, reopened))
    assert re.search(reason, caplog.text), caplog.text


def test_a_worker_that_says_nothing_is_replaced(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        _, (worker,) = family(pipe)
        run_until(pipe, 60, lambda results: len(results) == 20)
        os.kill(worker, signal.SIGSTOP)
        assert reopened(run_until(pipe, 60, reopened))
        assert until(lambda: not alive([worker]), 60)


def test_what_cannot_open_fails_at_start(bundle: Path) -> None:
    with pytest.raises(DeviceError, match="video77"), mmedge.Pipeline(bundle, {"image": "v4l2:///dev/video77"}):
        pass
    assert not asked_by(os.getpid())


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_pushed_data_of_a_driver_of_your_own(tmp_path: Path, isolation: str) -> None:
    """A 100 Hz inertial sensor beside a pushed camera."""
    from tests.tiny import imu_bundle

    with mmedge.Pipeline(
        imu_bundle(tmp_path / "imu.mmedge"),
        {"image": "push://", "imu": "push://"},
        isolation=isolation,  # type: ignore[arg-type]
    ) as pipe:
        answers, results = pipe.results(time.monotonic() + 60), []
        for step in range(100):
            time.sleep(0.01)
            due_ns = time.monotonic_ns()
            pipe.push("imu", np.full((1, 6), step, np.float32), due_ns)
            if step % 4 == 0:
                pipe.push("image", np.full((8, 8), 2 * step, np.uint8), due_ns + 1)
            elif step % 4 == 3:  # a busy machine answers each before the next one comes
                results.append(next(answers))
    assert len(results) == 25
    assert {result.tasks["same"].label for result in results} == {"yes"}
    assert all(result.present == {"image": True, "imu": True} for result in results)
    assert max(result.age_ms["imu"] for result in results) < 0.01


def test_a_callable_of_main_is_refused(tmp_path: Path) -> None:
    from tests.tiny import imu_bundle

    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="__main__:rule")
    with pytest.raises(ConfigError, match="another process"):
        mmedge.Pipeline(bundle, {"image": CAMERA, "imu": "push://"}, allow=["__main__"])


def test_the_end_of_all_sources_is_the_end(bundle: Path) -> None:
    pipeline = "gst:videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=64,height=48,framerate=20/1"
    with mmedge.Pipeline(bundle, {"image": pipeline}) as pipe:
        assert list(pipe)


def test_a_missing_policy_of_fail_ends_the_run(tmp_path: Path) -> None:
    bundle = tiny_bundle(
        tmp_path / "strict.mmedge",
        missing={"image": {"policy": "fail"}, "audio": {"policy": "zero"}},
    )
    with (
        pytest.raises(SourceError, match="policy is 'fail'"),
        mmedge.Pipeline(bundle, {"image": f"{CAMERA}&unplug_at_s=1", "audio": "test://?seed=3"}) as pipe,
    ):
        list(pipe)


@pytest.mark.devices
def test_a_sound_server_and_a_sender_that_die_come_back(
    bundle: Path, microphone: PulseAudio, camera: Sender, write_clip: WriteClip
) -> None:
    clip = write_clip(times_s=tuple(k / 25 for k in range(100)), sound=np.ones((1, 4 * 8000), np.float32) / 2)
    camera.send(clip, loop=True)
    with mmedge.Pipeline(bundle, {"image": camera.uri, "audio": microphone.uri}) as pipe:
        assert len(family(pipe)[1]) == 2
        run_until(pipe, 60, lambda results: results[-1].present == {"image": True, "audio": True})
        microphone.kill()
        camera.kill()
        run_until(pipe, 2.5)
        microphone.start()
        camera.send(clip, loop=True)

        def both(results: list[Result]) -> bool:
            epoch = results[-1].epoch
            return epoch.get("image", 0) > 0 and epoch.get("audio", 0) > 0

        assert both(run_until(pipe, 60, both))  # 3 s on a quiet machine: benchmarks/devices.py measures it
        statistics = pipe.statistics
    assert statistics.triggers == statistics.results + statistics.dropped


@pytest.mark.devices
def test_two_programs_may_listen_to_one_microphone(bundle: Path, microphone: PulseAudio) -> None:
    with (
        mmedge.Pipeline(bundle, {"audio": microphone.uri}) as first,
        mmedge.Pipeline(bundle, {"audio": microphone.uri}) as second,
    ):
        for pipe in (first, second):
            assert run_until(pipe, 60, lambda results: results[-1].present["audio"])[-1].present["audio"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_result_s_picture_can_be_copied_while_it_lasts(bundle: Path, isolation: str) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}, isolation=isolation) as pipe:  # type: ignore[arg-type]
        results, late_ms = [], []
        for result in pipe.results(time.monotonic() + 60):
            results.append(result)
            with suppress(FrameExpiredError):  # where this machine is busy
                frame = result.frame("image")
                shown_ms = read_time_code(frame.data[: frame.height])
                assert shown_ms is not None
                late_ms.append(abs(shown_ms - result.t_ns / 1e6))
                assert frame.release is None
            if len(late_ms) > 60:
                break
        assert np.median(late_ms) < 100
        with pytest.raises(FrameExpiredError, match="gone"):
            results[0].frame("image")
        with pytest.raises(ConfigError, match="no picture of 'audio'"):
            results[0].frame("audio")


def test_a_picture_of_a_file_can_be_copied_beside_a_live_device(bundle: Path, write_clip: WriteClip) -> None:
    clip = str(write_clip(times_s=tuple(k / 25 for k in range(50))))
    with mmedge.Pipeline(bundle, {"image": clip}, latency="offline") as pipe:
        truth = {frame.seq: frame.data for frame in (result.frame("image") for result in pipe)}
    with mmedge.Pipeline(bundle, {"image": clip, "audio": "test://?seed=5"}, duration_s=2.0) as pipe:
        assert pipe.isolation == "process"
        kept = []
        for result in pipe.results(time.monotonic() + 60):
            if not result.present["image"]:
                continue
            with suppress(FrameExpiredError):  # where this machine is busy
                frame = result.frame("image")
                np.testing.assert_array_equal(frame.data, truth[frame.seq])
                kept.append(frame.seq)
    assert kept
    assert kept == sorted(kept)


@pytest.mark.parametrize("known", [False, True])
def test_a_calibrated_offset_is_taken_off(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    uris = {"image": f"{CAMERA}&hidden_ms=80", "audio": "test://?seed=5"}
    if known:
        names = {kind: device_name(uri) for kind, uri in uris.items()}
        store(Offset(**names, offset_ns=80_000_000, uncertainty_ns=2_000_000, mad_ns=1, pairs=20))
    with mmedge.Pipeline(bundle, uris) as pipe:
        late_ms: list[float] = []
        for result in pipe.results(time.monotonic() + 60):
            if result.present["image"]:
                frame = result.frame("image")
                shown_ms = read_time_code(frame.data[: frame.height])
                assert shown_ms is not None
                late_ms.append(result.t_ns / 1e6 - shown_ms)
            if len(late_ms) == 40:
                break
        notes = pipe.statistics.notes
    assert np.median(late_ms[20:]) == pytest.approx(0 if known else 80, abs=25)
    assert bool(notes) != known
