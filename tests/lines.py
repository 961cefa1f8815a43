"""Result lines as a replay repeats them: when a result was read is not the run's own."""

from __future__ import annotations

import re

from mmedge.types import Result


def replayed_line(result: Result | bytes) -> bytes:
    """Return the result line without ``latency_ms["received"]``."""
    raw = result if isinstance(result, bytes) else result.to_json()
    return re.sub(rb',"received":[0-9.]+', b"", raw)
