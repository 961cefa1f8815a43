"""Another bundle takes over in a running pipeline: no trigger is lost, a bad one is put back, others are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import mmedge
from mmedge.errors import BundleError, CheckError, ConfigError, MmedgeError
from mmedge.types import Result
from tests import tiny
from tests.streams import listening_bundle
from tests.versions import ruled, turned, version

pytestmark = pytest.mark.parallel
INPUTS = {"image": "push://", "audio": "push://"}


class Fed:
    """A pipeline that is fed with bright pictures and loud sound, each when the one before is answered.

    So that a busy machine loses nothing; what a swap lost would never be answered.
    """

    def __init__(self, path: Path, isolation: Any = "thread", **options: Any) -> None:
        self.pipe = mmedge.Pipeline(path, INPUTS, isolation=isolation, results="all", **options)
        self.results: list[Result] = []
        self.pushed_ns: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._feed), threading.Thread(target=self._read)]

    def _feed(self) -> None:
        before = time.monotonic_ns()
        while not self._stop.wait(0.01):
            now = time.monotonic_ns()
            # The picture first: sound that comes alone after a pause makes triggers of its own.
            self.pipe.push("image", np.full((8, 8), 203 + len(self.pushed_ns) % 3, np.uint8), now)
            self.pipe.push("audio", np.full((now - before) * 8000 // 10**9, 0.8, np.float32), now)
            self.pushed_ns.append(now)
            before = now
            # Not by their number: while this thread is held up, sound alone makes triggers.
            while (not self.results or self.results[-1].t_ns < now) and not self._stop.wait(0.001):
                pass

    def _read(self) -> None:
        self.results.extend(self.pipe)  # one after the other, as they come

    def __enter__(self) -> Fed:
        self.pipe.start()
        for thread in self._threads:
            thread.start()
        self.until(lambda: len(self.results) > 10)
        return self

    def until(self, there: Callable[[], bool], longest_s: float = 60.0) -> None:
        """Wait until something is so."""
        end_s = time.monotonic() + longest_s
        while not there():
            assert time.monotonic() < end_s
            time.sleep(0.005)

    def further(self, count: int) -> None:
        """Wait for so many more results."""
        wanted = len(self.results) + count
        self.until(lambda: len(self.results) >= wanted)

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        self._threads[0].join()
        if problem[0] is None:
            self.until(lambda: self.results[-1].t_ns >= self.pushed_ns[-1])
        self.pipe.close()
        self._threads[1].join()

    def check_nothing_is_lost(self) -> None:
        """After the end: every picture was answered, once and in order."""
        statistics = self.pipe.statistics
        # Where this machine stands still, sound alone makes triggers, and more of them than wait; no picture is lost.
        assert set(statistics.drops) <= {"sync_overflow", "overrun"}
        assert statistics.undelivered == statistics.unaccounted == 0
        assert len(self.results) == statistics.results
        times = [result.t_ns for result in self.results]
        assert times == sorted(set(times))
        assert set(self.pushed_ns) <= set(times)

    @property
    def scenes(self) -> list[str | None]:
        return [result.tasks["scene"].label for result in self.results]

    @property
    def counts(self) -> list[float]:
        """Of those of a picture: where this machine stands still, sound alone makes triggers."""
        pushed = set(self.pushed_ns)
        return [float(result.outputs["clock.count"][0, 0]) for result in self.results if result.t_ns in pushed]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return version(tmp_path / "old.mmedge")


@pytest.fixture
def fed(old: Path) -> Iterator[Fed]:
    with Fed(old) as running:
        yield running


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_another_bundle_takes_over_and_nothing_is_lost(old: Path, tmp_path: Path, isolation: Any) -> None:
    new = version(tmp_path / "new.mmedge", turned(), name="turned")
    with Fed(old, isolation) as fed:
        told = fed.pipe.swap(new)
        health = fed.pipe.health()["@bundle"]  # it has heard of it by now, in another process, too
        fed.further(5)
        assert fed.pipe.bundle.name == "turned"
        back = fed.pipe.swap(old, trial=3)
        fed.further(5)
    assert (told.name, told.before, told.trial) == ("turned", "tiny", 30)
    assert set(told.kept) == {"eye", "ear", "clock"}
    assert told.anew == back.anew == ("join",)
    assert (health["state"], health["name"]) == ("OK", "turned")
    assert health["counters"] == {"swaps": 1, "put_back": 0}
    fed.check_nothing_is_lost()
    changes = [(a, b) for a, b in zip(fed.scenes, fed.scenes[1:], strict=False) if a != b]
    assert changes == [("bright", "dark"), ("dark", "bright")]
    assert fed.counts == list(range(1, len(fed.counts) + 1))  # the state of a stage that is the same goes on
    entries = fed.pipe.statistics.bundles
    assert [(entry["done"], entry["name"]) for entry in entries] == [(True, "turned"), (True, "tiny")]
    assert sum("join began anew" in note for note in fed.pipe.statistics.notes) == 2
    assert fed.pipe.statistics.to_dict()["bundles"] == entries


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_bundle_that_fails_on_trial_is_put_back(old: Path, tmp_path: Path, isolation: Any) -> None:
    new = version(tmp_path / "new.mmedge", stages=ruled("fails_at_the_fourth"), name="failing")
    with Fed(old, isolation) as fed:
        with pytest.raises(CheckError, match=r"failed at result 4 of its trial and was put back: .*the fourth"):
            fed.pipe.swap(new)
        health = fed.pipe.health()["@bundle"]
        fed.further(10)
        assert fed.pipe.bundle.name == "tiny"
    fed.check_nothing_is_lost()
    assert fed.scenes.count("dark") == 3
    assert fed.pipe.statistics.stage_errors == {}  # it was answered by the old one
    pushed = set(fed.pushed_ns)
    assert all(all(result.present.values()) for result in fed.results[10:] if result.t_ns in pushed)
    assert fed.counts == list(range(1, len(fed.counts) + 1))
    assert health["counters"] == {"swaps": 0, "put_back": 1}
    assert "the fourth" in str(health["reason"])
    (entry,) = fed.pipe.statistics.bundles
    assert not entry["done"]


@pytest.mark.parametrize(("rule", "failed"), [("fails_at_once", 0), ("fails_at_the_fourth", 3)])
def test_states_of_a_bundle_that_is_put_back(fed: Fed, tmp_path: Path, rule: str, failed: int) -> None:
    """They go on if no trigger has passed them by; otherwise they begin anew, which is told."""
    stages = ruled(rule)
    stages["clock"]["timeout_ms"] = 60_000.0
    with pytest.raises(CheckError, match="was put back"):
        fed.pipe.swap(version(tmp_path / "new.mmedge", stages=stages))
    fed.further(5)
    counts = fed.counts
    begins = [place for place, count in enumerate(counts) if count == 1]
    assert len(begins) == (3 if failed else 1)  # the run, the trial, after the trial
    if failed:
        assert begins[2] - begins[1] == failed
    assert any("clock, join of 'tiny' began anew" in note for note in fed.pipe.statistics.notes) == bool(failed)


def test_a_bundle_that_fails_its_self_test_never_serves(fed: Fed, tmp_path: Path) -> None:
    files = turned() | {"golden/join.npz": tiny.members()["golden/join.npz"]}
    with pytest.raises(CheckError, match="self-test"):
        fed.pipe.swap(version(tmp_path / "wrong.mmedge", files))
    fed.further(3)
    assert set(fed.scenes) == {"bright"}
    assert fed.pipe.statistics.bundles[0]["done"] is False


def test_a_state_begins_anew_where_its_stage_is_another(fed: Fed, tmp_path: Path) -> None:
    clock = {**ruled("")["clock"], "timeout_ms": 60_000.0}
    stages = {**tiny.MANIFEST["stages"], "clock": clock}
    told = fed.pipe.swap(version(tmp_path / "new.mmedge", stages=stages), trial=2)
    fed.further(3)
    assert told.anew == ("clock",)
    counts = fed.counts
    begin = counts.index(1, 1)
    assert counts[:begin] == list(range(1, begin + 1))
    assert counts[begin:] == list(range(1, len(counts) - begin + 1))


def test_a_smoothing_goes_on_where_task_and_stage_are_the_same(tmp_path: Path) -> None:
    def smoothed(name: str, **scene: Any) -> Path:
        task = tiny.MANIFEST["tasks"]["scene"] | {"smoothing": {"kind": "debounce", "hold_ms": 60_000}} | scene
        return version(tmp_path / f"{name}.mmedge", tasks={**tiny.MANIFEST["tasks"], "scene": task}, name=name)

    with Fed(smoothed("a")) as fed:
        assert fed.pipe.swap(smoothed("b"), trial=2).smoothing_anew == ()
        assert fed.pipe.swap(smoothed("c", threshold=0.5), trial=2).smoothing_anew == ("scene",)


def test_a_stream_that_comes_into_a_run_begins_with_what_is_new(tmp_path: Path) -> None:
    """Not with all sound since the start: the old bundle has heard that, and most of it is overwritten."""
    sync = {"trigger": "image"}
    old = listening_bundle(tmp_path / "old.mmedge", sync)
    with mmedge.load(old) as bundle:
        stages = msgspec.to_builtins(bundle.manifest.stages)
    stages["ear"]["timeout_ms"] = 60_000.0
    new = listening_bundle(tmp_path / "new.mmedge", sync, stages=stages)
    with Fed(old) as fed:
        time.sleep(2.5)
        assert set(fed.pipe.swap(new, trial=5).anew) == {"ear", "join"}
        fed.further(3)
        fed.pipe.swap(listening_bundle(tmp_path / "same.mmedge", sync, stages=stages, name="same"), trial=5)
        fed.further(3)
    assert fed.pipe.statistics.stage_overruns == {}
    assert all(result.tasks["voice"].score is not None for result in fed.results[-20:])


def test_a_trial_that_does_not_end_in_time_is_taken_back(old: Path, tmp_path: Path) -> None:
    new = version(tmp_path / "new.mmedge", turned())
    with Fed(old) as fed:
        with pytest.raises(MmedgeError, match="had not passed its trial after 1 s and was put back"):
            fed.pipe.swap(new, trial=10_000, timeout_s=1.0)
        fed.further(3)
        assert fed.scenes[-1] == "bright"
        fed.pipe.swap(new, trial=0)  # and another one can come
        fed.further(3)
        assert fed.scenes[-1] == "dark"
    fed.check_nothing_is_lost()


def test_the_end_of_a_run_ends_a_swap(old: Path, tmp_path: Path) -> None:
    new, caught = version(tmp_path / "new.mmedge", turned()), []

    def swap() -> None:
        try:
            fed.pipe.swap(new, trial=10_000)
        except MmedgeError as error:
            caught.append(error)

    for isolation in ("thread", "process"):
        with Fed(old, isolation) as fed:
            thread = threading.Thread(target=swap)
            thread.start()
            fed.until(lambda: "dark" in fed.scenes)
        thread.join(60)
        assert not thread.is_alive()
    assert [error.message for error in caught] == ["the run has ended"] * 2
    with pytest.raises(ConfigError, match="does not run"):
        fed.pipe.swap(new)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "an input less": (
        {"inputs": {"image": tiny.MANIFEST["inputs"]["image"]}},
        r"inputs",
    ),
    "another rate": (
        {
            "inputs": {
                **tiny.MANIFEST["inputs"],
                "audio": {"modality": "audio", "sample_rate_hz": 16000, "window_ms": 50},
            }
        },
        r"inputs\.audio\.sample_rate_hz",
    ),
    "another trigger": ({"sync": {"trigger": "audio"}}, r"sync"),
    "another policy": ({"missing": {"image": {"policy": "zero"}, "audio": {"policy": "zero"}}}, r"missing"),
    "a task less": ({"tasks": {"scene": tiny.MANIFEST["tasks"]["scene"]}}, r"tasks"),
    "an output less": ({"outputs": []}, r"outputs"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_does_not_fit_the_run_is_refused_before_it_is_loaded(other: str) -> None:
    from mmedge.bundle.manifest import Manifest
    from mmedge.pipeline.spec import RunSpec
    from mmedge.pipeline.swap import check_swap

    changes, where = OTHERS[other]
    own = tiny.manifest(tiny.members()) | {"outputs": ["eye.y"]}
    old, new = msgspec.convert(own, Manifest), msgspec.convert(own | changes, Manifest)
    spec = RunSpec(bundle="", inputs=dict.fromkeys(old.inputs, mmedge.pipeline.spec.PUSH))
    check_swap(spec, old, old)
    with pytest.raises(ConfigError) as caught:
        check_swap(spec, old, new)
    assert caught.value.where is not None
    assert caught.value.where.startswith("manifest.json: $.")
    assert where.replace("\\", "") in caught.value.where
    assert caught.value.fix


def test_a_run_that_cannot_change_its_bundle_says_so(old: Path, tmp_path: Path) -> None:
    with Fed(old, record=tmp_path / "recording") as fed, pytest.raises(ConfigError, match="recorded run cannot change"):
        fed.pipe.swap(old)
    assert fed.pipe.statistics.bundles == []
    with pytest.raises(ConfigError, match="does not run"):
        mmedge.Pipeline(old, INPUTS).swap(old)


def test_what_is_no_bundle_or_not_allowed_or_out_of_range_changes_nothing(fed: Fed, tmp_path: Path) -> None:
    (tmp_path / "broken.mmedge").write_bytes(b"no bundle")
    with pytest.raises(BundleError):
        fed.pipe.swap(tmp_path / "broken.mmedge")
    stages = ruled("x")
    stages["join"]["callable"] = "nobodys.module:rule"
    with pytest.raises(ConfigError, match="nobodys"):
        fed.pipe.swap(version(tmp_path / "foreign.mmedge", stages=stages))
    for options in ({"trial": -1}, {"timeout_s": 0.0}):
        with pytest.raises(ConfigError, match="must be"):
            fed.pipe.swap(tmp_path / "broken.mmedge", **options)  # type: ignore[arg-type]
    fed.further(2)
    assert "@bundle" not in fed.pipe.health()


def test_only_one_at_a_time(fed: Fed, tmp_path: Path) -> None:
    """As it may be asked for by another process, too: the runtime itself keeps to it."""
    from mmedge.pipeline.swap import SwapOrder

    new = version(tmp_path / "new.mmedge", turned())
    with mmedge.load(new) as bundle:
        order = SwapOrder(bundle=str(new), manifest_sha256=bundle.manifest_sha256, trial=10_000, timeout_s=5.0)
    first = fed.pipe._runtime.swap(order)
    with pytest.raises(ConfigError, match="another bundle is being swapped in"):
        fed.pipe._runtime.swap(order).result(60)
    with pytest.raises(MmedgeError, match="put back"):
        first.result(60)
