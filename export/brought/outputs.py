"""What a network that is brought along gives: shapes measured on two inputs, floats as float32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from ..judge import judge_session
from ..onnx.graphs import fresh, rename, set_shape, tensor_names


def fitted(model: onnx.ModelProto) -> dict[str, str]:
    """Return input -> the tensor that the nodes put in front of the network make of it."""
    inputs = {value.name for value in model.graph.input}
    parts = [(node.name.partition("/fit/"), node.output[0]) for node in model.graph.node]
    return {name: made for (name, found, _), made in parts if found and name in inputs}


def static_outputs(
    model: onnx.ModelProto,
    declared: Mapping[str, tuple[str | int, ...]],
    feeds: Mapping[str, AnyArray],
    constants: Mapping[str, AnyArray],
    where: str,
) -> dict[str, tuple[int, ...]]:
    """Write the static shape of every wanted output, as float32 where it is another float, in place.

    Args:
        model: The network, with static inputs.
        declared: Output -> its shape as the recipe declares it; empty for all outputs as they are.
        feeds: Inputs of the network's shapes [...] and dtypes.
        constants: Those of them that are always fed the same.
        where: The stage, for messages.

    Returns:
        Output -> its shape.

    Raises:
        ConfigError: If an output does not exist, is no tensor, is empty, has another shape than declared, or one that
            depends on values; or if the network does not run.
    """
    graph = model.graph
    unknown = sorted(declared.keys() - {value.name for value in graph.output})
    if unknown:
        raise ConfigError(
            f"the network has no output '{unknown[0]}'",
            where=f"{where}.outputs",
            fix=f"it has {[value.name for value in graph.output]}",
        )
    kept = [value for value in graph.output if value.name in declared or not declared]
    del graph.output[:]
    graph.output.extend(kept)
    first, second = run_network(model, feeds, where), _run_noise(model, feeds, constants, where)
    shapes: dict[str, tuple[int, ...]] = {}
    for value, one, other in zip(graph.output, first, second, strict=True):
        at = f"{where}.outputs.{value.name}"
        if not isinstance(one, np.ndarray):
            fix = "export the network with tensors as outputs, or leave this output out"
            raise ConfigError("the output is a sequence or a map, not a tensor", where=at, fix=fix)
        own = tuple(one.shape)
        if own == other.shape and 0 in own:
            fix = "export the network without this output, or feed it what gives it a size"
            raise ConfigError(f"the output is empty for zeros and for noise: {list(own)}", where=at, fix=fix)
        if own != other.shape:
            raise ConfigError(
                f"the output's shape depends on values: {list(own)}, then {list(other.shape)}",
                where=at,
                fix="export the network without its non-maximum suppression, or leave this output out",
            )
        said = tuple(1 if isinstance(dim, str) else dim for dim in declared.get(value.name, own))
        if said != own:
            raise ConfigError(
                f"the network returns {list(own)}, but the recipe declares {list(said)}",
                where=at,
                fix="correct the recipe",
            )
        set_shape(value, own)
        if one.dtype in (np.float16, np.float64):
            _cast_output(model, value)
        shapes[value.name] = own
    # Shapes inside may have been written for other sizes.
    given = {value.name for value in [*graph.input, *graph.output]} | {*fitted(model).values()}
    kept_infos = [info for info in graph.value_info if info.name in given]
    del graph.value_info[:]
    graph.value_info.extend(kept_infos)
    return shapes


def run_network(model: onnx.ModelProto, feeds: Mapping[str, AnyArray], where: str) -> list[Any]:
    """Run a network once on ONNX Runtime; raise ConfigError if it cannot.

    ``feeds`` and the outputs, in the graph's order, have the network's shapes [...] and dtypes.
    """
    try:
        outputs: list[Any] = judge_session(model).run(None, dict(feeds))
    except Exception as error:  # onnxruntime raises one private class per status code
        raise ConfigError(
            f"ONNX Runtime cannot run the network: {str(error).splitlines()[0]}",
            where=where,
            fix="run `mmedge inspect` on it",
        ) from error
    return outputs


def _run_noise(
    model: onnx.ModelProto, feeds: Mapping[str, AnyArray], constants: Mapping[str, AnyArray], where: str
) -> list[Any]:
    """Run a network on noise; whole numbers, which may be indices, stay zero where it does not run on others."""
    rng = np.random.default_rng(0)
    noise = dict(feeds)
    for name, value in feeds.items():
        if value.dtype.kind == "f" and name not in constants:
            noise[name] = rng.normal(0, 1, value.shape).astype(value.dtype)
    counted = {name for name, value in feeds.items() if value.dtype.kind in "iub"} - constants.keys()
    if counted:
        whole = {name: rng.integers(0, 2, feeds[name].shape).astype(feeds[name].dtype) for name in counted}
        with suppress(ConfigError):
            return run_network(model, {**noise, **whole}, where)
    return run_network(model, noise, where)


def _cast_output(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> None:
    inner = fresh(f"{value.name}/own", tensor_names(model.graph))
    rename(model.graph, {value.name: inner})
    cast = helper.make_node("Cast", [inner], [value.name], name=f"{value.name}/fit/Cast", to=TensorProto.FLOAT)
    model.graph.node.append(cast)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
