"""The table of ``docs/fusion.md``: every way to fuse AV-digits, over three seeds, on the same frozen encoders.

``python -m mmedge.export.fusion_table [--page docs/fusion.md]`` trains what is not in the cache (about half an hour).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from mmedge.engine.onnxruntime import OnnxRuntimeEngine

from .datasets.base import Dataset, Samples, cache_folder
from .models.av_digits import Fusion
from .models.fusion import FUSIONS, JointTable, SumLogProbs
from .models.staged import StagedModel
from .preprocess.torch_module import preprocessors
from .recipe import Recipe
from .shipped import shipped_recipe
from .to_onnx import _export
from .training.augment import augment
from .training.evaluate import class_names
from .training.loop import make_dataset, train_and_save
from .training.masks import all_masks, as_tensor, modality_dropout
from .training.targets import classification_target, none_class, task_loss, verification_target
from .training.weights import load_weights

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
SHIPPED = "joint table, trained with the encoders (shipped)"
NOISES = {"clean": "clean", "10 dB": "10 dB", "0 dB": "0 dB"}
MIXED = "mixed scenes"
BEGIN, END = "<!-- table: python -m mmedge.export.fusion_table -->", "<!-- end -->"
_PASSES, _BATCH, _LEARNING_RATE = 2, 256, 3e-3
_PATIENCE, _EPOCHS = 3, 15
Mask = tuple[str, ...]
Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Embedded:
    """Samples as the frozen encoders give them.

    Attributes:
        vectors: Per input, float32 [n, width].
        labels: int64 [n, n_inputs].
        present: float32 [n, n_inputs].
    """

    vectors: tuple[Tensor, ...]
    labels: Tensor
    present: Tensor

    def rows(self, chosen: Tensor) -> Embedded:
        """Return some samples."""
        return Embedded(
            vectors=tuple(v[chosen] for v in self.vectors), labels=self.labels[chosen], present=self.present[chosen]
        )

    def under(self, row: Tensor) -> Embedded:
        """Return the same samples with other inputs present."""
        return replace(self, present=self.present * row)


def embed(model: StagedModel, dataset: Dataset, samples: Samples, recipe: Recipe, *, varied: bool = False) -> Embedded:
    """Run the encoders over samples, once.

    Args:
        model: The trained model.
        dataset: The samples' data set.
        samples: What to run.
        recipe: Names inputs; the fusion stage's inputs are the embeddings, in the same order.
        varied: Augment them, as training does.
    """
    preprocess = preprocessors(dataset.inputs)
    sources = [source for source in recipe.stages["fusion"].inputs.values() if not source.startswith("@")]
    loader: DataLoader[Any] = DataLoader(
        cast("Any", samples), recipe.train.batch_size, num_workers=recipe.train.workers, collate_fn=dataset.collate
    )
    parts: list[tuple[list[Tensor], Tensor, Tensor]] = []
    with torch.inference_mode():
        for batch in loader:
            inputs = {name: preprocess[name](raw) for name, raw in batch["inputs"].items()}
            if varied:
                inputs = {name: augment(x, dataset.inputs[name]) for name, x in inputs.items()}
            features = model.features(inputs)
            parts.append(([features[source] for source in sources], batch["labels"], batch["present"]))
    # Copied: tensors of inference mode cannot be trained on.
    return Embedded(
        vectors=tuple(torch.cat([part[0][m] for part in parts]).clone() for m in range(len(sources))),
        labels=torch.cat([part[1] for part in parts]),
        present=torch.cat([part[2] for part in parts]),
    )


class Study:
    """Trains and measures fusion networks on the embeddings of one seed.

    Args:
        recipe: AV-digits.
        train: What they are trained on.
        validation: What decides when training stops, and temperatures.
    """

    def __init__(self, recipe: Recipe, train: Embedded, validation: Embedded) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.names = tuple(recipe.inputs)
        self.alone = [as_tensor((name,), self.names) for name in self.names]
        self.masks = {mask: as_tensor(mask, self.names) for mask in all_masks(self.names)}
        self.classes = len(class_names(recipe))
        self.none = none_class(class_names(recipe))

    def make(self, kind: str) -> nn.Module:
        """Return an untrained fusion network."""
        return FUSIONS[kind](len(self.names), self.train.vectors[0].shape[1], self.classes)

    def heads(self) -> SumLogProbs:
        """Return the sum of log-probabilities: every head trained alone and calibrated on validation."""
        model = cast("SumLogProbs", self.make("sum"))
        self._fit(model, lambda batch: [batch.under(row) for row in self.alone])
        with torch.no_grad():
            for head, vectors, labels in zip(
                model.posteriors.heads, self.validation.vectors, self.validation.labels.T, strict=True
            ):
                logits = head(vectors)
                grid = torch.logspace(-0.6, 0.6, 61)
                best = grid[torch.stack([functional.cross_entropy(logits / t, labels) for t in grid]).argmin()]
                for parameter in head.parameters():
                    parameter.div_(best)
        return model

    def learned(self, kind: str, heads: SumLogProbs) -> nn.Module:
        """Return a trained fusion network; decision fusion starts from the calibrated heads."""
        model = self.make(kind)
        if isinstance(model, (SumLogProbs, JointTable)):
            model.posteriors.load_state_dict(heads.posteriors.state_dict())
        if isinstance(model, SumLogProbs):
            model.posteriors.requires_grad_(False)

        def views(batch: Embedded) -> list[Embedded]:
            dropped = modality_dropout(batch.present, self.recipe.train.modality_dropout)
            return [replace(batch, present=dropped), *(batch.under(row) for row in self.alone)]

        self._fit(model, views)
        return model

    def _fit(self, model: nn.Module, views: Callable[[Embedded], list[Embedded]]) -> None:
        """Train until validation over all masks gets no better, and keep the best."""
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=self.recipe.train.weight_decay)
        best, since = self._validate(model, views), 0
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        for epoch in range(_EPOCHS):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * epoch / _EPOCHS))
            for chosen in torch.split(torch.randperm(len(self.train.labels)), _BATCH):
                loss = self._loss(model, views(self.train.rows(chosen)))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            reached = self._validate(model, views)
            if reached < best:
                best, since = reached, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            elif (since := since + 1) == _PATIENCE:
                break
        model.load_state_dict(kept)

    def _validate(self, model: nn.Module, views: Callable[[Embedded], list[Embedded]]) -> float:
        alone = len(views(self.validation.rows(torch.arange(2)))) == len(self.alone)
        rows = self.alone if alone else list(self.masks.values())
        with torch.no_grad():
            return float(self._loss(model, [self.validation.under(row) for row in rows]))

    def _loss(self, model: nn.Module, views: list[Embedded]) -> Tensor:
        losses = []
        for view in views:
            for task, logits in zip(self.recipe.tasks.values(), model(view.vectors, view.present), strict=True):
                losses.append(task.loss_weight * task_loss(task, logits, view.labels, view.present, self.none))
        return torch.stack(losses).sum()

    def hits(self, model: nn.Module, samples: Embedded, mask: Mask) -> dict[str, Hits]:
        """Return per task which samples are answered rightly, of those with a certain answer."""
        view = samples.under(self.masks[mask])
        with torch.no_grad():
            digit, agreement = model(view.vectors, view.present)
        share, answer = classification_target(view.labels, view.present, self.classes, self.none).max(1)
        same, defined = verification_target(view.labels, view.present, self.none)
        found = {"digit": (digit.argmax(1) == answer)[share == 1].numpy()}
        if len(mask) > 1:
            found["agreement"] = ((agreement[:, 0] >= 0) == (same > 0))[defined].numpy()
        return found


def weights_of(recipe: Recipe, seed: int) -> Path:
    """Return the weights of a seed, trained where they are not in the cache."""
    path = cache_folder("av_digits") / f"weights-{recipe.sha256[:12]}-seed{seed}.safetensors"
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
        validation: Fusion -> mean validation accuracy of ``digit`` over all masks, one per seed.
        parameters: Fusion -> trained numbers of the fusion stage.
        cost_us: Fusion -> median time per trigger.
    """

    hits: dict[tuple[str, Mask, str, str], list[Hits]]
    validation: dict[str, list[float]]
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
        next((short for end, short in NOISES.items() if title.endswith(end)), MIXED): samples
        for title, samples in dataset.conditions().items()
        if title == MIXED or "humans" in title
    }
    for seed in seeds:
        torch.manual_seed(seed)
        model, _ = load_weights(recipe, weights[seed] if weights else weights_of(recipe, seed))
        passes = [
            embed(model, dataset, dataset.split("train", epoch=1000 + k), recipe, varied=True) for k in range(_PASSES)
        ]
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
            reached = [study.hits(network, study.validation, mask)["digit"].mean() for mask in study.masks]
            results.validation.setdefault(kind, []).append(float(np.mean(reached)))
            for name, samples in tests.items():
                for mask in study.masks:
                    for task, found in study.hits(network, samples, mask).items():
                        results.hits.setdefault((kind, mask, name, task), []).append(found)
        if seed == seeds[0]:
            results.cost_us = costs_us(recipe, networks)
            results.cost_us["shipped"] = results.cost_us["table"]  # the same network
    return results


def difference(ours: list[Hits], theirs: list[Hits]) -> tuple[float, float, float]:
    """Return the mean paired difference in points and its 95 % interval by the bootstrap over samples, not seeds."""
    each = np.mean([a.astype(float) - b for a, b in zip(ours, theirs, strict=True)], axis=0) * 100
    rng = np.random.default_rng(0)
    drawn = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(2000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(each.mean()), float(low), float(high)


def markdown(results: Results) -> str:
    """Return the tables."""

    def percent(kind: str, mask: str, condition: str, task: str = "digit") -> str:
        values = [100 * hits.mean() for hits in results.hits[kind, tuple(mask.split("+")), condition, task]]
        return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"

    def table(head: list[str], rows: list[list[str]]) -> list[str]:
        return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]

    kinds = {**NAMES, "shipped": SHIPPED}
    noisy = list(NOISES)
    everything, no_text, no_image, no_audio = "image+audio+text", "image+audio", "audio+text", "image+text"
    lines = ["**One modality**, its own calibrated head", ""]
    singles = [[m, *(percent("sum", m, noise) for noise in noisy), percent("sum", m, MIXED)]
               for m in ("image", "audio", "text")]  # fmt: skip
    lines += table(["", *noisy, "mixed"], singles)
    lines += ["**Two or three**", ""]
    head = ["fusion", *(f"all, {noise}" for noise in noisy)]
    head += [f"text missing, {noise}" for noise in noisy]
    head += ["image missing, 0 dB", "audio missing", "all, mixed", "agreement, mixed"]
    head += ["validation, all masks", "parameters", "us per trigger"]
    rows = []
    for kind, title in kinds.items():
        row = [title, *(percent(kind, mask, noise) for mask in (everything, no_text) for noise in noisy)]
        row += [percent(kind, no_image, "0 dB"), percent(kind, no_audio, "clean"), percent(kind, everything, MIXED)]
        row += [percent(kind, everything, MIXED, "agreement")]
        row += [f"{100 * np.mean(results.validation[kind]):.1f}", f"{results.parameters[kind]:,}"]
        rows.append([*row, f"{results.cost_us[kind]:.0f}"])
    lines += table(head, rows)
    lines += ["**Paired difference to the sum of log-probabilities**, in points, with its 95 % interval", ""]
    columns = [(mask, noise) for mask in (everything, no_text) for noise in noisy] + [(everything, MIXED)]
    titles = [f"{'all' if mask == everything else 'text missing'}, {noise}" for mask, noise in columns]
    rows = []
    for kind, title in list(kinds.items())[1:]:
        row = [title]
        for mask, noise in columns:
            seats = tuple(mask.split("+"))
            mean, low, high = difference(*(results.hits[k, seats, noise, "digit"] for k in (kind, "sum")))
            row.append(f"{mean:+.1f} ({low:+.1f} to {high:+.1f})")
        rows.append(row)
    return "\n".join([*lines, *table(["fusion", *titles], rows)])


def main() -> None:
    """Write the tables into a page, between its marks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--page", type=Path, default=Path("docs/fusion.md"))
    page = parser.parse_args().page
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    made = markdown(measure(shipped_recipe("av_digits")))
    page.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
