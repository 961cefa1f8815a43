"""What processes take: counted for the whole family, also on a GPU whose driver tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmedge.bench.processes import family, gpu_mib, look, pss_mib, took

BUSY = "import time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass\nprint(flush=True); input()"


def test_a_child_and_what_it_took_are_seen() -> None:
    before = look()
    child = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        after = look()
        assert {os.getpid(), child.pid} <= set(family())
        assert before.keys() <= after.keys() | {child.pid}
        used = took(before, after)[child.pid]
        # It wanted a core for half a second, and had it or waited for it.
        assert 0.3 < used.cpu_s + used.waited_s < 5
        assert after[os.getpid()].name == "user"
        assert (pss_mib(child.pid) or 0) > 1
    finally:
        child.communicate(b"\n")
    assert pss_mib(child.pid) is None
    assert child.pid not in look()


@pytest.mark.parametrize(
    ("told", "code", "found"),
    [
        ("1234, 512\n1234, 100\n77, 20\n", 0, {1234: 612.0, 77: 20.0}),
        ("1234, [N/A]\n", 0, {}),
        ("No devices were found\n", 0, {}),
        ("", 9, {}),
    ],
)
def test_memory_of_a_gpu(
    told: str, code: int, found: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{told}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_mib() == found
