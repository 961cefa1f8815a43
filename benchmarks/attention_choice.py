"""How the smoothing and the masks of ``recipes/attention.toml`` were chosen: on validation clips alone.

``python -m benchmarks.attention_choice`` runs the clips once without smoothing, tries a grid on what came out, and
prints the best that answer within a quarter of a second, and what one input alone reaches.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.attention import CLASSES, RECIPE, VOICE, Clip, answers, clips, truth, write
from mmedge.bundle.manifest import Ema, Hysteresis
from mmedge.export import Recipe, run_steps
from mmedge.interpret.smoothing import Smoother

MAX_DELAY_MS = 250
TAUS_MS = (50.0, 100.0, 200.0, 300.0)
ENTER, LEAVE = (0.4, 0.5, 0.6, 0.7), (0.2, 0.3, 0.4, 0.5)
Told = list[tuple[float, list[float]]]


def probabilities(bundle: Path, inputs: dict[str, str]) -> Told:
    """Return time and the probability of each state, result by result."""
    found = answers(bundle, inputs)
    top = [(t_s, dict(result.tasks["attention"].top)) for t_s, result in found]
    return [(t_s, [scores.get(name, 0.0) for name in CLASSES]) for t_s, scores in top]


def labels(told: Told, tau_ms: float, enter: float, leave: float) -> list[tuple[float, str | None]]:
    """Return time and label as the runtime's own smoothing gives them."""
    smoother = Smoother((Ema(tau_ms=tau_ms), Hysteresis(enter=enter, leave=leave)), 0.0, len(CLASSES))
    chosen = [(t_s, smoother.choose(np.array(scores), round(t_s * 1e9))) for t_s, scores in told]
    return [(t_s, None if number is None else CLASSES[number]) for t_s, number in chosen]


def judge(runs: list[tuple[Clip, list[tuple[float, str | None]]]]) -> tuple[float, float]:
    """Return the mean recall of the four states, and the median delay from speech onset to a voice in ms."""
    right: dict[str, list[bool]] = {name: [] for name in CLASSES}
    delays_ms = []
    for clip, told in runs:
        for t_s, label in told:
            if (wanted := truth(clip, t_s)) is not None:
                right[wanted].append(label == wanted)
        if clip.spans:
            begin, end = clip.spans[0]
            heard = [t_s for t_s, label in told if begin <= t_s < end and label in VOICE]
            delays_ms.append(1e3 * (heard[0] - begin) if heard else 1e3 * (end - begin))
    return statistics.fmean(statistics.fmean(values) for values in right.values()), statistics.median(delays_ms)


def main() -> None:
    """Print the grid and the masks."""
    recipe = Recipe.load(RECIPE)
    task = msgspec.structs.replace(recipe.tasks["attention"], smoothing=None, top_k=len(CLASSES))
    raw = msgspec.structs.replace(recipe, tasks={**recipe.tasks, "attention": task})
    runs: list[tuple[Clip, Told]] = []
    alone: dict[str, list[bool]] = {"a face": [], "no face": [], "a voice": [], "no voice": []}
    with tempfile.TemporaryDirectory() as folder:
        bundle = run_steps(raw, output=Path(folder) / "raw.mmedge").path
        shipped = run_steps(recipe, output=Path(folder) / "shipped.mmedge").path
        assert bundle is not None
        assert shipped is not None
        for clip in clips("validation"):
            file = str(write(clip, Path(folder) / "clip.mkv"))
            runs.append((clip, probabilities(bundle, {"image": file, "audio": file})))
            for name, states in (("image", CLASSES[1::2]), ("audio", VOICE)):
                for t_s, result in answers(shipped, {name: file}):
                    if (wanted := truth(clip, t_s)) is not None:
                        real = wanted in states
                        what = ("a " if real else "no ") + ("face" if name == "image" else "voice")
                        alone[what].append((result.tasks["attention"].label in states) == real)
    grid = []
    for tau_ms, enter, leave in itertools.product(TAUS_MS, ENTER, LEAVE):
        if leave <= enter:
            recall, delay_ms = judge([(clip, labels(told, tau_ms, enter, leave)) for clip, told in runs])
            grid.append((recall, delay_ms, tau_ms, enter, leave))
    print("mean recall, median delay, ema tau, enter, leave: the ten best within a quarter of a second")
    for recall, delay_ms, *rest in sorted((g for g in grid if g[1] <= MAX_DELAY_MS), reverse=True)[:10]:
        print(f"{recall:.3f}  {delay_ms:.0f} ms  {rest}")
    for pair in (("a face", "no face"), ("a voice", "no voice")):
        recall = statistics.fmean(statistics.fmean(alone[what]) for what in pair)
        print(f"alone, mean recall of {' and '.join(pair)}: {recall:.3f}")


if __name__ == "__main__":
    main()
