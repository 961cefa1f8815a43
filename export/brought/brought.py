"""Your own networks as ONNX files: shapes made static, inputs matched to their sources, output shapes measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

from mmedge.bundle.manifest import ImageInput
from mmedge.bundle.seats import PictureLayout
from mmedge.bundle.source import Constant, State
from mmedge.engine.parse_check import ask_parser
from mmedge.engine.shapes import described, fix_shapes
from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from ..onnx.branches import take_branches
from ..onnx.clean import strip
from ..onnx.feeds import sample_feeds
from ..onnx.folding import infer
from ..onnx.graphs import (
    all_nodes,
    fresh,
    has_name_twice,
    name_once,
    rename,
    set_shape,
    sort_nodes,
    subgraphs,
    tensor_names,
)
from ..onnx.lint import lint
from ..onnx.network_file import load_network
from ..onnx.opset import raise_opset
from ..onnx.outside import whole, why_not, without_left
from ..onnx.parity import behind_front, check_rewrite
from ..recipe import Recipe, RecipeStage
from ..stages import feed_zeros, output_types, stage_order
from .layouts import AXES, Dims, lay_out, matches
from .outputs import fitted, static_outputs

# Before, initializers had to be inputs too.
MIN_IR = 4
# Of the states of recurrent networks, [layers, batch, hidden], the batch alone is open.
_BATCH = [False, True, False]


def bring(recipe: Recipe) -> tuple[Recipe, dict[str, onnx.ModelProto]]:
    """Read the networks that a recipe brings along.

    Open dimensions get the size of what feeds them; of a constant or state, of what has the same name or what the
    recipe declares, and a batch is 1. An image seat may feed a network that wants
    channels last, another rank or another number type. Outputs that the recipe does not declare are left out
    if it declares any.

    Args:
        recipe: With ``onnx`` in some of its stages.

    Returns:
        The recipe with every output's shape filled in, and stage -> network, static and in tensor form.

    Raises:
        ConfigError: If a file is missing, a name or shape does not fit, or an output's shape depends on values.

    Example:
        >>> recipe, networks = bring(Recipe.load("recipe.toml"))  # doctest: +SKIP
        >>> recipe.stages["detector"].outputs  # doctest: +SKIP
        {'output0': (1, 84, 8400)}
    """
    networks: dict[str, onnx.ModelProto] = {}
    types: dict[str, dict[str, str]] = {}
    for name in stage_order(recipe):
        stage = recipe.stages[name]
        if stage.onnx is None:
            continue
        where = f"stages.{name}"
        declared = {
            tensor: feed_zeros(recipe, name, only=tensor, types=types)[tensor].shape
            for tensor, source in stage.sources.items()
            if not isinstance(source, (Constant, State))
        }
        model = _load(recipe, stage.onnx, declared)
        own = {value.name: value for value in graph_inputs(model)}
        if own.keys() != stage.inputs.keys():
            raise ConfigError(
                f"the network's inputs are {sorted(own)}, but the recipe declares {sorted(stage.inputs)}",
                where=f"{where}.inputs",
                fix="use the network's names",
            )
        feeds: dict[str, AnyArray] = {}
        opened = {tensor: open_dims(value) for tensor, value in own.items()}
        for tensor, source in stage.sources.items():
            if not isinstance(source, (Constant, State)):
                feeds[tensor] = feed_zeros(recipe, name, only=tensor, types=types)[tensor]
                seat = recipe.inputs.get(str(source))
                layout = seat.layout if isinstance(seat, ImageInput) else None
                _fit(model, own[tensor], feeds[tensor], f"{where}.inputs.{tensor}", str(source), layout=layout)
        for tensor, shape in _rest(model, opened, feeds, stage, where).items():
            source = stage.sources[tensor]
            number = source.number if isinstance(source, Constant) else 0
            feeds[tensor] = np.full(shape, number, dtype(own[tensor]))
        constants = {t: feeds[t] for t, source in stage.sources.items() if isinstance(source, Constant)}
        _take_branches(model, feeds, constants, where)
        for tensor, array in feeds.items():
            set_shape(own[tensor], array.shape)
        shapes = static_outputs(model, stage.outputs, feeds, constants, where)
        _check_fitted(model, partial(_load, recipe, stage.onnx, declared), feeds, constants, where)
        for tensor, state in stage.states.items():
            if shapes.get(state) != feeds[tensor].shape:
                raise ConfigError(
                    f"the state is {list(feeds[tensor].shape)}, but output '{state}' is {list(shapes.get(state, ()))}",
                    where=f"{where}.inputs.{tensor}",
                    fix="feed back an output of the same shape",
                )
        networks[name], types[name] = model, output_types(model)
        filled = msgspec.structs.replace(stage, outputs=shapes)
        recipe = msgspec.structs.replace(recipe, stages={**recipe.stages, name: filled})
    return recipe, networks


def tensorrt_problem(model: onnx.ModelProto) -> str | None:
    """Say why TensorRT cannot take a network that was brought along; None where it can, as far as is known.

    The parser of the TensorRT that is installed decides, in a child; where there is none, our list of operators does.
    """
    if (problem := why_not(model, "TensorRT")) is not None:
        return problem
    answer = ask_parser(whole(model).SerializeToString())
    if answer is None:
        problem = listed_problem(model)
        return problem and f"{problem} (by a list of operators: no TensorRT parser is installed here)"
    if not answer.refused:
        return None
    first = answer.refused[0]
    node = f"{first.op} '{first.name}': " if first.op else ""
    more = f", and {len(answer.refused) - 1} more" if len(answer.refused) > 1 else ""
    return f"{node}{first.reason} ({answer.module} {answer.version}{more})"


def listed_problem(model: onnx.ModelProto) -> str | None:
    """Say what a list of operators holds against a network on TensorRT: a first answer where no parser is there."""
    for finding in lint(model):
        if finding.level == "error" or finding.rule == "control-flow":
            return f"{finding.node}: {finding.message}"
    try:
        checker.check_model(without_left(model), full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        return f"its shapes cannot be inferred: {str(error).splitlines()[0]}"
    return None


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that somebody must feed: old files list their weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def check_signature(model: onnx.ModelProto, where: str) -> None:
    """Raise ConfigError for an input or output that is no tensor, or of which nothing tells the type, in place.

    What a file leaves out of its outputs' types is filled in where it follows from the nodes.
    """
    inputs, outputs = graph_inputs(model), model.graph.output
    if not outputs:
        raise ConfigError("the network has no outputs", where=where, fix="export it with an answer")
    if any(value.type.WhichOneof("value") is None for value in outputs):
        known = infer(model)
        for value in outputs:
            if value.type.WhichOneof("value") is None and (found := known.get(value.name)) is not None and found.elem:
                dims_ = None if found.dims is None else list(found.dims)
                value.CopyFrom(helper.make_tensor_value_info(value.name, found.elem, dims_))
    for kind, values in (("input", inputs), ("output", outputs)):
        for value in values:
            own = value.type.WhichOneof("value")
            tensor = value.type.tensor_type
            if own == "tensor_type" and tensor.elem_type and (kind == "output" or tensor.HasField("shape")):
                continue
            told = "of unknown type or shape" if own in (None, "tensor_type") else f"no tensor: {own.partition('_')[0]}"
            raise ConfigError(
                f"{kind} '{value.name}' is {told}",
                where=where,
                fix=f"export the network with tensors as {kind}s, with their types and numbers of dimensions",
            )


def dims(value: onnx.ValueInfoProto) -> Dims:
    """Return the shape of a graph input or output; None where it is dynamic."""
    found = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in found)


def open_dims(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Return the shape of a graph input or output; the name, or None, of a dimension that is open."""
    found = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in found]


def _rest(
    model: onnx.ModelProto,
    opened: Mapping[str, list[int | str | None]],
    feeds: Mapping[str, AnyArray],
    stage: RecipeStage,
    where: str,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of constants and states: their open dimensions are those of what is fed, or declared."""
    inner = fitted(model)
    infos = {info.name: info for info in model.graph.value_info}
    given = {
        tensor: tuple(d or 1 for d in dims(infos[inner[tensor]])) if tensor in inner else array.shape
        for tensor, array in feeds.items()
    }
    is_recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in all_nodes(model.graph))
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor, source in stage.sources.items():
        if not isinstance(source, (Constant, State)):
            continue
        wanted = list(opened[tensor])
        declared = stage.outputs.get(source.output, ()) if isinstance(source, State) else ()
        if len(declared) == len(wanted):
            wanted = [1 if isinstance(dim, str) else dim for dim in declared]
        elif isinstance(source, Constant) and wanted == [None]:
            wanted = [1]  # one number for a batch of one
        elif isinstance(source, State) and is_recurrent and [d is None or isinstance(d, str) for d in wanted] == _BATCH:
            wanted[1] = 1
        try:
            fixed = fix_shapes({**{name: opened[name] for name in given}, tensor: wanted}, given, where=where)
        except ConfigError as error:
            line = ", ".join(str(dim if isinstance(dim, int) else f"<{dim or 'size'}>") for dim in wanted)
            raise ConfigError(
                f"input '{tensor}' is {described(opened[tensor])}, and nothing gives the size of its open dimension",
                where=f"{where}.inputs.{tensor}",
                fix=f"declare what is fed back: outputs = {{ {source.output} = [{line}] }}"
                if isinstance(source, State)
                else f'feed it by an input: [inputs.NAME] with modality = "tensor" and shape = [{line}]',
            ) from error
        shapes[tensor] = fixed[tensor]
    return shapes


def dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    """Return the numpy type of a graph input or output."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _load(recipe: Recipe, file: str, declared: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    path = recipe.path(file)
    model = load_network(path, streamed=True)
    strip(model)
    model.ir_version = max(model.ir_version, MIN_IR)
    own = {value.name: value for value in graph_inputs(model)}
    fit = {n: shape for n, shape in declared.items() if n in own and matches(dims(own[n]), shape)}
    model = raise_opset(model, str(path), sample_feeds(model, fit) if fit else None)
    if has_name_twice(model.graph) or any(True for node in model.graph.node for _ in subgraphs(node)):
        sort_nodes(model.graph)
        name_once(model)
    return model


def _take_branches(
    model: onnx.ModelProto, feeds: Mapping[str, AnyArray], constants: Mapping[str, AnyArray], where: str
) -> None:
    """Take the branches that the stage's shapes and constants decide, in place."""
    if all(node.op_type != "If" for node in model.graph.node):
        return
    before = onnx.ModelProto()
    before.CopyFrom(model)
    shapes = {tensor: array.shape for tensor, array in feeds.items()}
    if take_branches(model, shapes, constants):
        check_rewrite(before, model, "branches taken", sample_feeds(model, shapes, constants), where=where)


def _check_fitted(
    model: onnx.ModelProto,
    load: Callable[[], onnx.ModelProto],
    feeds: Mapping[str, AnyArray],
    constants: Mapping[str, AnyArray],
    where: str,
) -> None:
    """Hold a network with other inputs and outputs against that of the file."""
    if not any("/fit/" in node.name for node in model.graph.node):
        return
    before = load()
    types = {value.name: dtype(value) for value in graph_inputs(before)}
    behind = behind_front(model, fitted(model), where)

    def to_before(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: np.asarray(value).astype(types[name]) for name, value in behind(given).items()}

    def counted(given: Mapping[str, Any]) -> dict[str, Any]:
        """A float seat gives a network that counts whole numbers, in their range."""
        return {
            name: np.clip(np.rint(np.abs(value)), 0, 100).astype(value.dtype) if types[name].kind in "iu" else value
            for name, value in given.items()
        }

    shapes = {tensor: array.shape for tensor, array in feeds.items()}
    samples = map(counted, sample_feeds(model, shapes, constants))
    check_rewrite(before, model, "inputs and outputs fitted", samples, to_before=to_before, where=where)


def _fit(
    model: onnx.ModelProto,
    value: onnx.ValueInfoProto,
    given: AnyArray,
    where: str,
    source: str,
    *,
    layout: PictureLayout | None,
) -> None:
    """Make an input take exactly ``given``'s shape and type, with nodes in front where it wants another layout."""
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        fix = "turn texts into numbers outside of the network: a text input gives token ids"
        raise ConfigError("the network takes texts, which no input gives", where=where, fix=fix)
    want, shape = dims(value), given.shape
    nodes: list[tuple[str, dict[str, Any], list[onnx.TensorProto]]] = []
    inner = shape
    if not matches(want, shape) or layout not in (None, "nchw"):
        # A seat that says nothing feeds channels last where only that fits.
        perm = AXES["nhwc" if layout == "nchw" else layout] if layout is not None else ()
        turned = tuple(shape[axis] for axis in perm) if len(shape) == 4 else ()
        if perm and matches(want, turned):
            inner = turned
            nodes.append(("Transpose", {"perm": perm}, []))
        elif perm and matches(want, turned[1:]) and not matches(want, shape[1:]):
            inner = turned[1:]
            target = helper.make_tensor(f"{value.name}/shape", TensorProto.INT64, [3], inner)
            nodes += [("Transpose", {"perm": perm}, []), ("Reshape", {}, [target])]
        elif layout in (None, "nchw") and (laid := lay_out(want, shape)) is not None:
            is_turned, inner = laid
            if is_turned:
                nodes.append(("Transpose", {"perm": (0, 2, 1)}, []))
            target = helper.make_tensor(f"{value.name}/shape", TensorProto.INT64, [len(inner)], inner)
            nodes.append(("Reshape", {}, [target]))
        else:
            text = [dim if dim is not None else "?" for dim in want]
            told = "" if layout in (None, "nchw") else f" as '{layout}'"
            raise ConfigError(
                f"the network takes {text}, '{source}' gives {list(shape)}{told}",
                where=where,
                fix="correct the size of its source, or export the network with that shape",
            )
    own = dtype(value)
    elem = value.type.tensor_type.elem_type
    users = [node.op_type for node in all_nodes(model.graph) if value.name in node.input]
    if own != given.dtype and not (own == np.uint8 and set(users) == {"Cast"}):
        if own in (np.uint8, np.int16) and given.dtype == np.float32:  # a cast alone would cut, and wrap around
            ends = (np.array(end, np.float32) for end in (np.iinfo(own).min, np.iinfo(own).max))
            clip = [
                numpy_helper.from_array(e, f"{value.name}/{k}") for e, k in zip(ends, ("least", "most"), strict=True)
            ]
            nodes += [("Round", {}, []), ("Clip", {}, clip)]
        nodes.append(("Cast", {"to": elem}, []))
    value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(given.dtype)
    if nodes:
        set_shape(value, shape)
        kept = elem if nodes[-1][0] == "Cast" else value.type.tensor_type.elem_type
        _put_in_front(model, value.name, nodes, inner, kept)


def _put_in_front(
    model: onnx.ModelProto,
    name: str,
    nodes: list[tuple[str, dict[str, Any], list[onnx.TensorProto]]],
    shape: tuple[int, ...],
    elem: int,
) -> None:
    graph = model.graph
    if any(value.name == name for value in graph.output):
        raise ConfigError(
            f"output '{name}' is the input itself, which needs another layout or type",
            where=f"inputs.{name}",
            fix="export the network without this output",
        )
    taken, names = tensor_names(graph), {node.name for node in all_nodes(graph)}
    tensor = fresh(f"{name}/own", taken)
    rename(graph, {name: tensor})
    made: list[onnx.NodeProto] = []
    last = name
    for index, (op, attributes, constants) in enumerate(nodes):
        output = tensor if index == len(nodes) - 1 else fresh(f"{name}/fit/{op.lower()}", taken)
        for constant in constants:
            constant.name = fresh(constant.name, taken)
        inputs = [last, *(c.name for c in constants)]
        made.append(helper.make_node(op, inputs, [output], name=fresh(f"{name}/fit/{op}", names), **attributes))
        graph.initializer.extend(constants)
        last = output
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *own])
    graph.value_info.append(helper.make_tensor_value_info(tensor, elem, shape))
