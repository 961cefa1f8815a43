"""The golden self-test: after every load of an engine its recorded inputs are run once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from mmedge.errors import CheckError, MmedgeError
from mmedge.fusion.stage import StageRunner
from mmedge.types import AnyArray


def self_test(stage: StageRunner, golden: Mapping[str, AnyArray], tolerance: Mapping[str, float], where: str) -> float:
    """Run a stage on its recorded inputs and compare with its recorded outputs.

    Arrays have the shapes [samples, ...] and dtypes of the network.

    Args:
        stage: The stage, freshly loaded.
        golden: ``in.NAME`` and ``out.NAME`` arrays, samples along axis 0.
        tolerance: Output name -> largest allowed ``max|got - want| / max|want|``.
        where: For the message.

    Returns:
        The largest error over its tolerance, 0..1.

    Raises:
        CheckError: Names the output that differs; the engine must not serve.
    """
    names = [*(f"in.{n}" for n in stage.engine.inputs), *(f"out.{n}" for n in stage.engine.outputs)]
    worst = 0.0
    for index in range(sample_count(golden, names, where)):
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
            want, got = want.reshape(got.shape).astype(np.float64), got.astype(np.float64)
            scale = max(float(np.abs(want).max()), 1e-6)
            difference = float(np.abs(got - want).max()) / scale
            limit = tolerance.get(name, 1e-3)
            if not difference <= limit:
                raise CheckError(
                    f"self-test failed: output '{name}' of sample {index} is off by {difference:.3g}, "
                    f"allowed {limit:.3g}",
                    where=where,
                    fix="rebuild the engine (mmedge compile) or choose another precision",
                )
            worst = max(worst, difference / limit if limit else 0.0)
    stage.reset()
    return worst


def sample_count(golden: Mapping[str, AnyArray], names: Collection[str], where: str) -> int:
    """Return how many samples a golden file has of these arrays, each [samples, ...] of any dtype.

    Raises:
        CheckError: If one is missing, there are no samples, or they have different numbers of them.
    """
    missing = sorted(set(names) - set(golden))
    counts = {golden[n].shape[0] if golden[n].ndim else 0 for n in names if n in golden}
    if missing or len(counts) != 1 or 0 in counts:
        raise CheckError(f"the golden file has no {missing or 'samples'}", where=where, fix="export the bundle again")
    return counts.pop()
