"""Which layers quantisation costs most: each is quantised alone, and the noise at the network's outputs is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from mmedge.types import AnyArray, Tensors

from ..judge import judge
from ..report import sqnr_db
from .forms import INT8, Insert


def rank(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    thresholds: Mapping[str, float],
    feeds: Sequence[Tensors],
    insert: Insert = INT8.insert,
) -> list[tuple[str, float]]:
    """Return nodes and the worst output's SQNR in dB with that node alone quantised, the most costly first.

    Args:
        model: The fp32 network in normal form.
        nodes: Those to try; one session each.
        thresholds: Tensor -> magnitude of the int8 value 127.
        feeds: A few frames of the network's inputs, of their shapes [...] and dtypes.
        insert: What quantises them.
    """
    want = _outputs(model, feeds)
    found = []
    for name in nodes:
        got = _outputs(insert(model, [name], thresholds, name)[0], feeds)
        found.append((name, min(sqnr_db(want[output], got[output]) for output in want)))
    return sorted(found, key=lambda pair: pair[1])


def _outputs(model: onnx.ModelProto, feeds: Sequence[Tensors]) -> dict[str, AnyArray]:
    with judge(model) as engine:
        found = [engine(feed) for feed in feeds]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}
