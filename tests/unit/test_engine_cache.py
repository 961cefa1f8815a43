"""The engine cache: keys, atomic publication, damage, and the message that names both sides."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.engine.build_parent import BuildResult
from mmedge.engine.cache import EngineCache, EngineKey, Verdict, timed_engine
from mmedge.errors import ConfigError, EngineError
from mmedge.files import engine_cache

VARIANT = hashlib.sha256(b"variant").hexdigest()


def make_key(**changes) -> EngineKey:
    fields = {
        "variant_sha256": VARIANT,
        "module": "tensorrt",
        "version": "10.3.0",
        "compute_capability": "SM87",
        "device": "Orin",
        "memory_gib": 15,
        "cuda": "12.6",
    }
    return EngineKey(**{**fields, **changes})


def make_build(plan: bytes = b"plan", **changes) -> BuildResult:
    fields = {
        "module": "tensorrt",
        "version": "10.3.0",
        "compute_capability": "SM87",
        "typing": "strong",
        "seconds": 1.0,
        "layers": 4,
        "quantized_layers": 3,
        "int8_layers": 3,
        "int8_coverage": 1.0,
        "log_path": "build.log",
    }
    return BuildResult(plan=plan, **{**fields, **changes})


CHANGES = [
    {"variant_sha256": hashlib.sha256(b"other").hexdigest()},
    {"module": "tensorrt_rtx"},
    {"version": "10.3.0.30"},
    {"compute_capability": "SM110"},
    {"device": "Thor"},
    {"memory_gib": 7},
    {"cuda": "13.2"},
    {"profile": {"x": (1, 3)}},
    {"ranges": {"x": ((1, 3), (2, 3), (4, 3))}},
    {"flags": ("workspace=1",)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_field_is_part_of_the_key(tmp_path: Path, change: dict) -> None:
    cache = EngineCache(tmp_path)
    cache.put(make_key(), make_build())
    assert {name for item in CHANGES for name in item} == set(EngineKey.__struct_fields__)
    assert make_key(**change).digest != make_key().digest
    assert cache.get(make_key(**change)) is None
    assert cache.get(make_key()) is not None


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 9)), max_size=4))
def test_the_key_does_not_depend_on_the_order_of_a_profile(profile: dict) -> None:
    turned = dict(reversed(profile.items()))
    assert make_key(profile=profile).digest == make_key(profile=turned).digest


def test_put_then_get(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "made" / "on demand")
    assert cache.get(make_key()) is None
    put = cache.put(make_key(profile={"x": (1, 3)}), make_build(b"abc"))
    got = cache.get(make_key(profile={"x": (1, 3)}))
    assert got == put
    assert got.plan_path.read_bytes() == b"abc"
    assert got.build == make_build(b"abc").report()
    assert not list(cache.folder.glob(".new-*"))


def test_a_newer_build_replaces_the_entry(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put(make_key(), make_build(b"old"))
    cache.put(make_key(), make_build(b"new"))
    got = cache.get(make_key())
    assert got is not None
    assert got.plan_path.read_bytes() == b"new"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "plan changed": lambda plan, sidecar: _flip(plan),
    "plan cut": lambda plan, sidecar: plan.write_bytes(b""),
    "plan lost": lambda plan, sidecar: plan.unlink(),
    "sidecar cut": lambda plan, sidecar: sidecar.write_bytes(sidecar.read_bytes()[:-9]),
    "sidecar of a later version": lambda plan, sidecar: sidecar.write_text(
        sidecar.read_text().replace('"schema"', '"later": 1, "schema"')
    ),
    "sidecar of another key": lambda plan, sidecar: sidecar.write_text(sidecar.read_text().replace("Orin", "Thor")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_rebuilt_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache = EngineCache(tmp_path)
    plan = cache.put(make_key(), make_build()).plan_path
    DAMAGE[damage](plan, plan.with_suffix(".json"))
    with caplog.at_level(logging.WARNING):
        assert cache.get(make_key()) is None
    assert "damaged" in caplog.text
    assert "rebuilding" in caplog.text
    cache.put(make_key(), make_build())
    assert cache.get(make_key()) is not None


def test_an_interrupted_write_is_no_entry(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    plan = cache.put(make_key(), make_build()).plan_path
    plan.with_suffix(".json").unlink()  # the plan is written first, the sidecar publishes it
    (tmp_path / ".new-abc").write_bytes(b"half")
    assert cache.get(make_key()) is None


def test_a_mismatch_names_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = EngineCache(tmp_path)
    ahead = make_key(
        module="tensorrt_rtx", version="1.7.1.116", compute_capability="SM86", device="none", memory_gib=0, cuda="none"
    )
    cache.put(ahead, make_build())
    with caplog.at_level(logging.WARNING):
        assert cache.get(make_key()) is None
    assert "built by tensorrt_rtx 1.7.1.116 for SM86;" in caplog.text
    assert "this is tensorrt 10.3.0 for SM87 'Orin' 15 GiB, CUDA 12.6" in caplog.text
    assert cache.explain_miss(make_key(variant_sha256=VARIANT[:16] + "0" * 48)) is None


def test_readers_never_see_half_an_entry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = EngineCache(tmp_path)
    cache.put(make_key(), make_build())
    stop = threading.Event()

    def write(letter: bytes) -> None:
        own = EngineCache(tmp_path)
        while not stop.is_set():
            own.put(make_key(), make_build(letter * 5000))

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    try:
        with caplog.at_level(logging.WARNING):
            assert all(cache.get(make_key()) is not None for _ in range(100))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not caplog.records


def test_an_unwritable_folder_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        EngineCache(tmp_path / "file" / "engines")
    assert "MMEDGE_CACHE" in str(caught.value.fix)


def test_a_failed_write_is_an_error_with_a_fix(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    (tmp_path / "engines" / ".lock").unlink()
    (tmp_path / "engines").rmdir()
    with pytest.raises(EngineError, match="cannot be saved") as caught:
        cache.put(make_key(), make_build())
    assert "MMEDGE_CACHE" in str(caught.value.fix)


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MMEDGE_CACHE", raising=False)
    assert engine_cache() == Path("/home/u/.cache/mmedge/engines")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert engine_cache() == Path("/x/mmedge/engines")
    monkeypatch.setenv("MMEDGE_CACHE", "/m")
    assert engine_cache() == Path("/m")


def test_the_sidecar_says_everything_about_the_engine(tmp_path: Path) -> None:
    plan = EngineCache(tmp_path).put(make_key(), make_build(b"abc")).plan_path
    sidecar = msgspec.json.decode(plan.with_suffix(".json").read_bytes())
    assert sidecar["schema"] == "mmedge.engine/1"
    assert sidecar["plan_sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert sidecar["key"]["device"] == "Orin"
    assert sidecar["build"]["int8_coverage"] == 1.0


def test_what_came_of_running_an_engine_is_kept_beside_it(tmp_path: Path) -> None:
    cache, key = EngineCache(tmp_path), make_key()
    assert cache.peek(key) is None
    cache.put(key, make_build())
    found = cache.peek(key)
    assert found is not None
    assert found.verdict is None
    cache.note(key, Verdict(run_ms=1.5))
    entry = cache.get(key)
    assert entry is not None
    assert entry.verdict == Verdict(run_ms=1.5)
    cache.put(key, make_build(b"another"))  # was never run
    assert cache.peek(key).verdict is None  # type: ignore[union-attr]
    cache.discard(key)
    cache.discard(key)
    assert cache.get(key) is None
    assert not list(tmp_path.glob("*.plan"))


def test_the_newest_time_of_a_network_is_found_beside_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    key = make_key()
    assert timed_engine(key.variant_sha256) is None
    cache = EngineCache()
    for place, (cuda, ms) in enumerate((("12.6", 3.0), ("13.0", 2.0), ("13.2", None))):
        own = make_key(cuda=cuda)
        cache.put(own, make_build(), None if ms is None else Verdict(run_ms=ms))
        (sidecar,) = cache.folder.glob(f"{own.stem}*.json")
        os.utime(sidecar, (1000 + place, 1000 + place))
    (cache.folder / f"{key.variant_sha256[:16]}-damaged.json").write_text("{")
    found = timed_engine(key.variant_sha256)
    assert found is not None
    assert (found.key.cuda, found.verdict) == ("13.0", Verdict(run_ms=2.0))


def test_a_cache_that_cannot_be_written_forgets_trials_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, key = EngineCache(tmp_path), make_key()
    with caplog.at_level(logging.WARNING):
        cache.note(key, Verdict(run_ms=1.0))  # there is no such engine
    assert "not noted" in caplog.text


def test_sidecars_of_before_are_read(tmp_path: Path) -> None:
    """A cache that an earlier version filled needs no rebuild where nothing that counts has changed."""
    cache, key = EngineCache(tmp_path), make_key()
    path = cache.put(key, make_build()).plan_path.with_suffix(".json")
    document = msgspec.json.decode(path.read_bytes())
    del document["verdict"], document["key"]["ranges"]
    for name in ("int8_nodes", "float_nodes", "boundaries", "optimization_level"):
        del document["build"][name]
    path.write_bytes(msgspec.json.encode(document))
    assert cache.get(key) is not None


def test_measurements_of_one_device_are_no_other_s(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    keys = [make_key(), make_key(device="Thor"), make_key(memory_gib=7), make_key(version="11.4.1")]
    assert len({cache.timing_path(key) for key in keys}) == len(keys)
    assert cache.timing_path(make_key(variant_sha256="0" * 64)) == cache.timing_path(make_key())


def test_an_engine_that_was_refused_leaves_its_reason_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, key = EngineCache(tmp_path), make_key()
    cache.put(key, make_build())
    cache.refuse(key, make_build(b"wrong"), Verdict(error="self-test failed"))
    assert not list(tmp_path.glob("*.plan"))
    assert cache.get(key) is None
    assert "damaged" not in caplog.text
    found = cache.peek(key)
    assert found is not None
    assert found.is_refused
    entry = cache.put(key, make_build(), Verdict(run_ms=1.0))
    assert entry.verdict == Verdict(run_ms=1.0)
    assert cache.get(key) == entry
