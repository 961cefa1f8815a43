"""Report of quantised networks: share of int8 layers, bytes saved, accuracy lost."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
from rich.table import Table

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import Quantization
from mmedge.types import AnyArray

from .int8.qdq import has_weight
from .onnx.onnx_models import OnnxModels
from .onnx.outside import left_bytes
from .preprocess.onnx_prefix import PREPROCESS


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, fp32 and quantised: sizes and counts named ``int8`` are those of the report's precision.

    Attributes:
        weighted: Conv, ConvTranspose, Gemm and MatMul nodes that have weights.
        int8: Those whose data and weights come from DequantizeLinear.
        sqnr_db: Worst output, on fp32 inputs; None for a stage that is left as it is.
        rule: By which ranges were cut off.
        equalized: Pairs of layers that were equalised.
        reasons: Node with weights that stays float -> why.
        skipped: Why the stage as a whole is left as it is.
        rest: In what TensorRT computes the rest.
    """

    stage: str
    fp32_bytes: int
    int8_bytes: int
    weighted: int
    int8: int
    sqnr_db: float | None
    frames: int
    dropped: tuple[str, ...]
    rule: str = ""
    equalized: int = 0
    reasons: dict[str, str] = {}
    skipped: str | None = None
    rest: str = "fp32"


class QuantizationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All stages; ``coverage`` is the share of weighted nodes that are quantised to ``precision``."""

    stages: tuple[StageReport, ...]
    precision: str = "int8"

    @property
    def coverage(self) -> float:
        """Share of Conv, Gemm and MatMul nodes that are quantised, 0..1."""
        return sum(s.int8 for s in self.stages) / max(sum(s.weighted for s in self.stages), 1)

    @property
    def fp32_bytes(self) -> int:
        """Size of the fp32 networks."""
        return sum(s.fp32_bytes for s in self.stages)

    @property
    def int8_bytes(self) -> int:
        """Size of the quantised networks."""
        return sum(s.int8_bytes for s in self.stages)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document."""
        return {
            "schema": "mmedge.quantization/1",
            "coverage": self.coverage,
            "fp32_bytes": self.fp32_bytes,
            "bytes": self.int8_bytes,
            **msgspec.to_builtins(self),
        }

    def table(self) -> Table:
        """Return the stages for people."""
        table, own = Table(title=self.precision.upper()), self.precision
        for heading in ("stage", "fp32 kB", f"{own} kB", f"{own} nodes", "rule", "rest", "SQNR", "frames", "glitches"):
            table.add_column(heading, justify="left" if heading == "stage" else "right", overflow="fold")
        for s in self.stages:
            sqnr = "left as it is" if s.sqnr_db is None else f"{s.sqnr_db:.1f} dB"
            sizes = (f"{s.fp32_bytes / 1000:.0f}", f"{s.int8_bytes / 1000:.0f}")
            row = (f"{s.int8}/{s.weighted}", s.rule, s.rest, sqnr, str(s.frames), str(len(s.dropped)))
            table.add_row(s.stage, *sizes, *row)
        notes = [f"{s.stage} is left as it is: {s.skipped}" for s in self.stages if s.skipped]
        notes += [f"{s.stage}: {node} stays float: {why}" for s in self.stages for node, why in s.reasons.items()]
        table.caption = "\n".join(notes) or None
        return table


def quantization_report(fp32: OnnxModels, int8: OnnxModels) -> QuantizationReport:
    """Return sizes, coverage and noise of every stage.

    Args:
        fp32: What ``to_onnx`` returned.
        int8: What ``quantize`` or ``half_rest`` returned.

    Example:
        >>> quantization_report(onnx, int8).coverage  # doctest: +SKIP
        1.0
    """
    stages = []
    for stage, exact in fp32.models.items():
        model = int8.models.get(stage, exact)
        quantised, weighted = int8_nodes(model)
        notes = int8.quantization.get(stage, Quantization(rule="", frames=0))
        stages.append(
            StageReport(
                stage=stage,
                fp32_bytes=exact.ByteSize() + left_bytes(exact),
                int8_bytes=model.ByteSize(),
                weighted=weighted,
                int8=quantised,
                sqnr_db=notes.sqnr_db,
                frames=notes.frames,
                dropped=notes.dropped,
                rule=notes.rule,
                equalized=notes.equalized,
                reasons=notes.reasons if stage in int8.models else {},
                skipped=int8.skipped.get(stage),
                rest=notes.rest,
            )
        )
    return QuantizationReport(stages=tuple(stages), precision=int8.precision)


def coverage(bundle: Bundle) -> float:
    """Return the share of weighted nodes in a bundle's INT8 files that take int8 data, 0..1.

    Preprocessing is not counted: it is float on purpose.
    """
    files = dict.fromkeys(v.file for v in bundle.manifest.variants if v.precision == "int8")
    counts = [int8_nodes(onnx.load_from_string(bundle.read(file))) for file in files]
    return sum(int8 for int8, _ in counts) / max(sum(weighted for _, weighted in counts), 1)


def int8_nodes(model: onnx.ModelProto) -> tuple[int, int]:
    """Return how many nodes with weights take dequantised data and weights, and how many there are.

    Weights of four bits count alone: their data stays float.
    """
    dequantised = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    # Before the normal form a weight may be a Constant node.
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {out for node in model.graph.node if node.op_type == "Constant" for out in node.output}
    stored = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    fixed = constants | {name for name, source in stored.items() if source in constants}
    four = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4}
    nodes = [node for node in model.graph.node if has_weight(node, fixed) and PREPROCESS not in node.name]
    whole = [dequantised.issuperset(node.input[:2]) for node in nodes]
    return sum(w or stored.get(n.input[1]) in four for n, w in zip(nodes, whole, strict=True)), len(nodes)


def sqnr_db(want: AnyArray, got: AnyArray) -> float:
    """Return the signal to quantisation noise ratio in dB, at most 200 (equal).

    Both have the same shape [...], any dtype of numbers and the same unit.
    """
    signal = want.astype(np.float64)
    return ratio_db(float(np.square(signal).sum()), float(np.square(signal - got).sum()))


def ratio_db(power: float, noise: float) -> float:
    """Return a ratio of powers in dB, at most 200 (no noise)."""
    return 200.0 if noise == 0.0 else float(min(200.0, 10.0 * np.log10(max(power, 1e-30) / noise)))
