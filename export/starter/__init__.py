"""The project that ``mmedge new DIR`` writes: a recipe, a model, and a small folder of data made up on the spot."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np

from mmedge.extras import require

RATE_HZ = 8000
# Split -> samples of each label; groups never cross splits. A mask is validated on 30 samples or more.
_SPLITS = {"train": 24, "validation": 16, "test": 8}


def write_starter(folder: Path) -> None:
    """Write ``recipe.toml``, ``model.py`` and ``data/index.csv`` with its pictures and sounds.

    Args:
        folder: There and empty.
    """
    here = Path(__file__).parent
    for name in ("recipe.toml", "model.py"):
        (folder / name).write_text((here / name).read_text(encoding="utf-8"), encoding="utf-8")
    data = folder / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    with (data / "index.csv").open("w", newline="", encoding="utf-8") as file:
        index = csv.writer(file)
        index.writerow(("split", "group", "label", "image", "audio", "text"))
        for split, count in _SPLITS.items():
            for number in range(count):
                for label in ("calm", "alarm"):
                    name = f"{split}_{label}_{number}"
                    _write_picture(data / f"{name}.png", label, rng)
                    _write_sound(data / f"{name}.wav", label, rng)
                    index.writerow((split, f"{split}{number}", label, f"{name}.png", f"{name}.wav", ""))


def _write_picture(path: Path, label: str, rng: np.random.Generator) -> None:
    """Dark; with an alarm there is a lamp somewhere."""
    picture = rng.integers(0, 60, (120, 160), dtype=np.uint8)
    if label == "alarm":
        top, left = rng.integers(10, 80), rng.integers(10, 120)
        picture[top : top + 30, left : left + 30] += 180
    require("cv2", "writing pictures").imwrite(str(path), picture)


def _write_sound(path: Path, label: str, rng: np.random.Generator) -> None:
    """Noise; with an alarm there is a tone in it."""
    sound = rng.normal(0, 0.02, RATE_HZ)
    if label == "alarm":
        sound += 0.2 * np.sin(2 * np.pi * rng.uniform(900, 1500) * np.arange(RATE_HZ) / RATE_HZ)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((sound.clip(-1, 1) * 32767).astype(np.int16).tobytes())
