"""What the runtime is measured beside does the same work, and what measures it counts right."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmedge
from benchmarks import goals
from benchmarks.cost import cpu_s, pss_mib, tree
from benchmarks.live import latencies_ms
from benchmarks.partners import hops, telling
from benchmarks.partners.by_hand import Digits, LogMel, unpack
from benchmarks.partners.telling import read_number
from benchmarks.scale import most
from benchmarks.stamped import draw_number
from mmedge.preprocess import AudioPreprocessor, ImagePreprocessor
from mmedge.types import Description, Frame

BUNDLE = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    unpack(BUNDLE, folder, "fp32")
    return folder


@pytest.fixture(scope="module")
def digits(unpacked: Path) -> Digits:
    return Digits(unpacked)


@settings(max_examples=30)
@given(number=st.integers(0, 0xFFFF), level=st.integers(0, 40))
def test_a_number_that_is_drawn_is_read(number: int, level: int) -> None:
    luma = np.full((20, 640), 77, np.uint8)
    draw_number(luma, number)
    noise = np.random.default_rng(number).integers(-level, level + 1, luma.shape)
    assert read_number(np.clip(luma + noise, 0, 255).astype(np.uint8)) == number


def test_a_number_that_is_damaged_is_not_read() -> None:
    luma = np.zeros((20, 640), np.uint8)
    draw_number(luma, 0x1234)
    luma[-16:, :32] = 255 - luma[-16:, :32]
    assert read_number(luma) is None


@pytest.mark.parametrize("jump", [0, 1])
def test_a_loop_tells_which_frames_it_answered_or_that_their_clock_moved(
    jump: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # whoever started the loop wants its end
    monkeypatch.setattr(telling, "_SETTLE_NS", -1)
    told, luma = telling.Told(busy=False), np.zeros((20, 640), np.uint8)
    for number in range(200):
        draw_number(luma, number)
        if told.answered(round(7e9 + (number + jump * (number > 100)) * telling.PERIOD_NS)):
            told.learn(round(7e9 + (number + jump * (number > 100)) * telling.PERIOD_NS), luma)
    assert told.over.wait(60)
    if jump:
        with pytest.raises(SystemExit) as ended:
            told.tell()
        assert ended.value.code == telling.MOVED
        assert "3 of 6 pictures" in capsys.readouterr().err
        return
    told.tell()
    ready, answers = capsys.readouterr().out.splitlines()
    assert ready == "ready"
    assert [number for number, _ in json.loads(answers)] == list(range(9, 200))


def test_pictures_by_hand_are_those_of_the_runtime(digits: Digits) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(16, 236, (30, 40), np.uint8)
    yuv = np.full((720, 640), 128, np.uint8)
    yuv[:480] = np.kron(coarse, np.ones((16, 16), np.uint8))
    with mmedge.load(BUNDLE) as bundle:
        ours = ImagePreprocessor(bundle.inputs["image"])  # type: ignore[arg-type]
    want = np.empty((1, 1, 112, 112), np.float32)
    size = {"width": 640, "height": 480, "description": Description(full_range=False)}
    ours.tensor(Frame(stream="image", seq=0, capture_ns=0, arrive_ns=0, data=yuv, format="yuv420p", **size), want)  # type: ignore[arg-type]
    assert np.abs(digits.picture(yuv[:480]) - want).max() < 2.5 / 255 / 0.25  # two roundings to whole levels


def test_sound_by_hand_is_that_of_the_runtime_window_after_window(digits: Digits) -> None:
    with mmedge.load(BUNDLE) as bundle:
        ours = AudioPreprocessor(bundle.inputs["audio"])  # type: ignore[arg-type]
    by_hand = LogMel({**_seat(), "features": digits.sound._features})
    sound = np.random.default_rng(1).normal(0, 0.1, 60_000).astype(np.float32)
    ring = np.zeros(32_000, np.float32)
    written = 0
    for size in (13_000, 80, 800, 4_000, 20_000):
        for sample in range(written, written + size):
            ring[sample % len(ring)] = sound[sample]
        written += size
        got = by_hand(ring, written)
        frames = got.shape[1]
        first = ((written - 200) // 125 + 1 - frames) * 125
        want = np.empty(got.shape, np.float32)
        ours.tensor(sound[first : first + by_hand.samples], want)
        assert np.abs(got - want).max() < 1e-3


def _seat() -> dict[str, float]:
    return {"sample_rate_hz": 8000, "window_ms": 1500.0}


def test_the_loop_by_hand_answers_what_the_bundle_answers(digits: Digits, unpacked: Path) -> None:
    """On a picture and silence: the label of the runtime's own networks on the same clip."""
    av = pytest.importorskip("av")
    clip = str(BUNDLE.parent / "clips" / "clean.mp4")
    options = {"isolation": "thread", "latency": "offline", "backend": "onnxruntime"}
    with mmedge.Pipeline(BUNDLE, {"image": clip}, **options) as pipe:  # type: ignore[arg-type]
        first = next(iter(pipe))
    with av.open(clip) as container:
        frame = next(container.decode(video=0))
    fresh = Digits(unpacked)
    fresh._present[:] = 1, 0, 0
    fresh._heard, fresh._heard_ns = np.zeros((1, 64), np.float32), time.monotonic_ns() + 10**12  # nobody speaks
    label, score = fresh(frame.to_ndarray()[: frame.height, : frame.width], np.zeros(32_000, np.float32), 0)
    task = first.tasks["digit"]
    assert score == pytest.approx(task.score, abs=0.1)
    assert task.label in (None, label)


def test_hops_carry_every_frame(tmp_path: Path) -> None:
    program = hops.build(tmp_path)
    if program is None:
        pytest.skip("no C++ compiler; type: apt-get install g++")
    took_us = hops.hops_us(program, 0.5)
    assert 1 <= len(took_us) <= 15  # a starved machine may deliver several at once, which are one answer
    assert min(took_us) > 1


def test_hops_refuse_what_is_no_time(tmp_path: Path) -> None:
    program = hops.build(tmp_path)
    if program is None:
        pytest.skip("no C++ compiler; type: apt-get install g++")
    assert subprocess.run([program, "soon"], capture_output=True, check=False).returncode == 2


PARENT = """
import subprocess, sys, time
WORK = "import time\\nwhile time.process_time() < 0.2: pass\\n"
subprocess.run([sys.executable, "-c", WORK])
held = bytearray(b"x") * (1 << 26)
child = subprocess.Popen([sys.executable, "-c", WORK + "input()"], stdin=subprocess.PIPE)
exec(WORK)
print("ready", flush=True)
input()
child.communicate(b"end\\n")
"""


def test_the_cost_of_a_tree_counts_children_that_live_and_that_have_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while cpu_s(process.pid) < 0.5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(tree(process.pid)) == 2
        assert 0.5 <= cpu_s(process.pid) < 5
        assert pss_mib(process.pid) > 64
        process.communicate(b"end\n")
    assert process.returncode == 0


def test_the_cost_of_this_process_is_what_the_kernel_says() -> None:
    times = os.times()
    said = sum(times[:4])
    assert cpu_s(os.getpid()) >= said - 0.02


@given(limit=st.integers(0, 40), begin=st.integers(1, 40))
def test_the_search_finds_the_largest_that_is_carried(limit: int, begin: int) -> None:
    found = most(lambda count: count <= limit, begin, 64)
    assert found <= limit
    assert found + 2 > limit


def test_the_search_stops_at_the_highest() -> None:
    assert most(lambda count: True, 8, 16) == 16


def test_latencies_are_of_frames_of_the_window_and_of_their_first_answer() -> None:
    drawn_ns = np.array([0, 1_000_000, 2_000_000, 3_000_000, 0], np.int64)
    answers = [(0, 9), (1, 5_000_000), (1, 6_000_000), (3, 99), (7, 1)]
    assert latencies_ms(answers, drawn_ns, 1_000_000, 3_000_000) == ([4.0], 2)


def test_figures_beyond_their_limits_are_named() -> None:
    found = {"overhead_p50_us": 200.0, "overhead_core_p50_us": 121.0, "streams_30fps": 23, "replay_x": float("nan")}
    assert goals.missed(found) == ["overhead_core_p50_us", "streams_30fps", "replay_x"]
    assert goals.limits({"overhead_p50_us": 1.0}) == {"overhead_p50_us": "<= 200"}


def test_a_ratio_is_the_median_of_runs_that_followed_each_other() -> None:
    assert goals.ratio([1.0, 30.0, 4.0], [2.0, 10.0, 4.0]) == 1.0
