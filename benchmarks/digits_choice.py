"""How the smoothing of ``recipes/av_digits.toml`` was chosen: on noise of the training split, seeds of its own.

``python -m benchmarks.digits_choice`` runs three hours of noise and empty pictures once and tries a grid on the logits.
"""

from __future__ import annotations

import itertools
from collections import Counter
from importlib.resources import as_file, files

import numpy as np

from benchmarks.digits import DIGITS, results
from mmedge.bundle import load
from mmedge.bundle.manifest import Ema, Hysteresis
from mmedge.export.datasets.av_digits import AVDigits
from mmedge.export.shipped import shipped_recipe
from mmedge.interpret.smoothing import Smoother
from mmedge.interpret.task import softmax

SEEDS, MINUTES = (100, 101, 102), 60
TAUS_MS, ENTER = (200.0, 300.0), (0.5, 0.6, 0.7, 0.8)


def main() -> None:
    """Print how often a digit was told per hour, for every choice."""
    recipe = shipped_recipe("av_digits")
    dataset = AVDigits(recipe, **recipe.data.options)
    dataset.prepare()
    told: Counter[tuple[float, float]] = Counter()
    with as_file(files("mmedge") / "assets" / "digits" / "digits.mmedge") as path, load(path) as bundle:
        task, labels = bundle.tasks["digit"], bundle.labels("digit")
        for seed in SEEDS:
            choices = {
                (tau_ms, enter): Smoother(
                    (Ema(tau_ms=tau_ms), Hysteresis(enter=enter, leave=enter - 0.1)), 0.0, len(labels)
                )
                for tau_ms, enter in itertools.product(TAUS_MS, ENTER)
            }
            before: dict[tuple[float, float], str | None] = {}
            for _, result, logits in results(bundle, dataset, MINUTES, seed, "train"):
                scores = logits.reshape(-1).astype(np.float64)
                softmax(scores, task.temperature)
                for choice, smoother in choices.items():
                    number = smoother.choose(scores.copy(), result.t_ns)
                    label = None if number is None else labels[number]
                    told[choice] += label in DIGITS and label != before.get(choice)
                    before[choice] = label
    hours = len(SEEDS) * MINUTES / 60
    print("ema tau in ms, enter (leave 0.1 below): false accepts per hour of noise")
    for choice in itertools.product(TAUS_MS, ENTER):
        print(f"{choice[0]:g}  {choice[1]:g}  {told[choice] / hours:.1f}")


if __name__ == "__main__":
    main()
