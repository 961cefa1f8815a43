"""The log of results: it grows, rotates, survives a crash and a full disk, and every line of it is whole."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import ConfigError, MmedgeError
from mmedge.sinks import JsonlSink, make_sink
from tests.results import STEP_NS, made


def times(*paths: Path) -> list[int]:
    """Return the numbers of the results in files, in order."""
    return [json.loads(line)["t_ns"] // STEP_NS for path in paths for line in path.read_bytes().splitlines()]


def write(path: Path, numbers: range, options: str = "") -> None:
    sink = make_sink(f"jsonl:{path}{options}")
    for n in numbers:
        sink.write(made(n, x="a"))
    sink.close()
    sink.close()


def test_a_restart_appends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, range(3))
    write(path, range(3, 5))
    assert times(path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options", ["", "?max_mb=0.001"])
def test_a_file_has_one_sink(tmp_path: Path, options: str) -> None:
    path, other = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    other.symlink_to(path)
    sink = make_sink(f"jsonl:{path}{options}")
    for n in range(9):
        sink.write(made(n, x="a"))
    for same in (path, other):
        with pytest.raises(ConfigError, match="another sink"):
            make_sink(f"jsonl:{same}")
    sink.close()
    make_sink(f"jsonl:{other}").close()


def test_half_a_line_of_a_crash_stays_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, range(2))
    with path.open("ab") as file:
        file.write(b'{"schema": "mmed')
    write(path, range(2, 4))
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["t_ns"] // STEP_NS for n, line in enumerate(lines) if n != 2] == [0, 1, 2, 3]


@given(n=st.integers(0, 60), per_file=st.integers(1, 9), keep=st.integers(0, 4), restart=st.integers(0, 60))
def test_rotation_keeps_the_newest_files(
    tmp_path_factory: pytest.TempPathFactory, n: int, per_file: int, keep: int, restart: int
) -> None:
    """What is kept is the end of what was written, without a gap; no file is longer than it may be."""
    path = tmp_path_factory.mktemp("log") / "out.jsonl"
    size = len(made(99, x="a").to_json()) + 1
    limit = size * per_file
    options = f"?max_mb={limit / 1e6}&keep={keep}"
    write(path, range(1), options)
    path.write_bytes(b"")
    for part in (range(min(restart, n)), range(min(restart, n), n)):
        write(path, part, options)
    older = [Path(f"{path}.{number}") for number in range(keep + 1, 0, -1)]
    kept = times(*(file for file in older if file.exists()), path)
    assert kept == list(range(n))[n - len(kept) :]
    assert not older[0].exists()
    assert all(file.stat().st_size <= limit for file in path.parent.iterdir())
    assert len(kept) >= min(n, keep * (per_file - 1) + 1) if n else kept == []


def test_a_full_disk_loses_whole_lines_and_recovers(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a line."""
    path = tmp_path / "out.jsonl"
    sink = JsonlSink(str(path))
    size = len(made(1, x="a").to_json()) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + size // 2, hard))
    try:
        lost = []
        for n in range(5):
            try:
                sink.write(made(n, x="a"))
            except MmedgeError as error:
                lost.append(error.message)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write(made(9, x="a"))
    sink.close()
    assert len(lost) >= 2
    assert all("File too large" in message for message in lost)
    assert times(path) == [*range(5 - len(lost)), 9]
    full = JsonlSink("/dev/full")
    with pytest.raises(MmedgeError, match="No space left"):
        full.write(made(0, x="a"))
    full.close()


def test_a_rotation_that_finds_no_file_is_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    size = len(made(1, x="a").to_json()) + 1
    sink = JsonlSink(str(path), max_bytes=size + 1)
    sink.write(made(0, x="a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for n in (1, 2):
            with pytest.raises(MmedgeError, match="Too many open files"):
                sink.write(made(n, x="a"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sink.write(made(3, x="a"))
    sink.close()
    assert times(Path(f"{path}.1"), path) == [0, 3]
