"""The stage graph on the host: shapes, order, presence masks, one sample through all stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import onnx

from mmedge import bundle
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, Source, State
from mmedge.errors import ConfigError
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.tensors import age_limit, tensor_specs
from mmedge.preprocess import reference
from mmedge.types import AnyArray, Tensors

from .judge import judge
from .recipe import Recipe

Runner = Callable[[Tensors], dict[str, AnyArray]]
Mask = tuple[str, ...]
# Stage -> output -> dtype.
Types = Mapping[str, Mapping[str, str]]


def network_stages(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages that are networks (not rules), each after those that feed it.

    Raises:
        ConfigError: If the stages form a cycle.
    """
    return tuple(name for name in stage_order(recipe) if recipe.stages[name].callable is None)


def stage_order(recipe: Recipe) -> tuple[str, ...]:
    """Return all stages, each after those that feed it."""
    return bundle.stage_order(recipe.stages, where="stages", error=ConfigError)


def output_shape(recipe: Recipe, stage: str, output: str) -> tuple[int, ...]:
    """Return the static shape of an output; ``batch`` is 1.

    Raises:
        ConfigError: If the output is not declared or has another dynamic dimension.
    """
    where = f"stages.{stage}.outputs.{output}"
    if stage not in recipe.stages or output not in recipe.stages[stage].outputs:
        raise ConfigError(f"unknown tensor '{stage}.{output}'", where=where, fix="declare it or correct the name")
    shape = recipe.stages[stage].outputs[output]
    for dim in shape:
        if isinstance(dim, str) and dim != "batch":
            raise ConfigError(f"dimension '{dim}' has no size", where=where, fix="write a number; only 'batch' is 1")
    return tuple(1 if isinstance(dim, str) else dim for dim in shape)


def feed_zeros(recipe: Recipe, stage: str, only: str | None = None, types: Types | None = None) -> dict[str, AnyArray]:
    """Return what each input of a stage is when it is absent, in tensor form: a black picture, silence, padding, zeros.

    They have the shapes [...] and dtypes that the runtime feeds.

    Args:
        recipe: Gives the graph.
        stage: Its name.
        only: Only this input.
        types: Stage -> output -> dtype of the networks before it; float32 where it is not there.

    Raises:
        ConfigError: If an input names nothing.
    """
    spec = recipe.stages[stage]
    if only is not None:
        spec = msgspec.structs.replace(spec, inputs={only: spec.inputs[only]})
    for tensor, source in spec.sources.items():
        if isinstance(source, Seat) and source.name not in recipe.inputs:
            raise ConfigError(
                f"unknown tensor '{source.name}'",
                where=f"stages.{stage}.inputs.{tensor}",
                fix="correct the name or add what it refers to",
            )
        if isinstance(source, State):  # before anything takes its shape
            output_shape(recipe, stage, source.output)

    def upstream(producer: str, output: str) -> AnyArray:
        dtype = (types or {}).get(producer, {}).get(output, "float32")
        return np.broadcast_to(np.zeros((), dtype), output_shape(recipe, producer, output))

    zeros: dict[str, AnyArray] = {}
    for tensor, (shape, dtype) in tensor_specs(spec, recipe.inputs, upstream).items():
        source = spec.sources[tensor]
        if isinstance(source, Constant):
            zeros[tensor] = np.array(source.number, np.float32)
        elif isinstance(source, Seat):
            zeros[tensor] = _absent(recipe.inputs[source.name])
        else:
            own = (types or {}).get(stage, {}) if isinstance(source, State) else {}
            zeros[tensor] = np.zeros(shape, own.get(source.output, dtype) if isinstance(source, State) else dtype)
    return zeros


def fed_shapes(recipe: Recipe, stage: str) -> dict[str, tuple[int, ...]]:
    """Return the shape that each input of a stage is fed; constants, which take any, are left out.

    Raises:
        ConfigError: If an output before it has no shape.
    """
    sources = recipe.stages[stage].sources
    return {t: zeros.shape for t, zeros in feed_zeros(recipe, stage).items() if not isinstance(sources[t], Constant)}


def _absent(spec: Input) -> AnyArray:
    if isinstance(spec, ImageInput):
        return reference.image(np.zeros(spec.raw_shape[1:], np.uint8), spec)
    if isinstance(spec, AudioInput):
        silence = np.zeros(spec.samples, np.float32)
        return silence[None] if spec.features is None else reference.log_mel(silence, spec)
    if isinstance(spec, TextInput):
        return np.full(spec.tensor_shape, spec.pad, np.int64)
    return np.zeros(spec.shape, spec.dtype)


def output_types(network: onnx.ModelProto) -> dict[str, str]:
    """Return output -> dtype of a network."""
    types = {value.name: value.type.tensor_type.elem_type for value in network.graph.output}
    return {name: onnx.helper.tensor_dtype_to_np_dtype(elem).name for name, elem in types.items() if elem}


def masks(recipe: Recipe) -> tuple[Mask, ...]:
    """Return the presence masks worth measuring: all inputs, all but one, and each alone.

    Inputs whose absence ends a run (``fail``) or makes no result (``skip``) are always present.
    """
    names = tuple(recipe.inputs)
    fixed = {n for n, rule in recipe.missing.items() if rule.policy in ("fail", "skip")}
    wanted = [names, *(tuple(n for n in names if n != gone) for gone in names), *((name,) for name in names)]
    return tuple(dict.fromkeys(mask for mask in wanted if mask and fixed <= set(mask)))


def fed_back(recipe: Recipe, known: Tensors) -> dict[str, AnyArray]:
    """Return those of ``known`` that are the states of the next run: ``STAGE.OUTPUT``.

    Tensors have the shapes [...] and dtypes of the recipe.
    """
    states = [str(Output(name, own)) for name, stage in recipe.stages.items() for own in stage.states.values()]
    return {state: known[state] for state in states}


class StageGraph:
    """Runs samples through the stages as the runtime does: absent inputs are zeros, idle stages give zeros.

    Args:
        recipe: Gives the graph.
        runners: Stage name -> what runs it; rules are run by themselves.

    Attributes:
        depends: Stage -> the inputs that it is fed by, directly or through other stages.

    Example:
        >>> graph = StageGraph(recipe, onnx_runners(onnx.models))  # doctest: +SKIP
        >>> graph(Preprocessor(recipe.inputs)(sample))["fusion.digit"].shape  # doctest: +SKIP
        (1, 11)
    """

    def __init__(self, recipe: Recipe, runners: Mapping[str, Runner]) -> None:
        self.recipe = recipe
        self.order = stage_order(recipe)
        self._runners = dict(runners)
        self._zeros: dict[str, dict[str, AnyArray]] = {}
        self._idle: dict[str, dict[str, AnyArray]] = {}
        self.depends: dict[str, frozenset[str]] = {}
        self._masked: set[str] = set()
        types: dict[str, dict[str, str]] = {}
        for name in self.order:
            stage = recipe.stages[name]
            seats = {source for source in stage.inputs.values() if source in recipe.inputs}
            producers = {source.stage for source in stage.links.values()}
            self.depends[name] = frozenset(seats).union(*(self.depends[producer] for producer in producers))
            if Presence() in stage.sources.values() or producers & self._masked:
                self._masked.add(name)
            zeros = self._zeros[name] = feed_zeros(recipe, name, types=types)
            if stage.callable is not None:
                shapes = {tensor: zero.shape for tensor, zero in zeros.items()}
                dtypes = {tensor: zero.dtype.name for tensor, zero in zeros.items()}
                outputs = {output: output_shape(recipe, name, output) for output in stage.outputs}
                with recipe.importable():
                    self._runners[name] = CallableEngine(stage.callable, shapes, outputs, dtypes=dtypes, stage=name)
            # A runner may be a method or a partial of what owns the network.
            owner = getattr(self._runners.get(name), "func", self._runners.get(name))
            own: dict[str, AnyArray] = getattr(owner, "inputs", {})
            given: dict[str, AnyArray] = getattr(owner, "outputs", {})
            types[name] = {output: given[output].dtype.name for output in stage.outputs if output in given}
            self._idle[name] = {
                output: np.zeros(output_shape(recipe, name, output), types[name].get(output, "float32"))
                for output in stage.outputs
            }
            if stage.callable is None:
                for tensor, source in stage.sources.items():
                    if tensor in own:
                        zeros[tensor] = _own(name, tensor, zeros[tensor], source, own[tensor])

    def feeds(
        self, stage: str, known: Tensors, mask: Mask | None = None, last: Tensors | None = None
    ) -> dict[str, AnyArray]:
        """Return the inputs of one stage.

        Tensors have the shapes [...] and dtypes of the recipe.

        Args:
            stage: Its name.
            known: Tensors by input name, and ``STAGE.OUTPUT`` of the stages before.
            mask: Inputs that are present; None for all.
            last: ``STAGE.OUTPUT`` of the run before, where its states are; zeros without.
        """
        present = self.recipe.inputs if mask is None else mask
        feeds = dict(self._zeros[stage])
        for tensor, source in self.recipe.stages[stage].sources.items():
            if isinstance(source, Presence):
                feeds[tensor] = np.array([[name in present for name in self.recipe.inputs]], np.float32)
            elif isinstance(source, State):
                feeds[tensor] = (last or {}).get(str(Output(stage, source.output)), feeds[tensor])
            elif str(source) in known and (not isinstance(source, Seat) or source.name in present):
                feeds[tensor] = known[str(source)]
                if isinstance(source, Age):
                    feeds[tensor] = np.minimum(feeds[tensor], age_limit(self._zeros[stage][tensor].dtype))
        return {tensor: array.astype(self._zeros[stage][tensor].dtype, copy=False) for tensor, array in feeds.items()}

    def __call__(self, tensors: Tensors, mask: Mask | None = None, reuse: Tensors | None = None) -> dict[str, AnyArray]:
        """Run every stage.

        Tensors have the shapes [...] and dtypes of the recipe.

        Args:
            tensors: Preprocessed tensors by input name; and for a state, ``STAGE.OUTPUT`` of the run before.
            mask: Inputs that are present; None for all.
            reuse: What a call with the same tensors and all inputs returned; stages that ``mask`` does
                not change are not run again.

        Returns:
            ``tensors`` and every ``STAGE.OUTPUT``.
        """
        known: dict[str, AnyArray] = dict(tensors)
        present = set(self.recipe.inputs if mask is None else mask)
        for name in self.order:
            if reuse is not None and name not in self._masked and self.depends[name] <= present:
                outputs = {output: reuse[f"{name}.{output}"] for output in self.recipe.stages[name].outputs}
            elif present & self.depends[name] or not self.depends[name]:
                outputs = self._runners[name](self.feeds(name, known, mask, tensors))
            else:
                outputs = dict(self._idle[name])
            known |= {f"{name}.{output}": value for output, value in outputs.items()}
        return known


def _own(stage: str, tensor: str, zeros: AnyArray, source: Source, own: AnyArray) -> AnyArray:
    """Return zeros as a network takes them: a constant fills its tensor; presence, age and state have its type."""
    if isinstance(source, Constant):
        return np.full(own.shape, zeros, own.dtype)
    if own.dtype != zeros.dtype and isinstance(source, (Seat, Output)):
        raise ConfigError(  # as the runtime would refuse the bundle
            f"the network takes {own.dtype}, '{source}' gives {zeros.dtype}",
            where=f"stages.{stage}.inputs.{tensor}",
            fix="cast inside the network, or correct the dtype of its source",
        )
    return zeros.astype(own.dtype)


def onnx_runners(models: Mapping[str, onnx.ModelProto]) -> dict[str, Runner]:
    """Return what runs each network, as it is written."""
    return {name: judge(model, name) for name, model in models.items()}


def seats_of(sources: Mapping[str, str], inputs: Mapping[str, Input]) -> dict[str, str]:
    """Return network input -> seat, for those inputs of a stage that are fed by a seat directly.

    Args:
        sources: Network input -> what feeds it.
        inputs: All seats.
    """
    return {tensor: source for tensor, source in sources.items() if source in inputs}
