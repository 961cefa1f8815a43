"""Whether an engine uses the precision that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmedge.errors import EngineError

if TYPE_CHECKING:
    from mmedge.engine.build_parent import BuildReport

_LOW = ("int8", "fp8", "int4")


def refuse_unused(report: BuildReport, precision: str, where: str) -> None:
    """Refuse an engine that computes none of what its file asks for in its precision: the builder may not say so.

    TensorRT 10.13 on Thor built FP32 engines where FP8 was asked for, without a word
    (https://github.com/NVIDIA/TensorRT/issues/4590). An engine that does not list its layers is refused, too: what
    cannot be checked is not claimed.

    Args:
        report: How the engine was built.
        precision: What it was built for; FP32 is no promise.
        where: For the message.

    Raises:
        EngineError: If it is so.
    """
    if precision in _LOW:
        asked, used, instead = report.quantized_layers, report.int8_layers, "float"
    elif precision == "fp16":
        asked, used, instead = report.half_asked, report.half_layers, "FP32"
    else:
        return
    if not asked or used:
        return
    builder, name = f"{report.module} {report.version}", precision.upper()
    if report.layers == 0:
        raise EngineError(
            f"{builder} does not list the engine's layers in a form that is known, so whether it uses {name} "
            "cannot be checked",
            where=where,
            fix="use fp32, or another TensorRT; report it with the build's log",
        )
    raise EngineError(
        f"{builder} built none of the {asked} products in {name} that the file asks for: all run in {instead}",
        where=where,
        fix="use another precision, or another TensorRT: `mmedge doctor` says what is known of this one",
    )
