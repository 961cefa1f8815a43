"""Open dimensions: given, a batch of one, or an error that names them; the same rule wherever a network is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.engine.dimension_names import without_false_names
from mmedge.engine.shapes import Range, check_ranges, fix_shapes, is_name, parse_shapes
from mmedge.errors import ConfigError
from tests.networks import FLOAT, NODE, network


def free(*dims: object) -> onnx.ModelProto:
    return network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, list(dims))}, {"y": (FLOAT, list(dims))})


@pytest.mark.parametrize(
    "dims",
    [("batch", 3), ("N", 3), (None, 3), ("s77", 3), ("unk__12", 3), ("batch_size", 3), ("x_dim_0", 3), ("b", 3),
     ("x_dynamic_axes_1", 3), ("DynamicDimension.0", 3), ("?", 3),
     ("dim_0", 3), ("unknown", 3), ("d0", 3), ("input.shape[0]", 3)],
)  # fmt: skip
def test_a_batch_that_nobody_gives_is_one(dims: tuple[object, ...]) -> None:
    assert fix_shapes({"x": dims}, {}, where="net") == {"x": (1, 3)}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("dims", "names"),
    [((1, 3, "height", "width"), "2 ('height'), 3 ('width')"), (("length",), "0 ('length')"), ((None,), "0"),
     (("batch", "sequence"), "1 ('sequence')"), (("time", "batch", 80), "0 ('time')"), ((1, None), "1"),
     (("s0", "s1"), "1 ('s1')"), ((1, "n"), "1 ('n')"), (("tokens", 3), "0 ('tokens')"),
     (("num_frames", 3), "0 ('num_frames')"), (("n",), "0 ('n')")],
)  # fmt: skip
def test_every_other_open_dimension_is_asked_for_by_name(dims: tuple[object, ...], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fix_shapes({"x": dims}, {}, where="net")  # type: ignore[dict-item]
    assert names in caught.value.message
    line = str(caught.value.fix).split("--shape ")[1].split(",")[0]
    assert line.startswith("x=")
    assert line.count("<") == caught.value.message.split("of dimension ")[1].count(",") + 1


def test_a_name_has_one_size_in_all_inputs() -> None:
    inputs = {"ids": ("batch", "length"), "mask": ("batch", "length"), "other": ("batch", "width")}
    with pytest.raises(ConfigError, match="'other'"):
        fix_shapes(inputs, {"ids": (2, 7)}, where="net")
    found = fix_shapes(inputs, {"ids": (2, 7), "other": (2, 3)}, where="net")
    assert found == {"ids": (2, 7), "mask": (2, 7), "other": (2, 3)}
    with pytest.raises(ConfigError, match="'third'"):  # two sizes under one name tell none
        fix_shapes({**inputs, "third": (1, "length")}, {"ids": (1, 7), "mask": (1, 8), "other": (1, 3)}, where="net")


def test_what_is_no_name_says_nothing_of_another_dimension() -> None:
    inputs = {"x": ("?", 3, "?", "?"), "y": ("?", "?"), "z": ("None", 3)}
    with pytest.raises(ConfigError, match=r"input 'x' is \[\?, 3, \?, \?\]: the size of dimension 2, 3") as caught:
        fix_shapes(inputs, {}, where="net")
    assert "--shape x=1x3x<2>x<3>" in str(caught.value.fix)
    given = {"x": (1, 3, 48, 192), "y": (1, 5)}
    assert fix_shapes(inputs, given, where="net") == {**given, "z": (1, 3)}
    with pytest.raises(ConfigError, match="input 'y'"):  # of equal sizes, too
        fix_shapes(inputs, {"x": (5, 3, 5, 5)}, where="net")
    model = free("?", 3, "?", "?").SerializeToString()
    with mmedge.load_engine(model, shapes={"x": (2, 3, 4, 5)}) as engine:
        assert engine.outputs["y"].shape == (2, 3, 4, 5)


@given(
    st.lists(st.one_of(st.integers(0, 300), st.sampled_from(["n", "h", "?", "", "None", "-1"])), max_size=5),
    st.sampled_from([{}, {"x": ((1,) * 5,) * 3}, {"x": ((1, 2, 3, 4, 5),) * 3}, {"y": ((1, 2, 3, 4, 5),) * 3}]),
)
def test_names_that_say_nothing_are_taken_from_a_file(dims: list[object], ranges: dict[str, Range]) -> None:
    """One byte for each; the network is the same but for them, and no name is left whose sizes differ."""
    model = free(*dims)
    raw = model.SerializeToString()
    changed = without_false_names(raw, ranges)
    given = ranges.get("x", ((),))[0][: len(dims)]
    sizes = {name: {size for dim, size in zip(dims, given, strict=False) if dim == name} for name in dims}
    kept = [isinstance(dim, int) or (is_name(dim) and len(sizes[dim]) < 2) for dim in dims]
    assert sum(a != b for a, b in zip(raw, changed, strict=True)) == 2 * kept.count(False)  # of input and output
    found = onnx.load_from_string(changed)
    for value, other in ((found.graph.input[0], model.graph.input[0]), (found.graph.output[0], model.graph.output[0])):
        for dim, before, keeps in zip(
            value.type.tensor_type.shape.dim, other.type.tensor_type.shape.dim, kept, strict=True
        ):
            assert dim == before if keeps else dim.WhichOneof("value") is None
    assert found.graph.node == model.graph.node


def test_a_file_that_cannot_be_read_is_left_as_it_is() -> None:
    raw = free("?", 3).SerializeToString()
    for damaged in (raw[:-3], b"\x3a\xff\xff", b"", b"no network"):
        assert without_false_names(damaged, {}) == damaged


@given(
    st.lists(
        st.one_of(st.integers(0, 9), st.none(), st.sampled_from(["batch", "h", "w", "s3", ""])), min_size=0, max_size=4
    )
)
def test_what_is_given_in_full_is_taken_and_nothing_is_made_up(dims: list[object]) -> None:
    full = tuple(size if isinstance(size, int) else 5 for size in dims)
    assert fix_shapes({"x": dims}, {"x": full}, where="net") == {"x": full}  # type: ignore[dict-item]
    filled = [place for place, size in enumerate(dims) if not isinstance(size, int)]
    if all(
        dims[place] == "batch" or (place == 0 and len(dims) > 1 and dims[0] in (None, "", "s3")) for place in filled
    ):
        (shape,) = fix_shapes({"x": dims}, {}, where="net").values()  # type: ignore[dict-item]
        assert all(shape[place] == 1 for place in filled)
    else:
        with pytest.raises(ConfigError) as caught:
            fix_shapes({"x": dims}, {}, where="net")  # type: ignore[dict-item]
        assert "--shape x=" in str(caught.value.fix)


@given(
    st.dictionaries(st.text("ab=:.x", min_size=1), st.lists(st.integers(0, 999), min_size=1, max_size=4), max_size=3)
)
def test_shapes_on_the_command_line(shapes: dict[str, list[int]]) -> None:
    texts = [f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    assert parse_shapes(texts) == {name: tuple(shape) for name, shape in shapes.items()}


def test_ranges() -> None:
    assert parse_shapes(["x=1x2:3x4:5x6"]) == {"x": ((1, 2), (3, 4), (5, 6))}
    assert check_ranges({"x": [[1, 2], [1, 2], [4, 2]]}) == {"x": ((1, 2), (1, 2), (4, 2))}  # type: ignore[dict-item]
    for wrong in ("x", "x=", "=1x2", "x=1x-2", "x=1x2:3x4", "x=axb", "x=5:4:3", "x=1:1x2:3", "x=1e9", "x=99999999999"):
        with pytest.raises(ConfigError):
            parse_shapes([wrong])
    with pytest.raises(ConfigError, match="twice"):
        parse_shapes(["x=1", "x=2"])
    with pytest.raises(ConfigError, match="not a shape"):
        check_ranges({"x": ("a", "b")})  # type: ignore[dict-item]
    for wrong_shape in (3, (1.5, 2), ((1,), (2,)), ((1,), (2,), (3,), (4,)), np.zeros((2, 2)), ((1, 2), (1,), (1, 2))):
        with pytest.raises(ConfigError):
            check_ranges({"x": wrong_shape})  # type: ignore[dict-item]


def test_load_engine_takes_shapes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(free("batch", 3, "height", "width").SerializeToString())
    with pytest.raises(ConfigError) as caught:
        mmedge.load_engine(path)
    assert "'height'" in caught.value.message
    assert 'shapes={"x": (1, 3, <height>, <width>)}' in str(caught.value.fix)
    with mmedge.load_engine(path, shapes={"x": (1, 3, 32, 48)}) as engine:
        assert engine.inputs["x"].shape == engine.outputs["y"].shape == (1, 3, 32, 48)
    with mmedge.load_engine(path, shapes={"x": ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32))}) as engine:
        assert engine.inputs["x"].shape == (2, 3, 16, 16)
    for wrong in ({"x": (1, 4, 32, 32)}, {"x": (1, 3, 32)}, {"z": (1,)}, {"x": (1, 3, -1, 4)}):
        with pytest.raises(ConfigError):
            mmedge.load_engine(path, shapes=wrong)


def test_static_empty_and_scalar_inputs() -> None:
    model = network([NODE("Relu", ["x"], ["y"])], {"x": (FLOAT, [])}, {"y": (FLOAT, [])}).SerializeToString()
    with mmedge.load_engine(model) as engine:
        assert engine({"x": np.float32(-2)})["y"] == 0
        assert engine({"x": np.array(3, np.float32)})["y"].shape == ()
    with mmedge.load_engine(free(0, 3).SerializeToString()) as engine:
        assert engine({"x": np.zeros((0, 3), np.float32)})["y"].shape == (0, 3)
    with pytest.raises(ConfigError, match="cannot be"):
        mmedge.load_engine(free(2, 3).SerializeToString(), shapes={"x": (1, 3)})
