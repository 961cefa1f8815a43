"""The table of ``docs/fusion.md``: every way to fuse AV-digits, over three seeds, on the same frozen encoders.

``python -m benchmarks.fusion_table [--page docs/fusion.md]`` trains what is not in the cache (about half an hour).
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from mmedge import export
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export.datasets.cache import cache_folder
from mmedge.export.models.av_digits import Fusion
from mmedge.export.onnx.to_onnx import _export
from mmedge.export.recipe import Recipe
from mmedge.export.shipped import shipped_recipe
from mmedge.export.training.loop import make_dataset, train_and_save
from mmedge.export.training.weights import load_weights

from .fusion_study import Embedded, Hits, Mask, Study, embed

SEEDS = (0, 1, 2)
NAMES = {
    "sum": "sum of log-probabilities",
    "experts": "product of experts, learned weights",
    "table": "joint table",
    "concat": "concat",
    "gated": "gated",
    "attention": "cross-attention",
    "low-rank": "low-rank",
}
SHIPPED = "joint table, trained with the encoders (as shipped)"
NOISES = ("clean", "10 dB", "0 dB")
MIXED = "mixed scenes"
BEGIN, END = "<!-- table: python -m benchmarks.fusion_table -->", "<!-- end -->"
_PASSES = 2


def weights_of(recipe: Recipe, seed: int) -> Path:
    """Return the weights of a seed, trained where the cache has none of this recipe and these sources."""
    own = Path(export.__file__).parent
    parts = ("datasets", "models", "preprocess", "training")
    files = sorted(path for part in parts for path in own.glob(f"{part}/*.py"))
    digest = hashlib.sha256(recipe.sha256.encode() + b"".join(path.read_bytes() for path in files)).hexdigest()
    path = cache_folder("av_digits") / f"weights-{digest[:12]}-seed{seed}.safetensors"
    if not path.exists():
        sys.stderr.write(f"training {recipe.name} with seed {seed}: {path}\n")
        train_and_save(recipe, seed=seed, output=path)
    return path


def costs_us(recipe: Recipe, networks: Mapping[str, nn.Module], rounds: int = 2000) -> dict[str, float]:
    """Return the median time of each fusion network for one trigger: ONNX Runtime, one thread, each in turn."""
    engines = {
        kind: OnnxRuntimeEngine(_export(recipe, "fusion", Fusion(network).eval()).SerializeToString(), name=kind)
        for kind, network in networks.items()
    }
    times: dict[str, list[int]] = {kind: [] for kind in engines}
    for _ in range(rounds):
        for kind, engine in engines.items():
            before = time.perf_counter_ns()
            engine.run()
            times[kind].append(time.perf_counter_ns() - before)
    return {kind: statistics.median(values) / 1000 for kind, values in times.items()}


@dataclass(kw_only=True)
class Results:
    """All that the table is made of.

    Attributes:
        hits: (fusion, mask, condition, task) -> one array per seed.
        validation: (fusion, task) -> mean validation accuracy over all masks, one per seed.
        parameters: Fusion -> trained numbers of the fusion stage.
        cost_us: Fusion -> median time per trigger.
    """

    hits: dict[tuple[str, Mask, str, str], list[Hits]]
    validation: dict[tuple[str, str], list[float]]
    parameters: dict[str, int]
    cost_us: dict[str, float]


def measure(recipe: Recipe, seeds: tuple[int, ...] = SEEDS, weights: Mapping[int, Path] | None = None) -> Results:
    """Train every fusion on every seed's embeddings and run it on the test conditions under every mask.

    Args:
        recipe: AV-digits.
        seeds: Of the weights.
        weights: Seed -> weights file; by default those in the cache, trained where they are missing.
    """
    results = Results(hits={}, validation={}, parameters={}, cost_us={})
    dataset = make_dataset(recipe)
    dataset.prepare()
    conditions = {
        next((noise for noise in NOISES if title.endswith(f", {noise}")), MIXED): samples
        for title, samples in dataset.conditions().items()
        if title == MIXED or "humans" in title
    }
    for seed in seeds:
        torch.manual_seed(seed)
        model, _ = load_weights(recipe, weights[seed] if weights else weights_of(recipe, seed))
        own = make_dataset(msgspec.structs.replace(recipe, seed=seed))  # other pairs of pictures, sounds and texts
        passes = [embed(model, own, own.split("train", epoch=1000 + k), recipe, varied=True) for k in range(_PASSES)]
        train = Embedded(
            vectors=tuple(torch.cat(parts) for parts in zip(*(p.vectors for p in passes), strict=True)),
            labels=torch.cat([p.labels for p in passes]),
            present=torch.cat([p.present for p in passes]),
        )
        tests = {name: embed(model, dataset, samples, recipe) for name, samples in conditions.items()}
        study = Study(recipe, train, embed(model, dataset, dataset.split("validation"), recipe))
        heads = study.heads()
        networks = {kind: heads if kind == "sum" else study.learned(kind, heads) for kind in NAMES}
        for kind, network in {**networks, "shipped": model.get_submodule("fusion.block")}.items():
            network.eval()
            results.parameters[kind] = sum(p.numel() for p in network.parameters())
            reached: dict[str, list[float]] = {}
            for mask in study.masks:
                for task, found in study.hits(network, study.validation, mask).items():
                    reached.setdefault(task, []).append(float(found.mean()))
            for task, values in reached.items():
                results.validation.setdefault((kind, task), []).append(float(np.mean(values)))
            for name, samples in tests.items():
                for mask in study.masks:
                    for task, found in study.hits(network, samples, mask).items():
                        results.hits.setdefault((kind, mask, name, task), []).append(found)
        if seed == seeds[0]:
            results.cost_us = costs_us(recipe, networks)
            results.cost_us["shipped"] = results.cost_us["table"]  # the same network
    return results


def difference(ours: list[Hits], theirs: list[Hits]) -> tuple[float, float, float]:
    """Return the mean paired difference in points and its 95 % interval, by the bootstrap over seeds and samples."""
    each = np.array([a.astype(float) - b for a, b in zip(ours, theirs, strict=True)]) * 100
    rng, (seeds, samples) = np.random.default_rng(0), each.shape
    drawn = [each[rng.integers(0, seeds, seeds)][:, rng.integers(0, samples, samples)].mean() for _ in range(2000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(each.mean()), float(low), float(high)


def markdown(results: Results) -> str:
    """Return the tables."""
    hits = results.hits

    def percent(values: list[float]) -> str:
        return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"

    def reached(kind: str, mask: Mask, condition: str, task: str = "digit") -> str:
        return percent([float(found.mean()) for found in hits[kind, mask, condition, task]])

    def paired(kind: str, mask: Mask, condition: str, task: str = "digit") -> str:
        mean, low, high = difference(*(hits[k, mask, condition, task] for k in (kind, "sum")))
        return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"

    def table(head: list[str], rows: list[list[str]]) -> list[str]:
        return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]

    kinds = {**NAMES, "shipped": SHIPPED}
    full = ("image", "audio", "text")
    # Noise changes nothing where there is no sound.
    columns: dict[str, tuple[Mask, str]] = {f"all, {noise}": (full, noise) for noise in NOISES}
    columns |= {f"text missing, {noise}": (("image", "audio"), noise) for noise in NOISES}
    columns |= {f"image missing, {noise}": (("audio", "text"), noise) for noise in NOISES}
    columns["audio missing"] = (("image", "text"), "clean")
    lines = ["**One modality**, its own calibrated head", ""]
    singles = [[name, *(reached("sum", (name,), c) for c in (*NOISES, MIXED))] for name in full]
    lines += table(["", *NOISES, "mixed"], singles)
    lines += ["**Two or three**: hard pictures, all that is there names the same digit", ""]
    rows = [[title, *(reached(kind, *where) for where in columns.values())] for kind, title in kinds.items()]
    lines += table(["fusion", *columns], rows)
    lines += ["**Silence and conflicts** (mixed), choices (validation, mean over all masks), cost", ""]
    head = ["fusion", "digit, mixed", "agreement, mixed", "digit, validation", "agreement, validation"]
    rows = [
        [
            title,
            *(reached(kind, full, MIXED, task) for task in ("digit", "agreement")),
            *(percent(results.validation[kind, task]) for task in ("digit", "agreement")),
            f"{results.parameters[kind]:,}",
            f"{results.cost_us[kind]:.0f}",
        ]
        for kind, title in kinds.items()
    ]
    lines += table([*head, "parameters", "us per trigger"], rows)
    lines += ["**Paired difference to the sum of log-probabilities**, in points, with its 95 % interval", ""]
    tasks = ("digit", "agreement")
    rows = [
        [
            title,
            *(paired(kind, mask, condition) for mask, condition in columns.values()),
            *(paired(kind, full, MIXED, task) for task in tasks),
        ]
        for kind, title in list(kinds.items())[1:]
    ]
    return "\n".join([*lines, *table(["fusion", *columns, *(f"{task}, mixed" for task in tasks)], rows)])


def main() -> None:
    """Write the tables into a page, between its marks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--page", type=Path, default=Path("docs/fusion.md"))
    page = parser.parse_args().page
    if not page.is_file() or BEGIN not in page.read_text(encoding="utf-8"):
        parser.error(f"{page} has no line '{BEGIN}'")
    made = markdown(measure(shipped_recipe("av_digits")))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)  # it may have been edited meanwhile
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
