"""Random graphs on random triggers answer as a slow reference does, whatever runs beside what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.references import MAX_INPUTS
from tests.graph_model import Plan, Reference, make_graph, run_plan
from tests.graph_strategies import graphs, triggers

SOUND = np.random.default_rng(1).integers(-4, 5, 4000).astype(np.float32)
CHECKED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


def compare(specs: dict[str, StageSpec], plans: list[tuple[Plan, int]]) -> None:
    graph, reference = make_graph(specs), Reference(specs, SOUND)
    try:
        for seq, (plan, begin) in enumerate(plans):
            before = dict(reference.errors)
            want = reference.trigger(plan, begin)
            got, failed, lost = run_plan(graph, plan, begin, SOUND, seq)
            failed += lost
            told = {name: n - before.get(name, 0) for name, n in reference.errors.items() if n > before.get(name, 0)}
            assert (got, {name: failed.count(name) for name in failed}) == (want, told)
            for stage in graph.stages:
                memory = reference.memory[stage.name]
                np.testing.assert_array_equal(stage.outputs["y"], memory.shown, err_msg=f"{stage.name} at {seq}")
                if not stage.running:
                    assert stage.engine.runs == memory.runs, f"{stage.name} at {seq}"
    finally:
        graph.close()


@CHECKED
@given(data=st.data(), specs=graphs())
def test_a_graph_answers_as_the_reference_does(data: st.DataObject, specs: dict[str, StageSpec]) -> None:
    compare(specs, data.draw(triggers(tuple(specs))))


@CHECKED
@given(data=st.data(), specs=graphs())
def test_stages_beside_each_other_answer_as_one_after_the_other(
    data: st.DataObject, specs: dict[str, StageSpec]
) -> None:
    plans = data.draw(triggers(tuple(specs)))
    answers = []
    for cores in (1, 2):
        graph = make_graph(specs, cores)
        lines = []
        for seq, (plan, begin) in enumerate(plans):
            for stage in graph.stages:  # which are seen to be heavy by what they took before
                stage.cost_ns = 100 * core.Stage.HEAVY_NS
            lines.append(run_plan(graph, plan, begin, SOUND, seq))
            lines.append([(stage.name, stage.outputs["y"].tolist()) for stage in graph.stages])
            lines.append((dict(graph.used_ns), list(graph.busy)))
        graph.close()
        answers.append(lines)
    assert answers[0] == answers[1]


@CHECKED
@given(data=st.data(), specs=graphs())
def test_recorded_failures_leave_the_graph_as_the_real_ones_did(
    data: st.DataObject, specs: dict[str, StageSpec]
) -> None:
    graphs_of = make_graph(specs), make_graph(specs, cured=True)
    for seq, (plan, begin) in enumerate(data.draw(triggers(tuple(specs)))):
        recorded: list[dict[str, str]] = []
        told = []
        for graph in graphs_of:
            got, failed, _ = run_plan(graph, plan, begin, SOUND, seq, recorded)
            recorded = recorded or list(graph.failed)
            outputs = [(stage.name, stage.outputs["y"].tolist()) for stage in graph.stages]
            told.append((got, failed, outputs, dict(graph.used_ns), list(graph.busy), list(graph.failed)))
        assert told[0] == told[1]
    for graph in graphs_of:
        graph.close()


def test_a_trigger_has_as_many_seats_as_a_bundle_may_have() -> None:
    core.Moment(MAX_INPUTS)
    with pytest.raises(ValueError, match="too many seats"):
        core.Moment(MAX_INPUTS + 1)
