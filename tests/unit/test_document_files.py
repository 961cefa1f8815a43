"""A document that somebody names is read once it is known to be a plain file of a sane size: nothing waits or grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedge.bench.attestation import read
from mmedge.bench.compare import read_baseline
from mmedge.errors import ConfigError
from mmedge.files import read_document
from mmedge.forecast.seal import read_sealed
from mmedge.forecast.times import read_measured
from mmedge.plan import load_plan

READERS: list[Callable[[Path], object]] = [
    read,
    read_baseline,
    read_sealed,
    lambda path: read_measured(path, "digits"),
    load_plan,
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reader", READERS)
def test_pipes_devices_folders_and_files_without_end_are_refused(
    tmp_path: Path, reader: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate((16 << 20) + 1)
    for path, said in (
        (tmp_path / "pipe", "is not a plain file"),
        (Path("/dev/zero"), "is not a plain file"),
        (tmp_path, "cannot read"),
        (tmp_path / "none", "cannot read"),
        (tmp_path / "large", "more than 16777216 bytes"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            reader(path)
        assert caught.value.where == str(path)


def test_a_document_is_returned_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\x00{}")
    assert read_document(path, "the file") == b"\xff\x00{}"
