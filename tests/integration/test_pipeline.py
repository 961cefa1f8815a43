"""The whole runtime on a bundle whose answers can be computed by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

import mmedge
from mmedge.errors import BundleError, CheckError, ConfigError, SourceError
from mmedge.pipeline import Statistics
from mmedge.types import Result
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

RATE = 8000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


@pytest.fixture
def clip(write_clip) -> Path:  # type: ignore[no-untyped-def]
    """Two seconds: dark and silent, then bright and loud."""
    sound = np.zeros((1, 2 * RATE), np.float32)
    sound[0, RATE:] = 0.9 * np.sign(np.sin(np.arange(RATE) * 0.7))
    return write_clip(
        times_s=tuple(k / 25 for k in range(50)), picture=lambda t: 16 if t < 1 else 235, sound=sound, size=(64, 64)
    )


def play(path: Path, clip: Path, seats: tuple[str, ...], **options: object) -> tuple[list[Result], Statistics]:
    with mmedge.Pipeline(path, dict.fromkeys(seats, str(clip)), **options) as pipe:  # type: ignore[arg-type]
        return list(pipe), pipe.statistics


def test_fused_offline_run(bundle: Path, clip: Path) -> None:
    results, statistics = play(bundle, clip, ("image", "audio"), latency="offline")
    assert len(results) == 50
    assert statistics.drops == {}
    assert statistics.triggers == 50
    assert all(r.present == {"image": True, "audio": True} and r.status == "ok" for r in results[2:])
    assert {r.tasks["scene"].label for r in results[5:25]} == {"dark"}
    assert {r.tasks["scene"].label for r in results[30:]} == {"bright"}
    assert {r.tasks["same"].label for r in results[30:]} == {"yes"}
    assert max(r.skew_ms for r in results[3:49]) < 1.0


def test_offline_is_deterministic(bundle: Path, clip: Path) -> None:
    def answers() -> list[object]:
        return [
            (r.tasks, r.present, r.skew_ms, r.age_ms)
            for r in play(bundle, clip, ("image", "audio"), latency="offline")[0]
        ]

    assert answers() == answers()


@pytest.mark.parametrize("seats", [("image",), ("audio",)])
def test_one_modality_alone(bundle: Path, clip: Path, seats: tuple[str, ...]) -> None:
    results, _ = play(bundle, clip, seats, latency="offline")
    assert len(results) >= 49
    late = results[-10:]
    assert all(r.tasks["same"].label is None and r.tasks["same"].score is None for r in late)
    assert {r.tasks["scene"].label for r in late} == {"bright"}
    assert all(r.present == {"image": "image" in seats, "audio": "audio" in seats} for r in late)


def test_at_its_own_speed_frames_are_conserved(bundle: Path, clip: Path) -> None:
    begin = time.monotonic()
    results, statistics = play(bundle, clip, ("image", "audio"))
    assert time.monotonic() - begin > 1.8
    assert statistics.triggers == len(results) + statistics.dropped == 50
    assert statistics.lost_samples == {"audio": 0}
    assert np.median([r.latency_ms["end_to_end"] for r in results]) < 1000


def test_a_clip_without_sound_goes_on_without(bundle: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    path = write_clip(size=(64, 64), picture=lambda t: 235)
    results, statistics = play(bundle, path, ("image", "audio"), latency="offline")
    assert len(results) == 25
    assert all(r.present == {"image": True, "audio": False} for r in results)
    assert "no audio track" in (results[0].reason or "")
    assert {r.tasks["scene"].label for r in results[3:]} == {"bright"}
    assert statistics.absent == {"audio": 25}


def test_a_mask_that_was_never_validated_is_refused_or_unlabelled(tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    masks = [{"present": ["image", "audio"], "metric": "top1", "value": 1.0}]
    path = tiny_bundle(tmp_path / "strict.mmedge", validated_masks=masks)
    silent = write_clip(size=(64, 64))
    with pytest.raises(ConfigError, match="was not validated"):
        play(path, silent, ("image",), latency="offline")
    results, statistics = play(path, silent, ("image", "audio"), latency="offline")
    assert {r.status for r in results} == {"unvalidated"}
    assert {r.tasks["scene"].label for r in results} == {None}
    assert statistics.unvalidated == len(results)


def test_policy_fail_ends_the_run(tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    path = tiny_bundle(tmp_path / "f.mmedge", missing={"audio": {"policy": "fail"}})
    with pytest.raises(SourceError, match="policy is 'fail'") as caught:
        play(path, write_clip(size=(64, 64)), ("image", "audio"), latency="offline")
    assert caught.value.exit_code == 5


def test_pushed_arrays(bundle: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": "push://", "audio": "push://"}) as pipe:
        start, results = time.monotonic_ns(), []
        for k in range(10):
            now = start + (k + 1) * 40_000_000
            time.sleep(max(0, (now - time.monotonic_ns()) / 1e9))
            pipe.push("audio", np.full(320, 0.8, np.float32), now)
            pipe.push("image", np.full((8, 8), 255, np.uint8), now)
            results.append(next(iter(pipe)))  # a busy machine answers each before the next one comes
        with pytest.raises(ConfigError, match="does not fit"):
            pipe.push("audio", np.zeros(320, np.float64), now)
    assert results[-1].tasks["scene"].label == "bright"
    assert results[-1].t_ns > start


def test_sinks_and_callback_see_every_result(bundle: Path, clip: Path, tmp_path: Path) -> None:
    seen: list[Result] = []
    out = tmp_path / "out.jsonl"
    with mmedge.Pipeline(
        bundle,
        {"image": str(clip), "audio": str(clip)},
        sinks=[f"jsonl:{out}"],
        on_result=seen.append,
        latency="offline",
    ) as pipe:
        pipe.run()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == len(seen) == 50
    keys = "schema t_ns unix_ns status tasks present age_ms skew_ms uncertainty_ms latency_ms epoch reason"
    assert list(lines[0]) == keys.split()
    assert lines[0]["schema"] == "mmedge.result/1"
    assert lines[40]["tasks"]["scene"] == {"label": "bright", "score": pytest.approx(1.0, abs=0.01)}


def test_a_wrong_golden_never_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny

    files = tiny.members()
    files["golden/eye.npz"] = tiny._npz(in__x=np.full((1, 1, 8, 8, 1), 51, np.uint8), out__y=np.float32([[[0.9]]]))
    monkeypatch.setattr(tiny, "members", lambda: files)
    path = tiny.tiny_bundle(tmp_path / "wrong.mmedge")
    with pytest.raises(CheckError, match="self-test failed: output 'y'"):
        mmedge.Pipeline(path, {"image": "push://"}).start()


def test_signature_and_manifest_must_agree(tmp_path: Path) -> None:
    from tests.tiny import MANIFEST

    stages = {**MANIFEST["stages"], "eye": {"inputs": {"x": "image"}, "outputs": {"z": ["batch", 1]}}}
    stages["join"] = {**stages["join"], "inputs": {**stages["join"]["inputs"], "bright": "eye.z"}}
    path = tiny_bundle(tmp_path / "names.mmedge", stages=stages)
    with pytest.raises(BundleError, match=r"the network's outputs are \['y'\]"):
        mmedge.Pipeline(path, {"image": "push://"}).start()


def test_a_slow_reader_loses_the_oldest_and_a_fast_run_drops_nothing(bundle: Path, clip: Path) -> None:
    with mmedge.Pipeline(bundle, {"image": str(clip)}, speed=20.0) as pipe:
        time.sleep(1.0)
        results = list(pipe)
    assert 0 < len(results) <= 50
    assert [r.t_ns for r in results] == sorted(r.t_ns for r in results)


def test_duration_stops_in_capture_time(bundle: Path, clip: Path) -> None:
    results, statistics = play(bundle, clip, ("image",), latency="offline", duration_s=1.5)
    end_ns = statistics.started_ns + 1_500_000_000
    # The file's time begins when it is opened, which a busy machine does a while after the run has begun.
    assert results[-1].t_ns < end_ns <= results[-1].t_ns + 41_000_000
    assert 0 < len(results) <= 38
    assert statistics.triggers == len(results) + statistics.dropped


def test_closing_early_leaves_nothing_behind(bundle: Path, clip: Path) -> None:
    import threading

    before = set(threading.enumerate())
    with mmedge.Pipeline(bundle, {"image": str(clip), "audio": str(clip)}) as pipe:
        next(iter(pipe))
    pipe.close()
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("mmedge")]


def test_a_run_specification_crosses_a_border(bundle: Path, clip: Path) -> None:
    from mmedge.address import Address
    from mmedge.ipc.control import pack, unpack
    from mmedge.pipeline import RunSpec, Runtime

    spec = RunSpec(bundle=str(bundle), inputs={"image": Address(str(clip))}, latency="offline")
    again = unpack(pack(spec), RunSpec)
    assert again == spec
    with mmedge.load(again.bundle) as opened:
        runtime = Runtime(again, opened)
        runtime.start()
        count = 0
        while runtime.get() is not None:
            count += 1
        runtime.stop()
    assert count == 50
