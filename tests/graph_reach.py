"""Of which seats a stage hears, for the slow reference of the stage graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.plan.stream import is_stream


def reach(specs: Mapping[str, StageSpec], seats: Mapping[str, Input], memory: Mapping[str, Any], name: str) -> set[str]:
    """Return the seats that a stage hears of: a stream tells nothing before its first step."""
    if is_stream(specs[name], seats):
        return {"sound"} if memory[name].t_ms is not None else set()
    sources = specs[name].inputs.values()
    links = (s.partition(".")[0] for s in sources if s not in seats and not s.startswith("@"))
    return {s for s in sources if s in seats}.union(*(reach(specs, seats, memory, producer) for producer in links))


def seen(reference: Any, seats: Mapping[str, Input], name: str, present: set[str]) -> set[str]:
    """Return what is present to a stage of the reference: not what it hears nothing of yet."""
    if is_stream(reference.specs[name], seats):
        return present
    return present - (reference.depends[name] - reach(reference.specs, seats, reference.memory, name))
