"""Two ONNX files on the same inputs, in a child with bounds; and the first layers in which they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mmedge.engine.arrays import array_bytes, sample_bytes
from mmedge.engine.difference import Difference, compare_networks_on, network_feeds, pair_names
from mmedge.engine.network import read_network
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.shapes import Shape
from mmedge.errors import EngineError
from mmedge.fusion.evidence import evidence_of
from mmedge.types import AnyArray

from .bounded import within
from .brought.brought import graph_inputs
from .judge import judge_session
from .onnx.network_file import load_network
from .onnx.outside import handed, left

_AT_ONCE = 32  # tensors that are fetched in one run
_SHOWN = 5  # layers at which a difference begins
_LOOKED_AT = 2  # samples in which layers are compared
# Of two networks on the user's own inputs, beside the first reading.
_CPU_S, _SAMPLES = 60.0, 8  # so long for so many samples or fewer
_CPU_S_PER_MB, _MB_PER_MB = 0.1, 3.0  # of arrays
# What layers make of one sample that the user gave, or of a size that he did, in two networks: 32 times its size each.
_MB_PER_MB_GIVEN = 64.0


def compare_networks(
    a: Path,
    b: Path,
    on: Path | None = None,
    *,
    shapes: Mapping[str, Shape] | None = None,
    samples: int = 8,
    bisect: float | None = None,
) -> dict[str, Any]:
    """Compare two ONNX files, in a child with bounds.

    Args:
        a: What is right.
        b: What is compared with it.
        on: Arrays (``mmedge.engine.arrays``); None draws inputs by signature.
        shapes: Input of ``a`` -> shape, where it is open.
        samples: So many at most.
        bisect: Also name the first layers that differ by more than this, relative to their largest value.

    Returns:
        ``outputs`` (output -> figures), ``inputs`` (what they were), ``layers`` if asked for.

    Raises:
        ConfigError: If a file is no network, the two differ in signature, or the arrays do not fit.
        EngineError: If one of them cannot be run.
    """
    argument = (a, b, on, dict(shapes or {}), samples, bisect)
    arrays_mb = 0.0 if on is None else array_bytes(on) / 1e6
    cpu_s = _CPU_S * max(samples / _SAMPLES, 1.0) + _CPU_S_PER_MB * arrays_mb
    given_mb = sum(4e-6 * math.prod(shape) for shape in (shapes or {}).values())
    given_mb = max(given_mb, 0.0 if on is None else min(sample_bytes(on) / 1e6, arrays_mb))
    memory_mb = _MB_PER_MB * arrays_mb + _MB_PER_MB_GIVEN * given_mb
    found: dict[str, Any] = within("compare", [a, b], argument, cpu_s=cpu_s, memory_mb=memory_mb)
    return found


def compare_here(argument: tuple[Path, Path, Path | None, dict[str, Shape], int, float | None]) -> dict[str, Any]:
    """Do what ``compare_networks`` says, in this process."""
    a, b, on, shapes, samples, bisect = argument
    with _engine(a, shapes) as left:
        # Names differ; inputs stand in one order.
        names = [value.name for value in graph_inputs(load_network(b, largest_bytes=0))]
        pairs = pair_names(list(left.inputs), names, "inputs", f"{a} and {b}")
        theirs = {other: left.inputs[own].shape for own, other in pairs.items()}
        with _engine(b, theirs) as right:
            document = compare_networks_on(left, right, on, samples, f"{a} and {b}")
            document |= {"evidence": evidence_of([left.backend, right.backend])}
            if bisect is not None:
                document["layers"] = _layers(a, b, lambda: network_feeds(on, left.inputs, _LOOKED_AT), pairs, bisect)
                document["bisect_max_rel"] = bisect
    return document


def _engine(file: Path, shapes: Mapping[str, Shape]) -> OnnxRuntimeEngine:
    network = read_network(file)
    model = load_network(file, streamed=True) if network.weights else None
    if model is not None and not left(model):
        try:
            return OnnxRuntimeEngine(file, name=str(file), shapes=shapes, exact=True, as_written=True)
        except EngineError as error:
            if "external tensors" not in error.message:  # sizes that lie in files, where ONNX Runtime does not look
                raise
    source, weights = (network.model, {}) if model is None else handed(model)
    return OnnxRuntimeEngine(source, name=str(file), shapes=shapes, exact=True, as_written=True, weights=weights)


def _layers(
    a: Path,
    b: Path,
    feeds: Callable[[], Iterable[Mapping[str, AnyArray]]],
    inputs: Mapping[str, str],
    limit: float,
) -> list[dict[str, Any]]:
    """Return the layers of ``a``, in order, at which a difference begins: what enters them is alike."""
    left, right = _Opened(a), _Opened(b)
    matched = _match(left.nodes, right.nodes)
    off: dict[str, Difference] = {}
    names = [name for name in matched if name in left.kept and matched[name][0] in right.kept]
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        for feed in feeds():
            ours = left.run(part, feed)
            theirs = right.run([matched[name][0] for name in part], {inputs[n]: array for n, array in feed.items()})
            for name, x, y in zip(part, ours, theirs, strict=True):
                if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.shape == y.shape:
                    off.setdefault(name, Difference()).add(x, y)
    found = []
    for node in left.nodes:
        for tensor in node.output:
            difference = off.get(tensor)
            if difference is None or not _beyond(difference, limit):
                continue
            entering = [off[name] for name in node.input if name in off]
            if any(_beyond(other, limit) for other in entering):
                continue
            found.append(
                {
                    "node": node.name or tensor,
                    "op": node.op_type,
                    "tensor": tensor,
                    "tensor_b": matched[tensor][0],
                    "matched_by": matched[tensor][1],
                    **difference.to_dict(),
                }
            )
    return found[:_SHOWN]


def _beyond(difference: Difference, limit: float) -> bool:
    return bool(difference.unequal) or not difference.max_rel <= limit or math.isinf(difference.max_rel)


class _Opened:
    """A network whose tensors between the layers can be fetched."""

    def __init__(self, file: Path) -> None:
        model = load_network(file, streamed=True)
        self.nodes = list(model.graph.node)
        outputs = {value.name for value in model.graph.output}
        self.kept = [name for node in self.nodes for name in node.output if name]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.kept if name not in outputs)
        try:
            self._session = judge_session(model)
        except Exception as error:  # onnxruntime raises one private class per status code, protobuf others
            raise EngineError(
                f"the tensors between its layers cannot be looked at: {error}",
                where=str(file),
                fix="compare without --bisect",
            ) from error

    def run(self, names: Sequence[str], feed: Mapping[str, AnyArray]) -> list[Any]:
        """Return tensors by name; their arrays are [...] in dtypes of their own."""
        found: list[Any] = self._session.run(list(names), dict(feed))
        return found


def _match(a: Sequence[onnx.NodeProto], b: Sequence[onnx.NodeProto]) -> dict[str, tuple[str, str]]:
    """Return tensor of ``a`` -> tensor of ``b``, and how it was found: by its name, else by the place of its layer."""
    theirs = {name for node in b for name in node.output if name}
    found = {n: (n, "name") for node in a for n in node.output if n and n in theirs}
    left = [node for node in a if not any(name in found for name in node.output)]
    taken = {other for other, _ in found.values()}
    right = [node for node in b if not any(name in taken for name in node.output)]
    kinds = SequenceMatcher(None, [n.op_type for n in left], [n.op_type for n in right], autojunk=False)
    for block in kinds.get_matching_blocks():
        for ours, others in zip(
            left[block.a : block.a + block.size], right[block.b : block.b + block.size], strict=True
        ):
            for name, other in zip(ours.output, others.output, strict=False):
                if name and other:
                    found[name] = (other, "position")
    return found
