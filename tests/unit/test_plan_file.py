"""What lies beside an engine is believed in the folder of the engine cache alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmedge.cli.inspect_engine import print_engine
from mmedge.engine.cache import EngineCache, Verdict
from mmedge.engine.plan_file import describe_plan
from tests.unit.test_engine_cache import make_build, make_key


def test_a_sidecar_outside_of_the_cache_is_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    cache = EngineCache()
    plan = cache.put(make_key(), make_build()).plan_path
    cache.note(make_key(), Verdict())  # neither failed nor timed
    found = describe_plan(plan)
    assert found["origin"] == "cache"
    print_engine(found)
    assert "not timed" in capsys.readouterr().out

    shutil.copytree(tmp_path / "cache", tmp_path / "theirs")
    found = describe_plan(tmp_path / "theirs" / plan.name)
    assert found["origin"] == "unknown"
    assert found["claimed"]["built"]
    assert not {"key", "built", "build", "verdict", "layers"} & found.keys()
    print_engine(found)
    out = capsys.readouterr().out
    assert "unknown origin" in out
    assert "built by" not in out
