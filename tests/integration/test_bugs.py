"""A bug of ours says so, with its traceback, wherever it happens: in this process, or in one of its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmedge
from mmedge.errors import InternalError
from tests.conftest import WriteClip
from tests.tiny import imu_bundle

pytestmark = pytest.mark.parallel

# Loaded in the process of the run, it breaks the run's own code there: early, or at the first turn.
RULE = """
import numpy as np
from mmedge.pipeline import runtime

def broken(*args, **more):
    return 1 + "one"

{where} = broken

def rule(**inputs):
    return np.zeros((1, 1), np.float32)
"""
ALLOW = ("--allow-callable", "breaking_rule")
EARLY, LATER = "runtime.make_header = runtime.open_sources", "runtime.Accounts.count"


@pytest.mark.parametrize("where", [EARLY, LATER])
@pytest.mark.parametrize("source", ["test://?fps=30", "clip.nut"])
def test_a_bug_of_the_run_is_told_with_its_traceback(
    tmp_path: Path, write_clip: WriteClip, where: str, source: str
) -> None:
    (tmp_path / "breaking_rule.py").write_text(RULE.format(where=where))
    write_clip(size=(64, 64))
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="breaking_rule:rule")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mmedge",
            "run",
            str(bundle),
            "--image",
            source,
            "--json",
            "--allow-callable",
            "breaking_rule",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert (document["error"], document["exit_code"]) == ("InternalError", 70)
    assert "TypeError" in document["message"]
    assert document["fix"]
    assert "in broken" in done.stderr


def test_whoever_catches_a_bug_of_the_runtime_process_has_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking_rule_2.py").write_text(RULE.format(where=LATER))
    monkeypatch.syspath_prepend(tmp_path)
    bundle = imu_bundle(tmp_path / "imu.mmedge", rule="breaking_rule_2:rule")
    with (
        pytest.raises(InternalError) as caught,
        mmedge.Pipeline(bundle, {"image": "test://"}, allow=["breaking_rule_2"]) as pipe,
    ):
        list(pipe)
    assert "in broken" in str(caught.value.__cause__)
