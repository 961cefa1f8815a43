"""An output whose rows are of different units is tested row by row: wrong scores beside boxes do not serve."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmedge.bundle import load, write_archive
from mmedge.bundle.manifest import Manifest, Variant
from mmedge.engine.rows import OTHER_UNIT, gap, magnitude, row_axis, row_scales
from mmedge.export import Recipe, pack
from mmedge.export.golden import Golden, make_golden
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.onnx.parity import difference
from mmedge.export.recordings import RawSample
from mmedge.fusion import load_graph
from mmedge.fusion.check import check_variants
from tests.networks import FLOAT, NODE, network

CLASSES, PLACES = 80, 2100
RECIPE = """
name = "t"
licence = "MIT"
outputs = ["net.y"]
[inputs.x]
modality = "tensor"
shape = [1, 4]
[stages.net]
onnx = "net.onnx"
inputs = { x = "x" }
outputs = { y = [1, 84, 2100] }
[export]
precisions = ["fp32"]
targets = ["cpu"]
[sync]
trigger = "x"
"""


def detector(scores: str = "right") -> onnx.ModelProto:
    """Boxes of 0..640 pixels and scores of 0..1, decoded: [1, 84, 2100]."""
    rng = np.random.default_rng(0)
    gain = {"right": 1.0, "nearly right": 1.0 + 1e-5, "halved": 0.5}[scores]
    nodes = [
        *(NODE("MatMul", ["x", f"{part}/w"], [f"{part}/flat"]) for part in ("box", "score")),
        *(NODE("Sigmoid", [f"{part}/flat"], [f"{part}/share"]) for part in ("box", "score")),
        NODE("Mul", ["box/share", "side"], ["pixels"]),
        NODE("Mul", ["score/share", "gain"], ["scores"]),
        NODE("Concat", ["pixels", "scores"], ["all"], axis=1),
        NODE("Reshape", ["all", "table"], ["y"]),
    ]
    return network(
        nodes,
        {"x": (FLOAT, [1, 4])},
        {"y": (FLOAT, [1, 4 + CLASSES, PLACES])},
        **{
            "box/w": rng.normal(0, 1, (4, 4 * PLACES)).astype(np.float32),
            "score/w": rng.normal(-1, 1, (4, CLASSES * PLACES)).astype(np.float32),
            "side": np.float32(640),
            "gain": np.float32(gain),
            "table": np.array([1, 4 + CLASSES, PLACES]),
        },
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    onnx.save(detector(), folder / "net.onnx")
    (folder / "r.toml").write_text(RECIPE)
    recipe = Recipe.load(folder / "r.toml")
    samples = [{"x": x} for x in np.abs(np.random.default_rng(1).normal(0, 1, (12, 1, 4))).astype(np.float32)]
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models={"net": onnx.load(folder / "net.onnx")})
    return pack(folder / "t.mmedge", recipe, [fp32], samples=samples)


def with_network(bundle: Path, path: Path, model: onnx.ModelProto, **changes: object) -> Path:
    """Write the bundle with another network in its place."""
    with load(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        document = msgspec.to_builtins(opened.manifest)
    (variant,) = document["variants"]
    files[variant["file"]] = model.SerializeToString()
    document["variants"] = [variant | changes]
    document["files"] = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()}
    return write_archive(path, msgspec.convert(document, Manifest), files)


def fault(bundle: Path) -> str | None:
    with load(bundle) as opened:
        (row,) = check_variants(opened)
    return None if row["error"] is None else str(row["error"])


def test_wrong_scores_beside_boxes_in_pixels_do_not_serve(bundle: Path, tmp_path: Path) -> None:
    with load(bundle) as opened:
        (variant,) = opened.manifest.variants
        assert variant.tolerance["y"] == 1e-3  # 0.64: of scores below 1 it says nothing
        assert len(variant.row_tolerance["y"]) in (1, 84)
        load_graph(opened).close()
    assert fault(with_network(bundle, tmp_path / "n.mmedge", detector("nearly right"))) is None
    wrong = detector("halved")
    told = fault(with_network(bundle, tmp_path / "wrong.mmedge", wrong))
    assert told is not None
    assert re.match(r"self-test failed: row \d+ of output 'y' of sample 0 is off by 0.5, allowed 0.01", told)
    # As a bundle from before is judged.
    assert fault(with_network(bundle, tmp_path / "old.mmedge", wrong, row_tolerance={})) is None


def test_a_manifest_of_before_reads_and_writes_as_it_did() -> None:
    text = b'{"stage":"s","target":"cpu","precision":"fp32","file":"f","golden":"g","tolerance":{"y":0.001}}'
    variant = msgspec.json.decode(text, type=Variant)
    assert variant.row_tolerance == {}
    assert msgspec.json.encode(variant) == text


@pytest.mark.parametrize("limits", [[0.01] * 3, [0.01] * 85])
def test_row_tolerances_of_another_table_are_an_error_of_the_bundle(
    bundle: Path, tmp_path: Path, limits: list[float]
) -> None:
    path = with_network(bundle, tmp_path / "odd.mmedge", detector(), row_tolerance={"y": limits})
    assert "84 rows in the golden file" in str(fault(path))


tables = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(6, 9)),
    elements=st.floats(-1000, 1000, width=32),
)


@given(tables, st.booleans())
def test_each_row_is_judged_by_its_own_range_wherever_rows_lie(table: np.ndarray, turned: bool) -> None:
    seen = np.moveaxis(table, 1, 2) if turned else table
    scales = row_scales(seen)
    assert scales is not None
    largest = np.abs(table).max(axis=(0, 2)).astype(np.float64)
    whole = max(float(largest.max()), 1e-6)
    assert scales.shape == largest.shape
    assert (scales >= largest).all()
    own = largest >= OTHER_UNIT * whole
    np.testing.assert_allclose(scales[own], largest[own])
    rest = scales[~own]
    if largest.any() and rest.size:  # small rows are never judged by the large ones
        assert rest.max() <= max(float(largest[~own].max()), OTHER_UNIT * whole)
        assert (rest > 0).all()
    off = gap(seen[0], seen[0] + np.float32(1))
    np.testing.assert_allclose(magnitude(off, row_axis(off.shape)), np.ones(len(scales)), atol=1e-3)


def test_what_has_no_rows_is_judged_as_a_whole() -> None:
    for array in (np.zeros((4, 10), np.float32), np.zeros((4, 1, 10, 1), np.float32), np.zeros((2, 3, 4), np.int64)):
        assert row_scales(array) is None
    assert row_scales(np.zeros(3, np.float32)) is None


@contextmanager
def held() -> Iterator[list[int]]:
    """Tell at the end the most bytes that arrays took in between."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def golden_of(want: dict[str, np.ndarray], samples: int = 1) -> Golden:
    golden = Golden()
    for _ in range(samples):
        golden.add({}, {}, want)
    return golden


def test_large_outputs_are_judged_with_one_copy() -> None:
    want = np.random.default_rng(0).normal(0, 1, (1, 5000, 85)).astype(np.float32)
    got = want + np.float32(0.5)
    golden = golden_of({"y": want}, 4)
    with held() as peak:
        noise = golden.noise(lambda _: {"y": got}, raw=False)
        assert difference(want, got, 0.9) is None
    assert peak[0] < 3 * want.nbytes  # the difference in float64, and truth values
    assert noise.whole["y"] == pytest.approx(0.5 / np.abs(want).max(), rel=1e-6)
    np.testing.assert_allclose(noise.rows["y"] * noise.scales["y"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("answer", [np.array([[True, False]]), np.array([[200, 3]], np.uint8)])
def test_truth_values_and_bytes_can_be_judged(answer: np.ndarray) -> None:
    off = answer[:, ::-1]
    golden = golden_of({"y": answer})
    assert golden.noise(lambda _: {"y": off}, raw=False).whole["y"] in (1.0, 197 / 200)


def test_an_answer_that_is_no_number_is_as_far_off_as_can_be() -> None:
    golden = golden_of({"y": np.ones((1, 2), np.float32)})
    assert np.isnan(golden.noise(lambda _: {"y": np.array([[1, np.nan]], np.float32)}, raw=False).whole["y"])


def test_the_candidates_of_golden_samples_are_not_all_in_memory(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    recipe = Recipe.load(tmp_path / "r.toml")
    want = {"y": np.ones((1, 84, 2100), np.float32)}
    samples = [RawSample(name="x", arrays={"x": np.full((1, 4), 1 + k % 16, np.float32)}) for k in range(64)]
    with held() as peak:
        golden = make_golden(recipe, {"net": lambda feeds: {"y": want["y"] * feeds["x"][0, 0]}}, samples)["net"]
    assert [sample["x"][0, 0] for sample in golden.raw] == [16] * 4
    assert peak[0] < 10 * want["y"].nbytes
