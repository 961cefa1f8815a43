"""The order in which the stages of a fused graph run."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from mmedge.bundle.manifest import Manifest, Stage
from mmedge.bundle.source import Seat, parse_output
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
        name: {source.stage for source in stage.links.values()} & stages.keys() for name, stage in stages.items()
    }
    try:
        return tuple(TopologicalSorter(parents).static_order())
    except CycleError as cycle:
        raise error(
            f"the stages form a cycle: {' -> '.join(cycle.args[1])}",
            where=where,
            fix="feed a value back with '@state:OUTPUT' instead",
        ) from cycle


def check_tasks(manifest: Manifest) -> None:
    """Raise BundleError if a task's stage, or that of an output that is told, depends on no input at all."""
    wanted = {f"tasks.{name}.output": task.tensor.stage for name, task in manifest.tasks.items()}
    wanted |= {f"outputs[{index}]": parse_output(name).stage for index, name in enumerate(manifest.outputs)}
    for path, producer in wanted.items():
        lineage = [manifest.stages[name] for name in _lineage(manifest, producer)]
        if not any(isinstance(source, Seat) for stage in lineage for source in stage.sources.values()):
            raise BundleError(
                f"no input feeds stage '{producer}', directly or through other stages",
                where=f"manifest.json: $.{path}",
                fix="connect an input, or choose another output",
            )


def unused_stages(manifest: Manifest) -> tuple[str, ...]:
    """Return the stages that neither a task nor an output that is told needs."""
    ends = [task.tensor.stage for task in manifest.tasks.values()]
    ends += [parse_output(output).stage for output in manifest.outputs]
    used = {name for end in ends for name in _lineage(manifest, end)}
    return tuple(name for name in manifest.stages if name not in used)


def _lineage(manifest: Manifest, stage: str) -> set[str]:
    """Return a stage and all that feed it."""
    found: set[str] = set()
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [source.stage for source in manifest.stages[name].links.values()]
    return found
