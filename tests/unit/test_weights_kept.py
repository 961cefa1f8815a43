"""Files of weights outlive whoever writes a network anew; what nobody reads, repeats or names too often is no trap."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest

import mmedge
from mmedge.bundle.container import ZipContainer
from mmedge.bundle.onnx_file import outside_weights
from mmedge.errors import BundleError, ConfigError
from mmedge.export.compare_files import compare_here
from mmedge.export.onnx import outside
from mmedge.export.onnx.network_file import load_network, network_digest
from mmedge.export.onnx.parity import relative_gap
from mmedge.files import replacing
from tests import large
from tests.networks import NODE, network


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("LEFT_BYTES", "MESSAGE_BYTES"):
        monkeypatch.setattr(outside, name, 1 << 16)
    monkeypatch.setattr(outside, "INSIDE_BYTES", 1 << 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outside._spool.cache_clear()
    yield
    outside._spool.cache_clear()


def beside(folder: Path, model: onnx.ModelProto, name: str = "net.onnx") -> Path:
    """Write a network with its weights where ``write_network`` puts them."""
    folder.mkdir(parents=True, exist_ok=True)
    own = onnx.ModelProto()  # saving takes the weights out
    own.CopyFrom(model)
    onnx.save_model(
        own, str(folder / name), save_as_external_data=True, location=f"{name}.weights", size_threshold=1024
    )
    return folder / name


def answers(path: Path) -> np.ndarray:
    with mmedge.load_engine(path, "onnxruntime") as engine:
        return engine({"x": np.linspace(-1, 1, 6, dtype=np.float32)[None]})["y"].copy()


def test_a_network_is_saved_where_it_was_loaded_from(tmp_path: Path) -> None:
    path = beside(tmp_path, large.layers())
    want = answers(path)
    model = load_network(path, streamed=True)
    with suppress(FileExistsError):  # another layout cannot be written over what is being read
        outside.write_network(model, path)
    np.testing.assert_array_equal(answers(path), want)


def test_saving_twice_leaves_the_file_that_was_linked(tmp_path: Path) -> None:
    first = beside(tmp_path / "cache" / "mmedge" / "export" / "onnx-1", large.layers())
    size = first.with_name("net.onnx.weights").stat().st_size
    model, out = load_network(first, streamed=True), tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        outside.write_network(model, out / "net.onnx")
        assert first.with_name("net.onnx.weights").stat().st_size == size
        np.testing.assert_array_equal(answers(out / "net.onnx"), answers(first))


def test_a_large_weight_that_nothing_reads_is_no_obstacle(tmp_path: Path) -> None:
    big = np.random.default_rng(0).normal(0, 1, (256, 256)).astype(np.float32)
    model = network([NODE("MatMul", ["x", "a"], ["y"])], {"x": [1, 256]}, {"y": [1, 256]}, a=big, unread=big)
    one, two = beside(tmp_path / "one", model), beside(tmp_path / "two", model)
    told = compare_here((one, two, None, {}, 2, None))
    assert told["outputs"]["y"]["max_abs"] == 0


def test_an_exact_answer_is_off_by_plain_zero() -> None:
    same = np.float32([[1, -2], [0, 3]])
    assert str(relative_gap(same, same, None, 1e-6)) == "0.0"


def _pieces(count: int, size: int) -> onnx.ModelProto:
    names = [f"w{k}" for k in range(count)]
    model = network([NODE("Sum", ["x", *names], ["y"])], {"x": [size]}, {"y": [size]})
    for name in names:
        tensor = model.graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT, dims=[size])
        large.point(tensor, 0, 4 * size)
    return model


def test_a_piece_of_a_file_is_hashed_once(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(bytes(4 * 300_000))
    onnx.save(_pieces(2000, 300_000), tmp_path / "net.onnx")
    began = time.process_time()
    network_digest(tmp_path / "net.onnx")
    assert time.process_time() - began < 2  # 2.4 GB otherwise


def test_pieces_that_overlap_are_no_network(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(bytes(1204))
    model = _pieces(2, 300)
    model.graph.initializer[1].external_data[1].value = "4"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"weights overlap in 'net.bin'"):
        network_digest(tmp_path / "net.onnx")


def test_dimensions_without_end_are_refused_at_once() -> None:
    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    entry = field(13, field(1, b"location") + field(2, b"n.weights"))
    tensor = field(1, b"\1" * 3_000_000) + bytes([2 << 3, 1]) + field(8, b"W") + entry + bytes([14 << 3, 1])
    began = time.process_time()
    with pytest.raises(ValueError, match="more than 64 dimensions"):
        outside_weights(field(7, field(5, tensor)))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("comment", [0, 65_514, 65_535])
def test_a_list_of_members_without_end_hides_behind_no_comment(tmp_path: Path, comment: int) -> None:
    count, local = 30_000, b"PK\3\4" + bytes(26)
    numbers = (20, 20, 0, 0, 0, 0x21, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    entry = b"PK\1\2" + struct.pack("<HHHHHHLLLHHHHHLL", *numbers)
    listed = b"".join(entry + b"%05d" % number for number in range(count))
    record = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, count, count, len(listed), len(local))
    locator = b"PK\6\7" + struct.pack("<LQL", 0, len(local) + len(listed), 1)
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, 100, 0, comment) + b"x" * comment
    path = tmp_path / "many.mmedge"
    path.write_bytes(local + listed + record + locator + end)
    began = time.process_time()
    with pytest.raises(BundleError, match="members"):
        ZipContainer(path)
    assert time.process_time() - began < 0.1


def test_two_that_write_one_file_do_not_take_each_other_s(tmp_path: Path) -> None:
    path, failed = tmp_path / "a.json", list[BaseException]()

    def write(text: bytes) -> None:
        try:
            for _ in range(60):
                with replacing(path) as file:
                    file.write(text)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(bytes([65 + n]) * 100,)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert len(set(path.read_bytes())) == 1
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == ["a.json"]
