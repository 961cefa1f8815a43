"""The runtime in a process of its own, where it hurts: bursts, odd ends, many readers, a busy interpreter."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import mmedge
from mmedge.errors import BundleError, ConfigError, MmedgeError, SourceError
from mmedge.ipc.channel import MAX_SAMPLES
from tests.processes import family, reopened, run_until, until
from tests.tiny import imu_bundle, tiny_bundle

pytestmark = pytest.mark.parallel

CAMERA = "test://?width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_pushed_pictures_are_answered_or_counted(bundle: Path, isolation: str) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://"}, isolation=isolation) as pipe:  # type: ignore[arg-type]
        for _ in range(200):
            pipe.push("image", np.full((480, 640), 7, np.uint8), time.monotonic_ns())
        assert until(lambda: pipe.statistics.triggers == 200, 60)
    statistics = pipe.statistics
    assert statistics.triggers == 200
    assert statistics.results + statistics.dropped == 200
    assert statistics.unaccounted == 0


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_what_is_too_long_to_push_is_refused(bundle: Path, isolation: str) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://", "audio": "push://"}, isolation=isolation) as pipe:  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="too long"):
            pipe.push("audio", np.zeros(MAX_SAMPLES + 1, np.float32), time.monotonic_ns())
        pipe.push("audio", np.zeros(MAX_SAMPLES, np.float32), time.monotonic_ns())
        pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
        assert next(pipe.results(time.monotonic() + 60)).present["image"]


def test_an_error_of_any_length_reaches_the_user(tmp_path: Path) -> None:
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="tests.entries:wordy", policy="fail")
    inputs = {"image": "push://", "imu": "push://"}
    with mmedge.Pipeline(bundle, inputs, isolation="process") as pipe:
        pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
        with pytest.raises(MmedgeError, match="ValueError: xxx"):
            list(pipe.results(time.monotonic() + 60))


def test_every_reader_learns_of_the_end(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": CAMERA}, duration_s=3) as pipe:
        counts: list[int] = []
        readers = [threading.Thread(target=lambda: counts.append(len(list(pipe))), daemon=True) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
        assert not any(reader.is_alive() for reader in readers)
    assert sum(counts) == pipe.statistics.results - pipe.statistics.undelivered


def test_closing_beside_a_thread_that_holds_the_interpreter(bundle: Path) -> None:
    stop = threading.Event()

    def hold() -> None:
        library = ctypes.PyDLL(None)
        while not stop.is_set():
            library.usleep(100_000)
            time.sleep(0.001)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        for _ in range(2):
            with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
                next(iter(pipe))
            assert pipe.statistics.state == "STOPPED"
            with pytest.raises(ConfigError, match="was closed"):
                next(iter(pipe))
    finally:
        stop.set()
        holder.join()


def test_closing_from_two_threads(bundle: Path) -> None:
    pipe = mmedge.Pipeline(bundle, {"image": CAMERA}).start()
    errors: list[BaseException] = []

    def close() -> None:
        try:
            pipe.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_a_relative_bundle_after_a_change_of_folder(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    pipe = mmedge.Pipeline(bundle.name, {"image": CAMERA})
    monkeypatch.chdir("/")
    with pipe:
        assert next(iter(pipe)).present["image"]


def test_a_bundle_that_is_replaced_before_the_run_begins(bundle: Path) -> None:
    pipe = mmedge.Pipeline(bundle, {"image": CAMERA})
    tiny_bundle(bundle, missing={"image": {"policy": "zero"}, "audio": {"policy": "zero"}})
    with pytest.raises(BundleError, match="has changed just now"), pipe:
        pass


def test_pushing_before_the_run_begins(bundle: Path) -> None:
    pipe = mmedge.Pipeline(bundle, {"image": "push://"}, isolation="process")
    with pytest.raises(ConfigError, match="has not started"):
        pipe.push("image", np.zeros((8, 8), np.uint8), time.monotonic_ns())
    pipe.close()


def test_kept_results_keep_no_rings(bundle: Path) -> None:
    """Restarts of a camera whose results are kept: descriptors of this process stay as they are."""
    kept = []
    held = []
    with mmedge.Pipeline(bundle, {"image": CAMERA}) as pipe:
        for epoch in range(5):
            kept += run_until(pipe, 60, lambda results, epoch=epoch: results[-1].epoch.get("image", 0) >= epoch)
            kept[-1].frame("image")
            held.append(len(list(Path("/proc/self/fd").iterdir())))
            os.kill(family(pipe)[1][-1], 9)
    assert max(held[1:]) - min(held[1:]) <= 1


def test_a_pipeline_that_cannot_run_is_an_error_of_the_start(
    bundle: Path, gstreamer: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its processes wait for as long as a busy machine takes to say so.
    longer = "import mmedge.capture.gstreamer as waits\nwaits._START_NS = 60_000_000_000\n"
    (tmp_path / "sitecustomize.py").write_text(longer)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    uri = "gst:nosuchelement ! video/x-raw,width=64,height=48"
    with pytest.raises(SourceError, match="nosuchelement"), mmedge.Pipeline(bundle, {"image": uri}):
        pass


def test_sound_goes_on_when_a_pipeline_has_ended(bundle: Path, gstreamer: None) -> None:
    uri = "gst:videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=64,height=48,framerate=20/1"
    with mmedge.Pipeline(bundle, {"image": uri, "audio": "test://"}) as pipe:
        first = next(iter(pipe)).t_ns
        alone = {"image": False, "audio": True}
        assert any(
            result.present == alone and result.t_ns - first > 3e9 for result in pipe.results(time.monotonic() + 60)
        )


def test_what_is_not_finite_is_refused_where_it_is_pushed(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"audio": "push://"}) as pipe:
        for bad in (np.nan, np.inf):
            with pytest.raises(ConfigError, match="not finite"):
                pipe.push("audio", np.full(80, bad, np.float32), time.monotonic_ns())
        with pytest.raises(ConfigError, match="CLOCK_MONOTONIC"):
            pipe.push("audio", np.zeros(80, np.float32), float("nan"))  # type: ignore[arg-type]


class Unwilling:
    def __array__(self, *_: object, **__: object) -> None:
        raise RuntimeError("no array today")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_pushes_that_are_refused_are_counted(bundle: Path, isolation: Literal["thread", "process"]) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://", "audio": "push://"}, isolation=isolation) as pipe:
        now_ns = time.monotonic_ns()
        for bad in (np.float32(1), np.full(80, np.nan, np.float32), np.zeros((2, 2), np.float32), Unwilling()):
            with pytest.raises(ConfigError, match=r"fit|finite|no array"):
                pipe.push("audio", bad, now_ns)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="CLOCK_MONOTONIC"):
            pipe.push("image", np.zeros((8, 8), np.uint8), -1)
        with pytest.raises(ConfigError, match="not fed by push"):
            pipe.push("sound", np.zeros(80, np.float32), now_ns)
        pipe.push("audio", np.zeros(80, np.float32), now_ns)
        pipe.push("image", np.zeros((8, 8), np.uint8), now_ns)
        assert next(pipe.results(time.monotonic() + 60)).present["image"]
        health: Any = {n: report for n, report in pipe.health().items() if n[0] != "@"}
        counted = {n: report["counters"].get("refused_pushes") for n, report in health.items()}
        assert counted == {"image": 1, "audio": 4}


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_who_stops_pushing_is_seen_in_the_health(bundle: Path, isolation: str) -> None:
    with mmedge.Pipeline(bundle, {"audio": "push://"}, isolation=isolation) as pipe:  # type: ignore[arg-type]
        states = lambda: (pipe.health()["audio"]["state"], pipe.statistics.state)  # noqa: E731
        for _ in range(600):
            pipe.push("audio", np.zeros(800, np.float32), time.monotonic_ns())
            time.sleep(0.1)
            if states() == ("OK", "READY"):
                break
        else:
            raise AssertionError(states())
        assert until(lambda: states() == ("STALE", "DEGRADED"), 60)
        assert "nothing was pushed for" in str(pipe.health()["audio"]["reason"])


def test_a_pipeline_of_gstreamer_begins_a_new_epoch_too(bundle: Path, gstreamer: None) -> None:
    uri = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1"
    with mmedge.Pipeline(bundle, {"image": uri}) as pipe:
        run_until(pipe, 60, lambda results: len(results) == 10)
        os.kill(family(pipe)[1][-1], 9)
        assert reopened(run_until(pipe, 60, reopened))
