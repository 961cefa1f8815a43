"""A network is read with its weights wherever they lie, from its own folder alone, and is what its hash says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from mmedge.errors import ConfigError
from mmedge.export.onnx import network_file
from mmedge.export.onnx.lint import inspect_onnx
from mmedge.export.onnx.network_file import load_network, network_digest, weight_files


def network(seed: int = 0, size: int = 500) -> onnx.ModelProto:
    """Weights as an initializer, in a Constant, in a branch and in a local function."""
    rng = np.random.default_rng(seed)

    def weight(name: str) -> TensorProto:
        return numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)

    branch = helper.make_graph(
        [helper.make_node("Add", ["c", "inner"], ["d"])],
        "b",
        [],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [size])],
        [weight("inner")],
    )
    function = helper.make_function(
        "own",
        "f",
        ["p"],
        ["q"],
        [
            helper.make_node("Constant", [], ["k"], value=weight("")),
            helper.make_node("Add", ["p", "k"], ["q"]),
        ],
        [helper.make_opsetid("", 18)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=weight("")),
            helper.make_node("Add", ["x", "w"], ["a"]),
            helper.make_node("Mul", ["a", "k"], ["b"]),
            helper.make_node("f", ["b"], ["c"], domain="own"),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [size]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size])],
        [weight("w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)


def save_outside(model: onnx.ModelProto, path: Path, location: str = "model.onnx.data") -> Path:
    """Save as torch does: every tensor's data in one file beside, or in a folder below."""
    at = 0
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / location).open("wb") as file:
        for tensor in network_file.tensors_of(model):
            raw = tensor.raw_data
            file.write(raw)
            external_data_helper.set_external_data(tensor, location, at, len(raw))
            tensor.ClearField("raw_data")
            at += len(raw)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["model.onnx.data", "weights/deep/model.bin"])
def test_weights_beside_the_file_are_the_weights(tmp_path, location):
    model = network()
    path = save_outside(network(), tmp_path / "model.onnx", location)
    assert load_network(path) == model
    assert weight_files(path) == [tmp_path / location]
    onnx.save(model, tmp_path / "one.onnx")
    assert load_network((tmp_path / "one.onnx").read_bytes()) == model
    assert weight_files(tmp_path / "one.onnx") == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_torch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 4)).eval()
    program = torch.onnx.export(net, (torch.zeros(1, 64),), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx", external_data=True)
    assert (tmp_path / "model.onnx.data").is_file()
    weights = {t.name: numpy_helper.to_array(t) for t in load_network(tmp_path / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(weights["0.weight"], net[0].weight.detach().numpy())


def test_bytes_alone_do_not_lead_to_weights_in_other_files(tmp_path):
    path = save_outside(network(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"model\.onnx\.data") as caught:
        load_network(path.read_bytes())
    assert "path" in caught.value.fix


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "", "a/../../secret", "no\0pe", "link", "folder/x"])
def test_nothing_outside_of_the_folder_is_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    folder = tmp_path / "net"
    (folder / "a").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (tmp_path / "x").write_bytes(bytes(1 << 16))
    path = save_outside(network(), folder / "model.onnx")
    model = onnx.load(path, load_external_data=False)
    for tensor in network_file.tensors_of(model):
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    for read in (load_network, network_digest, inspect_onnx):
        with pytest.raises(ConfigError, match="outside its folder"):
            read(path)
    assert not any(file.exists() and not file.is_relative_to(folder) for file in weight_files(path))


def test_a_cache_of_downloads_that_links_both_is_read(tmp_path):
    (tmp_path / "blobs").mkdir()
    save_outside(network(), tmp_path / "blobs" / "model.onnx")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.move(tmp_path / "blobs" / name, tmp_path / "blobs" / f"sha-{name}")
        (snapshot / name).symlink_to(tmp_path / "blobs" / f"sha-{name}")
    assert load_network(snapshot / "model.onnx") == network()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("offset", "-4", "ends before"),
        ("offset", "1000000", "ends before"),
        ("offset", "seven", "not a number"),
        ("length", "8", "8 bytes are named"),
        ("location", "gone.data", "there is no file"),
    ],
)
def test_a_damaged_reference_is_named(tmp_path, key, value, said):
    path = save_outside(network(), tmp_path / "model.onnx")
    model = onnx.load(path, load_external_data=False)
    entries = {e.key: e for e in model.graph.initializer[0].external_data}
    entries[key].value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=said) as caught:
        load_network(path)
    assert "'w'" in caught.value.message


def test_weights_that_were_cut_off_are_named(tmp_path):
    path = save_outside(network(), tmp_path / "model.onnx")
    os.truncate(tmp_path / "model.onnx.data", 100)
    with pytest.raises(ConfigError, match="ends before byte"):
        load_network(path)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x00\x01\x02"])
def test_what_is_no_network_is_a_configuration_error(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    for source in (content, tmp_path / "bad.onnx"):
        with pytest.raises(ConfigError, match="not an ONNX file"):
            load_network(source)
    with pytest.raises(ConfigError, match="cannot read"):
        load_network(tmp_path / "missing.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ConfigError, match="not a file"):
        load_network(tmp_path / "pipe.onnx")


def test_more_than_protobuf_holds_is_refused_by_size_and_still_inspected(tmp_path):
    """The file has a hole, so that it takes no place on the disk."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[600, 1 << 20])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "big.data"), ("offset", "0"), ("length", str(600 << 22))):
        tensor.external_data.add(key=key, value=value)
    with (tmp_path / "big.data").open("wb") as file:
        file.truncate(600 << 22)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [600, 1 << 20])],
        [tensor],
    )
    onnx.save(helper.make_model(graph), tmp_path / "big.onnx")
    with pytest.raises(ConfigError, match=r"2\.5 GB, and one ONNX message holds 2 GB"):
        load_network(tmp_path / "big.onnx")
    assert inspect_onnx(tmp_path / "big.onnx")["nodes"] == 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 3), index=st.integers(0, 4), at=st.integers(0, 1999), location=st.sampled_from(["d", "e/f"]))
def test_the_hash_is_of_the_network_wherever_its_weights_lie(tmp_path_factory, seed, index, at, location):
    folder = tmp_path_factory.mktemp("net")
    onnx.save(network(seed), folder / "one.onnx")
    path = save_outside(network(seed), folder / "model.onnx", location)
    digest = network_digest(path)
    assert digest == network_digest(folder / "one.onnx")
    with (folder / location).open("r+b") as file:
        file.seek(index * 2000 + at)
        byte = file.read(1)
        file.seek(index * 2000 + at)
        file.write(bytes([byte[0] ^ 1]))
    assert network_digest(path) != digest
