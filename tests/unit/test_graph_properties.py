"""Random graphs on random triggers answer as a slow reference does, whatever runs beside what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmedge._native import core
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.references import MAX_INPUTS
from mmedge.fusion.crew import Crew
from mmedge.fusion.life import Life
from mmedge.fusion.stretch import Segment
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
    data: st.DataObject, specs: dict[str, StageSpec], beside: Any
) -> None:
    plans = data.draw(triggers(tuple(specs)))
    answers = []
    for cores in (1, 2):
        graph = make_graph(specs, cores)
        if cores > 1:  # C++ sees for itself which stages are heavy, and these cost nothing
            graph._segments = [Segment((stage,), None) for stage in graph.stages]
        lines = []
        for seq, (plan, begin) in enumerate(plans):
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


def test_the_numbers_that_python_and_cpp_share_are_the_same() -> None:
    core.Moment(MAX_INPUTS)
    with pytest.raises(ValueError, match="too many seats"):
        core.Moment(MAX_INPUTS + 1)
    specs = {"p": StageSpec(inputs={"seat0": "a"}, outputs={"y": ("batch", 2)})}
    graph = make_graph(specs)
    (stage,) = graph.stages
    for number, life in enumerate(Life):
        stage.life = life
        assert (stage.memory.life, stage.life) == (number, life)
    with pytest.raises(ValueError, match="no such life"):
        stage.memory.life = len(Life)
    stage.native.finish()
    assert stage.life is Life.WARM
    graph.close()


@pytest.fixture(scope="module")
def beside() -> Any:
    """Every stage counts as heavy where there are cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "takes", lambda self, stage: self.cores > 1 and not stage.asynchronous)
        yield
