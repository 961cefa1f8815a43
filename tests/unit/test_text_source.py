"""Lines of text as they come: from pipes, from files that grow, are cut off, written anew, replaced."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import TextInput
from mmedge.capture import open_sources
from mmedge.capture.text import MAX_LINE, MAX_UNBROKEN, Lines, TextSource
from mmedge.errors import ConfigError, SourceError
from mmedge.types import EndOfStream, Packet, Text

LONG = b"x" * 1_000_000


class Heard:
    """What a source has said so far."""

    def __init__(self, source: TextSource) -> None:
        self.source = source
        self.packets: list[Packet] = []
        self._change = threading.Condition()

    def emit(self, packet: Packet) -> None:
        with self._change:
            self.packets.append(packet)
            self._change.notify_all()

    @property
    def texts(self) -> list[str]:
        return [packet.text for packet in self.packets if isinstance(packet, Text)]

    def wait(self, *texts: str) -> None:
        """Wait until exactly these texts have come."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.texts) >= len(texts), 60), (self.texts, self.source.health())
        assert self.texts == list(texts)

    def wait_refused(self, count: int) -> None:
        give_up = time.monotonic() + 60
        while self.source.counters["refused_lines"] < count:
            assert time.monotonic() < give_up, self.source.health()
            time.sleep(0.01)
        assert self.source.counters["refused_lines"] == count

    def wait_ended(self) -> EndOfStream:
        with self._change:
            assert self._change.wait_for(lambda: self.packets and isinstance(self.packets[-1], EndOfStream), 60)
        last = self.packets[-1]
        assert isinstance(last, EndOfStream)
        return last


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "said.txt"


@pytest.fixture
def follow() -> Iterator[object]:
    sources: list[TextSource] = []

    def start(path: Path) -> Heard:
        heard = Heard(TextSource("text", str(path)))
        sources.append(heard.source)
        heard.source.start(heard.emit)
        return heard

    yield start
    for source in sources:
        source.stop()


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def test_the_last_line_counts_then_each_new_one(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\ntwo\r\nthr")
    heard = follow(path)
    heard.wait("two")
    append(path, b"ee\n\nf")
    heard.wait("two", "three", "")
    append(path, "ünf\n".encode())
    heard.wait("two", "three", "", "fünf")
    assert heard.source.live
    assert heard.source.health().state == "OK"
    times = [packet.capture_ns for packet in heard.packets]
    assert times == sorted(times)


def test_a_line_waits_for_its_end(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"se")
    heard = follow(path)
    time.sleep(0.2)
    assert heard.texts == []
    append(path, b"ven")
    time.sleep(0.2)
    assert heard.texts == []
    append(path, b"\n")
    heard.wait("seven")


def test_what_was_there_before_is_not_said_again_and_not_refused(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"\xff\n" + LONG + b"\n" + b"line\n" * 200_000 + b"last\n")
    heard = follow(path)
    heard.wait("last")
    assert "refused_lines" not in heard.source.counters
    append(path, b"\xff\n")
    heard.wait_refused(1)
    assert "line 200004 " in str(heard.source.refused)


@pytest.mark.parametrize(("before", "after"), [("7", "8"), ("7", "seventy"), ("seventy", "8"), ("7", "7")])
def test_a_file_written_anew(path: Path, follow, before: str, after: str) -> None:  # type: ignore[no-untyped-def]
    path.write_text(f"{before}\n")
    heard = follow(path)
    heard.wait(before)
    time.sleep(0.02)  # a coarse clock of the file system
    path.write_text(f"{after}\n")
    heard.wait(before, after)
    append(path, b"more\n")
    heard.wait(before, after, "more")
    assert "refused_lines" not in heard.source.counters


def test_a_file_cut_off(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\ntwo\n")
    heard = follow(path)
    heard.wait("two")
    os.truncate(path, 0)
    time.sleep(0.15)
    append(path, b"three\n")
    heard.wait("two", "three")


def test_a_file_replaced_by_another(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\n")
    heard = follow(path)
    heard.wait("one")
    for number in range(3):
        path.rename(path.with_suffix(f".{number}"))
        append(path.with_suffix(f".{number}"), b"late %d\n" % number)  # whoever has it open still writes to it
        path.write_bytes(b"new %d\nand %d\n" % (number, number))
        rest = [text for n in range(number + 1) for text in (f"late {n}", f"new {n}", f"and {n}")]
        heard.wait("one", *rest)
    other = path.with_suffix(".swap")
    other.write_bytes(b"swapped\n")
    other.replace(path)
    heard.wait("one", *rest, "swapped")


def test_a_file_that_is_gone_is_waited_for(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\n")
    heard = follow(path)
    heard.wait("one")
    path.unlink()
    give_up = time.monotonic() + 60
    while heard.source.health().state != "RECONNECTING":
        assert time.monotonic() < give_up
        time.sleep(0.01)
    path.write_bytes(b"two\n")
    heard.wait("one", "two")
    assert heard.source.health().state == "OK"


def test_bad_lines_are_refused_and_the_source_goes_on(path: Path, follow, caplog) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\n")
    heard = follow(path)
    heard.wait("one")
    append(path, LONG)  # known to be too long before its end
    heard.wait_refused(1)
    append(path, LONG + b"\n\xc3\x28\nnul\0\n")
    append(path, b"two\n")
    heard.wait("one", "two")
    counters = heard.source.health().counters
    assert counters == {
        "texts": 2,
        "refused_lines": 3,
        "refused_too_long": 1,
        "refused_not_utf8": 1,
        "refused_nul": 1,
    }
    assert heard.source.error is None
    error = heard.source.refused
    assert error is not None
    assert error.exit_code == 5
    assert "line 4 of input 'text' was refused: it has a NUL byte" in error.message
    assert error.where == f"text://{path}:4"
    assert sum("was refused" in record.message for record in caplog.records) == 1  # the others are counted
    append(path, b"\xff\n")
    heard.wait_refused(4)
    assert sum("was refused" in record.message for record in caplog.records) == 1  # though a good one was between
    assert "line 6" in str(heard.source.health().reason)
    append(path, b"three\n")
    heard.wait("one", "two", "three")
    assert heard.source.health().reason is None


def test_refused_lines_are_told_at_a_bounded_rate(path: Path, follow, caplog, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("mmedge.capture.text._QUIET_NS", 300_000_000)
    path.write_bytes(b"one\n")
    heard = follow(path)
    heard.wait("one")
    append(path, b"\xff\n" * 5)
    heard.wait_refused(5)
    time.sleep(0.4)
    append(path, b"\xff\n")
    heard.wait_refused(6)
    deadline = time.monotonic() + 60
    while "line 7 " not in caplog.text and time.monotonic() < deadline:  # counted before it is logged
        time.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if "was refused" in record.message]
    assert "line 2 " in told[0]
    assert "line 7 " in told[-1]
    assert len(told) + sum(int(text.rpartition("message: ")[2]) for text in told[1:]) == 6


@pytest.mark.parametrize("pipe", [True, False])
def test_what_never_has_a_line_break_is_an_error(path: Path, follow, pipe: bool) -> None:  # type: ignore[no-untyped-def]
    if pipe:
        os.mkfifo(path)
    heard = follow(path if pipe else Path("/dev/zero"))
    if pipe:
        with path.open("wb", buffering=0) as out:
            for _ in range(MAX_UNBROKEN // len(LONG) + 1):
                out.write(LONG)
    heard.wait_ended()
    assert isinstance(heard.source.error, SourceError)
    assert "64 MiB arrived without a line break" in heard.source.error.message
    assert heard.source.counters["refused_too_long"] == 1


def test_a_file_replaced_by_what_is_no_file_is_waited_for(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\n")
    heard = follow(path)
    heard.wait("one")
    path.unlink()
    path.symlink_to("/dev/zero")
    give_up = time.monotonic() + 60
    while heard.source.health().state != "RECONNECTING":
        assert time.monotonic() < give_up
        time.sleep(0.01)
    path.unlink()
    path.write_bytes(b"two\n")
    heard.wait("one", "two")


def test_a_line_that_its_file_took_along_is_refused(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"one\nwithout end")
    heard = follow(path)
    heard.wait("one")
    path.unlink()
    path.write_bytes(b"two\n")
    heard.wait("one", "two")
    assert heard.source.counters["refused_unfinished"] == 1


def test_the_longest_line_is_taken(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"x" * MAX_LINE + b"\n")
    heard = follow(path)
    heard.wait("x" * MAX_LINE)
    append(path, b"y" * (MAX_LINE + 1) + b"\nz\n")
    heard.wait("x" * MAX_LINE, "z")
    assert heard.source.counters["refused_too_long"] == 1


def test_a_flood_leaves_time_for_others(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(b"")
    heard = follow(path)
    append(path, b"y\n" * 1_000_000)
    began, used = time.monotonic(), time.thread_time()
    time.sleep(1)
    assert time.thread_time() - used < 0.5
    while not heard.texts and time.monotonic() - began < 60:  # a busy machine reads late
        time.sleep(0.1)
    assert 0 < len(heard.texts) <= 1200 * (time.monotonic() - began)


def test_a_named_pipe_outlives_its_writers(path: Path, follow) -> None:  # type: ignore[no-untyped-def]
    os.mkfifo(path)
    heard = follow(path)
    said = []
    for line in (b"one\n", b"tw", b"o\n", b"\xff\nthree\n"):
        with path.open("wb", buffering=0) as out:
            out.write(line)
        said += {b"one\n": ["one"], b"o\n": ["two"], b"\xff\nthree\n": ["three"]}.get(line, [])
        heard.wait(*said)
    assert heard.source.counters["refused_lines"] == 1
    assert not any(isinstance(packet, EndOfStream) for packet in heard.packets)


@pytest.mark.parametrize("raw", [b"one\ntwo\n", b"one\ntwo"])
def test_the_standard_input_ends(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        heard = Heard(TextSource("text", "stdin"))
        heard.source.start(heard.emit)
        os.write(write, raw)
        os.close(write)
        assert heard.wait_ended().reason is None
        heard.source.stop()
        os.fstat(read)  # it is not the source's to close
    assert heard.texts == ["one", "two"]


def test_without_a_standard_input_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="no standard input"):
        TextSource("text", "stdin")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "none", tmp_path / "none" / "none"):
        with pytest.raises(ConfigError, match="no text file"):
            open_sources({"text": TextInput(max_tokens=4)}, {"text": f"text://{target}"})


@pytest.mark.parametrize("pipe", [True, False])
def test_stop_ends_a_source_that_waits_and_frees_its_file(path: Path, pipe: bool) -> None:
    if pipe:
        os.mkfifo(path)
    else:
        path.write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for started in (True, False):
        source = TextSource("text", str(path))
        if started:
            source.start(lambda packet: None)
        began = time.monotonic()
        source.stop()
        source.stop()
        assert time.monotonic() - began < 60
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12), st.data())
def test_lines_do_not_depend_on_how_they_come(lines: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    cutter = Lines()
    found = [item for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) for item in cutter.feed(raw[a:b])]
    assert found == list(enumerate(lines, 1))
    assert list(cutter.finish()) == []


@pytest.mark.parametrize("chunk", [1000, MAX_LINE, MAX_LINE + 1, 1 << 20])
def test_a_long_line_is_passed_over_in_bounded_memory(chunk: int) -> None:
    raw = b"a\n" + LONG + b"\n" + LONG + b"\nb\nend"
    cutter = Lines()
    steps = range(0, len(raw), chunk)
    found = [item for at in steps for item in cutter.feed(raw[at : at + chunk])]
    assert found == [(1, b"a"), (2, None), (3, None), (4, b"b")]
    assert list(cutter.finish()) == [(5, b"end")]
    assert list(accumulate([number for number, _ in found], max)) == [1, 2, 3, 4]
