"""Golden vectors: recorded inputs of a stage and what its fp32 network answers, for the self-test on a device."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from mmedge.errors import CheckError
from mmedge.types import AnyArray, Tensors

from .preprocess.onnx_prefix import Preprocessor
from .recipe import Recipe
from .recordings import RawSample, choose
from .stages import Runner, StageGraph, fed_back, masks, seats_of

SAMPLES = 4
CANDIDATES = 64  # of many samples, evenly spread: they are all in memory at once


class Golden:
    """The golden samples of one stage.

    Arrays have the shapes [...] and dtypes of the network's inputs and outputs, batch 1.

    Attributes:
        raw: Network input -> array per sample: raw where a seat feeds it.
        tensors: Network input -> preprocessed array per sample.
        want: Output -> array per sample, from fp32.
    """

    def __init__(
        self, raw: list[dict[str, AnyArray]], tensors: list[dict[str, AnyArray]], want: list[dict[str, AnyArray]]
    ) -> None:
        self.raw, self.tensors, self.want = raw, tensors, want

    def to_npz(self) -> bytes:
        """Return the file: ``in.NAME`` and ``out.NAME``, samples along axis 0; equal content gives equal bytes."""
        arrays: dict[str, AnyArray] = {f"in.{name}": _joined([s[name] for s in self.raw]) for name in self.raw[0]}
        arrays |= {f"out.{name}": _joined([s[name] for s in self.want]) for name in self.want[0]}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def noise(self, run: Runner, *, raw: bool) -> dict[str, float]:
        """Return per output the largest ``max|got - want| / max|want|`` of a variant on these samples."""
        worst = dict.fromkeys(self.want[0], 0.0)
        for feeds, want in zip(self.raw if raw else self.tensors, self.want, strict=True):
            for name, got in run(feeds).items():
                scale = max(float(np.abs(want[name]).max()), 1e-6)
                worst[name] = max(worst[name], float(np.abs(got - want[name]).max()) / scale)
        return worst


def _joined(arrays: Sequence[AnyArray]) -> AnyArray:
    """Samples along axis 0, in place of the batch axis where there is one."""
    if arrays[0].ndim and arrays[0].shape[0] == 1:
        return np.concatenate(arrays)
    return np.stack(arrays)


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
    samples = [samples[index] for index in choose(recipe, len(samples), CANDIDATES)]
    tensors = [preprocess(sample.arrays) for sample in samples]
    full: list[dict[str, AnyArray]] = []
    states: list[dict[str, AnyArray]] = []
    for index, sample in enumerate(tensors):
        # As in a run: each moment goes on from the one before.
        goes_on = index > 0 and samples[index].follows(samples[index - 1])
        states.append(fed_back(recipe, full[-1]) if goes_on else {})
        full.append(graph({**sample, **states[-1]}))
    golden: dict[str, Golden] = {}
    for stage in fp32:
        seats = seats_of(recipe.stages[stage].inputs, recipe.inputs)
        outputs = recipe.stages[stage].outputs
        sizes = np.array([[float(np.abs(known[f"{stage}.{o}"]).max()) for o in outputs] for known in full])
        merit = (sizes / np.maximum(np.median(sizes, axis=0), 1e-6)).min(axis=1)
        chosen = [int(part[merit[part].argmax()]) for part in np.array_split(np.arange(len(full)), count) if part.size]
        # Without any of its inputs a stage does not run.
        partial = [mask for mask in masks(recipe) if graph.depends[stage].intersection(mask)]
        raw, feeds, want = [], [], []
        for position, index in enumerate(chosen):
            mask = tuple(recipe.inputs) if seats else partial[position % len(partial)]
            known = graph({**tensors[index], **states[index]}, mask, reuse=full[index])
            feeds.append(graph.feeds(stage, known, mask, states[index]))
            arrays: Tensors = {tensor: samples[index].arrays[seat] for tensor, seat in seats.items()}
            raw.append({**feeds[-1], **arrays})
            want.append({output: known[f"{stage}.{output}"] for output in outputs})
            for output, answer in want[-1].items():
                if not np.isfinite(answer).all():
                    raise CheckError(
                        f"stage '{stage}' answers NaN or infinite numbers in output '{output}' on recorded data",
                        where=f"stages.{stage}",
                        fix="compare mean and std of its inputs with what it was trained on, and look at its weights",
                    )
        golden[stage] = Golden(raw, feeds, want)
    return golden
