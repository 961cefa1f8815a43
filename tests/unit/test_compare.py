"""``mmedge compare``: figures against hand-made ones, signatures, the first layer that differs, key paths."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.diff import diff
from mmedge.cli import run
from mmedge.engine.difference import Difference
from tests.networks import FLOAT, NODE, network
from tests.tiny import manifest, members, tiny_bundle


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = run(["compare", *(str(a) for a in arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["schema"] == "mmedge.compare/1"
    return found


def chain(path: Path, second: float = 3.0, prefix: str = "", extra: bool = False) -> Path:
    """x -> Mul 2 -> Relu -> Mul ``second`` -> Abs -> y; ``prefix`` renames all that is inside."""
    p = prefix
    nodes = [
        NODE("Mul", [f"{p}x", f"{p}two"], [f"{p}a"], name=f"{p}first"),
        NODE("Relu", [f"{p}a"], [f"{p}b"], name=f"{p}relu"),
        NODE("Mul", [f"{p}b", f"{p}k"], [f"{p}c"], name=f"{p}second"),
        *([NODE("Identity", [f"{p}c"], [f"{p}c2"])] if extra else []),
        NODE("Abs", [f"{p}c2" if extra else f"{p}c"], [f"{p}y"], name=f"{p}last"),
    ]
    model = network(
        nodes,
        {f"{p}x": (FLOAT, [1, 4])},
        {f"{p}y": (FLOAT, [1, 4])},
        **{f"{p}two": np.float32(2), f"{p}k": np.float32(second)},
    )
    path.write_bytes(model.SerializeToString())
    return path


@given(
    st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=1, max_size=20),
    st.integers(1, 4),
)
def test_figures_are_those_of_the_whole(pairs: list[tuple[float, float]], parts: int) -> None:
    a, b = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    difference = Difference()
    for x, y in zip(np.array_split(a, parts), np.array_split(b, parts), strict=True):
        difference.add(x, y)
    assert difference.max_abs == pytest.approx(np.abs(a - b).max())
    if (a == b).all():
        assert difference.sqnr_db is None
    elif a.any():
        assert difference.sqnr_db == pytest.approx(10 * math.log10((a @ a) / ((a - b) @ (a - b))))
    if a.any() and b.any():
        assert difference.cosine == pytest.approx((a @ b) / math.sqrt(a @ a) / math.sqrt(b @ b), abs=1e-9)


def test_what_is_not_finite_counts_and_spoils_nothing() -> None:
    difference = Difference()
    difference.add(np.array([1.0, np.nan, np.inf, 2.0]), np.array([1.0, np.nan, 3.0, 2.5]))
    assert (difference.unequal, difference.max_abs) == (1, 0.5)
    json.dumps(difference.to_dict(), allow_nan=False)


def test_equal_networks_and_others(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    a, b = chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", 3.3)
    same = document(cli(a, a, "--json"))
    assert same["outputs"]["y"]["max_abs"] == 0
    assert same["outputs"]["y"]["sqnr_db"] is None
    assert "random samples by signature" in same["inputs"]
    other = document(cli(a, b, "--json"))
    assert other["outputs"]["y"]["max_rel"] == pytest.approx(0.1, rel=1e-4)
    assert other["outputs"]["y"]["sqnr_db"] == pytest.approx(20, abs=0.01)
    assert other["outputs"]["y"]["cosine"] == pytest.approx(1)
    assert cli(a, b).returncode == 0  # nobody asked for a limit
    for limit in (("--max-rel", 0.05), ("--max-abs", 1e-3), ("--min-sqnr-db", 30)):
        assert cli(a, b, *limit).returncode == 1
        assert cli(a, a, *limit).returncode == 0
        broken = cli(a, b, *limit, "--json")
        assert broken.returncode == 1
        assert document(broken)["over"]


def test_arrays_are_inputs(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    a, b = chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", 4.0)
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.savez(folder / "s.npz", x=np.array([[[1, 2, 3, 4]], [[-5, 0, 0, 1]]], np.float32))
    np.save(tmp_path / "x.npy", np.float32([[1, 1, 1, 1]]))
    found = document(cli(a, b, "--on", folder, "--json"))
    assert found["outputs"]["y"]["samples"] == 2
    assert found["outputs"]["y"]["max_abs"] == 8  # 2 * 4 * (4 - 3)
    assert document(cli(a, b, "--on", tmp_path / "x.npy", "--json"))["outputs"]["y"]["max_abs"] == 2
    for wrong, says in (
        (np.zeros((1, 4)), "float64 in 0..0"),
        (np.zeros((3, 5), np.float32), "[3, 5] in 0..0, the network takes [1, 4]"),
        (np.full((1, 4), np.nan, np.float32), "not finite"),
        (np.array([None]), "cannot be read"),
    ):
        np.save(tmp_path / "x.npy", wrong, allow_pickle=True)
        done = cli(a, b, "--on", tmp_path / "x.npy")
        assert done.returncode == 2
        assert says in done.stderr, done.stderr


def test_signatures_that_do_not_fit(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    a, b = chain(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    two = {"x": (FLOAT, [1, 4]), "z": (FLOAT, [1, 4])}
    b.write_bytes(network([NODE("Add", ["x", "z"], ["y"])], two, {"y": (FLOAT, [1, 4])}).SerializeToString())
    done = cli(a, b)
    assert done.returncode == 2
    assert "inputs differ" in done.stderr
    b.write_bytes(
        network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, "n"])}, {"y": (FLOAT, [1, "n"])}).SerializeToString()
    )
    assert cli(a, b).returncode == 0  # what is open takes the shape of the other
    assert cli(b, b).returncode == 2
    assert cli(b, b, "--shape", "x=1x6").returncode == 0
    assert cli(a, tmp_path / "none.onnx").returncode == 2
    assert cli(a, tiny_bundle(tmp_path / "t.mmedge")).returncode == 2


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("prefix", ["", "renamed_"])
def test_bisect_names_where_it_begins(cli, tmp_path: Path, prefix: str, extra: bool) -> None:  # type: ignore[no-untyped-def]
    a, b = chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", 3.3, prefix, extra)
    found = document(cli(a, b, "--bisect", "--json"))
    assert [layer["node"] for layer in found["layers"]] == ["second"]
    assert found["layers"][0]["tensor_b"] == f"{prefix}c"
    assert found["layers"][0]["matched_by"] == ("position" if prefix else "name")
    assert document(cli(a, chain(tmp_path / "c.onnx", 3.0, prefix), "--bisect", "--json"))["layers"] == []
    assert "second" in cli(a, b, "--bisect").stdout


def test_a_network_of_a_stranger_is_bounded(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A loop of 2^62 trips ends nothing but its child."""
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[1, 4] s) => (bool more, float[1, 4] t) { more = Identity(go) t = Identity(s) }"
    )
    nodes = [NODE("Loop", ["trips", "go", "x"], ["y"], body=body)]
    model = network(
        nodes, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}, trips=np.int64(2**62), go=np.bool_(True)
    )  # fmt: skip
    path = tmp_path / "loop.onnx"
    path.write_bytes(model.SerializeToString())
    import mmedge.export.compare_files as files

    files._CPU_S = 1.0
    done = cli(path, path)
    files._CPU_S = 60.0
    assert done.returncode == 2
    assert "processor time" in done.stderr


def test_bundles_without_recordings_are_compared_on_golden_inputs(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    a = tiny_bundle(tmp_path / "a.mmedge")
    found = document(cli(a, a, "--json"))
    assert set(found["outputs"]) == {"eye.y", "ear.y", "join.scene", "join.same"}
    assert all(figures["max_abs"] == 0 for figures in found["outputs"].values())
    assert "golden inputs" in found["inputs"]


def test_bundles_on_recordings_answer_alike_or_not(cli, tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    a = tiny_bundle(tmp_path / "a.mmedge")
    tasks = {
        "scene": {"kind": "classification", "output": "join.scene", "labels": "labels/scene.txt", "threshold": 1.0},
        "same": {"kind": "verification", "output": "join.same", "labels": "labels/same.txt", "threshold": 0.5},
    }
    b = tiny_bundle(tmp_path / "b.mmedge", tasks=tasks)  # never sure of a scene
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(size=(64, 64), sound=np.zeros((1, 8000), np.float32)).rename(clips / "clip.mkv")
    same = document(cli(a, a, "--on", clips, "--json"))
    assert same["tasks"]["scene"]["agreement"] == 1.0
    assert same["triggers"]["both"] == same["outputs"]["join.scene"]["samples"] > 10
    other = document(cli(a, b, "--on", clips, "--json"))
    assert other["outputs"]["join.scene"]["max_abs"] == 0
    assert other["tasks"]["scene"]["agreement"] < 0.2
    assert other["tasks"]["same"]["agreement"] == 1.0
    assert cli(a, b, "--on", clips, "--min-agreement", 0.9).returncode == 1
    assert cli(a, b, "--on", tmp_path / "nothing").returncode == 2


def test_a_precision_that_is_not_there_and_a_limit_that_judges_nothing(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    a = tiny_bundle(tmp_path / "a.mmedge")
    done = cli(a, a, "--precision", "fp16")
    assert done.returncode == 2
    assert "no stage has a variant of precision 'fp16'" in done.stderr
    for options in (("--min-agreement", 0.9), ("--manifest", "--max-abs", 1), ("--min-agreement", 0.9, "--json")):
        done = cli(a, a, *options)
        assert done.returncode == 2, done.stdout
        assert "nothing was judged" in done.stderr + done.stdout
    variants = [{**v, "precision": "int8"} if v["stage"] == "join" else v for v in manifest(members())["variants"]]
    b = tiny_bundle(tmp_path / "b.mmedge", variants=variants)
    found = document(cli(a, b, "--precision", "int8", "--json"))
    assert found["fallback"] == sorted({v["stage"] for v in variants} - {"join"}, key=found["fallback"].index)
    assert found["fallback"][0] in cli(a, b, "--precision", "int8").stdout.split("not of this precision")[1]


def test_recipes_and_manifests_by_key(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.toml").write_text('name = "a"\n[train]\nepochs = 3\nlr = 0.1\n[[x]]\nname = "p"\nv = 1\n')
    (tmp_path / "b.toml").write_text('name = "a"\n[train]\nepochs = 4\n[[x]]\nname = "q"\n[[x]]\nname = "p"\nv = 1\n')
    done = cli(tmp_path / "a.toml", tmp_path / "b.toml", "--json")
    assert document(done)["keys"] == [
        {"path": "$.train.epochs", "a": 3, "b": 4},
        {"path": "$.train.lr", "a": 0.1},
        {"path": "$.x[q]", "b": {"name": "q"}},
    ]
    assert "$.train.epochs" in cli(tmp_path / "a.toml", tmp_path / "b.toml").stdout
    a, b = tiny_bundle(tmp_path / "a.mmedge"), tiny_bundle(tmp_path / "b.mmedge", licence="MIT")
    found = document(cli(a, b, "--manifest", "--json"))["keys"]
    assert found == [{"path": "$.licence", "a": "Apache-2.0", "b": "MIT"}]
    (tmp_path / "a.toml").write_text("= 1")
    assert cli(tmp_path / "a.toml", tmp_path / "b.toml").returncode == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_nothing_differs_exactly_where_documents_are_equal(a: Any, b: Any) -> None:
    assert diff(a, a) == []
    assert (diff(a, b) == []) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))
    assert {item.path for item in diff(a, b)} == {item.path for item in diff(b, a)}


def test_small_tensors_that_lie_in_a_file_are_compared(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """ONNX Runtime looks for axes and shapes before it reads what lies outside."""
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    model = network([node], {"x": [1, 4, 2]}, {"y": [1, 2]}, axes=np.array([1]))
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    assert (tmp_path / "b.data").stat().st_size == 8
    assert document(cli(tmp_path / "a.onnx", tmp_path / "b.onnx", "--json"))["outputs"]["y"]["max_abs"] == 0


@pytest.mark.parametrize(("operator", "said"), [("Relu", [1, "n"]), ("Squeeze", [1, 1, "n"])])
def test_an_output_of_another_rank_than_the_file_says_is_run(
    cli, tmp_path: Path, operator: str, said: list[Any]
) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "a.onnx"
    onnx.save(network([NODE(operator, ["x"], ["y"])], {"x": [1, "n", 2]}, {"y": said}), file)
    assert document(cli(file, file, "--shape", "x=1x3x2", "--json"))["outputs"]["y"]["max_abs"] == 0
