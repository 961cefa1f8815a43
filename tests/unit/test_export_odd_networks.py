"""Odd networks that real exporters write, down the whole way: what comes out computes what went in, or is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mmedge import export, load_engine
from mmedge.errors import CheckError, ConfigError
from mmedge.export.int8.prepare import prepare
from mmedge.export.int8.qdq import choose, insert_qdq
from mmedge.export.int8.ranges import RangeCollector
from mmedge.export.judge import judge
from mmedge.export.models.calls import call
from tests.networks import BOOL, FLOAT16, NODE, info, network

pytestmark = pytest.mark.parallel

RNG = np.random.default_rng(0)
RECIPE = """
name = "odd"
licence = "Apache-2.0"
outputs = [{told}]
[model]
factory = "none:make"
[inputs.x]
modality = "tensor"
shape = [1, 6]
[stages.net]
inputs = {{ x = "x" }}
outputs = {{ {declared} }}
[export]
targets = ["cpu", "tensorrt"]
precisions = ["fp32", "fp16", "int8"]
[sync]
trigger = "timer"
every_ms = 100
"""


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def exported(folder, module: nn.Module, **outputs: list[int]) -> export.OnnxModels:
    """Return a module as the only stage of a model, exported and held against torch."""
    told = ", ".join(f'"net.{name}"' for name in outputs)
    declared = ", ".join(f"{name} = {shape}" for name, shape in outputs.items())
    (folder / "recipe.toml").write_text(RECIPE.format(told=told, declared=declared))
    model = nn.Module()
    model.net = module
    return export.to_onnx(model, export.Recipe.load(folder / "recipe.toml"))


def samples(count: int = 40) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.normal(size=(1, 6)).astype(np.float32)} for _ in range(count)]


# --- names


def conv_net(first: str, scale: str, bias: str = "b") -> onnx.ModelProto:
    """Two convolutions with one bias; tensors and nodes have the names that ONNX Runtime's quantiser gives."""
    nodes = [
        NODE("Conv", ["x", "w", bias], [first], name="x_QuantizeLinear"),
        NODE("Mul", [first, scale], ["m"], name="m"),
        NODE("Add", ["m", "b0"], ["a"]),
        NODE("Conv", ["a", "v", bias], ["y"], name="w_DequantizeLinear"),
    ]
    held = {
        "w": weights(2, 2, 1, 1),
        "v": weights(2, 2, 1, 1),
        bias: weights(2),
        scale: np.float32(3),
        "b0": weights(1),
    }
    return network(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 4, 4]}, **held)


@pytest.mark.parametrize(
    ("first", "scale"), [("c", "w_scale"), ("w_quantized", "x_scale"), ("x_QuantizeLinear_Output", "w_zero_point")]
)
def test_a_network_may_have_names_that_the_quantiser_gives(first, scale):
    model = prepare(conv_net(first, scale))
    choice = choose(model, ())
    quantised = insert_qdq(model, choice.nodes, dict.fromkeys(choice.tensors, 8.0))
    x = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    want, got = judge(model)({"x": x})["y"], judge(quantised)({"x": x})["y"]
    assert np.abs(want - got).max() < 0.1 * np.abs(want).max()
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    assert own[scale] == 3  # the user's, beside that of the quantiser
    assert {node.name for node in model.graph.node} <= {node.name for node in quantised.graph.node}


def test_a_weight_may_be_called_as_an_output(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.weight = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(6, 3))

        def forward(self, x):
            return {"bias": x @ self.weight + self.bias, "weight": self.bias * x[:, :3]}

    onnx_ = exported(tmp_path, Net(), bias=[1, 3], weight=[1, 3])
    assert max(entry.max_rel for entry in onnx_.parity) < 1e-5


# --- reasons


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_every_other_operator_with_weights_is_named(domain):
    if domain:
        node = NODE("FusedMatMul", ["x", "w"], ["h"], name="odd", domain=domain)
    else:
        node = NODE("Einsum", ["x", "w"], ["h"], name="odd", equation="bi,ij->bj")
    model = network(
        [node, NODE("MatMul", ["h", "v"], ["y"])], {"x": [1, 6]}, {"y": [1, 2]}, w=weights(6, 4), v=weights(4, 2)
    )
    model.opset_import.extend([helper.make_opsetid("com.microsoft", 1)] if domain else [])
    choice = choose(prepare(model), ())
    assert choice.reasons == {"odd": f"{node.op_type} has no explicit INT8 form"}
    assert len(choice.nodes) == 1


# --- infinite, empty, tiny


def test_a_mask_of_minus_infinity_stays_in_float32(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.out = nn.Linear(6, 6), nn.Linear(6, 6)
            self.register_buffer("mask", torch.tensor([[0.0, 0, 0, 0, -torch.inf, -torch.inf]]))

        def forward(self, x):
            return self.out(torch.softmax(self.q(x) + self.mask, -1))

    onnx_ = exported(tmp_path, Net(), y=[1, 6])
    half, int8 = export.to_fp16(onnx_, samples()), export.quantize(onnx_, samples=samples())
    assert half.quantization["net"].sqnr_db > 50
    assert any("inf" in reason for reason in half.quantization["net"].reasons.values())
    assert int8.quantization["net"].float_nodes == ()


def test_a_tensor_without_elements_or_of_tiny_numbers_has_a_range():
    nodes = [
        NODE("Slice", ["x", "zero", "zero", "one"], ["empty"]),
        NODE("Mul", ["x", "small"], ["tiny"]),
        NODE("Identity", ["x"], ["y"]),
    ]
    held = {"zero": np.array([0]), "one": np.array([1]), "small": np.float32(1e-9)}
    model = network(nodes, {"x": [1, 6]}, {"y": [1, 6]}, **held)
    collector = RangeCollector(model, ["empty", "tiny"])
    collector({"x": np.full((1, 6), 2, np.float32)})
    assert collector.thresholds("max") == pytest.approx({"empty": 1e-6, "tiny": 2e-9})


def test_a_single_number_near_zero_is_judged_by_what_it_reaches(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(6, 1)

        def forward(self, x):
            return self.last(x) + x[:, :1] - self.last.bias

    onnx_ = exported(tmp_path, Net(), y=[1, 1])
    assert export.to_fp16(onnx_, samples(200)).quantization["net"].sqnr_db > 50


def test_half_precision_within_a_branch_is_widened():
    half = np.float16
    branches = {
        "then_branch": helper.make_graph(
            [NODE("MatMul", ["h", "t"], ["to"])],
            "t",
            [],
            [info("to", None, FLOAT16)],
            [numpy_helper.from_array(weights(4, 4).astype(half), "t")],
        ),
        "else_branch": helper.make_graph([NODE("Neg", ["h"], ["eo"])], "e", [], [info("eo", None, FLOAT16)]),
    }
    nodes = [
        NODE("MatMul", ["x", "w"], ["h"]),
        NODE("ReduceMax", ["h"], ["m"], keepdims=0),
        NODE("Greater", ["m", "zero"], ["g"]),
        NODE("If", ["g"], ["y"], **branches),
    ]
    model = network(
        nodes, {"x": (FLOAT16, [1, 6])}, {"y": (FLOAT16, [1, 4])}, w=weights(6, 4).astype(half), zero=half(0)
    )
    wide = prepare(model)
    assert all(t.data_type != FLOAT16 for t in wide.graph.initializer)


# --- modules as people have them


def wrapped(kind: str) -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    return torch.compile(net) if kind == "compiled" else nn.DataParallel(net)


@pytest.mark.parametrize("kind", ["compiled", "parallel"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_wrapper_of_torch_is_looked_through(tmp_path, kind):
    assert exported(tmp_path, wrapped(kind), y=[1, 3]).parity[0].max_rel < 1e-5


def test_weights_that_are_computed_are_exported(tmp_path):
    with pytest.warns(FutureWarning, match="weight_norm"):
        net = torch.nn.utils.weight_norm(nn.Linear(6, 3))
    assert exported(tmp_path, net, y=[1, 3]).parity[0].max_rel < 1e-5


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x):
        self.runs += 1
        return x[:, :3] + self.runs


class Noisy(nn.Module):
    def forward(self, x):
        return x[:, :3] + torch.randn(1, 3)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Counting, "differently each time"),
        (Noisy, "differently each time"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "without values"),
        (lambda: torch.jit.script(nn.Linear(6, 3)), "TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_cannot_be_exported_says_why(tmp_path, make, told):
    with pytest.raises((CheckError, ConfigError), match=told) as caught:
        exported(tmp_path, make(), y=[1, 3])
    assert caught.value.where == "stages.net"
    assert caught.value.fix


def test_truth_values_and_whole_numbers_are_packed(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 9)

        def forward(self, x):
            y = self.linear(x)
            return {"above": y > 0, "best": y.argmax(-1), "y": y}

    onnx_ = exported(tmp_path, Net(), above=[1, 9], best=[1], y=[1, 9])
    made = export.pack(tmp_path / "odd.mmedge", onnx_.recipe, [onnx_, *both(onnx_)], samples=samples())
    assert made.is_file()


def both(onnx_: export.OnnxModels) -> list[export.OnnxModels]:
    return [export.to_fp16(onnx_, samples()), export.quantize(onnx_, samples=samples())]


# --- signatures


def test_an_output_that_is_an_input_follows_it():
    model = network([NODE("Neg", ["x"], ["y"])], {"x": [1, 3], "z": (BOOL, [1, 2])}, {"y": [1, 3], "z": (BOOL, [1, 2])})
    with load_engine(model.SerializeToString(), backend="onnxruntime") as engine:
        for value in (True, False, True):
            assert (engine({"x": np.ones((1, 3), np.float32), "z": np.full((1, 2), value)})["z"] == value).all()


def odd_signature(kind: str) -> onnx.ModelProto:
    model = network([NODE("Relu", ["x"], ["y"])], {"x": [1, 3]}, {"y": [1, 3]})
    tensor = model.graph.input[0].type
    if kind == "optional":
        model.graph.input[0].type.CopyFrom(helper.make_optional_type_proto(tensor))
    elif kind == "sequence":
        model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
    elif kind == "rank":
        model.graph.input[0].type.tensor_type.ClearField("shape")
    else:
        del model.graph.output[:]
    return model


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("optional", "input 'x' is no tensor: optional"),
        ("sequence", "output 'y' is no tensor: sequence"),
        ("rank", "input 'x' is of unknown type or shape"),
        ("none", "the network has no outputs"),
    ],
)
def test_a_signature_that_cannot_be_used_is_named(tmp_path, kind, told):
    from mmedge.export.brought.infer import read_network

    onnx.save(odd_signature(kind), tmp_path / "odd.onnx")
    with pytest.raises(ConfigError, match=told):
        read_network(tmp_path / "odd.onnx", [])


def test_an_output_without_a_type_gets_that_of_its_node(tmp_path):
    from mmedge.export.brought.infer import read_network

    model = network([NODE("Relu", ["x"], ["y"])], {"x": [1, 3]}, {})
    model.graph.output.append(onnx.ValueInfoProto(name="y"))
    onnx.save(model, tmp_path / "odd.onnx")
    value = read_network(tmp_path / "odd.onnx", []).model.graph.output[0].type.tensor_type
    assert value.elem_type == TensorProto.FLOAT
    assert [dim.dim_value for dim in value.shape.dim] == [1, 3]


def test_a_module_is_called_through_its_wrapper():
    x = torch.ones(1, 6)
    net = nn.DataParallel(nn.Linear(6, 3)).eval()
    assert torch.equal(call(net, {"anything": x}, "net"), net.module(x))


# --- what new reads off


def test_a_row_that_is_multiplied_at_once_is_features_and_one_that_is_cut_is_sound():
    from mmedge.export.brought.scale import takes_features

    def takes(*nodes: onnx.NodeProto, **held: np.ndarray) -> bool:
        model = network(list(nodes), {"x": [1, 512]}, {"y": None}, **held)
        return takes_features(model, model.graph.input[0])

    one = np.array([1])
    assert takes(NODE("Gemm", ["x", "w"], ["y"]), w=weights(512, 4))
    assert takes(NODE("Flatten", ["x"], ["f"]), NODE("MatMul", ["f", "w"], ["y"]), w=weights(512, 4))
    framed = NODE("Unsqueeze", ["x", "one"], ["u"]), NODE("Conv", ["u", "w"], ["y"])
    assert not takes(*framed, one=one, w=weights(4, 1, 25))
    framed = NODE("Reshape", ["x", "to"], ["f"]), NODE("MatMul", ["f", "w"], ["y"])
    assert not takes(*framed, to=np.array([8, 64]), w=weights(64, 4))


@pytest.mark.parametrize(("boxes", "beside"), [((1, 100, 4), "boxes"), ((100, 4), "boxes"), ((1, 10), None)])
def test_scores_of_boxes_are_no_classes(boxes, beside):
    from mmedge.export.brought.infer import boxes_beside

    outputs = {"boxes": [np.zeros(boxes)], "scores": [np.zeros((1, 100))], "count": [np.zeros(1)]}
    assert boxes_beside("scores", outputs) == beside
    assert boxes_beside("boxes", outputs) is boxes_beside("count", outputs) is None


def test_preprocessing_goes_in_front_of_a_file_that_lists_its_weights_as_inputs():
    from mmedge.bundle.manifest import ImageInput
    from mmedge.export.preprocess.onnx_prefix import merge_prefix

    model = network(
        [NODE("Conv", ["x", "w"], ["y"])],
        {"x": [1, 3, 4, 4], "w": [2, 3, 1, 1]},
        {"y": [1, 2, 4, 4]},
        w=weights(2, 3, 1, 1),
    )
    seat = ImageInput(size=(4, 4), color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    frame = RNG.integers(0, 256, seat.raw_shape, dtype=np.uint8)
    assert judge(merge_prefix(model, {"x": seat}))({"x": frame})["y"].shape == (1, 2, 4, 4)
