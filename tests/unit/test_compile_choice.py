"""Which precision serves on a GPU: all that a device has are built, tested and timed in turn, and the fastest wins."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mmedge.bundle import load
from mmedge.cli.attest import _compiled
from mmedge.engine.base import Engine
from mmedge.engine.build_parent import target_capability
from mmedge.engine.tensorrt_loader import PrecisionError, TensorRT
from mmedge.errors import EngineError
from mmedge.fusion.choice import candidates
from mmedge.fusion.compile import Compiled, compile_bundle
from mmedge.fusion.doors import DOORS
from tests.doors import BuiltFile, OrtDoor, raw_eye, twin_bundle

FORMS = ("int8", "fp8", "fp16", "fp32")


class Timed(BuiltFile):
    precision: str
    order: ClassVar[list[str]] = []
    wait_s: ClassVar[dict[str, float]] = {}

    def open(self) -> Engine:
        engine, precision = super().open(), self.precision
        run = engine.run

        def slow() -> None:
            Timed.order.append(precision)
            time.sleep(Timed.wait_s.get(precision, 0.0))
            run()

        engine.run = slow  # type: ignore[method-assign]
        return engine


class Board(OrtDoor):
    """A board whose precisions take their own time; some it lacks, and some its builder fails at."""

    def __init__(self, folder: Path, lacks: tuple[str, ...] = (), fails: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.lacks, self.not_built = lacks, fails

    def build(self, bundle, variant, progress=None, limits=None, options=None):  # type: ignore[no-untyped-def]
        if variant.precision in self.lacks:
            raise PrecisionError(f"SM87 has no {variant.precision.upper()}", where="here", fix="another")
        if variant.precision in self.not_built:
            raise EngineError(f"built none of the 3 products in {variant.precision.upper()}", where="log", fix="none")
        made = super().build(bundle, variant, progress, limits, options)
        made.__class__ = Timed
        made.precision = variant.precision
        return made


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def run(wait_s: dict[str, float], precision: str | None = None, **board: Any) -> tuple[Compiled, list[str]]:
        monkeypatch.setitem(DOORS, "tensorrt", Board(tmp_path / "cache", **board))
        monkeypatch.setattr(Timed, "wait_s", wait_s)
        monkeypatch.setattr(Timed, "order", [])
        with load(twin_bundle(tmp_path / "twin.mmedge", precisions=FORMS)) as bundle:
            found = compile_bundle(bundle, precision, lambda text, share: None)
            first = [variant.precision for _, variant in candidates(bundle, "eye", "tensorrt", None)]
        return found, first

    return run


def eye(found: Compiled) -> dict[str, Any]:
    return next(choice for choice in found.choices if choice["stage"] == "eye")


def test_the_fastest_serves_whatever_its_precision(compiled) -> None:  # type: ignore[no-untyped-def]
    found, order = compiled({"int8": 0.005, "fp8": 0.005, "fp32": 0.005})
    choice = eye(found)
    assert choice["serves"] == order[0] == "fp16"
    times = {form["precision"]: form["run_ms"] for form in choice["forms"]}
    assert order == sorted(times, key=times.__getitem__)
    assert choice["why"].startswith("fp16 ")
    assert [row["serves"] for row in found.engines if row["stage"] == "eye"] == [False, False, True, False]
    changes = sum(a != b for a, b in zip(Timed.order, Timed.order[1:], strict=False))
    assert changes > 40  # they take turns


def test_a_precision_that_the_device_lacks_is_no_failure(compiled) -> None:  # type: ignore[no-untyped-def]
    found, _ = compiled({}, lacks=("fp8",))
    choice = eye(found)
    assert "fp8: SM87 has no FP8" in choice["why"]
    assert [form["failed"] for form in choice["forms"]] == [False] * 4
    assert {row["precision"] for row in found.engines if row["stage"] == "eye"} == {"int8", "fp16", "fp32"}


def test_a_precision_that_is_silently_not_used_fails_and_the_others_serve(compiled) -> None:  # type: ignore[no-untyped-def]
    found, _ = compiled({"fp16": 0.01}, fails=("fp8",))
    choice = eye(found)
    assert [form["failed"] for form in choice["forms"]] == [False, True, False, False]
    assert "fp8: built none of the 3 products in FP8" in choice["why"]
    assert choice["serves"] in ("int8", "fp32")


def test_where_none_can_be_built_the_failure_is_raised(compiled) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError, match="none of the 3 products in FP8"):
        compiled({}, precision="fp8", fails=("fp8",))
    with pytest.raises(PrecisionError, match="SM87 has no FP8"):
        compiled({}, precision="fp8", lacks=("fp8",))


def test_a_wrong_answer_leaves_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DOORS, "tensorrt", Board(tmp_path / "cache"))
    path = twin_bundle(tmp_path / "twin.mmedge", eye=raw_eye(200.0), precisions=("int8", "fp32"))
    with load(path) as bundle:
        choice = eye(compile_bundle(bundle, None, lambda text, share: None))
    assert choice["serves"] == "fp32"
    assert [form["failed"] for form in choice["forms"]] == [True, False]


@pytest.mark.parametrize(
    ("precision", "sm", "has"), [("fp8", "SM86", False), ("fp8", "SM89", True), ("int4", "SM75", True)]
)
def test_which_gpus_have_a_precision(precision: str, sm: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Members:
        __members__ = dict.fromkeys(("SM75", "SM86", "SM89"))

    class Module:
        ComputeCapability = Members

    trt = TensorRT(module=Module, name="tensorrt_rtx", version="1", caps=frozenset({"compute_capability"}))
    if has:
        assert target_capability(trt, sm, precision) == sm
    else:
        with pytest.raises(PrecisionError, match="from SM89 on"):
            target_capability(trt, sm, precision)


def test_an_attestation_shows_the_engines_that_could_not_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DOORS, "tensorrt", Board(tmp_path / "cache", lacks=("fp32",), fails=("fp8",)))
    with load(twin_bundle(tmp_path / "twin.mmedge", precisions=FORMS)) as bundle:
        document = _compiled(bundle, lambda text, share: None)  # type: ignore[arg-type]
    rows = {row["precision"]: row for row in document["engines"] if row["stage"] == "eye"}
    assert set(rows) == {"int8", "fp8", "fp16"}  # one that the device lacks is no fault
    assert rows["fp8"]["error"] == "built none of the 3 products in FP8"
    assert rows["fp8"]["run_ms"] is None
