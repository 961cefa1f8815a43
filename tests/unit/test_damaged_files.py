"""Files of others that are damaged, or something else than their names say, are refused by name."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.engine.arrays import array_feeds
from mmedge.errors import ConfigError

OWN = {"x": np.zeros((1, 4), np.float32)}


def deflated() -> bytes:
    raw = io.BytesIO()
    np.savez_compressed(raw, x=np.arange(4000, dtype=np.float32))
    data = bytearray(raw.getvalue())
    data[60:100] = b"\xff" * 40
    return bytes(data)


def archive(name: str, content: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        file.writestr(name, content)
    return raw.getvalue()


def huge() -> bytes:
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "<f4", "fortran_order": False, "shape": (2**63,)})
    return raw.getvalue()


ARRAYS = [
    ("x.npz", deflated()),
    ("x.npz", archive("x", b"no array")),
    ("x.npz", archive("x.npy", b"no array")),
    ("x.npy", archive("x.npy", b"no array")),
    ("x.npy", archive("y.npy", b"")),
    ("x.npy", huge()),
]


@pytest.mark.parametrize(("name", "content"), ARRAYS)
def test_arrays_of_a_network(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        list(array_feeds(tmp_path / name, OWN))
    assert name in str(caught.value)


@pytest.mark.parametrize(("name", "content"), ARRAYS[3:])
def test_arrays_of_a_data_set(tmp_path: Path, name: str, content: bytes) -> None:
    files = pytest.importorskip("mmedge.export.datasets.files")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(files.UnusableFileError, match=r"cannot read the array 'x\.npy'"):
        files.load_array(tmp_path / name, name)


@pytest.mark.parametrize(
    "state",
    [
        {"identity": ["recipe"], "epochs": 1, "seconds": 1.0},
        {"identity": {}, "epochs": float("inf"), "seconds": 1.0},
        "tensor",
        b"garbage",
        b"PK\x03\x04garbage",
        b"\x80\x02}.",
        b"",
    ],
)
def test_checkpoints(tmp_path: Path, state: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("lightning")
    from mmedge.export.training.checkpoint import Checkpoint

    path = tmp_path / "c.ckpt"
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(torch.zeros(3) if state == "tensor" else {"mmedge": state}, path)
    with pytest.raises(ConfigError, match="cannot read the checkpoint"):
        Checkpoint(path, {"recipe": "r"}).load()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (f'[[1{"0" * 400}, 2, 3, 4, "full"]]', "are numbers"),
        ("a\0b.txt", "cannot read the boxes"),
        ("folder.txt", "no regular file"),
        ("pipe.txt", "no regular file"),
        ("large.txt", "larger than 1000000 bytes"),
        ("../secret.txt", "not in the folder"),
        ("folder.txt/../../secret.txt", "not in the folder"),
        ("{home}/secret.txt", "not in the folder"),
    ],
)
def test_boxes(tmp_path: Path, cell: str, message: str) -> None:
    boxes = pytest.importorskip("mmedge.export.datasets.boxes")
    home = tmp_path / "data"
    (home / "folder.txt").mkdir(parents=True)
    os.mkfifo(home / "pipe.txt")
    (home / "large.txt").write_text("1 2 3 4 full\n" * 100_000)
    (tmp_path / "secret.txt").write_text("hush 2 3 4 full")
    with pytest.raises(boxes.UnusableFileError, match=message) as caught:
        boxes.read_boxes(cell.replace("{home}", str(tmp_path)), ["full"], home)
    assert "hush" not in str(caught.value)
