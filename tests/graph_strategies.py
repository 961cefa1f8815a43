"""Random stage graphs and triggers, for the comparison with the slow reference."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.plan.stream import is_stream
from tests.graph_model import NAMES, POISON, SEATS, STEP, Plan


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, StageSpec]:
    """Draw two to six stages with sources, rules and modes of all kinds."""
    specs: dict[str, StageSpec] = {}
    for name in "pqrstu"[: draw(st.integers(2, 6))]:
        fed = draw(st.lists(st.sampled_from([*SEATS, *(f"{earlier}.y" for earlier in specs)]), min_size=1, max_size=3))
        extra = draw(
            st.lists(st.sampled_from(["@present", "@age_ms", "@const:7", "@state:y"]), max_size=2, unique=True)
        )
        sources = [*dict.fromkeys(fed), *extra]
        inputs = {f"{'seat' if s in ('a', 'b') else 't'}{k}": s for k, s in enumerate(sources)}
        rule: dict[str, Any] = draw(
            st.sampled_from([{}, {"on": "change"}, *({"on": seat} for seat in SEATS), {"every_ms": 50.0}])
        )
        mode = draw(st.sampled_from(["sync", "sync", "async"]))
        if draw(st.booleans()) and "sound" in sources and "@state:y" in sources:
            rule = {"every_ms": float(STEP)}
        spec = StageSpec(inputs=inputs, outputs={"y": ("batch", 2)}, mode=mode, **rule)
        if is_stream(spec, SEATS):
            alone = {t: s for t, s in inputs.items() if s in ("sound", "@const:7", "@state:y")}
            spec = StageSpec(inputs=alone, outputs={"y": ("batch", 2)}, every_ms=float(STEP))
        specs[name] = spec
    return specs


@st.composite
def triggers(draw: st.DrawFn, names: tuple[str, ...]) -> list[tuple[Plan, int]]:
    """Draw triggers: times, values old and new, absences, epochs, wavering sound, and who is still running."""
    t_ms, begin, numbers, found = 100, 0, {"a": 0, "b": 0}, []
    epoch, values, last = dict.fromkeys(SEATS, 0), {"a": 1.0, "b": 1.0}, 0
    for _ in range(draw(st.integers(1, 14))):
        t_ms += draw(st.sampled_from([1, 10, 40, 50, 120]))
        for name in numbers:
            if draw(st.booleans()):
                numbers[name] += 1
                values[name] = draw(st.sampled_from([1.0, 1.0, 2.0, 3.0, POISON]))
        if draw(st.integers(0, 7)) == 0:
            seat = draw(st.sampled_from(NAMES))
            epoch[seat] += 1
            begin = last + 30 if seat == "sound" else begin
        last = max(t_ms + draw(st.integers(-3, 3)), begin + 1)
        there = draw(st.sets(st.sampled_from(NAMES), min_size=0)) | draw(st.sets(st.sampled_from(NAMES)))
        plan = Plan(
            t_ms=t_ms,
            values={name: (numbers[name], values[name]) for name in ("a", "b") if name in there},
            end=last if "sound" in there else None,
            epoch={name: epoch[name] for name in NAMES if name in there},
            busy=tuple(draw(st.sets(st.sampled_from(names)))),
        )
        found.append((plan, begin))
    return found
