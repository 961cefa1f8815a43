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
from onnx import TensorProto

from mmedge.engine.rows import gap, magnitude, row_axis
from mmedge.errors import CheckError, ConfigError
from mmedge.types import AnyArray

from ..judge import judge_session
from .feeds import Feeds, larger_feeds, sample_feeds
from .graphs import all_nodes, drop_unused, has_name_twice, name_once, sort_nodes
from .network_file import tensors_of

# Share of the range by which floats may differ: rewrites keep what is computed, kernels may sum in another order.
_LIMITS = {2: 4e-3, 4: 1e-4, 8: 1e-7}
_BFLOAT16_LIMIT = 3e-2
# Rows are judged one by one up to this limit, each by its own range, which counts as at least this share of the whole.
_FINE, _LEAST_ROW = 1e-3, 1e-2
# So many pairs of runs are enough where inputs are large, as pictures of 640 x 640 are.
_LARGE, _FEW = 1 << 20, 2


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
    tried: dict[str, None] = {}
    more = larger_feeds(before) if to_before is None else ()
    for is_more, given in _in_turn(feeds if feeds is not None else sample_feeds(before), more):
        if is_more and runs:
            break
        tried[", ".join(f"{name} {list(np.shape(value))}" for name, value in given.items())] = None
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
    if not runs and refused is not None and len(tried) > 1:
        raise ConfigError(
            f"the network runs on none of the inputs that were tried ({'; '.join(tried)}): {refused.message}",
            where=where,
            fix="give its open dimensions the sizes that it is used with, or run `mmedge inspect` on it",
        ) from refused
    if not runs:
        raise refused or ConfigError("no inputs to compare on", where=where, fix="give some as `feeds`")


def _in_turn(first: Iterable[Feeds], more: Iterable[Feeds]) -> Iterator[tuple[bool, Feeds]]:
    """Yield the inputs, then further ones, each with whether it is a further one."""
    yield from ((False, given) for given in first)
    yield from ((True, given) for given in more)


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
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(want[~finite], got[~finite], equal_nan=True):
        return "is not finite in other places"
    if not finite.any():
        return None
    if not finite.all():
        want, got = np.where(finite, want, 0), np.where(finite, got, 0)
    # Narrow types and 8 bits round to steps of the whole range, and small rows with it.
    axis = row_axis(want.shape) if limit <= _FINE else None
    # Below the smallest normal number there is no range to speak of.
    relative = relative_gap(want, got, axis, max(least, float(np.finfo(want.dtype).tiny)))
    return f"differs by {relative:.2g} of its range" if relative > limit else None


def relative_gap(want: AnyArray, got: AnyArray, axis: int | None, least: float) -> float:
    """Return the largest difference as a share of the range: of the whole, or of its own row along ``axis``.

    Both are finite, of any numeric dtypes and the same shape [...].

    Args:
        want: Before.
        got: After.
        axis: That of the rows; None for the whole alone.
        least: The smallest range of the whole that counts.
    """
    whole = max(float(magnitude(want)), least)
    # A row of zeros is as exact as the sums of the others.
    ranges = whole if axis is None else np.maximum(magnitude(want, axis), _LEAST_ROW * whole)
    return float((magnitude(gap(want, got), axis) / ranges).max(initial=0.0))


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
