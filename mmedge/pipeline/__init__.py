"""The runtime and its client, the user's Pipeline."""

from mmedge.pipeline.pipeline import Pipeline
from mmedge.pipeline.runtime import Runtime
from mmedge.pipeline.spec import RunSpec
from mmedge.pipeline.statistics import Histogram, Percentiles, Statistics, values_needed

__all__ = ["Histogram", "Percentiles", "Pipeline", "RunSpec", "Runtime", "Statistics", "values_needed"]
