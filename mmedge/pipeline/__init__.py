"""The runtime and its client, the user's Pipeline."""

from typing import TYPE_CHECKING

from mmedge.lazy import lazily

if TYPE_CHECKING:
    from mmedge.pipeline.pipeline import Pipeline
    from mmedge.pipeline.runtime import Runtime
    from mmedge.pipeline.spec import RunSpec
    from mmedge.pipeline.statistics import Histogram, Percentiles, Statistics, values_needed

__all__ = ["Histogram", "Percentiles", "Pipeline", "RunSpec", "Runtime", "Statistics", "values_needed"]

_HOMES = {
    "Histogram": "mmedge.pipeline.statistics",
    "Percentiles": "mmedge.pipeline.statistics",
    "Pipeline": "mmedge.pipeline.pipeline",
    "RunSpec": "mmedge.pipeline.spec",
    "Runtime": "mmedge.pipeline.runtime",
    "Statistics": "mmedge.pipeline.statistics",
    "values_needed": "mmedge.pipeline.statistics",
}


def __getattr__(name: str) -> object:
    return lazily(__name__, _HOMES, name)
