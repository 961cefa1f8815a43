"""The stage graph: preprocessing and engines, fused in three senses."""

from mmedge.fusion.check import check_variants
from mmedge.fusion.choice import tensorrt_problem
from mmedge.fusion.failures import TOLD, StageError
from mmedge.fusion.graph import StageGraph
from mmedge.fusion.load import load_graph
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.trial import Limits, verify_bundle
from mmedge.fusion.upgrade import Upgrades

__all__ = [
    "TOLD",
    "Limits",
    "StageError",
    "StageGraph",
    "StageRunner",
    "Upgrades",
    "check_variants",
    "load_graph",
    "tensorrt_problem",
    "verify_bundle",
]
