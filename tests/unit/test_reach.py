"""Where an engine may run besides the GPU and the TensorRT that built it; asked before it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.engine.build_parent import build_engine
from mmedge.engine.builder_timings import keep_timings, read_timings
from mmedge.engine.cache import EngineCache, EngineKey
from mmedge.engine.reach import EngineOptions, check_plan, may_serve, plan_origin, runs_on
from mmedge.engine.tensorrt_loader import PlanError, PrecisionError, TensorRT
from mmedge.errors import ConfigError, EngineError
from tests.builds import RTX, image_net
from tests.unit.test_engine_cache import make_build, make_key

FULL = TensorRT(module=None, name="tensorrt", version="10.16.1.11", caps=frozenset({"same_capability"}))
OLD = TensorRT(module=None, name="tensorrt", version="10.3.0", caps=frozenset())
RTX_ = TensorRT(module=None, name="tensorrt_rtx", version="1.7.1.116", caps=frozenset({"same_capability"}))
NEWER, AMPERE = EngineOptions(newer_versions=True), EngineOptions(gpus="ampere")


@pytest.mark.parametrize(
    ("built", "here", "newer", "alone"),
    [
        ("10.3.0", "10.16.1.11", True, False),
        ("10.16.1.11", "11.4.0.106", True, False),
        ("8.6.2", "10.3.0", True, False),
        ("8.6.2", "11.0.0.114", False, False),
        ("11.0.0.114", "10.16.1.11", False, False),
        ("10.16.1.11", "10.3.0", False, False),
        ("10.3.0.26", "10.3.0", True, True),
        ("", "10.3.0", False, False),
    ],
)
def test_which_versions_run_a_plan(built: str, here: str, newer: bool, alone: bool) -> None:
    assert runs_on(built, here, newer_versions=True) is newer
    assert runs_on(built, here, newer_versions=False) is alone


KEYS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the same": ({}, {}, True),
    "an update of TensorRT": ({"flags": NEWER.flags}, {"version": "10.16.1", "cuda": "13.2"}, True),
    "an update, built for one": ({}, {"version": "10.16.1"}, False),
    "an older TensorRT": ({"flags": NEWER.flags}, {"version": "10.2.0"}, False),
    "an older driver": ({"flags": NEWER.flags}, {"version": "10.16.1", "cuda": "12.4"}, False),
    "another GPU": ({"flags": AMPERE.flags}, {"compute_capability": "SM89", "device": "RTX"}, True),
    "another GPU, built for one": ({}, {"compute_capability": "SM89", "device": "RTX"}, False),
    "a GPU before Ampere": ({"flags": AMPERE.flags}, {"compute_capability": "SM75", "device": "T4"}, False),
    "the same capability": ({"flags": ("gpus=capability",)}, {"device": "AGX", "memory_gib": 61}, True),
    "another capability": ({"flags": ("gpus=capability",)}, {"compute_capability": "SM86"}, False),
    "a DLA": ({"flags": ("dla=0", *NEWER.flags)}, {}, False),
    "the same DLA": ({"flags": ("dla=0", *NEWER.flags)}, {"flags": ("dla=0",)}, True),
    "a reach that it lacks": ({}, {"flags": NEWER.flags}, False),
    "other shapes": ({"flags": NEWER.flags}, {"profile": {"x": (1, 3)}}, False),
    "built ahead of time": ({"flags": NEWER.flags, "cuda": "none"}, {}, False),
    "another network": ({"flags": NEWER.flags}, {"variant_sha256": "0" * 64}, False),
}


@pytest.mark.parametrize("case", KEYS)
def test_an_engine_of_another_key_serves_only_where_it_was_built_for_that(case: str, tmp_path: Path) -> None:
    built, here, serves = KEYS[case]
    assert may_serve(make_key(**built), make_key(**here)) is serves
    cache = EngineCache(tmp_path)
    cache.put(make_key(**built), make_build())
    assert (cache.get(cache.find(make_key(**here))) is not None) is serves


@given(st.sampled_from(sorted(KEYS)), st.sampled_from(sorted(KEYS)))
def test_serving_is_never_wider_than_the_key_says(one: str, other: str) -> None:
    built: EngineKey = make_key(**KEYS[one][0])
    here: EngineKey = make_key(**KEYS[other][1])
    if may_serve(built, here):
        assert built.variant_sha256 == here.variant_sha256
        assert built.version == here.version or "versions=newer" in built.flags
        assert built.device == here.device or any(flag.startswith("gpus=") for flag in built.flags)


def test_its_own_engine_comes_before_one_that_only_may_serve(tmp_path: Path) -> None:
    cache, own = EngineCache(tmp_path), make_key(version="10.16.1")
    cache.put(make_key(flags=NEWER.flags), make_build(b"older"))
    assert cache.find(own).version == "10.3.0"
    cache.put(own, make_build(b"own"))
    assert cache.find(own) == own


def plan(tag: bytes, *version: int) -> bytes:
    return tag + bytes(20) + bytes(version) + bytes(100)


def test_a_plan_of_another_version_is_refused_before_it_is_read() -> None:
    check_plan(plan(b"ftrt", 10, 16, 1, 11), FULL, None, EngineOptions())
    for other, options, said in (
        (plan(b"ftrt", 10, 3, 0, 26), EngineOptions(), "built by tensorrt 10.3.0.26; this is tensorrt 10.16.1.11"),
        (plan(b"ftrt", 11, 4, 0, 106), NEWER, "built by tensorrt 11.4.0.106"),
        (plan(b"vtrt", 1, 7, 1, 116), EngineOptions(), "built by tensorrt_rtx 1.7.1.116"),
    ):
        with pytest.raises(PlanError, match=said):
            check_plan(other, FULL, None, options)
    check_plan(plan(b"ftrt", 10, 3, 0, 26), FULL, None, NEWER)
    with pytest.raises(PlanError, match=r"built by tensorrt 10\.3\.0"):  # what the cache knows counts, not the plan
        check_plan(plan(b"ftrt", 10, 16, 1, 11), FULL, "10.3.0", EngineOptions())


@given(st.binary(max_size=40))
def test_a_plan_may_be_anything(data: bytes) -> None:
    assert plan_origin(data) is None or (data[:4] in (b"ftrt", b"vtrt") and len(data) >= 28)
    assert plan_origin(b"ftrt" + data) is None or 8 <= (b"ftrt" + data)[24] < 32


@pytest.mark.parametrize(
    ("trt", "options", "kind", "said"),
    [
        (RTX_, NEWER, EngineError, "run on that version alone"),
        (RTX_, AMPERE, EngineError, "GPUs of one compute capability"),
        (OLD, EngineOptions(gpus="capability"), EngineError, "10.3.0 cannot build for all GPUs"),
        (FULL, EngineOptions(dla_core=-1), ConfigError, "no DLA core -1"),
    ],
)
def test_what_a_tensorrt_lacks_is_said(trt: TensorRT, options: EngineOptions, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        options.check(trt, "int8")


def test_what_a_board_and_a_dla_lack_is_said() -> None:
    with pytest.raises(EngineError, match="not built on a Jetson"):
        AMPERE.check(FULL, "fp16", integrated=True)
    with pytest.raises(PrecisionError, match="FP16 and INT8, not in FP8"):
        EngineOptions(dla_core=0).check(FULL, "fp8")
    with pytest.raises(ConfigError, match="no dynamic shapes"):
        EngineOptions(dla_core=0).check(FULL, "fp16", {"x": ((1, 3), (2, 3), (2, 3))})
    EngineOptions(dla_core=0, newer_versions=True).check(FULL, "fp16", {"x": ((1, 3), (1, 3), (1, 3))})


def test_a_real_builder_without_a_dla_says_which_boards_have_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
    options = EngineOptions(dla_core=0)
    with pytest.raises(EngineError, match="has no DLA here, so not core 0: of the Jetson boards, AGX Orin has one"):
        build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", engine=options, **RTX)
    built = build_engine(image_net(), name="n", precision="int8", log_path=tmp_path / "l", **RTX)
    assert plan_origin(built.plan) == ("tensorrt_rtx", built.version)


def test_what_the_builder_timed_is_kept_and_anything_else_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "timing.bin"
    assert read_timings(path) is None
    keep_timings(path, b"timings")
    assert read_timings(path) == b"timings"
    assert not caplog.records
    kept = path.read_bytes()

    def huge() -> None:
        with path.open("wb") as file:
            file.truncate(257 << 20)

    for put, why in (
        (lambda: path.write_bytes(kept[:-1] + b"!"), "its hash differs"),
        (lambda: path.write_bytes(b""), "its hash differs"),
        (lambda: os.mkfifo(path), "not a plain file"),
        (lambda: path.mkdir(), "are not used"),
        (huge, "too large"),
    ):
        path.unlink()
        put()
        caplog.clear()
        assert read_timings(path) is None
        assert why in caplog.text
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
            path.touch()
