"""The golden self-test: after every load of an engine its recorded inputs are run once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mmedge.engine.rows import gap, magnitude, row_axis, row_scales
from mmedge.errors import CheckError, MmedgeError
from mmedge.fusion.stage import StageRunner
from mmedge.types import AnyArray

MOST_SAMPLES = 256  # an export has 4; each runs the network


def self_test(
    stage: StageRunner,
    golden: Mapping[str, AnyArray],
    tolerance: Mapping[str, float],
    where: str,
    *,
    rows: Mapping[str, Sequence[float]] | None = None,
) -> float:
    """Run a stage on its recorded inputs and compare with its recorded outputs.

    Arrays have the shapes [samples, ...] and dtypes of the network.

    Args:
        stage: The stage, freshly loaded.
        golden: ``in.NAME`` and ``out.NAME`` arrays, samples along axis 0.
        tolerance: Output name -> largest allowed ``max|got - want| / max|want|``.
        where: For the message.
        rows: Output name -> the same for each of its rows, by the row's own range: ``Variant.row_tolerance``.

    Returns:
        The largest error over its tolerance, 0..1.

    Raises:
        CheckError: Names the output that differs; the engine must not serve.
    """
    names = [*(f"in.{n}" for n in stage.engine.inputs), *(f"out.{n}" for n in stage.engine.outputs)]
    worst = 0.0
    count = sample_count(golden, names, where)
    judged = {name: _rows(name, golden[f"out.{name}"], limits, where) for name, limits in (rows or {}).items()}
    for index in range(count):
        stage.reset()
        try:
            stage.fill_raw({n: golden[n][index] for n in names})
        except (ValueError, TypeError, MmedgeError) as error:
            raise CheckError(
                f"golden sample {index} does not fit the stage: {error}", where=where, fix="export the bundle again"
            ) from error
        stage.engine.run()
        for name, got in stage.engine.outputs.items():
            want = golden[f"out.{name}"][index]
            if want.size != got.size:
                raise CheckError(
                    f"golden output '{name}' has {want.size} values, not {got.size}", where=where, fix="export it again"
                )
            off = gap(want, got.reshape(want.shape))
            difference = float(magnitude(off) / np.maximum(magnitude(want), 1e-6))
            limit = tolerance.get(name, 1e-3)
            if not difference <= limit:
                raise _failed(f"output '{name}' of sample {index}", difference, limit, where)
            worst = max(worst, difference / limit if limit else 0.0)
            if name not in judged:
                continue
            scales, limits = judged[name]
            gaps = magnitude(off, row_axis(off.shape)) / scales
            if not (gaps <= limits).all():
                row = int((gaps - limits).argmax())
                raise _failed(f"row {row} of output '{name}' of sample {index}", gaps[row], limits[row], where)
            worst = max(worst, float((gaps / np.maximum(limits, 1e-12)).max()))
    stage.reset()
    return worst


def _rows(name: str, want: AnyArray, limits: Sequence[float], where: str) -> tuple[AnyArray, AnyArray]:
    """Return the range of each row of an output, and how far it may be off in parts of it: float64 [rows] each."""
    scales = row_scales(want) if want.ndim > 1 and np.isfinite(want).all() else None
    if scales is None or len(limits) not in (1, len(scales)):
        raise CheckError(
            f"output '{name}' has {0 if scales is None else len(scales)} rows in the golden file, "
            f"and {len(limits)} row tolerances",
            where=where,
            fix="export the bundle again",
        )
    return np.maximum(scales, 1e-6), np.broadcast_to(np.asarray(limits, np.float64), scales.shape)


def _failed(what: str, difference: float, limit: float, where: str) -> CheckError:
    return CheckError(
        f"self-test failed: {what} is off by {difference:.3g}, allowed {limit:.3g}",
        where=where,
        fix="rebuild the engine (mmedge compile) or choose another precision",
    )


def sample_count(golden: Mapping[str, AnyArray], names: Collection[str], where: str) -> int:
    """Return how many samples a golden file has of these arrays, each [samples, ...] of any dtype.

    Raises:
        CheckError: If one is missing, there are no samples, too many, or they have different numbers of them.
    """
    missing = sorted(set(names) - set(golden))
    counts = {golden[n].shape[0] if golden[n].ndim else 0 for n in names if n in golden}
    if missing or len(counts) != 1 or 0 in counts:
        raise CheckError(f"the golden file has no {missing or 'samples'}", where=where, fix="export the bundle again")
    count = counts.pop()
    if count > MOST_SAMPLES:
        fix = "do not use this bundle, unless you know where it is from"
        raise CheckError(f"the golden file has {count} samples, the limit is {MOST_SAMPLES}", where=where, fix=fix)
    return count
