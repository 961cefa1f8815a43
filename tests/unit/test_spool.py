"""What waits for a broker: in order, bounded, and there after a crash."""

from __future__ import annotations

import resource
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import ConfigError
from mmedge.sinks.spool import Message, Spool


@given(
    steps=st.lists(st.one_of(st.just("add"), st.just("open"), st.integers(0, 9)), max_size=40), room=st.integers(1, 9)
)
def test_it_is_a_bounded_queue_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | int], room: int
) -> None:
    path = tmp_path_factory.mktemp("spool") / "s" / "spool.db"
    spool, expected, added, lost = Spool(path, 10 * room), list[Message](), 0, 0
    for step in steps:
        if step == "add":
            added += 1
            message = Message(added, f"t{added}", bytes([added]) * 10)
            spool.add(message)
            expected.append(message)
            lost += len(expected) > room
            expected = expected[-room:]
        elif step == "open":
            spool.close()
            before, spool = spool, Spool(path, 10 * room)
            spool.lost = before.lost
        elif expected:
            gone = expected.pop(int(step) % len(expected))
            spool.remove(gone.key)
            spool.remove(gone.key)  # a second time does nothing
        assert spool.after(-1, 100) == expected
        assert (spool.count, spool.lost) == (len(expected), lost)
        assert spool.next_key() > added
    assert path.stat().st_mode & 0o777 == 0o600
    spool.close()


def test_what_is_on_its_way_is_not_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 20)
    for key in range(5):
        spool.add(Message(key, "t", b"0123456789"), after=1)
    assert [message.key for message in spool.after(-1, 9)] == [0, 1]  # nothing but these two fits
    assert spool.lost == 3
    spool.close()


def test_a_full_disk_loses_what_it_cannot_take_and_recovers(tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    spool = Spool(tmp_path / "s.db", 1 << 24)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    kept, lost = [], 0
    try:
        for key in range(100):
            try:
                spool.add(Message(key, "t", b"x" * 5_000))
                kept.append(key)
            except sqlite3.Error:
                lost += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lost > 50
    spool.add(Message(200, "t", b"y"))
    assert [message.key for message in spool.after(-1, 999)] == [*kept, 200]
    assert spool.count == len(kept) + 1
    spool.close()


def test_two_processes_do_not_share_one_and_rubbish_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 100)
    with pytest.raises(ConfigError, match="another run, uses the spool") as error:
        Spool(tmp_path / "s.db", 100)
    assert "spool=FILE" in str(error.value.fix)
    spool.close()
    (tmp_path / "r.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(ConfigError, match="not a database"):
        Spool(tmp_path / "r.db", 100)
