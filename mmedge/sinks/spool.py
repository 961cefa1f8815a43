"""What a broker has not acknowledged yet: on the disk, bounded, in order, and there after a crash."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from mmedge.errors import ConfigError
from mmedge.files import private_folder


class Message(NamedTuple):
    """One message; ``key`` orders it among all of its spool, over runs as well."""

    key: int
    topic: str
    payload: bytes


class Spool:
    """Messages in a file (SQLite), which one process uses at a time.

    Args:
        path: The file; its folder is made, for its owner alone.
        max_bytes: Of payload; beyond it the oldest are lost.

    Attributes:
        count: Messages in it.
        lost: Messages that made room for newer ones.

    Raises:
        ConfigError: If the file cannot be used, or another sink uses it.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.lost = 0
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.exists():
                private_folder(path.parent)
            # Threads take turns, the owner sees to that.
            self._file = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS spool (key INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")
            held = "SELECT count(*), ifnull(sum(length(payload)), 0), ifnull(max(key), 0) FROM spool"
            count, size, last = self._file.execute(held).fetchone()
            path.chmod(0o600)
        except (OSError, sqlite3.Error) as error:
            busy = "locked" in str(error)
            what = "another sink, or another run, uses the spool" if busy else f"the spool cannot be used: {error}"
            fix = "name another one: ?spool=FILE" if busy else "remove it, or name another one: ?spool=FILE"
            raise ConfigError(what, where=str(path), fix=fix) from error
        self.count, self._bytes, self._last = int(count), int(size), int(last)

    def next_key(self) -> int:
        """Return a key above all that ever were in it, as long as the wall clock is right."""
        return max(time.time_ns(), self._last + 1)

    def add(self, message: Message, *, after: int = -1) -> None:
        """Add a message; if there is no room, the oldest of a key above ``after`` are lost.

        Raises:
            sqlite3.Error: If it cannot be written; nothing has changed then.
        """
        self._file.execute("INSERT OR IGNORE INTO spool VALUES (?, ?, ?)", message)
        self.count += 1
        self._bytes += len(message.payload)
        self._last = max(self._last, message.key)
        while self._bytes > self._max_bytes:
            row = self._file.execute("SELECT key FROM spool WHERE key > ? ORDER BY key LIMIT 1", (after,)).fetchone()
            if row is None:
                return
            self.remove(row[0])
            self.lost += 1

    def after(self, key: int, n: int) -> list[Message]:
        """Return the first ``n`` messages of a key above ``key``, in order."""
        rows = self._file.execute("SELECT * FROM spool WHERE key > ? ORDER BY key LIMIT ?", (key, n))
        return [Message(*row) for row in rows]

    def remove(self, key: int) -> None:
        """Remove a message; there need be none.

        Raises:
            sqlite3.Error: If that cannot be written.
        """
        row = self._file.execute("DELETE FROM spool WHERE key = ? RETURNING length(payload)", (key,)).fetchone()
        if row is not None:
            self.count -= 1
            self._bytes -= row[0]

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()
