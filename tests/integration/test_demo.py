"""The demo keeps its promises: the whole path, measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the demo exports here; type: pip install -e '.[export]'")


pytestmark = pytest.mark.long  # and `make demo` shows the same


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "mmedge", "demo", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert Path(folder / "digits.mmedge").is_file()
    document = json.loads(done.stdout)
    assert document["schema"] == "mmedge.demo/1"
    return document


@pytest.mark.slow
def test_fusion_earns_its_keep(demo: dict) -> None:
    rows = {row["clip"]: row for row in demo["accuracy"]}
    assert list(rows) == ["clean", "noise", "frozen", "black", "wrong", "claim"]
    assert rows["clean"]["fused"] >= 0.9 - 0.05
    for clip in ("noise", "frozen", "black"):
        # The 150 triggers are no 150 samples: the 15 of a digit see the same picture and word, so a clip is ten samples
        # and its accuracy known to about 13 points. Fusion cannot be told from the best input alone by less than one
        # digit, 10 points; half of one is what a label that comes up to seven frames later costs.
        assert rows[clip]["fused"] >= max(rows[clip]["image"], rows[clip]["audio"]) - 0.05, clip
    helped = [row for name, row in rows.items() if name not in ("wrong", "claim")]
    gains = [row["fused"] - max(row["image"], row["audio"]) for row in helped]
    assert max(gains) > 0
    assert rows["wrong"]["agree"] < 0.2 < rows["clean"]["agree"]
    assert all(row["n"] > 100 for row in rows.values())


@pytest.mark.slow
def test_a_typed_digit_helps_in_noise(demo: dict) -> None:
    rows = {row["clip"]: row for row in demo["accuracy"]}
    claim, noise = rows["claim"], rows["noise"]
    assert (claim["image"], claim["audio"]) == (noise["image"], noise["audio"])
    assert claim["fused_without_text"] == noise["fused"]
    assert claim["fused"] >= max(0.9, noise["fused"] + 0.05)


@pytest.mark.slow
def test_int8_and_engines(demo: dict) -> None:
    int8, tensorrt = demo["int8"], demo["tensorrt"]
    assert int8["agreement"] >= 0.98
    assert int8["bytes"] < int8["fp32_bytes"]
    assert 0 < int8["coverage"] <= 1
    stages = {"image_encoder", "audio_encoder", "text_encoder", "fusion"}
    assert {row["stage"] for row in tensorrt["engines"]} == stages
    assert all(row["bytes"] > 0 and row["layers"] > 0 for row in tensorrt["engines"])
    if tensorrt["not_run_because"]:
        assert tensorrt["evidence"] == "built-not-run"


@pytest.mark.slow
def test_nothing_is_lost(demo: dict) -> None:
    assert demo["frames"] == demo["results"] + sum(demo["drops"].values()) == 400
    assert demo["lost_samples"] == {"audio": 0}
    assert demo["skew_ms"]["p99"] < 5
    latency = demo["latency_ms"]
    assert latency["end_to_end"]["p50"] <= latency["end_to_end"]["p90"] <= latency["end_to_end"]["p99"]
    assert {"deliver", "ready", "preprocessed", "inferred", "interpreted"} <= set(latency["steps"])
