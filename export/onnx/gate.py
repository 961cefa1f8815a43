"""What TensorRT takes of the networks: its own parser is asked where one is installed, else a list of operators."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import onnx

from mmedge.engine.parse_check import ask_parser
from mmedge.errors import ConfigError

from ..brought.brought import tensorrt_problem
from ..recipe import Recipe
from .lint import lint


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """Stage -> everything that TensorRT refuses in it, a line each; stages that it takes are not there."""

    refused: dict[str, tuple[str, ...]] = {}


def parser_gate(
    recipe: Recipe, models: Mapping[str, onnx.ModelProto], sources: Mapping[str, Mapping[str, str]]
) -> Gate:
    """Ask about every stage.

    Args:
        recipe: Says which networks were brought along.
        models: The fp32 networks.
        sources: Stage -> node -> source line.
    """
    refused: dict[str, tuple[str, ...]] = {}
    for stage, model in models.items():
        if recipe.stages[stage].onnx is not None:
            problem = tensorrt_problem(model)
            found: tuple[str, ...] = () if problem is None else (problem,)
        else:
            found = _of_exported(model, sources.get(stage, {}))
        if found:
            refused[stage] = found
    return Gate(refused=refused)


def refuse(recipe: Recipe, gate: Gate) -> None:
    """Raise ConfigError with all that TensorRT refuses in the stages of the user's own model, which can be changed.

    A network that was brought along is what it is: ``pack`` leaves its TensorRT variants out, and says so.
    """
    found = [
        f"{stage}: {problem}"
        for stage, problems in gate.refused.items()
        if recipe.stages[stage].onnx is None
        for problem in problems
    ]
    if found:
        raise ConfigError(
            "TensorRT would refuse this model\n  " + "\n  ".join(found),
            where="export.targets",
            fix='change the network, or export for targets = ["cpu"] alone',
        )


def _of_exported(model: onnx.ModelProto, sources: Mapping[str, str]) -> tuple[str, ...]:
    answer = ask_parser(model.SerializeToString())
    known = {finding.node: str(finding) for finding in lint(model, sources) if finding.level == "error"}
    if answer is None:
        return tuple(known.values())
    lines = []  # the list knows what to do about many operators that the parser only names
    for node in answer.refused:
        at = f" at {sources[node.name]}" if node.name in sources else ""
        told = known.get(node.name, f"{node.op} '{node.name}'{at}: {node.reason}" if node.op else node.reason)
        lines.append(f"{told} ({answer.module} {answer.version})")
    return tuple(lines)
