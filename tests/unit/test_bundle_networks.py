"""A network of a bundle never makes an engine read other files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import mmedge
from mmedge.bundle.onnx_file import HOLDS, names_files
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import BundleError, EngineError
from tests import tiny
from tests.networks import FLOAT, NODE, network

SECRET = np.arange(4, dtype=np.float32)


def outside(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(SECRET, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def adding(tensor: TensorProto | None = None, more: list[onnx.NodeProto] | None = None, x: str = "x") -> bytes:
    """Return a network: its input plus weights."""
    model = network([*(more or []), NODE("Add", [x, "w"], ["y"])], {x: (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])})
    if tensor is not None:
        model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def branch(location: str) -> onnx.NodeProto:
    graph = helper.make_graph(
        [NODE("Identity", ["w"], ["v"])],
        "g",
        [],
        [helper.make_tensor_value_info("v", FLOAT, [4])],
        [outside(location)],
    )
    return NODE("If", ["yes"], ["w"], then_branch=graph, else_branch=graph)


def sparse(location: str) -> bytes:
    model = onnx.ModelProto()
    model.graph.sparse_initializer.add().values.CopyFrom(outside(location))
    return bytes(model.SerializeToString())


def function(location: str) -> bytes:
    model = onnx.ModelProto()
    model.functions.add().node.append(NODE("Constant", [], ["w"], value=outside(location)))
    return bytes(model.SerializeToString())


KEY = b"\x0a\x08location"
HOSTILE: list[Callable[[str], bytes]] = [
    lambda file: adding(outside(file)),
    lambda file: adding(more=[branch(file)]),
    lambda file: adding(more=[NODE("Constant", [], ["w"], value=outside(file))]),
    sparse,
    function,
]


@pytest.mark.parametrize("make", HOSTILE)
@pytest.mark.parametrize("location", ["/etc/hostname", "../weights.bin", "pyproject.toml"])
def test_weights_outside_of_a_bundle_are_refused(
    make: Callable[[str], bytes], location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**tiny.members(), "eye.onnx": make(location)}
    monkeypatch.setattr(tiny, "members", lambda: files)
    path = tiny.tiny_bundle(tmp_path / "hostile.mmedge")
    with pytest.raises(BundleError, match=r"network 'eye\.onnx' refers to weight files outside the bundle"):
        mmedge.load(path)


def test_no_spelling_hides_them() -> None:
    entry = b"\x12\x01w" + KEY  # the value first
    size = bytes([len(entry)])
    tensor = b"\x6a" + size + entry
    for hidden in (
        tensor,
        b"\xea\x00" + size + entry,  # a number may be longer than it need be
        b"\x6a" + bytes([len(entry) | 128]) + b"\x80\x80\x00" + entry,
        b"\x9a\x06\x02hi" + tensor,  # behind a field that ONNX does not have
        tensor + b"\xff",
    ):
        assert names_files(wrapped(hidden))
    for broken in (
        b"\xea\x80\x80\x80\x10" + size + entry,  # protobuf drops the last byte, and has the same tag
        b"\x0b\x0c" + tensor,  # a group
        b"\x0a\x7f" + entry,  # cut off
        b"\x80" * 11 + tensor,
    ):
        with pytest.raises(ValueError, match=r"tag|cut off|bytes"):
            assert not names_files(wrapped(broken))


def wrapped(tensor: bytes) -> bytes:
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    return b"\x3a" + bytes([len(graph)]) + graph


def test_a_tensor_may_be_called_location() -> None:
    raw = adding(numpy_helper.from_array(SECRET, "w"), x="location")
    assert KEY in raw
    assert not names_files(raw)
    assert not names_files(raw.replace(b"w", b"\x00"))


def test_damage_is_told_where_a_file_might_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**tiny.members(), "eye.onnx": adding(outside("x"))[:-1]}
    monkeypatch.setattr(tiny, "members", lambda: files)
    with pytest.raises(BundleError, match=r"network 'eye\.onnx'"):
        mmedge.load(tiny.tiny_bundle(tmp_path / "cut.mmedge"))


def test_every_way_to_weights_is_followed() -> None:
    """Compared with the onnx that is installed: a new place for tensors must be followed too."""
    messages: dict[str, dict[int, str]] = {}

    def visit(message: Any) -> None:
        if message.name not in messages:
            messages[message.name] = {}
            for field in message.fields:
                if field.message_type is not None:
                    messages[message.name][field.number] = field.message_type.name
                    visit(field.message_type)

    visit(onnx.ModelProto.DESCRIPTOR)
    on_the_way = {"TensorProto"}
    while more := {name for name, held in messages.items() if on_the_way & set(held.values())} - on_the_way:
        on_the_way |= more
    ways = {name: {k: v for k, v in messages[name].items() if v in on_the_way} for name in on_the_way}
    number = onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number
    assert ways | {"TensorProto": {number: "external_data"}} == HOLDS


def test_the_shipped_bundles_hold_their_weights() -> None:
    shipped = sorted((Path(mmedge.__file__).parent / "assets").glob("*/*.mmedge"))
    assert shipped
    for path in shipped:
        with mmedge.load(path) as bundle:
            assert bundle.manifest.variants


def test_many_fields_are_read_in_time() -> None:
    raw = adding(numpy_helper.from_array(np.zeros(1 << 22, np.float32), "w"), [NODE("Relu", ["x"], ["r"])] * 20_000)
    began_s = time.process_time()
    assert not names_files(raw + b"\xd2\x01\x08location")
    assert time.process_time() - began_s < 10


def test_a_format_of_onnx_runtime_s_own_is_no_network(tmp_path: Path) -> None:
    raw, options = adding(numpy_helper.from_array(SECRET, "w")), ort.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "net.ort")
    ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    OnnxRuntimeEngine(raw).close()
    with pytest.raises(EngineError, match="cannot load the model"):
        OnnxRuntimeEngine((tmp_path / "net.ort").read_bytes())


def test_one_s_own_file_may_have_its_weights_beside_it(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(SECRET.tobytes())
    (tmp_path / "net.onnx").write_bytes(adding(outside("w.bin")))
    with mmedge.load_engine(tmp_path / "net.onnx", backend="onnxruntime") as engine:
        assert engine({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[1, 2, 3, 4]]
