"""What fusion gains, what a lost modality costs, what the graph costs: three applications and a null graph."""

from __future__ import annotations

from benchmarks import attention, digits, graph, impacts
from benchmarks.harness import BenchmarkReport, Row, host, main, versions


def measure(quick: bool) -> BenchmarkReport:
    """Accuracy of fused models over masks and noise, impacts against skew, attention, cost of the graph."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    for part in (graph, digits, impacts, attention):
        found, figures = part.measure(quick)
        rows += found
        targets |= figures
    return BenchmarkReport(
        name="fusion",
        title="Fusion: shipped bundles on data they were not trained on; impacts is generated (simulated)",
        host=host(),
        conditions={**versions("onnxruntime", "numpy")},
        evidence="cpu",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(measure)
