"""``mmedge compile``: shapes, bounds, INT8 coverage, what is said where nothing can run; with the real builder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mmedge.cli import run
from mmedge.engine.cuda import gpu_problem
from tests.doors import raw_eye, twin_bundle
from tests.networks import FLOAT, NODE, network

pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
pytestmark = pytest.mark.parallel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MMEDGE_TENSORRT", "tensorrt_rtx")
    return tmp_path / "cache"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


def engines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["engines"]
    return found


def free(path: Path) -> Path:
    shape = ["batch", 3, "height", "width"]
    model = network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("names", [["?", 3, "?", "?"], ["", 3, "", ""], ["n", 3, "n", "n"]])
def test_dimensions_that_are_not_equal_are_built(cli, tmp_path: Path, names: list[object]) -> None:  # type: ignore[no-untyped-def]
    """TensorRT takes dimensions of one name for equal: no names, and names of several sizes, are taken from them."""
    model = network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, names)}, {"y": (FLOAT, None)})
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    for shape in ("x=1x3x48x192", "x=1x3x8x16:1x3x48x192:2x3x64x256"):
        assert len(engines(cli("compile", tmp_path / "odd.onnx", "--shape", shape, "--json"))) == 1


def test_open_dimensions_are_given_or_named(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = free(tmp_path / "open.onnx")
    done = cli("compile", path)
    assert done.returncode == 2
    assert "2 ('height'), 3 ('width')" in done.stderr
    assert "--shape x=1x3x<height>x<width>" in done.stderr
    (fixed,) = engines(cli("compile", path, "--shape", "x=1x3x32x32", "--json"))
    (ranged,) = engines(cli("compile", path, "--shape", "x=1x3x16x16:1x3x32x32:1x3x64x64", "--json"))
    assert not fixed["cached"]
    assert not ranged["cached"]  # another engine
    (again,) = engines(cli("compile", path, "--shape", "x=1x3x32x32", "--json"))
    assert again["cached"]
    for wrong in ("x=1x4x32x32", "z=1", "x", "x=1x3x32x32:1x3x16x16:1x3x8x8"):
        assert cli("compile", path, "--shape", wrong).returncode == 2


def test_weights_beside_the_network_and_what_changes_with_them(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def write(factor: float) -> Path:
        model = network(
            [NODE("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [1, 8])}, {"y": (FLOAT, [1, 8])},
            w=np.full((8, 8), factor, np.float32),
        )  # fmt: skip
        path = tmp_path / "m.onnx"
        (tmp_path / "m.onnx.data").unlink(missing_ok=True)  # onnx would write behind what is there
        onnx.save_model(model, str(path), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
        return path

    (first,) = engines(cli("compile", write(1.0), "--json"))
    (same,) = engines(cli("compile", write(1.0), "--json"))
    (retrained,) = engines(cli("compile", write(2.0), "--json"))
    assert (first["cached"], same["cached"], retrained["cached"]) == (False, True, False)


def test_a_bundle_says_what_was_not_run_and_where_int8_is(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    if gpu_problem() is None:
        pytest.skip("this machine has a GPU")
    bundle = twin_bundle(tmp_path / "twin.mmedge")
    rows = engines(cli("compile", bundle, "--json"))
    assert [row["stage"] for row in rows] == ["eye", "ear", "join"]
    for row in rows:
        assert row["evidence"] == "built-not-run"
        assert row["serves"] is None
        assert row["run_ms"] is None
        assert row["not_run"]
        assert (row["int8_nodes"], row["float_nodes"], row["boundaries"]) == ([], [], [])
    done = cli("compile", bundle)
    assert "built-not-run" in done.stdout
    assert "not run here: " in done.stdout
    assert done.stdout.count("cache") == 3
    assert cli("compile", bundle, "--shape", "x=1").returncode == 2


def test_a_bundle_gives_the_open_dimensions_of_its_networks(cli, tmp_path: Path, cache: Path) -> None:  # type: ignore[no-untyped-def]
    bundle = twin_bundle(tmp_path / "open.mmedge", eye=raw_eye(frame=("batch", "height", "width", 1)))
    assert not engines(cli("compile", bundle, "--json"))[0]["cached"]
    (log,) = (text for text in map(Path.read_text, cache.glob("*.log")) if "UInt8" in text)
    assert "OptShape: [1,8,8,1]" in log


@pytest.mark.parametrize("bound", [("--timeout", 0.2), ("--memory-mb", 60)])
def test_a_build_has_bounds(cli, tmp_path: Path, bound: tuple[str, float]) -> None:  # type: ignore[no-untyped-def]
    many = [NODE("MatMul", [f"t{k}", "w"], [f"t{k + 1}"]) for k in range(60)]
    w = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    model = network(many, {"t0": (FLOAT, [1024, 1024])}, {"t60": (FLOAT, [1024, 1024])}, w=w)
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    done = cli("compile", path, *bound)
    assert done.returncode == 5
    assert bound[0] in done.stderr


def test_a_cache_that_cannot_be_written(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "file" / "engines"))
    done = cli("compile", free(tmp_path / "open.onnx"), "--shape", "x=1x3x8x8")
    assert done.returncode == 2
    assert "MMEDGE_CACHE" in done.stderr


def test_an_engine_of_another_network_in_its_place_is_built_again(  # type: ignore[no-untyped-def]
    cli, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = free(tmp_path / "open.onnx")
    engines(cli("compile", path, "--shape", "x=1x3x8x8", "--json"))
    (right,) = cache.glob("*.plan")
    engines(cli("compile", path, "--shape", "x=1x3x16x16", "--json"))
    other = next(plan for plan in cache.glob("*.plan") if plan != right)
    other.replace(right)
    done = cli("compile", path, "--shape", "x=1x3x8x8", "--json")
    assert "its hash differs" in caplog.text
    assert not engines(done)[0]["cached"]


def test_inspect_knows_an_engine_of_the_cache_and_says_what_it_does_not_know(  # type: ignore[no-untyped-def]
    cli, tmp_path: Path, cache: Path
) -> None:
    engines(cli("compile", free(tmp_path / "open.onnx"), "--shape", "x=1x3x8x8", "--json"))
    (plan,) = cache.glob("*.plan")
    known = json.loads(cli("inspect", plan, "--json").stdout)
    assert (known["kind"], known["origin"], known["bytes"]) == ("engine", "cache", plan.stat().st_size)
    assert known["key"]["profile"] == {"x": [1, 3, 8, 8]}
    assert known["verdict"] is None
    assert known["layers"]
    assert str(tmp_path) not in json.dumps({**known, "file": ""})
    done = cli("inspect", plan)
    assert "never run on its device" in done.stdout
    assert "tensorrt_rtx" in done.stdout
    with plan.open("ab") as file:
        file.write(b"x")
    assert json.loads(cli("inspect", plan, "--json").stdout)["origin"] == "changed"
    stranger = plan.rename(tmp_path / "x.engine")
    assert json.loads(cli("inspect", stranger, "--json").stdout)["origin"] == "unknown"
    assert "unknown origin" in cli("inspect", stranger).stdout
    assert cli("inspect", tmp_path / "none.plan").returncode == 2
    done = cli("compare", stranger, tmp_path / "open.onnx", "--shape", "x=1x3x8x8")
    assert done.returncode in ((3,) if gpu_problem() else (5,))
