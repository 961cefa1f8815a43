"""A network is its file and its weights, wherever they lie: read, keyed, and refused where they lie elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mmedge
from mmedge.engine.network import read_network
from mmedge.errors import ConfigError
from tests.networks import FLOAT, NODE, network

X = np.arange(1, 5, dtype=np.float32).reshape(1, 4)


def scaled(factor: float = 2.0) -> onnx.ModelProto:
    weights = np.full((4, 300), factor, np.float32)
    return network([NODE("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 300])}, w=weights)


def as_torch_writes(folder: Path, factor: float = 2.0, name: str = "model.onnx") -> Path:
    """Write a network whose weights lie beside it, as torch.onnx.export does by default."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    onnx.save_model(scaled(factor), str(path), save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    return path


def test_weights_beside_the_network_are_loaded(tmp_path: Path) -> None:
    path = as_torch_writes(tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size >= 4 * 300 * 4
    with mmedge.load_engine(path) as engine:
        np.testing.assert_allclose(engine({"x": X})["y"], np.full((1, 300), 20.0))


@pytest.mark.filterwarnings("ignore")  # torch warns of itself
def test_the_layout_of_torch_itself_is_loaded(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(600, 600).eval()
    torch.onnx.export(
        module, (torch.zeros(1, 600),), tmp_path / "m.onnx", external_data=True, verbose=False, dynamo=True
    )
    assert (tmp_path / "m.onnx.data").exists()
    given = np.random.default_rng(0).standard_normal((1, 600)).astype(np.float32)
    with mmedge.load_engine(tmp_path / "m.onnx") as engine:
        (name,), (answer,) = engine.inputs, engine.outputs
        np.testing.assert_allclose(
            engine({name: given})[answer], module(torch.from_numpy(given)).detach().numpy(), atol=1e-4
        )


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_torch_writes(tmp_path / "a")
    for folder, path in (("a", "model.onnx"), (".", "a/model.onnx"), ("a", "../a/model.onnx")):
        monkeypatch.chdir(tmp_path / folder)
        with mmedge.load_engine(path) as engine:
            assert engine({"x": X})["y"][0, 0] == 20


def test_the_key_covers_the_weights_wherever_they_lie(tmp_path: Path) -> None:
    beside = as_torch_writes(tmp_path / "a")
    same = as_torch_writes(tmp_path / "b")
    assert read_network(beside).sha256 == read_network(same).sha256
    data = beside.with_name("model.onnx.data")
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    before = beside.read_bytes()
    data.write_bytes(raw)
    assert beside.read_bytes() == before  # the file is the same, the network is not
    assert read_network(beside).sha256 != read_network(same).sha256
    inside = tmp_path / "inside.onnx"
    inside.write_bytes(scaled().SerializeToString())
    retrained = scaled(3.0).SerializeToString()
    assert read_network(inside).sha256 != read_network(retrained).sha256
    assert read_network(inside).sha256 == read_network(inside.read_bytes()).sha256


def test_bytes_are_taken_unless_their_weights_lie_elsewhere(tmp_path: Path) -> None:
    with mmedge.load_engine(scaled().SerializeToString()) as engine:
        assert engine({"x": X})["y"][0, 0] == 20
    with pytest.raises(ConfigError, match="not ModelProto") as caught:
        mmedge.load_engine(scaled())  # type: ignore[arg-type]
    assert "SerializeToString" in str(caught.value.fix)
    with pytest.raises(ConfigError, match=r"model\.onnx\.data") as caught:
        mmedge.load_engine(as_torch_writes(tmp_path).read_bytes())
    assert "give the path" in str(caught.value.fix)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "*/_ORT_MEM_ADDR_/*", ""])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(np.full((4, 300), 7, np.float32).tobytes())
    folder = tmp_path / "net"
    path = as_torch_writes(folder)
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"outside its folder|there is no file"):
        mmedge.load_engine(path)


def test_a_link_that_leads_outside_is_refused_and_a_folder_of_blobs_is_not(tmp_path: Path) -> None:
    blobs = as_torch_writes(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("model.onnx", "model.onnx.data"):  # as caches of downloads lay them out
        (snapshot / name).symlink_to(blobs.with_name(name))
    with mmedge.load_engine(snapshot / "model.onnx") as engine:
        assert engine({"x": X})["y"][0, 0] == 20
    path = as_torch_writes(tmp_path / "net")
    (tmp_path / "elsewhere.bin").write_bytes(path.with_name("model.onnx.data").read_bytes())
    path.with_name("model.onnx.data").unlink()
    path.with_name("model.onnx.data").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(ConfigError, match="outside its folder"):
        mmedge.load_engine(path)


def test_what_is_missing_or_none_is_named(tmp_path: Path) -> None:
    path = as_torch_writes(tmp_path)
    path.with_name("model.onnx.data").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx\.data") as caught:
        mmedge.load_engine(path)
    assert "copy its files of weights" in str(caught.value.fix)
    os.mkfifo(path.with_name("model.onnx.data"))  # would never end
    with pytest.raises(ConfigError, match=r"model\.onnx\.data"):
        mmedge.load_engine(path)
    with pytest.raises(ConfigError, match="not a file"):
        mmedge.load_engine(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        mmedge.load_engine(tmp_path / "none.onnx")
    broken = path.read_bytes()[:-3]
    with pytest.raises(ConfigError, match="not an ONNX file"):
        read_network(broken)


def test_tensors_in_every_place_count(tmp_path: Path) -> None:
    """Constants of nodes and of branches may have their weights elsewhere, too."""
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "t")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="c.bin")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value=tensor)],
        "b",
        [],
        [helper.make_tensor_value_info("z", FLOAT, [2])],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    model = network(nodes, {"c": (TensorProto.BOOL, [1])}, {"y": (FLOAT, [2])})
    path = tmp_path / "if.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "c.bin").write_bytes(np.ones(2, np.float32).tobytes())
    first = read_network(path)
    assert [file.name for file in first.weights] == ["c.bin"]
    (tmp_path / "c.bin").write_bytes(np.zeros(2, np.float32).tobytes())
    assert read_network(path).sha256 != first.sha256
