"""A network of more than one ONNX message holds: exported, inspected, compared, and run from its bundle.

Its weights are a hole of 2 GB with two rows of numbers, so that what is made of them shows in memory alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mmedge
from benchmarks import media_hostile
from mmedge.bundle.onnx_file import weights_member
from mmedge.cli import run
from mmedge.fusion.load import make_network
from tests import large

pytestmark = [pytest.mark.parallel, pytest.mark.long, pytest.mark.slow]
ROWS = (1 << 21) + 5  # of 1 kB
# Two processes with torch and ONNX Runtime, one of which waits for the other.
PEAK_MB = 1200.0


def test_two_gigabytes_go_down_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(media_hostile, "_GIVEN_UP_S", 600.0)  # for a busy machine
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network = large.table(tmp_path, ROWS)
    command = [sys.executable, "-m", "mmedge", "export", "net.onnx", "--licence", "MIT", "--no-smoke"]
    code, _, peak_mb, err = media_hostile.measure(command, tmp_path)
    assert code == 0, err
    assert peak_mb < PEAK_MB, f"{peak_mb} MB of it and of what it started, for weights of 2147 MB"
    x = np.array([[0, 1, 2, ROWS - 2, ROWS - 1, 7]])
    want = np.zeros((1, 6, 256), np.float32)
    want[0, 0] = want[0, 4] = 2 * np.arange(256)
    with mmedge.load(tmp_path / "net.mmedge") as bundle:
        (variant,) = bundle.manifest.variants
        assert bundle.manifest.files[weights_member(variant.file)].bytes == 1024 * ROWS
        with make_network(bundle, variant, {}, "it") as engine:
            np.testing.assert_array_equal(engine({"x": x})["y"], want)
    with mmedge.load_engine(network, "onnxruntime") as engine:
        np.testing.assert_array_equal(engine({"x": x})["y"], want)
    capfd.readouterr()
    for arguments in (["verify", "net.mmedge"], ["inspect", "net.onnx"], ["compare", "net.onnx", "net.onnx"]):
        assert run([*arguments, "--json"]) == 0, arguments
        assert json.loads(capfd.readouterr().out)["schema"]
