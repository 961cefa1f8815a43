"""Which of four objects made the click, against how late the sound is: media files through the real pipeline."""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import mmedge
from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from mmedge.bundle import Bundle
from mmedge.export.datasets.impacts import FPS, OBJECTS, SKEWS_MS, USABLE_S
from mmedge.export.datasets.impacts_clip import BEGIN_S, PERIOD_S, Scene, make_scene
from mmedge.export.datasets.media import SOUND_HZ, write_clip
from mmedge.types import FloatArray

BUNDLE = Path(mmedge.__file__).parent / "assets" / "impacts" / "impacts.mmedge"
SIZE = (240, 320)
PER_CLIP = 30
_AGE_S = (0.04, USABLE_S)  # of what was heard, at the trigger that is judged
_FLOOR = 1e-4


def write_sound(path: Path, sound: FloatArray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_HZ)
        file.writeframes((sound * 32767).round().astype("<i2").tobytes())


def scores(bundle: Bundle, inputs: Mapping[str, Path], impacts: int) -> FloatArray:
    """Return the probability of each object [impacts, 4] at the last trigger of each window."""
    found = np.full((impacts, OBJECTS), np.nan, np.float32)
    files = {name: str(path) for name, path in inputs.items()}
    with mmedge.Pipeline(bundle, files, latency="offline", isolation="thread") as pipe:
        for result in pipe:
            t_s = (result.t_ns - pipe.statistics.started_ns) / 1e9
            window, within_s = divmod(t_s - BEGIN_S, PERIOD_S)
            # The last trigger counts; sound alone makes one every 40 ms.
            if -0.05 < within_s - USABLE_S < 0.5 / FPS and 0 <= window < impacts:
                top = dict(result.tasks["object"].top)
                found[int(window)] = [top[str(number + 1)] for number in range(OBJECTS)]
    return found


def right(found: FloatArray, truth: Sequence[int]) -> FloatArray:
    """Return 1 where the best object is the true one; of equally good ones each counts a part."""
    best = found >= found.max(1, keepdims=True)
    return (best[np.arange(len(truth)), list(truth)] / best.sum(1)).astype(np.float32)


def margin(clips: Sequence[FloatArray]) -> float:
    """Return half the 95 % interval of the mean in points: the bootstrap over clips, whose impacts share a world."""
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([clips[k] for k in rng.integers(0, len(clips), len(clips))]).mean() for _ in range(1000)]
    return 100 * 1.96 * float(np.std(drawn))


def play(bundle: Bundle, scene: Scene, folder: Path) -> dict[str, FloatArray]:
    """Return for each kind of run which impacts were answered right, NaN where the click was out of range."""
    n = len(scene.clicks)
    truth = [who for who, _ in scene.clicks]
    ages_s = np.array([BEGIN_S + PERIOD_S * k + USABLE_S - when_s for k, (_, when_s) in enumerate(scene.clicks)])
    image, audio = folder / "image.mp4", folder / "audio.wav"
    write_clip(image, scene.frames(SIZE), scene.sound(snr_db=30), qp=20, fps=FPS, size=SIZE)
    answers: dict[str, FloatArray] = {}
    for skew_ms in SKEWS_MS:
        for late_ms in {skew_ms, -skew_ms}:
            write_sound(audio, scene.sound(late_s=late_ms / 1000, snr_db=30))
            heard_s = ages_s - late_ms / 1000
            ok = right(scores(bundle, {"image": image, "audio": audio}, n), truth)
            best = [scene.world.nearest(when_s + late_ms / 1000) == who for who, when_s in scene.clicks]
            for name, value in ((f"{late_ms:g}", ok), (f"nearest {late_ms:g}", np.array(best, np.float32))):
                value[(heard_s < _AGE_S[0]) | (heard_s >= _AGE_S[1])] = np.nan
                answers[name] = value
    write_sound(audio, scene.sound(snr_db=30))
    alone = [scores(bundle, inputs, n) for inputs in ({"image": image}, {"audio": audio})]
    answers["image alone"], answers["audio alone"] = (right(found, truth) for found in alone)
    answers["decision fusion"] = right(sum(np.log(np.maximum(found, _FLOOR)) for found in alone), truth)
    return answers


def measure(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """Accuracy of the shipped bundle on generated clips, with sound that is early and late."""
    parts: dict[str, list[FloatArray]] = {}
    with mmedge.load(BUNDLE) as bundle, tempfile.TemporaryDirectory() as folder:
        for seed in range(1000, 1003 if quick else 1010):
            scene = make_scene(seed, 10 if quick else PER_CLIP, plain=False)
            for name, ok in play(bundle, scene, Path(folder)).items():
                parts.setdefault(name, []).append(ok)
    rows: list[Row] = []
    targets: dict[str, float] = {}

    def share(*names: str) -> tuple[float, int, float]:
        pooled = (np.concatenate(found) for found in zip(*(parts[name] for name in names), strict=True))
        clips = [ok[~np.isnan(ok)] for ok in pooled]
        together = np.concatenate(clips)
        return float(together.mean()), len(together), margin(clips)

    for skew_ms in SKEWS_MS:
        both = {f"{skew_ms:g}", f"{-skew_ms:g}"} & set(parts)
        nearest, _, _ = share(*(f"nearest {late}" for late in both))
        accuracy, n, half = share(*both)
        what = f"impacts (simulated): sound {skew_ms:g} ms off (+-{half:.1f}, n = {n})"
        beside: dict[str, float | None] = {"hit nearest to the click": 100 * nearest}
        rows.append(Row(what=what, unit="%", ours=100 * accuracy, peers={}, ratio=None, beside=beside))
        if skew_ms in (0.0, 92.0):
            targets["impacts_accuracy" + (f"_{skew_ms:g}ms" if skew_ms else "")] = accuracy
    for name, told in (
        ("image alone", "image alone"),
        ("audio alone", "audio alone"),
        ("decision fusion", "sum of the logarithms of the two alone"),
    ):
        accuracy, n, _ = share(name)
        what = f"impacts (simulated): {told}: equal scores, by construction (n = {n})"
        rows.append(Row(what=what, unit="%", ours=100 * accuracy, peers={}, ratio=None))
    return rows, targets


def _report(quick: bool) -> BenchmarkReport:
    """Accuracy of the impacts bundle against injected skew."""
    rows, targets = measure(quick)
    return BenchmarkReport(
        name="impacts",
        title="Impacts: which of four objects clicked, with sound that is early and late by so much (mean of both)",
        host=host(),
        conditions=versions("onnxruntime", "numpy"),
        evidence="simulated",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(_report)
