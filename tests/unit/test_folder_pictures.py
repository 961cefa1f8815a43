"""A picture in a folder of data that cannot be read names its line, whatever size it says it has."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from mmedge.errors import ConfigError  # noqa: E402
from mmedge.export.datasets.folder import MAX_SIDE, Folder  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("name", ["bomb.png", "wide.png", "/etc/hostname"])
def test_a_picture_that_cannot_be_read_names_its_line(tmp_path: Path, name: str) -> None:
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((2, MAX_SIDE + 1), np.uint8))
    rows = [f"{split},{split},3,{name},," for split in ("train", "validation", "test")]
    (tmp_path / "index.csv").write_text("\n".join(["split,group,label,image,audio,text", *rows]) + "\n")
    folder = Folder(shipped_recipe("av_digits"), tmp_path)
    folder.prepare()
    with pytest.raises(ConfigError, match="the image") as caught:
        folder.load(folder.rows[0])
    assert caught.value.where == f"{tmp_path / 'index.csv'}:2"
