"""The order in which the stages of a fused graph run."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from mmedge.bundle.manifest import Stage
from mmedge.errors import BundleError, MmedgeError


def stage_order(
    stages: Mapping[str, Stage], *, where: str = "manifest.json: $.stages", error: type[MmedgeError] = BundleError
) -> tuple[str, ...]:
    """Return the stages so that each comes after those that feed it.

    Args:
        stages: By name, as in a manifest or a recipe.
        where: For the message.
        error: What to raise.

    Raises:
        BundleError: (or ``error``) If stages form a cycle; names them.

    Example:
        >>> ear, join = Stage(inputs={"x": "audio"}, outputs={}), Stage(inputs={"x": "ear.y"}, outputs={})
        >>> stage_order({"join": join, "ear": ear})
        ('ear', 'join')
    """
    parents = {
        name: {source.partition(".")[0] for source in stage.inputs.values() if "." in source} & stages.keys()
        for name, stage in stages.items()
    }
    try:
        return tuple(TopologicalSorter(parents).static_order())
    except CycleError as cycle:
        raise error(
            f"the stages form a cycle: {' -> '.join(cycle.args[1])}",
            where=where,
            fix="feed a value back with '@state:OUTPUT' instead",
        ) from cycle
