"""An epoch over a folder of photos and sounds: decoded anew, and taken from what was kept of it."""

from __future__ import annotations

import os
import tempfile
import time
import wave
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.export.datasets.folder import Folder
from mmedge.export.recipe import Recipe
from mmedge.export.shipped import shipped_recipe
from mmedge.extras import require

_SIDES = (720, 1280)
_SOUND_S, _RATE_HZ = 3, 16_000


def write(folder: Path, count: int) -> None:
    """Write photos (smooth noise, JPEG) and sounds (WAV), two of three for training."""
    cv2 = require("cv2", "this benchmark")
    rng = np.random.default_rng(0)
    lines = ["split,group,label,image,audio,text"]
    for number in range(count):
        split = ("train", "train", "train", "train", "validation", "test")[number % 6]
        coarse = rng.integers(0, 256, (45, 80, 3), np.uint8)
        photo = cv2.resize(coarse, _SIDES[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), photo)
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE_HZ)
            file.writeframes(rng.integers(-9000, 9000, _SOUND_S * _RATE_HZ).astype(np.int16).tobytes())
        lines.append(f"{split},{split},{number % 10},{number}.jpg,{number}.wav,")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


def epoch_s(data: Folder, batch: int = 32) -> float:
    """Return how long it takes to read and batch the training split once, in this process."""
    samples, start = data.split("train"), time.perf_counter()
    for first in range(0, len(samples), batch):
        data.collate([samples[index] for index in range(first, min(first + batch, len(samples)))])
    return time.perf_counter() - start


def _recipe(cache_gb: float) -> Recipe:
    recipe = shipped_recipe("av_digits")
    image = ImageInput(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3), frame=(480, 640))
    audio = recipe.inputs["audio"]
    assert isinstance(audio, AudioInput)
    return msgspec.structs.replace(
        recipe,
        inputs={**recipe.inputs, "image": image},
        data=msgspec.structs.replace(recipe.data, cache_gb=cache_gb),
    )


def measure(quick: bool) -> BenchmarkReport:
    """Read the training split of a folder, a few epochs each way."""
    count, epochs = (120, 3) if quick else (600, 5)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        (home / "data").mkdir()
        write(home / "data", count)
        plain = Folder(_recipe(0), home / "data")
        plain.prepare()
        decoding = [epoch_s(plain) for _ in range(epochs)]
        kept = Folder(_recipe(8), home / "data")
        kept.prepare()
        first = epoch_s(kept)
        later = [epoch_s(kept) for _ in range(epochs)]
        size = sum(path.stat().st_size for path in (home / "cache").rglob("*.npy"))
    anew, again = float(np.median(decoding)), float(np.median(later))
    train = sum(number % 6 < 4 for number in range(count))
    return BenchmarkReport(
        name="training",
        title=f"An epoch over {train} photos ({_SIDES[1]}x{_SIDES[0]}, JPEG), {_SOUND_S} s of sound each, read in one "
        "process: what was decoded is kept on disk.",
        host=host(),
        conditions={**versions("opencv-python-headless", "av"), "epochs": epochs, "kept_mb": round(size / 1e6, 1)},
        evidence="cpu",
        rows=[
            Row(what="a later epoch", unit="s", ours=again, peers={"each epoch decodes": anew}, ratio=anew / again),
            Row(what="the first epoch", unit="s", ours=first, peers={"each epoch decodes": anew}, ratio=anew / first),
        ],
        targets={"epoch_2_vs_epoch_1": anew / again},
    )


if __name__ == "__main__":
    main(measure)
