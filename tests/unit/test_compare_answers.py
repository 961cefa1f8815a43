"""``mmedge compare`` of bundles: the same triggers, who is silent, odd golden inputs; arrays of any size."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmedge.bundle import load, write_archive
from mmedge.bundle.manifest import Manifest, TensorInput
from mmedge.bundle.tasks import Regression, Task
from mmedge.cli import run
from mmedge.engine.difference import Difference
from mmedge.errors import CheckError, ConfigError, EngineError
from mmedge.fusion import load_graph
from mmedge.fusion.check import check_variants
from mmedge.interpret import UNDEFINED
from mmedge.replay.agreement import Agreement
from mmedge.replay.compare import check_judged, compare_on_golden, compare_on_recordings
from mmedge.replay.pushes import Recorder
from mmedge.replay.sessions import session_paths, sessions
from mmedge.types import Box, TaskResult
from tests.networks import FLOAT, NODE, network
from tests.tiny import MANIFEST, WINDOW, _npz, manifest, members, tiny_bundle


def test_one_side_that_is_silent_at_first_shifts_no_trigger(tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    """B skips triggers until there are pictures; the sound goes on changing."""
    sync, skip = {"trigger": "audio"}, {**MANIFEST["missing"], "image": {"policy": "skip"}}
    a = tiny_bundle(tmp_path / "a.mmedge", sync=sync)
    b = tiny_bundle(tmp_path / "b.mmedge", sync=sync, missing=skip)
    sound = np.linspace(0, 1, 8000, dtype=np.float32)[np.newaxis]
    clip = write_clip(times_s=tuple(0.5 + k / 25 for k in range(13)), sound=sound)
    with load(a) as left, load(b) as right:
        found = compare_on_recordings(left, right, clip)
        turned = compare_on_recordings(right, left, clip)
    assert found["triggers"]["a_alone"] >= 5
    assert found["triggers"]["both"] >= 5
    assert found["triggers"].get("b_alone", 0) == 0
    assert "answered by A alone" in found["inputs"]
    assert found["outputs"]["join.same"]["max_abs"] == 0
    assert found["evidence"] == "cpu"
    assert turned["triggers"]["b_alone"] == found["triggers"]["a_alone"]


def told(**fields: Any) -> TaskResult:
    return TaskResult(**{"label": None, "score": None, **fields})


def test_numbers_are_compared_where_both_tell_one() -> None:
    agreement = Agreement(Task(kind="regression", output="s.y", regression=Regression()))
    for a, b in ((1.0, 1.5), (None, 1.0), (2.0, 1.0), (None, None), (1.0, None), (3.0, None)):
        agreement.add(told(value=a), told(value=b), told=(a is not None, b is not None))
    found = agreement.to_dict()
    assert (found["pairs"], found["mean_abs"], found["max_abs"]) == (2, 0.75, 1.0)
    assert (found["silent_a"], found["silent_b"], found["silent_both"]) == (1, 2, 1)
    with pytest.raises(ConfigError, match="task 'speed' tells a number"):
        check_judged({"tasks": {"speed": found}, "outputs": {}}, {"min_agreement": 0.9})


def test_what_is_silent_on_both_sides_does_not_agree() -> None:
    agreement = Agreement(Task(kind="classification", output="s.y", labels="l.txt"))
    agreement.add(UNDEFINED, UNDEFINED, told=(False, False))
    assert agreement.to_dict()["agreement"] is None
    agreement.add(told(score=0.4), told(score=0.3), told=(True, True))  # both abstain
    agreement.add(told(label="x", score=0.9), UNDEFINED, told=(True, False))
    assert agreement.to_dict() == {
        "metric": "same label", "pairs": 1, "silent_a": 0, "silent_b": 1, "silent_both": 1, "agreement": 0.5,
    }  # fmt: skip


def test_a_picture_without_boxes_is_an_answer_and_one_not_looked_at_is_none() -> None:
    agreement = Agreement(
        msgspec.structs.replace(Task(kind="classification", output="s.y", labels="l"), kind="detection")
    )
    box = told(label="x", score=0.9, boxes=(Box(label="x", score=0.9, x1=0, y1=0, x2=1, y2=1),))
    agreement.add(UNDEFINED, UNDEFINED, told=(True, True))
    agreement.add(box, UNDEFINED, told=(True, True))
    agreement.add(box, box, told=(True, True))
    agreement.add(UNDEFINED, UNDEFINED, told=(False, False))
    found = agreement.to_dict()
    assert (found["pairs"], found["silent_both"], found["agreement"]) == (3, 1, round(2 / 3, 6))


def test_outputs_without_a_task_are_compared(tmp_path: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    bare = {"tasks": {}, "outputs": ["join.scene"]}
    path = tiny_bundle(tmp_path / "a.mmedge", **bare)
    clip = write_clip(sound=np.zeros((1, 8000), np.float32))
    with load(path) as a, load(path) as b:
        found = compare_on_recordings(a, b, clip)
    assert found["outputs"]["join.scene"]["samples"] == found["triggers"]["both"]


def lengths(path: Path, *, shown: bool, called: str = "z") -> Path:
    """The tiny bundle, whose picture tells itself as well: [1, 2] of A, [1, 3] of B."""
    files = members()
    count = 2 + shown
    model = network(
        [NODE("Reshape", ["x", "flat"], ["r"]), NODE("ReduceMean", ["r", "one"], ["y"]),
         NODE("Expand", ["y", "to"], [called])],
        {"x": (FLOAT, [1, 1, 4, 4])}, {"y": (FLOAT, [1, 1]), called: (FLOAT, [1, count])},
        flat=np.array([1, -1]), one=np.array([1]), to=np.array([1, count]),
    )  # fmt: skip
    files["eye.onnx"] = model.SerializeToString()
    with np.load(io.BytesIO(files["golden/eye.npz"])) as golden:
        files["golden/eye.npz"] = _npz(
            in__x=golden["in.x"], out__y=golden["out.y"], **{f"out__{called}": np.full((1, 1, count), 0.2, "f")}
        )
    stages = json.loads(json.dumps(MANIFEST["stages"]))
    stages["eye"]["outputs"] |= {called: ["batch", count]}
    return changed(path, files, stages=stages, outputs=[f"eye.{called}"])


def test_outputs_of_other_shapes_are_named_and_fail(tmp_path: Path, write_clip, capfd) -> None:  # type: ignore[no-untyped-def]
    a, b = lengths(tmp_path / "a.mmedge", shown=False), lengths(tmp_path / "b.mmedge", shown=True)
    clip = write_clip(sound=np.zeros((1, 8000), np.float32))
    for more in ([], ["--on", str(clip)]):
        assert run(["compare", str(a), str(a), *more]) == 0
        capfd.readouterr()
        assert run(["compare", str(a), str(b), *more]) == 1
        assert "eye.z: [1, 2] in A, [1, 3] in B" in capfd.readouterr().err
        assert run(["compare", str(a), str(b), *more, "--json"]) == 1
        found = json.loads(capfd.readouterr().out)
        assert not found["ok"]
        assert (found["unequal_shapes"]["eye.z"]["a"], found["unequal_shapes"]["eye.z"]["b"]) == ([1, 2], [1, 3])
        assert "eye.z" not in found["outputs"]
    renamed = lengths(tmp_path / "c.mmedge", shown=True, called="w")
    assert run(["compare", str(a), str(renamed)]) == 1
    assert "eye.z: [1, 2] in A, [1, 3] in B" in capfd.readouterr().err


def test_golden_samples_without_end_are_refused(tmp_path: Path) -> None:
    files = members()
    many = np.zeros((300, 1, WINDOW), np.float32)
    files["golden/ear.npz"] = _npz(in__x=many, out__y=np.zeros((300, 1, 1), np.float32))
    path = changed(tmp_path / "a.mmedge", files)
    with load(path) as a, load(path) as b, pytest.raises(CheckError, match="300 samples, the limit is 256"):
        compare_on_golden(a, b)


numbers = st.one_of(
    st.sampled_from(("float16", "float32", "float64", "longdouble", "int8", "int64", "uint64", "bool")).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(("eye", "ear", "join")), x=numbers, data=st.data())
def test_odd_golden_arrays_of_a_stranger_are_errors_of_the_bundle(tmp_path: Path, name: str, x: Any, data: Any) -> None:
    files = members()
    own = dict(np.load(io.BytesIO(files[f"golden/{name}.npz"])).items())
    key = data.draw(st.sampled_from(sorted(own)))
    files[f"golden/{name}.npz"] = _npz(**{k.replace(".", "__"): x if k == key else v for k, v in own.items()})
    path = changed(tmp_path / "odd.mmedge", files)
    with load(path) as a:
        for row in check_variants(a):  # what the child does that tries it
            assert row["fault"] is None or row["stage"] == name


@given(arrays.arrays(np.float64, 3), arrays.arrays(np.float64, 3))
def test_figures_of_any_numbers_can_be_told(a: Any, b: Any) -> None:
    difference = Difference()
    difference.add(a, b)
    assert json.dumps(difference.to_dict(), allow_nan=False)


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_run_and_a_comparison_take_the_same_files(tmp_path: Path, precision: str | None) -> None:
    files = members()
    files["eye.int8.onnx"] = files["eye.onnx"]
    document = manifest(files)
    more = {**document["variants"][0], "precision": "int8", "file": "eye.int8.onnx"}
    path = changed(tmp_path / "a.mmedge", files, variants=[*document["variants"], more])
    with load(path) as a, load(path) as b:
        graph = load_graph(b, backend="onnxruntime", precision=precision)
        served = graph.served
        graph.close()
        found = compare_on_golden(a, b, precision)
    assert found["served"]["b"] == served
    assert served["eye"].endswith("eye.onnx" if precision is None else "eye.int8.onnx")
    assert found["fallback"] == ([] if precision is None else ["ear", "join"])


def changed(path: Path, files: dict[str, bytes], **changes: Any) -> Path:
    return write_archive(path, msgspec.convert(manifest(files, **changes), Manifest), files)


@pytest.mark.parametrize(
    ("golden", "samples"),
    [
        ({"note": np.float32(1)}, 1),
        ({"note": np.zeros(0)}, 1),
        ({"a": np.zeros((5, 2))}, 1),
    ],
)
def test_arrays_beside_golden_ones_do_not_count(tmp_path: Path, golden: dict[str, Any], samples: int) -> None:
    files = members()
    f = np.float32
    sound = np.full((1, 1, WINDOW), 0.25, f)
    files["golden/ear.npz"] = _npz(**golden, in__x=sound, out__y=f([[[0.25]]]))
    path = changed(tmp_path / "a.mmedge", files)
    with load(path) as a, load(path) as b:
        found = compare_on_golden(a, b)
    assert found["outputs"]["ear.y"]["samples"] == samples
    assert found["evidence"] == "cpu"


@pytest.mark.parametrize("x", [np.zeros((0, 1, WINDOW), np.float32), np.float32(1), None])
def test_a_golden_file_without_samples_is_an_error(tmp_path: Path, x: Any) -> None:
    files = members()
    own = {} if x is None else {"in__x": x}
    files["golden/ear.npz"] = _npz(**own, out__y=np.float32([[[0.25]]]))
    path = changed(tmp_path / "a.mmedge", files)
    with load(path) as a, load(path) as b, pytest.raises(CheckError, match="golden file has no"):
        compare_on_golden(a, b)


def test_a_network_that_does_not_end_on_golden_inputs_of_others_is_ended(tmp_path: Path) -> None:
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[1, 1] s) => (bool more, float[1, 1] t) { more = Identity(go) t = Identity(s) }"
    )
    nodes = [
        NODE("ReduceMax", ["x"], ["top"], keepdims=0),
        NODE("Mul", ["top", "many"], ["scaled"]),
        NODE("Cast", ["scaled"], ["trips"], to=onnx.TensorProto.INT64),
        NODE("ReduceMean", ["x", "one"], ["mean"]),
        NODE("Loop", ["trips", "go", "mean"], ["y"], body=body),
    ]
    endless = network(
        nodes,
        {"x": (FLOAT, [1, WINDOW])},
        {"y": (FLOAT, [1, 1])},
        many=np.float32(2**60),
        go=np.bool_(True),
        one=np.array([1], np.int64),
    )
    files = members()
    files["ear.onnx"] = endless.SerializeToString()
    files["golden/ear.npz"] = _npz(in__x=np.zeros((1, 1, WINDOW), np.float32), out__y=np.zeros((1, 1, 1), np.float32))
    stages = json.loads(json.dumps(MANIFEST["stages"]))
    stages["ear"]["timeout_ms"] = 20
    a, b = tiny_bundle(tmp_path / "a.mmedge"), changed(tmp_path / "b.mmedge", files, stages=stages)
    with load(a) as left, load(b) as right, pytest.raises(EngineError, match="did not finish within 400 ms"):
        compare_on_golden(left, right)


def test_bounds_grow_with_the_arrays_and_only_some_are_read(tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    """700 MB of inputs beside a network of nothing; more rows than anyone could list."""
    path = tmp_path / "a.onnx"
    path.write_bytes(
        network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}).SerializeToString()
    )
    np.savez_compressed(tmp_path / "x.npz", x=np.broadcast_to(np.float32(1), (44_000_000, 4)))
    assert run(["compare", str(path), str(path), "--on", str(tmp_path / "x.npz"), "--samples", "3", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["outputs"]["y"]["samples"] == 3
    assert found["evidence"] == "cpu"


def test_an_honest_network_of_large_pictures_is_run(tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    """16 channels of 23 MB each, in a file that is not read as a whole."""
    w = np.ones((16, 1, 1, 1), np.float32)
    side = 2400
    nodes = [NODE("Conv", ["x", "w"], ["c"]), NODE("GlobalMaxPool", ["c"], ["y"])]
    path = tmp_path / "a.onnx"
    path.write_bytes(
        network(nodes, {"x": (FLOAT, [1, 1, "h", "w"])}, {"y": (FLOAT, [1, 16, 1, 1])}, w=w).SerializeToString()
    )
    shape = ["--shape", f"x=1x1x{side}x{side}"]
    assert run(["compare", str(path), str(path), *shape, "--samples", "1", "--json"]) == 0
    np.save(tmp_path / "x.npy", np.broadcast_to(np.float32(1), (2, 1, side, side)))
    assert run(["compare", str(path), str(path), *shape, "--on", str(tmp_path / "x.npy"), "--json"]) == 0
    assert '"samples":2' in capfd.readouterr().out.replace(" ", "")


def test_recordings_with_a_dot_in_their_names_are_two(tmp_path: Path) -> None:
    seats = {"imu": TensorInput(shape=(2,), rate_hz=10)}
    for name in ("walk.1", "walk.2"):
        with Recorder(tmp_path / name, seats) as recorder:
            recorder.push("imu", np.zeros(2, np.float32))
    (tmp_path / "notes.txt").touch()
    found = sessions(session_paths(tmp_path), seats)
    assert found == {name: {"imu": str(tmp_path / name)} for name in ("walk.1", "walk.2")}
