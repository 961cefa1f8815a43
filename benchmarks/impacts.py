"""Which of four objects made the click, against how late the sound is: media files through the real pipeline."""

from __future__ import annotations

import math
import tempfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import mmedge
from benchmarks.harness import Report, Row, host, main, versions
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


def margin(share: float, n: int) -> float:
    """Return half the 95 % interval of a share, in points (Wilson)."""
    z = 1.96
    return 100 * z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))


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
            for name, value in ((f"{late_ms:g}", ok), (f"oracle {late_ms:g}", np.array(best, np.float32))):
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
        for seed in range(1000, 1001 if quick else 1010):
            scene = make_scene(seed, PER_CLIP, plain=False)
            for name, ok in play(bundle, scene, Path(folder)).items():
                parts.setdefault(name, []).append(ok)
    rows: list[Row] = []
    targets: dict[str, float] = {}

    def share(*names: str) -> tuple[float, int]:
        ok = np.concatenate([part for name in names for part in parts[name]])
        ok = ok[~np.isnan(ok)]
        return float(ok.mean()), len(ok)

    def add(what: str, value: tuple[float, int], peers: Mapping[str, float | None] | None = None) -> float:
        accuracy, n = value
        text = f"impacts: {what} (+-{margin(accuracy, n):.1f}, n = {n})"
        rows.append(Row(what=text, unit="%", ours=100 * accuracy, peers=dict(peers or {}), ratio=None))
        return accuracy

    for skew_ms in SKEWS_MS:
        both = {f"{skew_ms:g}", f"{-skew_ms:g}"} & set(parts)
        best, _ = share(*(f"oracle {late}" for late in both))
        accuracy = add(f"sound {skew_ms:g} ms off", share(*both), {"oracle": 100 * best})
        if skew_ms in (0.0, 92.0):
            targets["impacts_accuracy" + (f"_{skew_ms:g}ms" if skew_ms else "")] = accuracy
    for name in ("image alone", "audio alone", "decision fusion"):
        what = "sum of the logarithms of the two alone" if name == "decision fusion" else name
        add(what, share(name), {"chance": 25.0})
    return rows, targets


def _report(quick: bool) -> Report:
    """Accuracy of the impacts bundle against injected skew."""
    rows, targets = measure(quick)
    return Report(
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
