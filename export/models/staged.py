"""A model made of stages: runs the recipe's graph in torch, for training and as the exporter's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmedge.bundle import stage_order
from mmedge.bundle.manifest import Stage
from mmedge.errors import ConfigError

from ..recipe import Recipe


class StagedModel(nn.Module):
    """Stage networks under their own names, run in the order of the recipe's graph.

    Each stage takes its inputs as keyword arguments, in the order of the recipe's table, and returns its
    outputs in order: a tensor, or a tuple of them.

    Args:
        recipe: Gives the graph and the order of ``@present``.
        stages: A network for every stage of the recipe.

    Raises:
        ConfigError: If a network is missing or the graph has a cycle or a dangling name.
    """

    def __init__(self, recipe: Recipe, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # What training measured: temperature, validated masks, seed. It travels with the model into the bundle.
        self.metadata: dict[str, Any] = {}
        if set(stages) != set(recipe.stages):
            raise ConfigError(
                f"the model has stages {sorted(stages)}, the recipe {sorted(recipe.stages)}",
                where="model.factory",
                fix="return one network per stage",
            )
        self.graph = dict(recipe.stages)
        self.input_names = tuple(recipe.inputs)
        self.order = _order(self.graph, self.input_names)
        self.masked = _depends_on_present(self.graph, self.order)
        for name in self.order:
            self.add_module(name, stages[name])

    def forward(
        self, inputs: Mapping[str, Tensor], present: Tensor, reuse: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run the stages.

        Args:
            inputs: Preprocessed tensors by input name; absent ones may hold anything.
            present: float32 [batch, n_inputs], 1 where the input is there.
            reuse: Outputs of an earlier call with the same inputs; only stages that depend on
                ``present`` run again.

        Returns:
            ``"STAGE.OUTPUT"`` -> tensor.
        """
        known: dict[str, Tensor] = {**inputs, "@present": present}
        outputs: dict[str, Tensor] = {}
        for name in self.order:
            stage = self.graph[name]
            keys = [f"{name}.{output}" for output in stage.outputs]
            if reuse is not None and name not in self.masked:
                values = [reuse[key] for key in keys]
            else:
                result = self.get_submodule(name)(**{key: known[source] for key, source in stage.inputs.items()})
                values = [result] if isinstance(result, Tensor) else list(result)
            fresh = dict(zip(keys, values, strict=True))
            outputs |= fresh
            known |= fresh
        return outputs


def _order(graph: Mapping[str, Stage], inputs: tuple[str, ...]) -> tuple[str, ...]:
    for name, stage in graph.items():
        for key, source in stage.inputs.items():
            producer, dot, output = source.partition(".")
            known = dot and producer in graph and output in graph[producer].outputs
            if not known and source not in inputs and source != "@present":
                raise ConfigError(
                    f"'{source}' is neither an input, '@present' nor an output of a stage",
                    where=f"stages.{name}.inputs.{key}",
                    fix="correct the name; other special inputs cannot be trained yet",
                )
    return stage_order(graph, where="stages", error=ConfigError)


def _depends_on_present(graph: Mapping[str, Stage], order: tuple[str, ...]) -> frozenset[str]:
    masked: set[str] = set()
    for name in order:
        sources = graph[name].inputs.values()
        if any(source == "@present" or source.partition(".")[0] in masked for source in sources):
            masked.add(name)
    return frozenset(masked)
