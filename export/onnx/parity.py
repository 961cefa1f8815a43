"""Every rewrite of a network is run against the network before it, on the same inputs: a difference is an error.

Both run on ONNX Runtime as they are written. What is compared are all outputs: floats within a share of their range
and of that of their row (class scores beside boxes in pixels), whole numbers, truth values and texts exactly, NaN equal
to NaN. Where they differ, the tensors inside that both have show the first node that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmedge.errors import CheckError, ConfigError
from mmedge.types import AnyArray

from ..judge import judge_session
from .graphs import all_nodes, drop_unused, has_name_twice, name_once, sort_nodes
from .network_file import tensors_of

Feeds = Mapping[str, Any]
# Share of the range by which floats may differ: rewrites keep what is computed, kernels may sum in another order.
_LIMITS = {2: 4e-3, 4: 1e-4, 8: 1e-7}
_BFLOAT16_LIMIT = 3e-2
# Rows are judged one by one up to this limit, each by its own range, which counts as at least this share of the whole.
_FINE, _LEAST_ROW = 1e-3, 1e-2
# (batch, every other open dimension): what the network itself cannot run is left out.
_SIZES = ((1, 1), (2, 5), (1, 16), (3, 2), (1, 32), (2, 64), (1, 160), (1, 224))
# So many pairs of runs are enough where inputs are large, as pictures of 640 x 640 are.
_LARGE, _FEW = 1 << 20, 2
_TEXTS = ("", "a", "B b", "7", "-1.5", "Ä")


def check_rewrite(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    rewrite: str,
    feeds: Iterable[Feeds] | None = None,
    *,
    to_before: Callable[[Feeds], Feeds] | None = None,
    limit: float | None = None,
    ranges: Mapping[str, float] | None = None,
    where: str = "network",
) -> None:
    """Run a network before and after a rewrite on the same inputs, and raise if an output differs.

    Arrays have the shapes [...] and dtypes of the network's inputs.

    Args:
        before: The network that went in.
        after: What the rewrite made of it; outputs may be left out, floats may become wider.
        rewrite: What was done, for the message: "opset 13".
        feeds: Inputs of ``after``; by default ``sample_feeds(before)``. Those that ``before`` refuses do not count.
        to_before: Turns inputs of ``after`` into those of ``before``, where the rewrite changes the signature.
        limit: Share of an output's range by which floats may differ; by default 1e-4 for float32.
        ranges: Output -> its largest magnitude, where more is known of it than one sample shows: a number that happens
            to be near zero has next to no range of its own.
        where: What the network is, for the message.

    Raises:
        CheckError: If an output differs, or ``after`` does not run: it names the rewrite and the first node that
            differs.
        ConfigError: If ``before`` itself runs on none of the inputs, so that nothing can be said.

    Example:
        >>> check_rewrite(model, normal_form(model), "normal form")  # doctest: +SKIP
    """
    if to_before is None and before == after:
        return
    old, new = _Network(before, where), _Network(after, f"{where} after {rewrite}")
    allowed = limit or max(_own_limit(before), _own_limit(after))
    refused: ConfigError | None = None
    runs = 0
    for given in feeds if feeds is not None else sample_feeds(before):
        taken = given if to_before is None else to_before(given)
        try:
            want = old.run(taken)
        except ConfigError as error:
            refused = error
            continue
        runs += 1
        try:
            got = new.run(given)
        except ConfigError as error:
            raise _changed(rewrite, where, f"it does not run any more: {error.message}") from error
        spans = {name: (ranges or {}).get(name, 0.0) for name in got}
        gaps = {name: difference(want[name], value, allowed, spans[name]) for name, value in got.items()}
        differing = {name: told for name, told in gaps.items() if told}
        differing = {name: told for name, told in differing.items() if name not in old.random(taken)}
        if differing:
            output, told = next(iter(differing.items()))
            node = _first_node(before, after, taken, given, allowed, output)
            raise _changed(rewrite, where, f"output '{output}' {told}; the first node that differs is {node}")
        if runs >= _FEW and sum(np.size(value) for value in given.values()) > _LARGE:
            break
    if not runs:
        raise refused or ConfigError("no inputs to compare on", where=where, fix="give some as `feeds`")


def sample_feeds(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fixed: Feeds | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield inputs for a network: noise, zeros, negative, large; at several sizes of dimensions that are open.

    Arrays have the shapes [...] and dtypes of the network's inputs. They are the same in every process.

    Args:
        model: The network.
        shapes: Input -> its shape, where it is known.
        fixed: Inputs that are always fed the same.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    kinds = ("noise", "zeros", "small", "negative", "large")
    seen: list[dict[str, tuple[int, ...]]] = []
    for sizes in _SIZES:
        named: dict[str, int] = {}
        chosen = {value.name: _shape(value, sizes, named, (shapes or {}).get(value.name)) for value in inputs}
        if chosen in seen:
            continue
        for kind in kinds if not seen else kinds[:2]:
            rng = np.random.default_rng(len(seen))
            yield {value.name: (fixed or {}).get(value.name, _feed(value, chosen, kind, rng)) for value in inputs}
        seen.append(chosen)


def difference(want: Any, got: Any, limit: float, least: float = 0.0) -> str | None:
    """Say how two outputs differ; None where they are equal.

    Arrays have any shape and dtype; sequences are compared item by item.

    Args:
        want: Before.
        got: After.
        limit: Share of the range of ``want`` by which floats may differ.
        least: The range that counts where that of ``want`` is smaller.
    """
    if isinstance(want, (list, dict)) or isinstance(got, (list, dict)) or want is None or got is None:
        return _items_differ(want, got, limit)
    want, got = np.asarray(want), np.asarray(got)
    floats = want.dtype.kind == got.dtype.kind == "f"
    if want.dtype != got.dtype and not floats:
        return f"is {got.dtype} instead of {want.dtype}"
    if want.shape != got.shape:
        return f"has the shape {list(got.shape)} instead of {list(want.shape)}"
    if not floats and want.dtype.kind != "c":
        wrong = int(np.count_nonzero(want != got))
        return f"differs in {wrong} of {want.size} values" if wrong else None
    a, b = (value.astype(np.complex128 if value.dtype.kind == "c" else np.float64) for value in (want, got))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "is not finite in other places"
    if not finite.any():
        return None
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    # Narrow types and 8 bits round to steps of the whole range, and small rows with it.
    axis = row_axis(want.shape) if limit <= _FINE else None
    # Below the smallest normal number there is no range to speak of.
    relative = relative_gap(a, b, axis, max(least, float(np.finfo(want.dtype).tiny)))
    return f"differs by {relative:.2g} of its range" if relative > limit else None


def row_axis(shape: Sequence[int]) -> int | None:
    """Return the axis along which an array's rows may be of different units: the shortest that is longer than 1.

    Boxes with their classes are [1, 84, N] or [1, N, 84]. None where rows would be single numbers.
    """
    longer = [axis for axis, size in enumerate(shape) if size > 1]
    return min(longer, key=lambda axis: shape[axis]) if len(longer) > 1 else None


def relative_gap(want: AnyArray, got: AnyArray, axis: int | None, least: float) -> float:
    """Return the largest difference as a share of the range: of the whole, or of its own row along ``axis``.

    Both are finite, float64 or complex128, of the same shape [...].

    Args:
        want: Before.
        got: After.
        axis: That of the rows; None for the whole alone.
        least: The smallest range of the whole that counts.
    """
    size, gap = np.abs(want), np.abs(want - got)
    whole = max(float(size.max(initial=0.0)), least)
    if axis is None:
        return float(gap.max(initial=0.0)) / whole
    others = tuple(other for other in range(want.ndim) if other != axis)
    # A row of zeros is as exact as the sums of the others.
    rows = np.maximum(size.max(axis=others, initial=0.0), _LEAST_ROW * whole)
    return float((gap.max(axis=others, initial=0.0) / rows).max(initial=0.0))


def _items_differ(want: Any, got: Any, limit: float) -> str | None:
    if isinstance(want, dict) and isinstance(got, dict):
        want, got = [*want, *want.values()], [*got, *got.values()]
    if not isinstance(want, list) or not isinstance(got, list) or len(want) != len(got):
        return None if want is None and got is None else "is another sequence, or none"
    for index, (one, other) in enumerate(zip(want, got, strict=True)):
        if told := difference(one, other, limit):
            return f"[{index}] {told}"
    return None


class _Network:
    """A network on ONNX Runtime, as it is written."""

    def __init__(self, model: onnx.ModelProto, where: str, outputs: Sequence[str] = ()) -> None:
        self._model, self._where, self._more = model, where, outputs
        self._random: set[str] | None = None

    @cached_property
    def _session(self) -> Any:
        return self._load(self._model)

    def _load(self, model: onnx.ModelProto) -> Any:
        if has_name_twice(model.graph):  # which it would not run at all
            model = _copy(model)
            name_once(model)
        if self._more:
            model = _copy(model)
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._more)
        try:
            return judge_session(model)
        except Exception as error:  # onnxruntime raises one private class per status code
            raise self._refused(error) from error

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Return the outputs by name; raise ConfigError if it does not run."""
        return self._run(self._session, feeds)

    def _run(self, session: Any, feeds: Feeds) -> dict[str, Any]:
        names = [value.name for value in session.get_outputs()]
        try:
            return dict(zip(names, session.run(None, dict(feeds)), strict=True))
        except Exception as error:  # onnxruntime raises one private class per status code
            raise self._refused(error) from error

    def random(self, feeds: Feeds) -> set[str]:
        """Return the outputs that are drawn by lot: they differ between two runs of one network."""
        if self._random is None:
            one, other = self.run(feeds), self._run(self._load(self._model), feeds)
            self._random = {name for name, value in one.items() if difference(value, other[name], 1e-6)}
        return self._random

    def _refused(self, error: Exception) -> ConfigError:
        text = str(error).strip().splitlines() or [type(error).__name__]
        return ConfigError(
            f"ONNX Runtime cannot run the network: {text[0]}", where=self._where, fix="run `mmedge inspect` on it"
        )


def _first_node(
    before: onnx.ModelProto, after: onnx.ModelProto, taken: Feeds, given: Feeds, limit: float, output: str
) -> str:
    """Name the first node of ``before`` that makes something else after the rewrite."""
    made = {name for node in after.graph.node for name in node.output if name}
    there = {value.name for model in (before, after) for value in model.graph.output}
    # What QuantizeLinear gives has a meaning only with its scale.
    plain = [node for node in before.graph.node if node.op_type != "QuantizeLinear"]
    shared = [name for node in plain for name in node.output if name in made and name not in there]
    differing = {output}
    try:
        want = _Network(before, "", shared).run(taken)
        got = _Network(after, "", shared).run(given)
        differing |= {name for name in shared if difference(want[name], got[name], limit)}
    except ConfigError:
        pass  # a tensor that cannot be an output: the output alone is known
    for node in before.graph.node:
        if differing.intersection(node.output):
            return f"'{node.name or '/'.join(node.output)}' ({node.op_type})"
    return f"what makes '{output}'"


def _changed(rewrite: str, where: str, what: str) -> CheckError:
    return CheckError(
        f"the rewrite '{rewrite}' changes what the network computes: {what}",
        where=where,
        fix="export the network again, with another opset or without that operator; please report it with the file",
    )


def _own_limit(model: onnx.ModelProto) -> float:
    """Return how far floats may differ, by the narrowest that the network computes in."""
    kinds = {tensor.data_type for tensor in tensors_of(model)}
    kinds |= {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    for node in all_nodes(model.graph):
        kinds |= {attribute.i for attribute in node.attribute if attribute.name == "to"}
    if TensorProto.BFLOAT16 in kinds:
        return _BFLOAT16_LIMIT
    if TensorProto.FLOAT16 in kinds:
        return _LIMITS[2]
    return _LIMITS[4] if TensorProto.FLOAT in kinds or TensorProto.DOUBLE not in kinds else _LIMITS[8]


def _shape(
    value: onnx.ValueInfoProto, sizes: tuple[int, int], named: dict[str, int], known: Sequence[int] | None
) -> tuple[int, ...]:
    if known is not None:
        return tuple(known)
    made = []
    for axis, dim in enumerate(_tensor_type(value.type).shape.dim):
        size = sizes[0] if axis == 0 or "batch" in dim.dim_param.lower() else sizes[1]
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            size = dim.dim_value
        elif dim.dim_param:
            size = named.setdefault(dim.dim_param, size)
        made.append(size)
    return tuple(made)


def _tensor_type(kind: onnx.TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        return _tensor_type(kind.sequence_type.elem_type)
    return _tensor_type(kind.optional_type.elem_type) if kind.HasField("optional_type") else kind.tensor_type


def _feed(
    value: onnx.ValueInfoProto, shapes: Mapping[str, tuple[int, ...]], kind: str, rng: np.random.Generator
) -> Any:
    array = _array(_tensor_type(value.type).elem_type, shapes[value.name], kind, rng)
    is_list = value.type.HasField("sequence_type") or value.type.optional_type.elem_type.HasField("sequence_type")
    return [array, array] if is_list else array


def _array(elem: int, shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> AnyArray:
    if elem == TensorProto.STRING:
        texts = np.array(_TEXTS, object)[rng.integers(0, len(_TEXTS), shape)]
        return np.asarray(texts if kind != "zeros" else np.full(shape, ""), object)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem))
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    if dtype.kind in "iu":
        # Indices, sizes and counts are whole numbers: large ones would ask for memory without end.
        is_sample = dtype.itemsize <= 2
        info = np.iinfo(dtype)
        low, high = {
            "noise": (0, info.max + 1 if is_sample else 10),
            "small": (0, 2),
            "negative": (max(info.min, -3), 4),
            "large": (info.min if is_sample else 0, info.max + 1 if is_sample else 100),
        }[kind]
        if kind == "large" and not is_sample and int(np.prod(shape)) <= 8:
            high = 8
        return np.asarray(rng.integers(low, high, shape), dtype)
    if kind == "small":
        return np.asarray(rng.uniform(0, 1, shape)).astype(dtype)
    made = np.asarray(rng.normal(0, 1, shape))
    made = -np.abs(made) if kind == "negative" else made * 100 if kind == "large" else made
    return made.astype(dtype)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def behind_front(model: onnx.ModelProto, inner: Mapping[str, str], where: str) -> Callable[[Feeds], dict[str, Any]]:
    """Return what turns a network's inputs into those of the network behind the nodes that were put in front of it.

    Arrays have the shapes [...] and dtypes of both networks' inputs.

    Args:
        model: The network with those nodes.
        inner: Input -> the tensor that it becomes; other inputs pass unchanged.
        where: What it is, for messages.
    """
    front = onnx.ModelProto(ir_version=model.ir_version)
    front.opset_import.extend(model.opset_import)
    front.graph.CopyFrom(model.graph)
    del front.graph.output[:]
    front.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner.values())
    sort_nodes(front.graph)
    weights = {tensor.name for tensor in model.graph.initializer}  # old files list them as inputs, too
    names = {value.name for value in model.graph.input} - weights
    del front.graph.input[:]
    front.graph.input.extend(value for value in model.graph.input if value.name in names)
    drop_unused(front.graph)
    network = _Network(front, where)

    def behind(feeds: Feeds) -> dict[str, Any]:
        made = network.run(feeds) if inner else {}
        return {name: made[inner[name]] if name in inner else value for name, value in feeds.items() if name in names}

    return behind
