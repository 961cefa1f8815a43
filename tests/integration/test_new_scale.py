"""What `mmedge new` reads off the first operators: normalisation of the network's own is not done twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmedge.bundle import load
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export.brought.outputs import run_network
from mmedge.export.brought.scale import taken_by
from mmedge.fusion import load_graph
from mmedge.fusion.feed import ImageFeed
from tests.networks import FLOAT, NODE, network

pytestmark = pytest.mark.parallel

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
SIZE = 16


def column(values) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)


def seeing(first: list[onnx.NodeProto], constants: dict, last: str = "x", shape=None, kind=FLOAT):
    """Return a network: ``first`` operators on the picture ``x`` give ``last``; then a convolution, and 3 classes."""
    nodes = [
        *first,
        NODE("Conv", [last, "w"], ["c"], kernel_shape=[3, 3]),
        NODE("Relu", ["c"], ["r"]),
        NODE("GlobalAveragePool", ["r"], ["g"]),
        NODE("Flatten", ["g"], ["f"]),
        NODE("Softmax", ["f"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32)
    shape = shape or [1, 3, SIZE, SIZE]
    return network(nodes, {"x": (kind, shape)}, {"y": (FLOAT, [1, 3])}, w=weight, **constants)


def subtracting(mean, std) -> onnx.ModelProto:
    return seeing(
        [NODE("Sub", ["x", "m"], ["d"]), NODE("Div", ["d", "s"], ["n"])], {"m": column(mean), "s": column(std)}, "n"
    )


def scaled(gain, shift=0.0) -> onnx.ModelProto:
    nodes = [NODE("Mul", ["x", "k"], ["m"]), NODE("Add", ["m", "b"], ["n"])]
    return seeing(nodes, {"k": np.float32(gain), "b": np.float32(shift)}, "n")


def normed(mean, variance) -> onnx.ModelProto:
    names = {"gamma": [1.3, 0.8, 1.1], "beta": [0.2, -0.1, 0.0], "mu": mean, "var": variance}
    nodes = [NODE("BatchNormalization", ["x", "gamma", "beta", "mu", "var"], ["n"])]
    return seeing(nodes, {name: np.float32(values) for name, values in names.items()}, "n")


def clipped(low, high) -> onnx.ModelProto:
    return seeing([NODE("Clip", ["x", "lo", "hi"], ["n"])], {"lo": np.float32(low), "hi": np.float32(high)}, "n")


def quantised(scale, zero) -> onnx.ModelProto:
    nodes = [NODE("QuantizeLinear", ["x", "s", "z"], ["q"]), NODE("DequantizeLinear", ["q", "s", "z"], ["n"])]
    return seeing(nodes, {"s": np.float32(scale), "z": np.uint8(zero)}, "n")


def swapping() -> onnx.ModelProto:
    """The colours are swapped by a Gather, then a mean is subtracted in 0..255, as Caffe's networks want it."""
    nodes = [NODE("Gather", ["x", "i"], ["b"], axis=1), NODE("Sub", ["b", "m"], ["n"])]
    return seeing(nodes, {"i": np.array([2, 1, 0]), "m": column([103.94, 116.78, 123.68])}, "n")


def by_convolution() -> onnx.ModelProto:
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[range(3), range(3)] = (1 / (255 * STD))[:, None, None]
    nodes = [NODE("Conv", ["x", "k", "b"], ["n"], kernel_shape=[1, 1])]
    return seeing(nodes, {"k": weight, "b": -MEAN / STD}, "n")


def channels_last(first: bool) -> onnx.ModelProto:
    """Divided by 127.5 before or after the axes are moved, as TensorFlow's networks do."""
    move, scale = NODE("Transpose", ["{}"], ["{}"], perm=[0, 3, 1, 2]), ["Mul", "Sub"]
    names = ["x", "a", "b", "n"]
    order = [move, *scale] if first else [*scale, move]
    nodes = []
    for k, step in enumerate(order):
        if isinstance(step, str):
            nodes.append(NODE(step, [names[k], "k" if step == "Mul" else "one"], [names[k + 1]]))
        else:
            nodes.append(NODE("Transpose", [names[k]], [names[k + 1]], perm=[0, 3, 1, 2]))
    constants = {"k": np.float32(1 / 127.5), "one": np.float32(1)}
    return seeing(nodes, constants, "n", shape=[1, SIZE, SIZE, 3])


def nested() -> onnx.ModelProto:
    """The constants are computed, and a Resize, a Pad and a Cast stand between."""
    nodes = [
        NODE("Cast", ["x"], ["floats"], to=FLOAT),
        NODE("Sqrt", ["sixteen"], ["four"]),
        NODE("Mul", ["four", "k"], ["factor"]),
        NODE("Div", ["floats", "factor"], ["d"]),
        NODE("Resize", ["d", "", "", "sizes"], ["resized"], mode="linear"),
        NODE("Pad", ["resized", "pads"], ["p"]),
        NODE("Sub", ["p", "half"], ["n"]),
    ]
    constants = {"sixteen": np.float32(16), "k": np.float32(63.75), "half": np.float32(0.5)}
    return seeing(nodes, {**constants, "sizes": np.array([1, 3, 12, 12]), "pads": np.array([0, 0, 1, 1] * 2)}, "n")


def in_a_function() -> onnx.ModelProto:
    steps = [
        NODE("Constant", [], ["k"], value_float=127.5),
        NODE("Constant", [], ["one"], value_float=1.0),
        NODE("Div", ["a", "k"], ["d"]),
        NODE("Sub", ["d", "one"], ["b"]),
    ]
    model = seeing([NODE("Normalise", ["x"], ["n"], domain="own")], {}, "n")
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Normalise", ["a"], ["b"], steps, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


KNOWN = [
    (in_a_function(), "0..255", None),
    (subtracting(255 * MEAN, 255 * STD), "0..255", "rgb"),
    (subtracting(255 * MEAN[::-1], [1, 1, 1]), "0..255", "bgr"),
    (subtracting([127.5] * 3, [128.0] * 3), "0..255", None),
    (subtracting(MEAN, STD), "0..1", "rgb"),
    (subtracting([0.5] * 3, [0.5] * 3), "0..1", None),
    (subtracting(2 * MEAN - 1, 2 * STD), "-1..1", "rgb"),
    (scaled(1 / 255), "0..255", None),
    (scaled(2, -1), "0..1", None),
    (scaled(255), "0..1", None),
    (scaled(0.5, 0.5), "-1..1", None),
    (normed([118, 112, 103], [3600, 3500, 3700]), "0..255", None),
    (normed([0.46, 0.44, 0.40], [0.06, 0.06, 0.06]), "0..1", None),
    (normed([0.02, 0.01, -0.1], [1.1, 1.0, 0.9]), "imagenet", None),
    (clipped(0, 255), "0..255", None),
    (clipped(-1, 1), "-1..1", None),
    (quantised(1 / 255, 0), "0..1", None),
    (quantised(4.758 / 255, 114), "imagenet", None),
    (swapping(), "0..255", "rgb"),
    (by_convolution(), "0..255", "rgb"),
    (nested(), "0..255", None),
    (seeing([], {}), None, None),
    (seeing([NODE("Mul", ["x", "k"], ["n"])], {"k": np.float32(2)}, "n"), None, None),
    (normed([0, 0, 0], [1, 1, 1]), None, None),
]


@pytest.mark.parametrize(("model", "scale", "color"), KNOWN)
def test_the_first_operators_say_what_a_network_takes(model, scale, color):
    taken = taken_by(model, model.graph.input[0], (1, 2, 3))
    assert (taken.scale, taken.color) == (scale, color)
    assert bool(taken.why) == (scale is not None)


@pytest.mark.parametrize("first", [True, False])
def test_axes_that_are_moved_first_hide_nothing(first):
    model = channels_last(first)
    assert taken_by(model, model.graph.input[0], (3, 1, 2)).scale == "0..255"


def served(bundle, picture: np.ndarray) -> np.ndarray:
    """Return what the packed network answers to a picture uint8 [h, w, 3] in RGB."""
    spec = bundle.inputs["image"]
    with_frame = np.zeros((1, *spec.frame, 3), np.uint8)
    with_frame[0] = picture
    engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
    ImageFeed("image", spec, raw=False).fill_raw(
        with_frame[..., ::-1] if spec.color == "bgr" else with_frame, engine.inputs["x"]
    )
    engine.run()
    return engine.outputs["y"].copy()


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        (subtracting(255 * MEAN, 255 * STD), lambda rgb: rgb),
        (subtracting(255 * MEAN[::-1], [1, 1, 1]), lambda rgb: rgb[:, ::-1]),
        (scaled(2, -1), lambda rgb: rgb / 255),
        (scaled(0.5, 0.5), lambda rgb: rgb / 127.5 - 1),
        (
            seeing([NODE("Cast", ["x"], ["n"], to=FLOAT)], {}, "n", kind=TensorProto.UINT8),
            lambda rgb: rgb.astype(np.uint8),
        ),
        (channels_last(True), lambda rgb: rgb.transpose(0, 2, 3, 1)),
    ],
)
def test_the_bundle_gives_what_the_network_was_made_for(new, model, takes):
    told = new(model)
    colour = np.float32([200, 90, 30])
    want = run_network(model, {"x": takes(np.broadcast_to(column(colour), (1, 3, SIZE, SIZE)).astype(np.float32))}, "")[
        0
    ]
    with load(told["bundle"]) as bundle:
        np.testing.assert_allclose(served(bundle, colour.astype(np.uint8)), want, rtol=1e-3, atol=1e-4)
    assert not any("which numbers" in ask for ask in told["asks"])


def test_what_cannot_be_known_is_asked_for_with_the_option(new):
    (ask,) = new(seeing([], {}))["asks"]
    for option in ("--scale -1..1", "--scale 0..255", "--scale imagenet", "--color bgr"):
        assert option in ask
    assert "--size" not in ask


@pytest.mark.parametrize(
    ("option", "mean", "std"),
    [
        ("-1..1", (0.5,) * 3, (0.5,) * 3),
        ("net=0..255", (0.0,) * 3, (1 / 255,) * 3),
        ("raw", (0.0,) * 3, (1 / 255,) * 3),
        ("imagenet", tuple(map(float, ("0.485", "0.456", "0.406"))), (0.229, 0.224, 0.225)),
    ],
)
def test_the_users_word_counts(new, option, mean, std):
    told = new(seeing([], {}), "--scale", option, "--color", "bgr")
    assert told["asks"] == []
    with load(told["bundle"]) as bundle:
        seat = bundle.inputs["image"]
    assert (seat.mean, seat.std, seat.color) == (mean, std, "bgr")


def test_an_open_size_is_asked_for_and_taken(new):
    told = new(seeing([], {}, shape=[1, 3, None, None]), "--size", "48x32")
    with load(told["bundle"]) as bundle:
        assert bundle.inputs["image"].size == (32, 48)
    assert not any("--size" in ask for ask in told["asks"])


@pytest.mark.parametrize("moved", [False, True])
def test_axes_of_a_shape_that_is_all_open_are_those_of_the_first_layer(new, moved):
    first = [NODE("Transpose", ["x"], ["n"], perm=[0, 3, 1, 2])] if moved else []
    model = seeing(first, {}, "n" if moved else "x", shape=[None] * 4)
    told = new(model, "--size", "24x16", "--scale", "0..1")
    picture = np.linspace(0, 255, 24, dtype=np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    with load(told["bundle"]) as bundle:
        spec = bundle.inputs["image"]
        assert spec.layout == ("nhwc" if moved else "nchw")
        engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
    planar = (picture / np.float32(255)).transpose(2, 0, 1)[None]
    want = run_network(model, {"x": planar.transpose(0, 2, 3, 1) if moved else planar}, "")[0]
    np.testing.assert_allclose(engine({"x": planar})["y"], want, rtol=1e-4)


def test_width_before_height_is_said_and_done(new):
    model = seeing([], {}, shape=[1, 3, 12, 20])  # of a picture 12 wide and 20 high
    told = new(model, "--layout", "ncwh", "--scale", "0..1")
    picture = np.random.default_rng(1).random((1, 3, 20, 12), dtype=np.float32)
    with load(told["bundle"]) as bundle:
        assert (bundle.inputs["image"].size, bundle.inputs["image"].layout) == ((20, 12), "ncwh")
        engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
        load_graph(bundle, backend="onnxruntime").close()
    want = run_network(model, {"x": picture.transpose(0, 1, 3, 2)}, "")[0]
    np.testing.assert_allclose(engine({"x": picture})["y"], want, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "1..2"], "does not name a scale"),
        (["--size", "0x0"], "does not name a size"),
        (["--layout", "hwc"], "does not name a layout"),
        (["--scale", "other=0..1"], "no network is called 'other'"),
        (["--classes", "nowhere.txt"], "cannot read the names"),
        (["--classes", "7"], "--classes gives 7 classes"),
    ],
)
def test_options_that_say_nothing_are_refused(new, options, said):
    assert said in new(seeing([], {}), *options)["message"]
