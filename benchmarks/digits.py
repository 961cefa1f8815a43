"""AV-digits as shipped: what fusion gains over noise and missing modalities, and how often noise passes for a digit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from typing import Any, Literal

import numpy as np

from benchmarks.harness import Row
from mmedge.bundle import Bundle, load
from mmedge.bundle.source import Presence
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.export.datasets.av_digits import NONE, AVDigits
from mmedge.export.datasets.base import Samples
from mmedge.export.datasets.pictures import faces, photos
from mmedge.export.datasets.scenes import SceneRenderer
from mmedge.export.datasets.speech import RATE_HZ
from mmedge.export.datasets.windows import coloured_noise, crowd, unit
from mmedge.export.shipped import shipped_recipe
from mmedge.export.training.masks import all_masks
from mmedge.fusion import load_graph
from mmedge.fusion.feed import make_feed
from mmedge.pipeline.inference import Inference
from mmedge.pipeline.statistics import Statistics
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, Block, FloatArray, Frame, Result

Mask = tuple[str, ...]
FPS = 25
# The two conditions of the target: hard pictures, people nobody trained on, and noise.
NOISY = ("PCA-25, unseen humans, 10 dB", "PCA-25, unseen humans, 0 dB")
BOTH = ("image", "audio")
DIGITS = frozenset(map(str, range(NONE)))


class Network:
    """The bundle's CPU networks in ONNX Runtime: encoders run once per sample, fusion once per mask.

    Args:
        bundle: AV-digits.
        dataset: Its seats as the data set fills them.
    """

    def __init__(self, bundle: Bundle, dataset: AVDigits) -> None:
        manifest = bundle.manifest
        self.stages, self.seats = manifest.stages, tuple(manifest.inputs)
        self.engines = {
            v.stage: OnnxRuntimeEngine(bundle.read(v.file), name=v.stage)
            for v in manifest.variants
            if v.target == "cpu" and v.precision == "fp32"
        }
        seats = {name: dataset.inputs.get(name, spec) for name, spec in manifest.inputs.items()}
        seats["text"] = manifest.inputs["text"]
        self.feeds = {name: make_feed(name, spec, raw=False, read=bundle.read) for name, spec in seats.items()}

    def embed(self, seat: str, raw: AnyArray) -> dict[str, AnyArray]:
        """Return what the encoder behind a seat gives, as ``STAGE.OUTPUT``."""
        stage = next(name for name, s in self.stages.items() if seat in s.inputs.values())
        engine = self.engines[stage]
        tensor = next(key for key, source in self.stages[stage].inputs.items() if source == seat)
        self.feeds[seat].fill_raw(raw, engine.inputs[tensor])
        engine.run()
        return {f"{stage}.{name}": value.copy() for name, value in engine.outputs.items()}

    def fuse(self, embeddings: Mapping[str, AnyArray], mask: Mask) -> AnyArray:
        """Return the logits of ``digit``, a view."""
        engine = self.engines["fusion"]
        for key, source in self.stages["fusion"].sources.items():
            if source == Presence():
                engine.inputs[key][...] = [[name in mask for name in self.seats]]
            elif str(source) in embeddings:
                np.copyto(engine.inputs[key], embeddings[str(source)])
        engine.run()
        return engine.outputs["digit"]


def accuracies(network: Network, samples: Samples, count: int) -> dict[Mask, dict[Mask, float]]:
    """Return under every mask the share of right digits in percent, of all that is present and of each part alone.

    Parts are asked the same: what those that are present name together, where that is one digit or nothing.
    """
    masks = list(all_masks(network.seats))
    right: dict[Mask, list[list[bool]]] = {mask: [] for mask in masks}
    for index in range(min(count, len(samples))):
        sample = samples[index]
        known: dict[str, AnyArray] = {}
        for name, raw in sample.inputs.items():
            known |= network.embed(name, raw)
        said = {mask: int(network.fuse(known, mask).argmax()) for mask in masks}
        for mask in masks:
            named = {sample.labels[name] for name in mask} - {NONE}
            if len(named) <= 1:
                answer = named.pop() if named else NONE
                right[mask].append([said[part] == answer for part in (mask, *((name,) for name in mask))])
    return {
        mask: dict(zip((mask, *((name,) for name in mask)), (100 * np.mean(found, axis=0)).tolist(), strict=True))
        for mask, found in right.items()
    }


def music(samples: int, rng: np.random.Generator) -> FloatArray:
    """Return chords of plucked tones over beats of noise, RMS 1."""
    sound, time = np.zeros(samples, np.float32), np.arange(samples, dtype=np.float32) / RATE_HZ
    at = 0
    while at < samples:
        length = int(rng.uniform(0.2, 0.8) * RATE_HZ)
        part = time[: min(length, samples - at)]
        root = 110 * 2 ** (rng.integers(0, 25) / 12)
        for step in (0, rng.choice((3, 4)), 7):
            pitch = root * 2 ** (step / 12)
            for harmonic in range(1, 6):
                sound[at : at + length] += np.sin(2 * np.pi * pitch * harmonic * part) * np.exp(-3 * part) / harmonic
        beat = rng.standard_normal(min(800, len(part)))
        sound[at : at + len(beat)] += beat * np.exp(-np.arange(len(beat)) / 150) * rng.uniform(0, 2)
        at += length
    return unit(sound)


def excerpts(sound: FloatArray, samples: int, rng: np.random.Generator, rate_hz: int = RATE_HZ) -> FloatArray:
    """Return random parts of a short recording, each at least 4 s long and faded into the next."""
    result, at, fade = np.zeros(samples, np.float32), 0, rate_hz // 2
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    while at < samples:
        length = int(rng.integers(4 * rate_hz, len(sound) + 1))
        start = int(rng.integers(0, len(sound) - length + 1))
        part = sound[start : start + length].copy()
        part[:fade] *= ramp
        part[-fade:] *= ramp[::-1]
        part = part[: samples - at]
        result[at : at + len(part)] += part
        at += length - fade
    return result


def minutes(count: int, seed: int, split: Literal["train", "test"] = "test") -> Iterator[tuple[str, FloatArray]]:
    """Yield minutes without a word of a digit: a crowd, music, coloured noise, almost silence, in turn."""
    rng, samples = np.random.default_rng(seed), 60 * RATE_HZ
    people = crowd(split)
    for minute in range(count):
        kind = ("crowd", "music", "noise", "silence")[minute % 4]
        level = 10 ** (rng.uniform(-45, -12) / 20)
        if kind == "crowd":
            sound = excerpts(people, samples, rng) * level
        elif kind == "music":
            sound = music(samples, rng) * level
        elif kind == "noise":
            sound = coloured_noise(samples, float(rng.uniform(0, 1)), rng) * level
        else:
            sound = coloured_noise(samples, 0.0, rng) * 10 ** rng.uniform(-5, -3.3)
        yield kind, sound.clip(-1, 1).astype(np.float32)


def results(
    bundle: Bundle, dataset: AVDigits, count: int, seed: int, split: Literal["train", "test"] = "test"
) -> Iterator[tuple[str, Result, AnyArray]]:
    """Yield kind of noise, result, and the logits of ``digit`` (a view) for every trigger.

    Everything is as shipped: synchroniser, stages at their own rates, threshold and smoothing. A new empty picture
    every minute, 25 times a second.
    """
    rng = np.random.default_rng((7, seed))
    renderer = SceneRenderer(photos(split), faces(split), *dataset.scene_size)
    manifest, step = bundle.manifest, RATE_HZ // FPS
    scale = manifest.inputs["image"].frame[0] // dataset.scene_size[0]  # type: ignore[union-attr]
    graph = load_graph(bundle, backend="onnxruntime")
    sync = Synchronizer(
        plan_sync(bundle.inputs, dict.fromkeys(BOTH, True), manifest.missing, manifest.sync), started_ns=0
    )
    infer = Inference(bundle, graph, Statistics(), BOTH, origin="call")
    trigger = 0
    for kind, sound in minutes(count, seed, split):
        picture = renderer.empty(rng).repeat(scale, 0).repeat(scale, 1)
        height, width = picture.shape
        for begin in range(0, len(sound), step):
            t_ns, trigger = (trigger + 1) * 1_000_000_000 // FPS, trigger + 1
            stamp: dict[str, Any] = {"seq": trigger, "capture_ns": t_ns, "arrive_ns": t_ns}
            sync.push(Block(stream="audio", samples=sound[begin : begin + step], **stamp))
            sync.push(Frame(stream="image", data=picture, format="gray8", width=width, height=height, **stamp))
            sync.advance(t_ns)
            for snapshot in sync.poll():
                yield kind, infer(snapshot, sync), graph.output(manifest.tasks["digit"].output)
            sync.trim()
    graph.close()
    sync.close()


def false_accepts(bundle: Bundle, dataset: AVDigits, count: int, seed: int) -> dict[str, int]:
    """Return per kind of noise how often a digit was told: onsets of a label."""
    told: dict[str, int] = {}
    before = None
    for kind, result, _ in results(bundle, dataset, count, seed):
        label = result.tasks["digit"].label
        told[kind] = told.get(kind, 0) + (label in DIGITS and label != before)
        before = label
    return told


def poisson(count: int) -> tuple[float, float]:
    """Return the 95 % interval of a count (Byar's approximation)."""
    low = count * (1 - 1 / (9 * count) - 1.96 / (3 * count**0.5)) ** 3 if count else 0.0
    return low, (count + 1) * (1 - 1 / (9 * (count + 1)) + 1.96 / (3 * (count + 1) ** 0.5)) ** 3


def measure(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """Measure the shipped bundle.

    Args:
        quick: 150 samples a condition instead of 1,000, and 8 minutes of noise instead of three hours.
    """
    recipe = shipped_recipe("av_digits")
    dataset = AVDigits(recipe, **recipe.data.options)
    count, length, seeds = (150, 8, 1) if quick else (1000, 60, 3)
    rows: list[Row] = []
    with as_file(files("mmedge") / "assets" / "digits" / "digits.mmedge") as path, load(path) as bundle:
        network = Network(bundle, dataset)
        gains: list[float] = []
        margins: list[float] = []
        for title, samples in dataset.conditions().items():
            found = accuracies(network, samples, count)
            for mask in (m for m in found if len(m) > 1):
                fused, single = found[mask][mask], {name: found[mask][name,] for name in mask}
                margin = fused - max(single.values())
                margins.append(margin)
                if title in NOISY and mask == BOTH:
                    gains.append(margin)
                what = f"digit, {' + '.join(mask)}; {title}"
                rows.append(Row(what=what, unit="%", ours=fused, peers={}, ratio=None, beside=dict(single)))
        told = Counter[str]()
        for seed in range(seeds):
            told.update(false_accepts(bundle, dataset, length, seed))
    hours = seeds * length / 60
    for kind, onsets in told.items():
        what = f"false accepts, {kind} and empty pictures, {onsets} in {60 * hours / len(told):g} min"
        rows.append(Row(what=what, unit="per h", ours=onsets / hours * len(told), peers={}, ratio=None))
    low, high = (bound / hours for bound in poisson(told.total()))
    what = f"false accepts, all of these, {told.total()} in {hours:g} h (95 %: {low:.1f} to {high:.1f})"
    rows.append(Row(what=what, unit="per h", ours=told.total() / hours, peers={}, ratio=None))
    return rows, {
        "fused_vs_best_single_points": min(gains),
        "fused_min_margin_points": min(margins),
        "false_accepts_per_h": told.total() / hours,
    }
