"""A sink that writes the trace of a run when it ends: ``mmedge run --trace FILE``."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

from mmedge.bench.report import write
from mmedge.bench.tally import MOST, Answer, read_answer
from mmedge.bench.trace import document
from mmedge.bundle import Bundle, stage_order
from mmedge.errors import ConfigError
from mmedge.sinks import Run
from mmedge.types import Result


class TraceSink:
    """Keeps when the newest 100,000 results were made.

    Args:
        path: Where the trace goes when the run ends.
        bundle: What runs, by a ``Pipeline`` with ``spans``.

    Raises:
        ConfigError: If the folder does not exist; from ``close``, if the file cannot be written.
    """

    def __init__(self, path: Path, bundle: Bundle) -> None:
        if not path.parent.is_dir():
            raise ConfigError("the folder does not exist", where=str(path.parent), fix="choose another path")
        self._path, self._name, self._names = path, bundle.name, stage_order(bundle.manifest.stages)
        self._answers: deque[Answer] = deque(maxlen=MOST)
        self._run: Run | None = None
        self._closed = False

    def begin(self, run: Run) -> None:
        """Remember whose trace it is."""
        self._run = run

    def write(self, result: Result) -> None:
        """Take a result."""
        if result.spans:
            self._answers.append(read_answer(result))

    def close(self) -> None:
        """Write the trace; idempotent."""
        if self._closed:
            return
        self._closed = True
        told = {"bundle": self._name}
        if self._run is not None:
            told["evidence"] = self._run.statistics.evidence
        write(self._path, lambda: json.dumps(document(self._names, self._answers, (), (), told)))
