"""The stage graph: preprocessing and engines, fused in three senses."""

from typing import TYPE_CHECKING

from mmedge.lazy import lazily

if TYPE_CHECKING:
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

# A process that only asks what a bundle may call has no use for its stages.
_HOMES = {
    "TOLD": "mmedge.fusion.failures",
    "Limits": "mmedge.fusion.trial",
    "StageError": "mmedge.fusion.failures",
    "StageGraph": "mmedge.fusion.graph",
    "StageRunner": "mmedge.fusion.stage",
    "Upgrades": "mmedge.fusion.upgrade",
    "check_variants": "mmedge.fusion.check",
    "load_graph": "mmedge.fusion.load",
    "tensorrt_problem": "mmedge.fusion.choice",
    "verify_bundle": "mmedge.fusion.trial",
}


def __getattr__(name: str) -> object:
    return lazily(__name__, _HOMES, name)
