"""What `mmedge new` must not guess wrong: streams, ranges, padding, old files."""

from __future__ import annotations

import itertools
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmedge.bundle import load
from mmedge.cli import run
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export.brought.infer import last_operator, read_network, task_of
from mmedge.fusion import load_graph
from tests.networks import FLOAT, NODE, head, network, seeing, telling
from tests.texts import tokenizer_json

pytestmark = pytest.mark.parallel

INT64 = TensorProto.INT64


@pytest.fixture
def new(tmp_path, capfd):
    def call(model: onnx.ModelProto, tokenizer: bytes | None = None) -> dict:
        onnx.save(model, tmp_path / "net.onnx")
        more = []
        if tokenizer is not None:
            (tmp_path / "words.json").write_bytes(tokenizer)
            more = ["--tokenizer", str(tmp_path / "words.json")]
        assert run(["new", str(tmp_path / "p"), "--from", str(tmp_path / "net.onnx"), *more, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    return call


def remembering(*more: str) -> onnx.ModelProto:
    """Sound with a state -> a probability; ``more`` inputs beside them."""
    nodes = [
        NODE("ReduceMean", ["input", "axis"], ["mean"], keepdims=1),
        NODE("Add", ["mean", "state"], ["stateN"]),
        *(NODE("ReduceMean", [name, "axis"], [f"{name}/mean"], keepdims=1) for name in more),
        NODE("Sum", ["stateN", *(f"{name}/mean" for name in more)], ["sum"]),
        NODE("Sigmoid", ["sum"], ["output"]),
    ]
    inputs = {"input": (FLOAT, [1, 512]), "state": (FLOAT, [1, 1])}
    inputs |= {name: (FLOAT, [1, 64]) for name in more}
    return network(nodes, inputs, {"output": (FLOAT, [1, 1]), "stateN": (FLOAT, [1, 1])}, axis=np.array([1]))


@pytest.mark.parametrize("more", [(), ("speaker",)])
def test_what_cannot_be_a_stream_is_none(new, more):
    report = new(remembering(*more))
    with load(report["bundle"]) as bundle:
        assert bundle.manifest.stages["net"].every_ms == (None if more else 32)
        assert bundle.manifest.sync.every_ms == 32
        load_graph(bundle, backend="onnxruntime").close()
    assert len(report["hints"]) == len(more)
    assert all("cannot be fed by 'speaker' as well; it hears the newest sound" in hint for hint in report["hints"])


def parted(*ends: str) -> onnx.ModelProto:
    """Return a network: one number of each of ``ends``, side by side."""
    nodes = [NODE("Flatten", ["x"], ["f"]), NODE("MatMul", ["f", "w"], ["m"]), NODE("Mul", ["m", "far"], ["angle"])]
    nodes += [NODE(op, ["angle"], [f"part{k}"]) for k, op in enumerate(ends)]
    nodes += [NODE("Concat", [f"part{k}" for k in range(len(ends))], ["y"], axis=1)]
    shapes = {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, len(ends)])}
    return network(nodes, *shapes, w=np.full((192, 1), 0.01, np.float32), far=np.float32(-40))


@pytest.mark.parametrize(
    ("ends", "last", "scores"),
    [
        (["Sigmoid", "Neg"], "Concat", "logits"),
        (["Neg", "Sigmoid"], "Concat", "logits"),
        (["Sigmoid", "HardSigmoid"], "HardSigmoid", "probabilities"),
        (["Neg", "Neg"], "Neg", "logits"),
    ],
)
def test_all_parts_of_an_output_say_what_it_is(new, ends, last, scores):
    model = parted(*ends)
    assert last_operator(model, "y") == last
    with load(new(model)["bundle"]) as bundle:
        assert bundle.tasks["net"].scores == scores


@pytest.mark.parametrize(
    ("answer", "scores"),
    [([0.2, 0.9], "probabilities"), ([0.2, 7.0], "logits"), ([0.5], "probabilities"), ([-0.1], None)],
)
@pytest.mark.parametrize("last", ["Sigmoid", "Softmax"])
def test_what_was_seen_outside_of_0_to_1_is_no_probability(tmp_path, answer, scores, last):
    onnx.save(seeing(8, len(answer), last), tmp_path / "net.onnx")
    found = task_of(read_network(tmp_path / "net.onnx", []), "y", [np.array([answer], np.float32)], last, None)
    assert (found and found[0].scores) == scores


def test_deep_and_looped_graphs_are_looked_at_in_no_time():
    names = ["x", *(f"t{k}" for k in range(200))]
    nodes = [NODE("Concat", [a, a], [b], axis=1) for a, b in itertools.pairwise(names)]
    model = network(nodes, {"x": (FLOAT, [1, 1])}, {"t199": (FLOAT, [1, None])})
    assert last_operator(model, "t199") == ""
    model.graph.node[0].input[0] = "t199"
    assert last_operator(model, "t199") == ""


def reading(ir: int = 8, opset: int = 18) -> onnx.ModelProto:
    nodes = [
        NODE("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        NODE("Cast", ["input_ids"], ["ids"], to=FLOAT),
        NODE("Mul", ["mask", "ids"], ["both"]),
        NODE("MatMul", ["both", "w"], ["y"]),
    ]
    weights = np.eye(16, 3, dtype=np.float32)
    texts = {"input_ids": (INT64, [1, 16]), "attention_mask": (INT64, [1, 16])}
    model = network(nodes, texts, {"y": (FLOAT, [1, 3])}, w=weights)
    model.ir_version, model.opset_import[0].version = ir, opset
    if ir < 4:
        model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, weights.shape))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize(("ir", "opset"), [(3, 9), (3, 13), (8, 11), (8, 18)])
def test_old_files_get_their_mask_too(new, ir, opset):
    report = new(reading(ir, opset), tokenizer_json())
    with load(report["bundle"]) as bundle:
        engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
    assert engine({"input_ids": np.array([[2, 0, 3] + [0] * 13])})["y"].tolist() == [[2, 0, 3]]


def test_padding_that_a_text_can_give_is_told(new):
    words = {"!": 0, "hello": 1, "stop": 2, "[UNK]": 3}
    report = new(reading(), tokenizer_json(words))
    with load(report["bundle"]) as bundle:
        assert bundle.inputs["text"].pad == 3
        engine = OnnxRuntimeEngine(bundle.read(bundle.variants("net", "cpu")[0].file))
    assert engine({"input_ids": np.array([[2, 1, 0] + [3] * 13])})["y"].tolist() == [[2, 1, 0]]
    (hint,) = report["hints"]
    assert "token 3 ('[UNK]'), which counts as padding inside a text too" in hint


@pytest.mark.parametrize(
    ("picture", "outputs", "detector"),
    [
        ([1, 3, 320, 320], [[1, 84, 2100]], ("yolo", 80)),
        ([1, 320, 320, 3], [[1, 5, 2100]], ("yolo", 1)),
        ([1, 3, 320, 256], [[1, 1680, 6]], ("yolo-objectness", 1)),  # once the number of classes is said
        ([1, 3, 320, 256], [[1, 1500, 6]], None),  # no box per cell, and too many to be the best ones
        ([1, 3, 640, 640], [[1, 25200, 6]], ("yolo-objectness", 1)),
        ([1, 3, 640, 640], [[1, 25200, 85]], ("yolo-objectness", 80)),
        ([1, 3, 320, 320], [[1, 300, 6]], ("boxes", None)),
        ([1, 3, 224, 224], [[1, 197, 768]], None),  # a vision transformer
        ([1, 3, 224, 224], [[1, 49, 2048]], None),  # a map of features
        ([1, 3, 320, 320], [[1, 116, 2100], [1, 32, 80, 80]], None),  # the last 32 are no classes
    ],
)
def test_inspect_and_new_tell_the_same_detectors(tmp_path, capfd, picture, outputs, detector):
    size = (picture[1], picture[2]) if picture[3] == 3 else (picture[2], picture[3])
    told = {f"y{k}": head(detector[0] if detector else "yolo", shape[:3], size) for k, shape in enumerate(outputs)}
    told = {name: np.resize(array, outputs[k]) for k, (name, array) in enumerate(told.items())}
    onnx.save(telling({"x": (FLOAT, picture)}, **told), tmp_path / "net.onnx")
    assert run(["inspect", str(tmp_path / "net.onnx"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)["detector"]
    assert told == (None if detector is None else {"layout": detector[0], "classes": detector[1]})
    asked = {"boxes": ["--layout", "boxes"], "yolo-objectness": ["--classes", str((detector or "  ")[1])]}
    more = asked.get(detector[0], []) if detector else []
    code = run(["new", str(tmp_path / "p"), "--from", str(tmp_path / "net.onnx"), "--json", *more])
    report = json.loads(capfd.readouterr().out)
    assert code == 0, report
    if detector is None:
        assert str(outputs[0]) in report["left"][0]
        with load(report["bundle"]) as bundle:
            assert len(bundle.outputs) == len(outputs)
        return
    with load(report["bundle"]) as bundle:
        assert bundle.tasks["net"].detection.layout == detector[0]
        assert len(bundle.labels("net")) == (detector[1] or 80)
    assert run(["verify", report["bundle"]]) == 0
    why = report["inferred"][-1]["why"]
    assert f"layout '{detector[0]}', {detector[1] or 80} class{'' if detector[1] == 1 else 'es'}" in why
    capfd.readouterr()
    assert run(["inspect", str(tmp_path / "net.onnx")]) == 0
    assert ("1 class\n" in capfd.readouterr().out) == (detector[1] == 1)


def test_many_networks_are_refused_at_once(tmp_path, capfd):
    files = [tmp_path / f"n{k}.onnx" for k in range(9)]
    for file in files:
        onnx.save(seeing(8, 2), file)
    assert run(["new", str(tmp_path / "p"), "--from", *map(str, files)]) == 2
    told = capfd.readouterr().err
    assert "at most 8 networks, got 9" in told
    assert "fix: start with fewer" in told
    assert not (tmp_path / "p").exists()
