"""Golden vectors: recorded inputs of a stage and what its fp32 network answers, for the self-test on a device."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmedge.engine.rows import OTHER_UNIT, gap, magnitude, row_axis, row_scales, row_sizes
from mmedge.errors import CheckError
from mmedge.types import AnyArray, Tensors

from .parts import choose
from .preprocess.onnx_prefix import Preprocessor
from .recipe import Recipe
from .recordings import LazySamples, RawSample
from .stages import Runner, StageGraph, fed_back, masks, seats_of

SAMPLES = 4
MARGIN = 3.0  # times what a file was off when it was packed, it may be off on a device
# A row's range is that of fewer numbers: so many times the floor of the whole it may be off at least.
_ROW_FLOOR = 10.0
_STEP = 1e-3  # of the range of a tensor: 127 steps are wider
CANDIDATES = 64  # of many samples, evenly spread


class Golden:
    """The golden samples of one stage.

    Arrays have the shapes [...] and dtypes of the network's inputs and outputs, batch 1.

    Attributes:
        raw: Network input -> array per sample: raw where a seat feeds it.
        tensors: Network input -> preprocessed array per sample.
        want: Output -> array per sample, from fp32.
    """

    def __init__(self) -> None:
        self.raw: list[dict[str, AnyArray]] = []
        self.tensors: list[dict[str, AnyArray]] = []
        self.want: list[dict[str, AnyArray]] = []

    def add(self, raw: dict[str, AnyArray], tensors: dict[str, AnyArray], want: dict[str, AnyArray]) -> None:
        """Add a sample: arrays of shape [...] by name, with the dtypes that the class names."""
        self.raw.append(raw)
        self.tensors.append(tensors)
        self.want.append(want)

    def to_npz(self) -> bytes:
        """Return the file: ``in.NAME`` and ``out.NAME``, samples along axis 0; equal content gives equal bytes."""
        arrays: dict[str, AnyArray] = {f"in.{name}": _joined([s[name] for s in self.raw]) for name in self.raw[0]}
        arrays |= {f"out.{name}": _joined([s[name] for s in self.want]) for name in self.want[0]}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def noise(self, run: Runner, *, raw: bool) -> Noise:
        """Return how far a variant's outputs are off on these samples; NaN where it answers NaN."""
        worst = dict.fromkeys(self.want[0], 0.0)
        found = {name: row_scales(sample[name] for sample in self.want) for name in worst}
        scales = {name: np.maximum(own, 1e-6) for name, own in found.items() if own is not None}
        rows: dict[str, AnyArray] = {name: np.zeros(len(own)) for name, own in scales.items()}
        for feeds, want in zip(self.raw if raw else self.tensors, self.want, strict=True):
            for name, got in run(feeds).items():
                off = gap(want[name], got)
                share = magnitude(off) / np.maximum(magnitude(want[name]), 1e-6)
                worst[name] = float(np.maximum(worst[name], share))
                if name in rows:
                    rows[name] = np.maximum(rows[name], magnitude(off, row_axis(off.shape)))
                del off  # before the next one is made
        return Noise(worst, {name: gaps / scales[name] for name, gaps in rows.items()}, scales)


class Noise(NamedTuple):
    """How far a variant is off.

    Attributes:
        whole: Output -> largest ``max|got - want| / max|want|``.
        rows: Output with rows -> the same of each, in parts of its own range, float64 [rows].
        scales: Output with rows -> these ranges, float64 [rows].
    """

    whole: dict[str, float]
    rows: dict[str, AnyArray]
    scales: dict[str, AnyArray]


def _joined(arrays: Sequence[AnyArray]) -> AnyArray:
    """Samples along axis 0, in place of the batch axis where there is one."""
    if arrays[0].ndim and arrays[0].shape[0] == 1:
        return np.concatenate(arrays)
    return np.stack(arrays)


def _merit(outputs: Sequence[Sequence[AnyArray]]) -> AnyArray:
    """Return how large the smallest output is in each sample, beside what is usual, [samples].

    Rows of another unit count as one more output.

    Args:
        outputs: Of each output the magnitudes per sample: [], or [rows].
    """
    sizes: list[AnyArray] = []
    for own in map(np.stack, outputs):
        if own.ndim == 1:
            sizes.append(own)
            continue
        small = own.max(axis=0) < OTHER_UNIT * own.max()
        sizes += [own.max(axis=1), *([own[:, small].max(axis=1)] if small.any() else [])]
    merit: AnyArray = np.min([size / max(float(np.median(size)), 1e-6) for size in sizes], axis=0)
    return merit


def make_golden(
    recipe: Recipe, fp32: Mapping[str, Runner], samples: Sequence[RawSample], count: int = SAMPLES
) -> dict[str, Golden]:
    """Choose the golden samples of every network stage.

    One sample from each quarter of the recordings, where the outputs are large: near zero a relative
    tolerance would say nothing. Stages fed by other stages alone see a different presence mask in each.

    Args:
        recipe: Gives the graph.
        fp32: Stage name -> its fp32 network in tensor form.
        samples: Raw samples, in order of time.
        count: How many to choose.

    Returns:
        Stage name -> its golden samples.

    Raises:
        CheckError: If a network answers NaN or infinite numbers.
    """
    preprocess, graph = Preprocessor(recipe.inputs, recipe.export.opset), StageGraph(recipe, fp32)
    samples = LazySamples(samples.__getitem__, choose(recipe, len(samples), CANDIDATES))
    states: list[dict[str, AnyArray]] = []
    sizes: dict[str, list[AnyArray]] = {
        f"{stage}.{output}": [] for stage in fp32 for output in recipe.stages[stage].outputs
    }
    last, known = None, dict[str, AnyArray]()
    for sample in samples:
        # As in a run: each moment goes on from the one before.
        states.append(fed_back(recipe, known) if sample.follows(last) else {})
        last, known = sample, graph({**preprocess(sample.arrays), **states[-1]})
        for output, own in sizes.items():
            rows = row_sizes(known[output])
            own.append(magnitude(known[output]) if rows is None else rows)
    chosen: dict[str, list[int]] = {}
    for stage in fp32:
        merit = _merit([sizes[f"{stage}.{output}"] for output in recipe.stages[stage].outputs])
        parts = np.array_split(np.arange(len(samples)), count)
        chosen[stage] = [int(part[merit[part].argmax()]) for part in parts if part.size]
    golden = {stage: Golden() for stage in fp32}
    for index in sorted(set().union(*chosen.values())):
        sample = samples[index]
        tensors = {**preprocess(sample.arrays), **states[index]}
        full = graph(tensors)
        for stage in (stage for stage, own in chosen.items() if index in own):
            seats = seats_of(recipe.stages[stage].inputs, recipe.inputs)
            # Without any of its inputs a stage does not run.
            partial = [mask for mask in masks(recipe) if graph.depends[stage].intersection(mask)]
            mask = tuple(recipe.inputs) if seats else partial[chosen[stage].index(index) % len(partial)]
            known = graph(tensors, mask, reuse=full)
            feeds = graph.feeds(stage, known, mask, states[index])
            arrays: Tensors = {tensor: sample.arrays[seat] for tensor, seat in seats.items()}
            want = {output: known[f"{stage}.{output}"] for output in recipe.stages[stage].outputs}
            for output, answer in want.items():
                if not np.isfinite(answer).all():
                    raise CheckError(
                        f"stage '{stage}' answers NaN or infinite numbers in output '{output}' on recorded data",
                        where=f"stages.{stage}",
                        fix="compare mean and std of its inputs with what it was trained on, and look at its weights",
                    )
            golden[stage].add({**feeds, **arrays}, feeds, want)
    return golden


def row_tolerance(floor: float, noise: AnyArray, scales: AnyArray, kernels: float) -> tuple[float, ...]:
    """Return how far rows may be off, in parts of their own range; one number where it is the same for all.

    Args:
        floor: What another backend may add, of the whole.
        noise: Of each row, in parts of its range, float64 [rows].
        scales: These ranges, float64 [rows].
        kernels: What 8-bit kernels add by rounding, in parts of the range of the tensor that is quantised.
    """
    whole = scales.max()
    # A row with noise of about a step of the whole was quantised with it; another one with those of its own unit.
    together = (noise * scales >= _STEP * whole) | (scales >= OTHER_UNIT * whole)
    unit = np.where(together, whole, scales[~together].max(initial=0.0))
    widest = np.maximum(np.maximum(_ROW_FLOOR * floor, MARGIN * noise), noise + kernels * unit / scales)
    limits = [float(f"{limit:.3g}") for limit in widest]
    return tuple(limits if len(set(limits)) > 1 else limits[:1])
