"""Bundles that want more than they may have: each small, and made in a moment."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

F, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RULE = """\
\"\"\"A module that must never be imported because a stranger's bundle names it.\"\"\"

from pathlib import Path

Path("EXECUTED").write_text("imported")


def f(x):
    import numpy as np

    return np.zeros((1, 2), np.float32)
"""


def manifest(files: Mapping[str, bytes], **changes: Any) -> dict[str, Any]:
    """Return the manifest of a bundle with one network, or one callable, and one task."""
    listed = {name: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for name, raw in files.items()}
    return {
        "schema": "mmedge.bundle/1",
        "name": "hostile",
        "licence": "none",
        "inputs": {"x": {"modality": "tensor", "shape": [1, 2], "dtype": "float32", "rate_hz": 30}},
        "stages": {"s": {"inputs": {"x": "x"}, "outputs": {"y": [1, 2]}}},
        "variants": [
            {"stage": "s", "target": "cpu", "precision": "fp32", "file": "s.onnx", "golden": "s.npz", "tolerance": {}}
        ],
        "tasks": {"t": {"kind": "classification", "output": "s.y", "labels": "l.txt", "scores": "probabilities"}},
        "sync": {"trigger": "x"},
        "files": listed,
        **changes,
    }


def golden() -> bytes:
    """Return golden vectors of zeros that give zeros."""
    buffer = io.BytesIO()
    zeros = np.zeros((1, 1, 2), np.float32)
    np.savez(buffer, **{"in.x": zeros, "out.y": zeros})
    return buffer.getvalue()


def pack(path: Path, files: Mapping[str, bytes], **changes: Any) -> Path:
    """Write a bundle as it is, without any check."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest(files, **changes)))
        for name, raw in files.items():
            archive.writestr(name, raw)
    return path


def with_network(path: Path, network: bytes, **changes: Any) -> Path:
    """Write a bundle around a network."""
    return pack(path, {"s.onnx": network, "s.npz": golden(), "l.txt": b"a\nb\n"}, **changes)


def calling(path: Path, target: str) -> Path:
    """Write a bundle whose stage calls ``target``."""
    stages = {"s": {"inputs": {"x": "x"}, "outputs": {"y": [1, 2]}, "callable": target}}
    return pack(path, {"l.txt": b"a\nb\n"}, stages=stages, variants=[])


def network(nodes: list[Any], functions: list[Any] = [], **constants: Any) -> bytes:  # noqa: B006
    """Return a network of x [1, 2] and y [1, 2]; ``constants`` are its initializers."""
    x, y = (helper.make_tensor_value_info(name, F, [1, 2]) for name in "xy")
    held = [
        value if isinstance(value, TensorProto) else onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10).SerializeToString())


def _added(large: list[Any], value: str = "big", **constants: Any) -> bytes:
    """Return y = x + mean(value): what ``large`` makes must be there."""
    rest = [
        helper.make_node("ReduceMean", [value], ["mean"], keepdims=0),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    return network([*large, *rest], **constants)


def _loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "one"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("v", F, [1, 2]),
        ],
        [helper.make_tensor_value_info("d", BOOL, []), helper.make_tensor_value_info("w", F, [1, 2])],
        [onnx.numpy_helper.from_array(np.float32(1), "one")],
    )
    node = helper.make_node("Loop", ["trips", "true", "x"], ["y"], body=body)
    return network([node], trips=np.int64(1 << 62), true=np.bool_(1))


def _growing_loop() -> bytes:
    """Each trip of a loop gives an output that is kept."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Expand", ["one", "size"], ["w"])],
        "body",
        [helper.make_tensor_value_info("i", INT, []), helper.make_tensor_value_info("c", BOOL, [])],
        [helper.make_tensor_value_info("d", BOOL, []), helper.make_tensor_value_info("w", F, None)],
        [onnx.numpy_helper.from_array(np.float32(1), "one"), onnx.numpy_helper.from_array(np.int64([1 << 22]), "size")],
    )
    node = helper.make_node("Loop", ["trips", "true"], ["big"], body=body)
    return _added([node], trips=np.int64(1 << 40), true=np.bool_(1))


def _nested_functions(depth: int = 28) -> bytes:
    made = []
    for level in range(depth):
        op, domain = ("Neg", "") if level == 0 else (f"f{level - 1}", "own")
        nodes = [
            helper.make_node(op, ["a"], ["b"], domain=domain),
            helper.make_node(op, ["b"], ["c"], domain=domain),
        ]
        made.append(helper.make_function("own", f"f{level}", ["a"], ["c"], nodes, [helper.make_opsetid("", 20)]))
        made[-1].opset_import.append(helper.make_opsetid("own", 1))
    return network([helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")], made)


def _endless_function() -> bytes:
    node = helper.make_node("f", ["a"], ["b"], domain="own")
    function = helper.make_function("own", "f", ["a"], ["b"], [node], [helper.make_opsetid("own", 1)])
    return network([helper.make_node("f", ["x"], ["y"], domain="own")], [function])


def _products() -> bytes:
    side = 8192
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Expand", ["m", "shape"], ["a"]),
        helper.make_node("MatMul", ["a", "a"], ["b"]),
        helper.make_node("MatMul", ["b", "a"], ["big"]),
    ]
    return _added(nodes, shape=np.int64([side, side]))


def _deep_branches(depth: int = 3000) -> bytes:
    """A branch in a branch in a branch, deeper than onnx's own writer goes."""

    def field(number: int, raw: bytes) -> bytes:
        size, head = len(raw), bytes([number << 3 | 2])
        while size > 127:
            head += bytes([size & 127 | 128])
            size >>= 7
        return head + bytes([size]) + raw

    head = field(4, b"If") + field(1, b"yes") + field(2, b"o")
    attribute = field(1, b"then_branch") + bytes([20 << 3, 5])
    graph = field(2, b"g")
    for _ in range(depth):
        graph = field(1, head + field(5, attribute + field(6, graph)))
    return network([helper.make_node("Neg", ["x"], ["y"])]) + field(7, graph)


def _outside(place: str) -> bytes:
    held = TensorProto(name="big", data_type=F, dims=[1, 2], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value=place)
    return _added([], big=held)


def _declared() -> bytes:
    """A tensor that says it is huge and has no data."""
    return _added([], big=TensorProto(name="big", data_type=F, dims=[1 << 20, 1 << 20]))


def _strings() -> bytes:
    nodes = [
        helper.make_node("Expand", ["word", "shape"], ["words"]),
        helper.make_node("StringConcat", ["words", "words"], ["twice"]),
        helper.make_node("Size", ["twice"], ["n"]),
        helper.make_node("Cast", ["n"], ["big"], to=F),
    ]
    return _added(nodes, word=np.array(["w" * 200], object), shape=np.int64([1 << 24]))


def _sequence() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Expand", ["e", "size"], ["o"])],
        "body",
        [helper.make_tensor_value_info("e", F, [])],
        [helper.make_tensor_value_info("o", F, None)],
        [onnx.numpy_helper.from_array(np.int64([1 << 22]), "size")],
    )
    nodes = [
        helper.make_node("Expand", ["zero", "many"], ["flat"]),
        helper.make_node("SplitToSequence", ["flat"], ["parts"], axis=0, keepdims=0),
        helper.make_node("SequenceMap", ["parts"], ["mapped"], body=body),
        helper.make_node("ConcatFromSequence", ["mapped"], ["big"], axis=0),
    ]
    return _added(nodes, zero=np.float32(0), many=np.int64([1 << 12]))


def _scan() -> bytes:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "s"], ["t"]), helper.make_node("Identity", ["e"], ["o"])],
        "body",
        [helper.make_tensor_value_info("s", F, [512, 512]), helper.make_tensor_value_info("e", F, [])],
        [helper.make_tensor_value_info("t", F, [512, 512]), helper.make_tensor_value_info("o", F, [])],
    )
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Expand", ["m", "square"], ["first"]),
        helper.make_node("Expand", ["m", "many"], ["steps"]),
        helper.make_node("Scan", ["first", "steps"], ["last", "big"], body=body, num_scan_inputs=1),
    ]
    return _added(nodes, square=np.int64([512, 512]), many=np.int64([1 << 20]))


def _many_nodes(count: int = 300_000) -> bytes:
    names = ["x", *(f"n{k}" for k in range(count - 1)), "y"]
    return network([helper.make_node("Neg", [a], [b]) for a, b in itertools.pairwise(names)])


NETWORKS: dict[str, Callable[[], bytes]] = {
    "loop": _loop,
    "growing loop": _growing_loop,
    "nested functions": _nested_functions,
    "endless function": _endless_function,
    "two products": _products,
    "deep branches": _deep_branches,
    "expand": lambda: _added([helper.make_node("Expand", ["x", "n"], ["big"])], n=np.int64([1 << 29, 2])),
    "constant of shape": lambda: _added([helper.make_node("ConstantOfShape", ["n"], ["big"])], n=np.int64([1 << 30])),
    "tile": lambda: _added([helper.make_node("Tile", ["x", "n"], ["big"])], n=np.int64([1 << 29, 1])),
    "pad": lambda: _added([helper.make_node("Pad", ["x", "n"], ["big"])], n=np.int64([0, 0, 1 << 29, 0])),
    "scatter": lambda: _added(
        [
            helper.make_node("ConstantOfShape", ["n"], ["flat"]),
            helper.make_node("ScatterND", ["flat", "at", "v"], ["big"]),
        ],
        n=np.int64([1 << 30]),
        at=np.int64([[0]]),
        v=np.float32([1]),
    ),
    "resize": lambda: _added(
        [
            helper.make_node("Reshape", ["x", "s"], ["p"]),
            helper.make_node("Resize", ["p", "", "", "n"], ["big"], mode="nearest"),
        ],
        s=np.int64([1, 1, 1, 2]),
        n=np.int64([1, 1, 1 << 15, 1 << 15]),
    ),
    "range": lambda: _added(
        [helper.make_node("Range", ["a", "b", "c"], ["big"])],
        a=np.float32(0),
        b=np.float32(1e9),
        c=np.float32(0.25),
    ),
    "strings": _strings,
    "sequence": _sequence,
    "scan": _scan,
    "declared": _declared,
    "passwords": lambda: _outside("../../../../../../etc/passwd"),
    "a pipe as weights": lambda: _outside("pipe"),
    "many nodes": _many_nodes,
}


def _empty_weights(path: Path) -> Path:
    """Write 4 MB that become 3.9 GB; the hashes are wrong, which nobody finds out who does not unpack them."""
    piece, count = 1 << 22, 465
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)) * count + packer.flush()
    files = {"s.npz": golden(), "l.txt": b"a\nb\n"}
    told = manifest(files)
    told["files"] |= {name: {"sha256": "0" * 64, "bytes": count * piece} for name in ("s.onnx", "t.onnx")}
    files["manifest.json"] = json.dumps(told).encode()
    members = [(name, raw, len(raw), zlib.crc32(raw), 0) for name, raw in files.items()]
    members += [(name, packed, count * piece, 0, 8) for name in ("s.onnx", "t.onnx")]
    listed = b""
    with path.open("wb") as file:
        for name, raw, size, crc, method in members:
            same = struct.pack("<HHHHHLLLHH", 20, 0, method, 0, 33, crc, len(raw), size, len(name), 0)
            where = struct.pack("<HHHLL", 0, 0, 0, 0, file.tell())
            listed += b"PK\1\2" + struct.pack("<H", 20) + same + where + name.encode()
            file.write(b"PK\3\4" + same + name.encode() + raw)
        end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(listed), file.tell(), 0)
        file.write(listed + b"PK\5\6" + end)
    return path


def _lying_sizes(path: Path) -> Path:
    """Announce few bytes of what has many."""
    with_network(path, bytes(50_000_000))
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\1\2", 0, raw.rfind(b"s.onnx"))
    raw[at + 24 : at + 28] = struct.pack("<L", 1000)
    path.write_bytes(raw)
    return path


def _overlapping(path: Path) -> Path:
    """Two entries of the list share one member's bytes."""
    with_network(path, b"x" * 1000)
    raw = bytearray(path.read_bytes())
    first, second = raw.find(b"PK\1\2"), raw.rfind(b"PK\1\2")
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)
    return path


def _many_members(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(70_000):
            archive.writestr(f"{k:06}" + "n" * 100, b"")
        archive.writestr("manifest.json", json.dumps(manifest({})))
    return path


def _large_manifest(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b'{"schema": "mmedge.bundle/1", "name": "' + b"a" * 100_000_000 + b'"}')
    return path


def _deep_manifest(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b'{"schema": "mmedge.bundle/1", "name": ' + b"[" * 2_000_000 + b"}")
    return path


def _many_labels(path: Path) -> Path:
    labels = "\n".join(map(str, range(1_000_000))).encode()
    return pack(path, {"s.onnx": network([helper.make_node("Neg", ["x"], ["y"])]), "s.npz": golden(), "l.txt": labels})


def _golden_bomb(path: Path) -> Path:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{"in.x": np.zeros((1, 60_000_000), np.float32), "out.y": np.zeros((1, 2))})
    files = {"s.onnx": network([helper.make_node("Neg", ["x"], ["y"])]), "s.npz": buffer.getvalue(), "l.txt": b"a\nb\n"}
    return pack(path, files)


def _pipe(path: Path) -> Path:
    """Write a folder whose network is a pipe that nobody writes to."""
    folder = path.with_suffix("")
    folder.mkdir()
    files = {"s.onnx": b"", "s.npz": golden(), "l.txt": b"a\nb\n"}
    (folder / "manifest.json").write_text(json.dumps(manifest(files)))
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    (folder / "s.onnx").unlink()
    os.mkfifo(folder / "s.onnx")
    return folder


def _pipe_alone(path: Path) -> Path:
    os.mkfifo(path)
    return path


CONTAINERS: dict[str, Callable[[Path], Path]] = {
    "empty weights": _empty_weights,
    "lying sizes": _lying_sizes,
    "overlapping": _overlapping,
    "many members": _many_members,
    "large manifest": _large_manifest,
    "deep manifest": _deep_manifest,
    "many labels": _many_labels,
    "golden bomb": _golden_bomb,
    "pipe in a folder": _pipe,
    "pipe": _pipe_alone,
}


def corpus(folder: Path, names: list[str] | None = None) -> dict[str, Path]:
    """Write the hostile bundles (those named, or all) into a folder; return name -> path."""
    made: dict[str, Path] = {}
    for number, name in enumerate([*CONTAINERS, *NETWORKS]):
        if names is not None and name not in names:
            continue
        path = folder / f"{number:02}.mmedge"
        made[name] = CONTAINERS[name](path) if name in CONTAINERS else with_network(path, NETWORKS[name]())
    return made
