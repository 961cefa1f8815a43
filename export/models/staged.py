"""A model made of stages: runs the recipe's graph in torch, for training and as the exporter's reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmedge.bundle import stage_order
from mmedge.bundle.manifest import Input, Stage, TensorInput
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, State
from mmedge.errors import ConfigError

from ..recipe import Recipe
from ..stages import output_shape
from .calls import call, named_outputs


class StagedModel(nn.Module):
    """Stage networks under their own names, run in the order of the recipe's graph.

    Each stage takes its inputs as keyword arguments, in the order of the recipe's table, and returns its outputs by
    name (a mapping, a named tuple, a data class) or in order: a tensor, or a tuple of them.

    A stage with a state is unrolled: its inputs may be sequences [batch, steps, ...], it starts from zeros as
    after a new epoch, and what it gives at the last step counts. Stages without a state take the last step.

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
                f"the model has the stages {sorted(stages)}, but the recipe declares {sorted(recipe.stages)}",
                where="model.factory",
                fix="return one network per stage",
            )
        self.graph = dict(recipe.stages)
        self.input_names = tuple(recipe.inputs)
        self.order = _order(self.graph, self.input_names)
        self._ranks = {name: rank(spec) for name, spec in recipe.inputs.items()}
        self.masked = _depends_on_mask(self.graph, self.order)
        for name in self.order:
            self.add_module(name, stages[name])

    def features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the stages that depend neither on ``present`` nor on ``age_ms``.

        Tensors have the shapes [batch, ...] and dtypes of the recipe.

        Args:
            inputs: Preprocessed tensors by input name.

        Returns:
            ``"STAGE.OUTPUT"`` -> tensor, to be given to ``forward`` as ``reuse``.
        """
        known, outputs = dict(inputs), dict[str, Tensor]()
        for name in self.order:
            if name not in self.masked:
                outputs |= self.run_stage(name, known)
                known |= outputs
        return outputs

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Tensor,
        age_ms: Tensor | None = None,
        reuse: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run the stages.

        Args:
            inputs: Preprocessed tensors by input name, or sequences of them; absent ones may hold anything.
            present: float32 [batch, n_inputs], 1 where the input is there.
            age_ms: float32 [batch, n_inputs], how old the data are; that of an absent input is 0. None: all are new.
            reuse: Outputs of an earlier call with the same inputs; only stages that depend on ``present`` or
                ``age_ms`` run again.

        Returns:
            ``"STAGE.OUTPUT"`` -> tensor.
        """
        known = everything(inputs, present, age_ms)
        outputs: dict[str, Tensor] = {}
        for name in self.order:
            if reuse is not None and name not in self.masked:
                fresh = {f"{name}.{output}": reuse[f"{name}.{output}"] for output in self.graph[name].outputs}
            else:
                fresh = self.run_stage(name, known)
            outputs |= fresh
            known |= fresh
        return outputs

    def run_stage(self, name: str, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one stage.

        Tensors have the shapes [batch, ...] and dtypes of the recipe.

        Args:
            name: Its name.
            known: What ``everything`` gives, and ``"STAGE.OUTPUT"`` of the stages before.

        Returns:
            ``"STAGE.OUTPUT"`` -> tensor, at the last step if it has a state.

        Raises:
            ConfigError: If the network returns other tensors than the recipe declares, or takes other inputs.
        """
        stage = self.graph[name]
        feeds = {key: known[source] for key, source in stage.inputs.items() if source in known}
        states = {key: str(Output(name, own)) for key, own in stage.states.items()}
        moving = {key: x for key, x in feeds.items() if x.ndim > self._ranks.get(stage.inputs[key], x.ndim)}
        feeds |= {key: x[:, -1] for key, x in moving.items()}
        if not states:
            return self._call(name, feeds)
        like = next(iter(feeds.values()))
        for key, own in stage.states.items():
            shape = [len(like) if isinstance(dim, str) else dim for dim in stage.outputs[own]]
            feeds[key] = torch.zeros(shape, device=like.device)
        fresh: dict[str, Tensor] = {}
        for step in range(max((x.shape[1] for x in moving.values()), default=1)):
            feeds |= {key: x[:, step] for key, x in moving.items()}
            fresh = self._call(name, feeds)
            feeds |= {key: fresh[source] for key, source in states.items()}
        return fresh

    def _call(self, name: str, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        network, outputs = self.get_submodule(name), tuple(self.graph[name].outputs)
        tensors = named_outputs(call(network, feeds, name), outputs, network, name)
        return {f"{name}.{output}": tensors[output] for output in outputs}


def everything(inputs: Mapping[str, Tensor], present: Tensor, age_ms: Tensor | None = None) -> dict[str, Tensor]:
    """Return what stages may be fed besides each other's outputs; see ``StagedModel.forward``.

    ``inputs`` are [batch, ...] in the recipe's dtypes, ``present`` (0 or 1) and ``age_ms`` float32 [batch, inputs].
    """
    age_ms = torch.zeros_like(present) if age_ms is None else age_ms * present
    return {**inputs, str(Presence()): present, str(Age()): age_ms}


def check_shapes(recipe: Recipe, stage: str, network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ConfigError unless a network returns what the recipe declares.

    Args:
        recipe: Declares the outputs.
        stage: The network's name.
        network: For the message.
        shapes: Of one sample, in the order of the outputs.
    """
    declared = [output_shape(recipe, stage, output) for output in recipe.stages[stage].outputs]
    if list(shapes) != declared:
        returned, wanted = (", ".join(str(list(shape)) for shape in found) for found in (shapes, declared))
        raise ConfigError(
            f"{type(network).__name__} returns {returned}, but the recipe declares {wanted}",
            where=recipe.at(f"stages.{stage}.outputs"),
            fix="correct the recipe or the network",
        )


def rank(spec: Input) -> int:
    """Return how many dimensions a batch of an input has; a batch of sequences has one more."""
    return len(spec.shape if isinstance(spec, TensorInput) else spec.tensor_shape)


def _order(graph: Mapping[str, Stage], inputs: tuple[str, ...]) -> tuple[str, ...]:
    for name, stage in graph.items():
        for key, source in stage.sources.items():
            match source:
                case Seat(seat):
                    known = seat in inputs
                case Output(producer, output):
                    known = producer in graph and output in graph[producer].outputs
                case State(output):
                    known = output in stage.outputs
                case _:
                    known = not isinstance(source, Constant)
            if not known:
                raise ConfigError(
                    f"'{source}' is neither an input, '@present', '@age_ms', a state nor an output of a stage",
                    where=f"stages.{name}.inputs.{key}",
                    fix="correct the name; other special inputs cannot be trained yet",
                )
            if isinstance(source, Output) and stage.states:
                raise ConfigError(
                    f"a stage with a state cannot be trained behind another stage, here '{source.stage}'",
                    where=f"stages.{name}.inputs.{key}",
                    fix="make one stage of the two, or put the state into the first",
                )
    return stage_order(graph, where="stages", error=ConfigError)


def _depends_on_mask(graph: Mapping[str, Stage], order: tuple[str, ...]) -> frozenset[str]:
    masked: set[str] = set()
    for name in order:
        sources = graph[name].sources.values()
        # What reads one number for each input gives something else when an input is absent.
        if any(isinstance(s, (Presence, Age)) or (isinstance(s, Output) and s.stage in masked) for s in sources):
            masked.add(name)
    return frozenset(masked)
