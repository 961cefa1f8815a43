"""Networks that are brought along: any signature is fitted to what feeds it, and packed with its states."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from mmedge.bundle import load
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import ConfigError
from mmedge.export import Recipe, run_steps
from mmedge.export.brought.brought import bring, listed_problem, tensorrt_problem
from mmedge.export.onnx.branches import take_branches
from tests.bringing import STREAM, brought, counter, recipe
from tests.networks import FLOAT, FLOAT16, INT64, NODE, UINT8, network


def mean_of_channels(kind, shape, axes):
    nodes = [NODE("Cast", ["x"], ["f"], to=FLOAT), NODE("ReduceMean", ["f", "axes"], ["y"], keepdims=0)]
    return network(nodes, {"x": (kind, shape)}, {"y": (FLOAT, [None, 3])}, axes=np.array(axes))


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        (FLOAT, [1, 3, 8, 6], [2, 3]),
        (FLOAT, ["batch", 3, "height", "width"], [2, 3]),
        (FLOAT, ["batch", None, None, 3], [1, 2]),
        (FLOAT16, [1, 3, 8, 6], [2, 3]),
        (UINT8, [1, 8, 6, 3], [1, 2]),
    ],
)
def test_a_picture_enters_every_layout_and_type(tmp_path, kind, shape, axes):
    outputs, engine = brought(tmp_path, mean_of_channels(kind, shape, axes), '{ x = "image" }')
    assert outputs == {"y": (1, 3)}
    assert engine.inputs["x"].shape == (1, 3, 8, 6)
    assert engine.inputs["x"].dtype == np.float32
    picture = np.arange(144, dtype=np.float32).reshape(1, 3, 8, 6)
    np.testing.assert_allclose(engine({"x": picture})["y"], picture.mean((2, 3)), rtol=2e-3)


def test_uint8_that_is_not_cast_at_once_is_cast_in_front(tmp_path):
    nodes = [NODE("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), NODE("Cast", ["t"], ["y"], to=FLOAT)]
    model = network(nodes, {"x": (UINT8, [1, 8, 6, 3])}, {"y": (FLOAT, [1, 3, 8, 6])})
    _, engine = brought(tmp_path, model, '{ x = "image" }')
    picture = np.arange(144, dtype=np.float32).reshape(1, 3, 8, 6)
    np.testing.assert_array_equal(engine({"x": picture})["y"], picture)


@pytest.mark.parametrize("shape", [[576], [1, 1, 576], [None], [1, None, 576]])
def test_sound_enters_other_ranks(tmp_path, shape):
    model = network([NODE("Neg", ["pcm"], ["y"])], {"pcm": (FLOAT, shape)}, {"y": (FLOAT, None)})
    outputs, engine = brought(tmp_path, model, '{ pcm = "audio" }')
    pcm = np.linspace(-1, 1, 576, dtype=np.float32)[None]
    assert int(np.prod(outputs["y"])) == 576
    np.testing.assert_array_equal(engine({"pcm": pcm})["y"].reshape(-1), -pcm[0])


@pytest.mark.parametrize(
    ("shape", "turned"),
    [
        ([1, 3, 4], False),
        ([1, 1, 3, 4], False),
        (["n", 1, None, None], False),
        ([1, 3, 4, 1], False),
        ([1, 4, 3], True),
        ([1, 4, None], True),
        ([1, 1, 4, 3], True),
        ([12], False),
    ],
)
def test_features_enter_networks_that_want_their_bands_first(tmp_path, shape, turned):
    # 3 frames of 4 bands.
    features = """window_ms = 36
[inputs.audio.features]
kind = "log_mel"
n_fft = 256
window_samples = 256
hop_samples = 160
n_mels = 4
f_min_hz = 20
f_max_hz = 7000"""
    model = network([NODE("Neg", ["mel"], ["y"])], {"mel": (FLOAT, shape)}, {"y": (FLOAT, None)})
    made = recipe(tmp_path, '[stages.net]\nonnx = "net.onnx"\ninputs = { mel = "audio" }', net=model)
    file = tmp_path / "recipe.toml"
    file.write_text(file.read_text().replace("window_ms = 36", features))
    _, networks = bring(Recipe.load(file))
    given = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    got = OnnxRuntimeEngine(networks["net"].SerializeToString())({"mel": given})["y"].squeeze()
    np.testing.assert_array_equal(got.reshape(4, 3).T if turned else got.reshape(3, 4), -given[0])
    model = network([NODE("Neg", ["mel"], ["y"])], {"mel": (FLOAT, [1, 2, 6])}, {"y": (FLOAT, None)})
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"takes \[1, 2, 6\], 'audio' gives \[1, 3, 4\]"):
        bring(Recipe.load(made.file))


def test_other_floats_leave_as_float32(tmp_path):
    model = network([NODE("Cast", ["x"], ["y"], to=FLOAT16)], {"x": (FLOAT, [1, 3])}, {"y": (FLOAT16, [1, 3])})
    _, engine = brought(tmp_path, model, '{ x = "imu" }')
    assert engine.outputs["y"].dtype == np.float32


def test_outputs_that_are_not_declared_are_left_out(tmp_path):
    nodes = [NODE("Neg", ["x"], ["y"]), NODE("Abs", ["x"], ["z"])]
    model = network(nodes, {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 3]), "z": (FLOAT, [1, 3])})
    outputs, engine = brought(tmp_path, model, '{ x = "imu" }', 'outputs = { z = ["batch", 3] }')
    assert outputs == {"z": (1, 3)}
    assert list(engine.outputs) == ["z"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ('{ y = "imu" }', "", r"inputs are \['x'\], but the recipe declares \['y'\]"),
        ('{ x = "audio" }', "", r"the network takes \[1, 3\], 'audio' gives \[1, 576\]"),
        ('{ x = "imu" }', 'outputs = { q = ["batch", 3] }', "no output 'q'"),
        ('{ x = "imu" }', 'outputs = { y = ["batch", 4] }', r"returns \[1, 3\], but the recipe declares \[1, 4\]"),
    ],
)
def test_what_does_not_fit_is_said_with_both_shapes(tmp_path, inputs, outputs, said):
    model = network([NODE("Neg", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 3])})
    with pytest.raises(ConfigError, match=said) as caught:
        brought(tmp_path, model, inputs, outputs)
    assert caught.value.where.startswith("stages.net")


def test_an_output_whose_size_depends_on_values_is_refused(tmp_path):
    model = network([NODE("NonZero", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, {"y": (INT64, [2, None])})
    with pytest.raises(ConfigError, match="depends on values"):
        brought(tmp_path, model, '{ x = "imu" }')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[stages.net]\ninputs = { x = "imu" }\noutputs = { y = [1] }', "neither a network nor a callable"),
        ('[stages.net]\nonnx = "a.onnx"\ncallable = "a:b"\ninputs = {}', "not both"),
        ('[stages.net]\ncallable = "a:b"\ninputs = { x = "imu" }', "no outputs"),
    ],
)
def test_a_stage_is_a_network_or_a_callable(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        recipe(tmp_path, text)


def test_a_file_that_is_no_network(tmp_path):
    made = recipe(tmp_path, '[stages.net]\nonnx = "net.onnx"\ninputs = { x = "imu" }')
    with pytest.raises(ConfigError, match="cannot read the network"):
        bring(made)
    (tmp_path / "net.onnx").write_bytes(b"no")
    with pytest.raises(ConfigError, match="not an ONNX file"):
        bring(made)


def test_branches_that_constants_decide_are_taken(tmp_path):
    made, networks = bring(recipe(tmp_path, STREAM, net=counter()))
    assert made.stages["net"].outputs == {"y": (1, 1), "stateN": (1, 1)}
    assert listed_problem(counter()) is not None
    assert tensorrt_problem(networks["net"]) is None
    engine = OnnxRuntimeEngine(networks["net"].SerializeToString())
    feeds = {"x": np.full((1, 576), 0.01, np.float32), "state": np.ones((1, 1), np.float32), "sr": np.array(16000)}
    assert engine(feeds)["stateN"].item() == pytest.approx(6.76)


def test_branches_may_use_one_name_for_two_things(tmp_path):
    def branch(value):
        graph = helper.make_graph(
            [NODE("Add", ["x", "c"], ["sum"])], "b", [], [helper.make_tensor_value_info("sum", FLOAT, [1, 3])]
        )
        graph.initializer.append(onnx.numpy_helper.from_array(np.full(3, value, np.float32), "c"))
        return graph

    nodes = [
        NODE("If", ["yes"], [out], then_branch=branch(v), else_branch=branch(0.0)) for out, v in (("y", 1), ("z", 10))
    ]
    both = network(nodes, {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 3]), "z": (FLOAT, [1, 3])}, yes=np.array(True))
    feeds = {"x": np.zeros((1, 3), np.float32)}
    assert take_branches(both, {"x": (1, 3)})
    assert not any(node.op_type == "If" for node in both.graph.node)
    got = OnnxRuntimeEngine(both.SerializeToString())(feeds)
    assert (got["y"][0, 0], got["z"][0, 0]) == (1, 10)


def test_golden_vectors_carry_states_and_constants(tmp_path, caplog):
    text = STREAM.replace("[tasks.heard]", '[stages.rest]\nonnx = "rest.onnx"\ninputs = { x = "imu" }\n[tasks.heard]')
    body = helper.make_graph(
        [NODE("Identity", ["on"], ["still"]), NODE("Neg", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info(n, k, s)
            for n, k, s in (("i", INT64, []), ("on", 9, []), ("value", FLOAT, [1, 3]))
        ],
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (("still", 9, []), ("next", FLOAT, [1, 3]))],
    )
    loop = network(
        [NODE("Loop", ["count", "", "x"], ["y"], body=body)],
        {"x": (FLOAT, [1, 3])},
        {"y": (FLOAT, [1, 3])},
        count=np.array(3),
    )
    report = run_steps(recipe(tmp_path, text, net=counter(), rest=loop), output=tmp_path / "t.mmedge")
    assert report.quantization is None
    with load(report.path) as bundle:
        assert "onnx" not in str(bundle.manifest.stages)
        golden = bundle.golden("golden/net.npz")
        assert golden["in.sr"].tolist() == [16000] * 4
        assert golden["in.sr"].dtype == np.int64
        assert len(set(golden["in.state"].ravel().tolist())) > 1, "every sample began at zero"
        np.testing.assert_allclose(
            golden["out.stateN"], golden["in.state"] + golden["in.x"].sum(1, keepdims=True), rtol=1e-4, atol=1e-4
        )
        targets = {(v.stage, v.target) for v in bundle.manifest.variants}
    assert targets == {("net", "cpu"), ("net", "tensorrt"), ("rest", "cpu")}
    assert "stage 'rest' gets no TensorRT variant and runs on the CPU" in caplog.text


def test_a_recipe_without_a_model_has_nothing_to_train(tmp_path):
    with pytest.raises(ConfigError, match=r"no \[model\]"):
        run_steps(recipe(tmp_path, STREAM, net=counter()), only="train")


def test_an_old_network_that_does_not_run_is_told(tmp_path):
    model = network([NODE("Neg", ["nobody"], ["y"])], {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 3])}, opset=9)
    with pytest.raises(ConfigError, match=r"ONNX Runtime cannot run the network: .*nobody"):
        brought(tmp_path, model, '{ x = "imu" }')


LISTENER = """
[stages.ear]
onnx = "ear.onnx"
inputs = { x = "audio", h = "@state:y"MORE }
every_ms = EVERY
"""


@pytest.mark.parametrize(
    ("every_ms", "more", "rest", "said", "where"),
    [
        ("32", ', z = "imu"', "", "cannot be fed by 'imu'", ".inputs.z"),
        ("32", "", 'on = "audio"', "'on' cannot be 'audio'", ".on"),
        ("32.01", "", "", "are 512.16 samples", ".every_ms"),
        ("40", "", "", "does not fit into the window of 576", ".every_ms"),
        ("32", "", 'mode = "async"', "in the background", ".mode"),
    ],
)
def test_a_stream_that_no_bundle_may_have_is_refused_with_the_recipe(tmp_path, every_ms, more, rest, said, where):
    with pytest.raises(ConfigError, match=said) as caught:
        recipe(tmp_path, LISTENER.replace("EVERY", every_ms).replace("MORE", more) + rest)
    assert caught.value.where == f"{tmp_path / 'recipe.toml'}: $.stages.ear{where}"
    assert caught.value.fix
