"""How far the outputs of two networks are apart, sample by sample, in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.engine.arrays import array_feeds
from mmedge.engine.base import Engine
from mmedge.errors import CheckError, ConfigError
from mmedge.types import AnyArray, Tensors


@dataclass(slots=True)
class Difference:
    """The difference of one output over all samples so far.

    Attributes:
        samples: How many were added.
        max_abs: Largest ``|a - b|``.
        range_a: Largest ``|a|``.
        unequal: Values that are not finite in one of them alone, or texts that differ.
    """

    samples: int = 0
    max_abs: float = 0.0
    range_a: float = 0.0
    unequal: int = 0
    _sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])  # aa, bb, ab, (a - b)^2

    def add(self, a: AnyArray, b: AnyArray) -> None:
        """Add one sample; both arrays have one shape [...], of any numeric dtype or of texts."""
        self.samples += 1
        if a.dtype.kind in "OUS" or b.dtype.kind in "OUS":
            self.unequal += int(np.count_nonzero(a != b))
            return
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        with np.errstate(invalid="ignore"):
            same = (x == y) | (np.isnan(x) & np.isnan(y))  # equal infinities, too
        finite = np.isfinite(x) & np.isfinite(y)
        self.unequal += int(np.count_nonzero(~finite & ~same))
        x, y = x[finite], y[finite]
        if not x.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # figures that overflow are told as such
            off = np.abs(x - y)
            self.max_abs = max(self.max_abs, float(off.max()))
            self.range_a = max(self.range_a, float(np.abs(x).max()))
            for place, value in enumerate((x @ x, y @ y, x @ y, off @ off)):
                self._sums[place] += float(value)

    @property
    def max_rel(self) -> float:
        """Largest ``|a - b|`` in parts of the largest ``|a|``, both over all samples: one of them may be all zeros."""
        return self.max_abs / self.range_a if self.range_a else math.inf if self.max_abs else 0.0

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the two, over all samples; None where one is all zeros or overflows."""
        aa, bb, ab, _ = self._sums
        if not (aa > 0 and bb > 0 and math.isfinite(aa) and math.isfinite(bb)):
            return None
        return max(-1.0, min(1.0, ab / math.sqrt(aa) / math.sqrt(bb)))

    @property
    def sqnr_db(self) -> float | None:
        """Power of ``a`` over that of the difference; None where there is no difference, NaN where it overflows."""
        aa, _, _, dd = self._sums
        if dd == 0:
            return None
        if not math.isfinite(aa) and not math.isfinite(dd):  # their squares overflow
            return math.nan
        return 10 * math.log10(aa / dd) if aa / dd > 0 else -math.inf

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the figures, rounded; those that are not finite are None."""
        figures = {"max_abs": self.max_abs, "max_rel": self.max_rel, "cosine": self.cosine, "sqnr_db": self.sqnr_db}
        rounded = {k: None if v is None or not math.isfinite(v) else float(f"{v:.6g}") for k, v in figures.items()}
        return {**rounded, "unequal": self.unequal, "samples": self.samples}


def pair_names(a: Sequence[str], b: Sequence[str], what: str, where: str) -> dict[str, str]:
    """Return name in ``a`` -> name in ``b``: by name, or in order where as many have other names.

    Raises:
        ConfigError: If there are more on one side.

    Example:
        >>> pair_names(["x", "y"], ["input", "mask"], "inputs", "")
        {'x': 'input', 'y': 'mask'}
    """
    if set(a) == set(b):
        return {name: name for name in a}
    if len(a) != len(b):
        raise ConfigError(
            f"the {what} differ: {sorted(a)} and {sorted(b)}", where=where, fix="compare networks of one signature"
        )
    return dict(zip(a, b, strict=True))


def pair_up(a: Mapping[str, AnyArray], b: Mapping[str, AnyArray], what: str, where: str) -> dict[str, str]:
    """Return name in ``a`` -> name in ``b``: by name, or in order where as many of the same shapes have other names.

    Arrays are those of engines, with any shape [...] and dtype.

    Raises:
        ConfigError: If they do not fit.

    Example:
        >>> pair_up({"x": np.zeros(2)}, {"input": np.zeros(2)}, "inputs", "")
        {'x': 'input'}
    """
    pairs = pair_names(list(a), list(b), what, where)
    for ours, theirs in pairs.items():
        if a[ours].shape != b[theirs].shape:
            raise ConfigError(
                f"'{ours}' is {list(a[ours].shape)} and '{theirs}' is {list(b[theirs].shape)}",
                where=where,
                fix="compare networks of one signature; open dimensions are given by --shape",
            )
    return pairs


def network_feeds(on: Path | None, inputs: Tensors, samples: int) -> Iterator[dict[str, AnyArray]]:
    """Yield at most so many samples: arrays of ``on``, or as ``random_feeds`` does.

    They have the shapes [...] and dtypes of ``inputs``.

    Raises:
        ConfigError: If the arrays do not fit.
    """
    return random_feeds(inputs, samples) if on is None else array_feeds(on, inputs, samples)


def compare_networks_on(a: Engine, b: Engine, on: Path | None, samples: int, where: str) -> dict[str, Any]:
    """Return a document of ``compare_engines`` on ``network_feeds``: ``inputs``, ``outputs``, and no tasks.

    Raises:
        ConfigError: If signatures differ, or the arrays do not fit.
        EngineError: If one of them fails.
    """
    outputs = compare_engines(a, b, network_feeds(on, a.inputs, samples), where)
    count = max((difference.samples for difference in outputs.values()), default=0)
    return {
        "inputs": f"{count} random samples by signature (seed 0)" if on is None else f"{count} of {on}",
        "outputs": {name: difference.to_dict() for name, difference in outputs.items()},
        "tasks": {},
    }


def compare_engines(a: Engine, b: Engine, feeds: Iterable[Tensors], where: str = "compare") -> dict[str, Difference]:
    """Run two engines on the same inputs.

    Args:
        a: What is right.
        b: What is compared with it.
        feeds: Input of ``a`` -> array of exactly its shape [...] and dtype, for each sample.
        where: For messages.

    Returns:
        Output of ``a`` -> how far that of ``b`` is off.

    Raises:
        ConfigError: If their signatures differ.
        CheckError: If an output has another shape, though their signatures are alike.
        EngineError: If one of them fails.
    """
    inputs, outputs = pair_up(a.inputs, b.inputs, "inputs", where), pair_up(a.outputs, b.outputs, "outputs", where)
    found = {name: Difference() for name in a.outputs}
    for feed in feeds:
        theirs = {other: feed[name].astype(b.inputs[other].dtype, copy=False) for name, other in inputs.items()}
        got_a, got_b = a(feed), b(theirs)
        for name, other in outputs.items():
            if got_a[name].shape != got_b[other].shape:  # it depends on values
                shapes = f"{list(got_a[name].shape)} in A and {list(got_b[other].shape)} in B"
                raise CheckError(
                    f"output '{name}' is {shapes}, on one input",
                    where=where,
                    fix="compare networks whose outputs have the same shapes",
                )
            found[name].add(got_a[name], got_b[other])
    return found


def random_feeds(inputs: Tensors, samples: int, seed: int = 0) -> Iterator[dict[str, AnyArray]]:
    """Yield inputs by signature alone: normal numbers, bytes of 0..255, 0 or 1 of other integers, texts of a letter.

    Arrays have the shapes [...] and dtypes of ``inputs``.
    """
    random = np.random.default_rng(seed)
    for _ in range(samples):
        feed: dict[str, AnyArray] = {}
        for name, own in inputs.items():
            if own.dtype.kind == "f":
                feed[name] = random.standard_normal(own.shape).astype(own.dtype)
            elif own.dtype == np.uint8:
                feed[name] = random.integers(0, 256, own.shape, np.uint8)
            elif own.dtype.kind in "iub":
                feed[name] = random.integers(0, 2, own.shape).astype(own.dtype)
            else:
                feed[name] = np.full(own.shape, "a", object)
        yield feed
