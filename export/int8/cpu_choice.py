"""Which INT8 form a bundle gets for CPUs: the fastest on all of them, unless that costs too much."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from onnx import ModelProto

from ..golden import MARGIN, Golden
from ..judge import judge
from ..onnx.parity import check_rewrite
from .cpu_form import to_cpu_form

# How far it may be from the form that was calibrated: 6 % of the range were measured on small nets.
_FORM = 0.1
# What rounding weights for pairs of products may cost: parts of the range, or of the calibrated form's noise.
_PAIRS, _PAIRS_OF_NOISE = 0.02, 2.0
_log = logging.getLogger(__name__)


def checked_cpu_form(int8: ModelProto, ranges: Mapping[str, float], golden: Golden, stage: str) -> ModelProto:
    """Return the INT8 form of CPUs, compared with the calibrated form.

    Args:
        int8: The calibrated form, in which TensorRT gets it.
        ranges: Tensor -> magnitude beyond which it is cut off.
        golden: Samples to compare on.
        stage: For messages.

    Raises:
        CheckError: If it answers differently.
    """
    with judge(int8, stage) as calibrated:
        own = golden.noise(calibrated, raw=False).whole
    form = to_cpu_form(int8, ranges)
    # Its steps are never wider: it may be as far on the other side of fp32.
    limit = max(_FORM, MARGIN * max(own.values(), default=0.0))
    check_rewrite(int8, form, "INT8 form of CPUs", golden.tensors, limit=limit, where=f"stages.{stage}")
    with judge(form, stage) as engine:
        found = golden.noise(engine, raw=False).whole
    if all(found[output] <= max(_PAIRS, _PAIRS_OF_NOISE * noise) for output, noise in own.items()):
        return form
    _log.info("stage '%s': its INT8 weights keep all bits, so CPUs without VNNI run it on slower kernels", stage)
    form = to_cpu_form(int8, ranges, pairs=False)
    check_rewrite(int8, form, "INT8 form of CPUs", golden.tensors, limit=limit, where=f"stages.{stage}")
    return form
