"""ONNX Runtime's providers on a GPU: the answers of the CPU, bounded by the bundle's tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmedge
from mmedge.engine.ort_providers import PROVIDERS, provider_problem
from mmedge.fusion import load_graph
from mmedge.fusion.measure import measure_cpu

DIGITS = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"
pytestmark = pytest.mark.gpu


def need(backend: str) -> None:
    if (problem := provider_problem(backend)) is not None:
        pytest.skip(problem.message)


@pytest.mark.parametrize("backend", PROVIDERS)
def test_every_stage_passes_its_self_test_and_runs_on_the_gpu(backend: str) -> None:
    need(backend)
    with mmedge.load(DIGITS) as bundle:
        graph = load_graph(bundle, backend=backend)
    assert {what.split()[0] for what in graph.served.values()} == {backend}
    graph.close()


@pytest.mark.parametrize("backend", PROVIDERS)
def test_compile_measures_it(backend: str, own_cache: Path) -> None:
    need(backend)
    with mmedge.load(DIGITS) as bundle:
        rows = measure_cpu(bundle, lambda text, share: None, anew=True)
    tried = [form for row in rows for form in row["forms"] if form["backend"] == backend]
    assert tried
    assert all(form["run_ms"] for form in tried if form["precision"] == "fp32")
