"""The plan: what is worked out is what runs, it survives being written down, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

import mmedge
from mmedge.bundle.manifest import Manifest
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.cli import run
from mmedge.errors import ConfigError
from mmedge.pipeline.runtime import Runtime
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.plan import Plan, make_plan, plan_stages, read_plan
from tests import tiny
from tests.graph_model import SEATS
from tests.graph_strategies import graphs
from tests.streams import listening_bundle

BOTH = {"image": True, "audio": True}


def manifest(**changes: Any) -> Manifest:
    return msgspec.convert(tiny.manifest(tiny.members()) | changes, Manifest)


@given(graphs())
def test_what_a_stage_depends_on_is_what_reaches_it(specs: dict[str, StageSpec]) -> None:
    reaches: dict[str, set[str]] = {}
    for name, spec in specs.items():  # they are drawn in an order in which they can run
        reaches[name] = set()
        for source in spec.inputs.values():
            fed_by = source.partition(".")[0]
            reaches[name] |= {fed_by} | reaches.get(fed_by, set())
    place = {plan.name: number for number, plan in enumerate(plan_stages(specs, SEATS))}
    for plan in plan_stages(specs, SEATS):
        assert plan.depends == tuple(seat for seat in SEATS if seat in reaches[plan.name])
        assert set(plan.ancestors) == reaches[plan.name] & specs.keys()
        assert all(place[ancestor] < place[plan.name] for ancestor in plan.ancestors)
        assert list(plan.ancestors) == sorted(plan.ancestors, key=lambda name: place[name])
        streams = {other.name for other in plan_stages(specs, SEATS) if other.hears is not None}
        assert plan.behind == bool(streams & set(plan.ancestors))
        assert set(plan.due.watches) <= set(SEATS)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan


@pytest.mark.parametrize("latency", ["low", "balanced"])
def test_what_runs_is_what_was_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str], latency: Any) -> None:
    path = listening_bundle(tmp_path / "b.mmedge", {"trigger": "image"})
    assert run(["inspect", str(path), "--plan", "--latency", latency, "--json"]) == 0
    printed = msgspec.json.decode(capfd.readouterr().out, type=Plan)
    with mmedge.load(path) as bundle:
        sha256 = bundle.manifest_sha256
        spec = RunSpec(
            bundle=str(path), manifest_sha256=sha256, inputs=dict.fromkeys(bundle.inputs, PUSH), latency=latency
        )
        runtime = Runtime(spec, bundle)
        runtime.start()
        try:
            assert runtime.plan == printed
            assert runtime._serving is not None
            assert tuple(stage.plan for stage in runtime._serving.graph.stages) == printed.stages
        finally:
            runtime.stop()
    assert any(stage.hears is not None for stage in printed.stages)


def test_a_plan_survives_being_written_down() -> None:
    plan = make_plan(manifest(), BOTH)
    assert read_plan(msgspec.json.encode(plan)) == plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
    other = {**msgspec.to_builtins(plan), "schema": "mmedge.plan/2"}
    with pytest.raises(msgspec.ValidationError, match="schema"):
        msgspec.convert(other, Plan)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"schema": "mmedge.plan/2"}', "the plan is of another version"),
        (b'{"schema": "mmedge.bundle/1"}', "the plan is of another kind"),
        (b'{"schema": "mmedge.plan/1"}', "missing required field"),
        (b'{"schema": 3}', "does not hold a plan"),
        (b"\xff\x00", "does not hold a plan"),
        (b"[" * 100_000, "does not hold a plan"),
        (b"", "does not hold a plan"),
    ],
)
def test_what_is_no_plan_of_this_version_is_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(raw)
    (tmp_path / "plan.json").write_bytes(raw)
    assert run(["inspect", str(tmp_path / "plan.json")]) == 2


def test_a_plan_that_was_written_is_shown_as_it_was_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, written = tiny.tiny_bundle(tmp_path / "b.mmedge"), tmp_path / "plan.json"
    assert run(["inspect", str(path), "--plan"]) == 0
    made = capfd.readouterr().out
    assert run(["inspect", str(path), "--plan", "--json"]) == 0
    written.write_text(capfd.readouterr().out)
    assert run(["inspect", str(written)]) == 0
    shown = capfd.readouterr().out
    assert made.startswith(shown)
    assert "expected on this machine at" in made.removeprefix(shown)
    assert run(["inspect", str(written), "--json"]) == 0
    assert capfd.readouterr().out == written.read_text()
    for wrong in (tmp_path, tmp_path / "none.json"):
        assert run(["inspect", str(wrong) if wrong.suffix else str(wrong / "d.json")]) == 2


def test_latency_and_sources_change_what_is_waited_for() -> None:
    low, offline = make_plan(manifest(), BOTH, latency="low"), make_plan(manifest(), dict.fromkeys(BOTH, False))
    assert low.sync.wait_ns < offline.sync.wait_ns
    alone = make_plan(manifest(), {"image": True})
    assert [seat.name for seat in alone.sync.seats] == ["image"]
    assert alone.sync.present == ("image", "audio")
    assert {seat.name: seat.live for seat in offline.sync.seats} == {"image": False, "audio": False}


@pytest.mark.parametrize(
    ("attached", "latency", "message"),
    [
        ({}, "low", r"the bundle's inputs are \['image', 'audio'\]"),
        ({"radar": True}, "low", r"sources were given for \['radar'\]"),
        ({"image": True}, "offline", "works with files only"),
    ],
)
def test_what_does_not_fit_is_refused(attached: dict[str, bool], latency: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(manifest(), attached, latency=latency)


def test_a_plan_is_printed_for_people(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.tiny_bundle(tmp_path / "b.mmedge")
    assert run(["inspect", str(path), "--plan"]) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert "triggers: every picture of 'image'" in told
    assert "800 samples, 100 ms, that end at it" in told
    assert "present = which" in told
    assert "engines on this machine: the first that passes its self-test" in told
    assert "eye: onnxruntime fp32" in told
    assert run(["inspect", str(path), "--plan", "--inputs", "image"]) == 0
    told = capfd.readouterr().out
    assert "no source" in told
    assert "ear: none, since no input with a source feeds it" in told
    assert run(["inspect", str(path), "--inputs", "image"]) == 2
    assert "fix: add --plan" in capfd.readouterr().err
    assert run(["inspect", str(path), "--plan", "--inputs", "radar"]) == 2
