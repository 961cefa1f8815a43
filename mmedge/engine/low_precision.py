"""Whether an engine uses the low precision that was asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mmedge.errors import EngineError

if TYPE_CHECKING:
    from mmedge.engine.build_parent import BuildReport

_log = logging.getLogger(__name__)
_LOW = ("int8", "fp8", "int4")


def refuse_unused(report: BuildReport, precision: str, where: str) -> None:
    """Refuse an engine that computes none of what its file asks for in a low precision: the builder may not say so.

    TensorRT 10.13 on Thor built FP32 engines where FP8 was asked for, without a word
    (https://github.com/NVIDIA/TensorRT/issues/4590).

    Args:
        report: How the engine was built.
        precision: What it was built for.
        where: For the message.

    Raises:
        EngineError: If it is so.
    """
    if precision not in _LOW or not report.quantized_layers:
        return
    if report.layers == 0:
        _log.warning("%s: the engine does not list its layers, so whether it uses %s was not checked", where, precision)
        return
    if report.int8_layers:
        return
    raise EngineError(
        f"{report.module} {report.version} built none of the {report.quantized_layers} products in "
        f"{precision.upper()} that the file asks for: all run in float",
        where=where,
        fix="use another precision (fp16), or another TensorRT: `mmedge doctor` says what is known of this one",
    )
