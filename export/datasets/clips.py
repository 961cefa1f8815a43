"""Makes the shipped clips: the demo clip, its four broken twins, and the calibration recordings.

::

    python -m mmedge.export.datasets.clips mmedge/assets/digits

Every choice comes from fixed seeds. Only sources that may be redistributed go in: MNIST digits, flite voices,
generated noise and photos in the public domain.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmedge.console import err
from mmedge.extras import require
from mmedge.types import ByteArray, FloatArray

from .base import Split
from .claims import NONE, Claims
from .digits import load_digits
from .media import FPS, HEIGHT, SOUND_HZ, WIDTH, write_clip
from .pictures import free_photo
from .scenes import PATCH, corners, cv2, paper, place, uneven
from .speech import DIGITS, OTHER, OTHER_WORDS, RATE_HZ, Bank, flite, make_bank, synthesise, trim
from .windows import babble, coloured_noise, unit

SEGMENT_S = 1.6
WORD_AT_S = 0.2
DEMO_DIGITS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)
_SEED = 31415926
_FRAMES = round(SEGMENT_S * FPS)
_SAMPLES = round(SEGMENT_S * SOUND_HZ)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """What is shown and said for 1.6 s.

    Attributes:
        picture: uint8 [28, 28], light on dark; None shows empty paper.
        word: Sound at 16 kHz, or None.
        noise: Sound at 16 kHz of the whole segment, added as it is.
        tone: Grey level of paper and ink.
        background: uint8 [480, 640]; what is behind the paper.
        sheet: Height of the paper as a share of the frame; 0 holds nothing up.
    """

    picture: ByteArray | None
    word: FloatArray | None
    noise: FloatArray
    tone: tuple[float, float]
    background: FloatArray
    sheet: float


def demo(folder: Path) -> None:
    """Write ``clean``, ``noise``, ``frozen``, ``black``, ``wrong`` and ``truth.json``."""
    rng = np.random.default_rng(_SEED)
    hush = coloured_noise(len(DEMO_DIGITS) * _SAMPLES, 0.5, rng) * 0.002
    room = _room("coffee.png", rng)
    hard = set(rng.permutation(len(DEMO_DIGITS))[: len(DEMO_DIGITS) // 2].tolist())
    segments, lies = [], []
    for index, digit in enumerate(DEMO_DIGITS):
        truth = _picture("test", digit, index in hard, rng)
        other = (digit + int(rng.integers(1, 10))) % 10
        lies.append(other)
        segments.append(
            Segment(
                picture=truth,
                word=_say("slt", DIGITS[digit]),
                noise=hush[index * _SAMPLES : (index + 1) * _SAMPLES],
                tone=(rng.uniform(185, 240), rng.uniform(15, 60)),
                background=room,
                sheet=rng.uniform(0.75, 0.9),
            )
        )
    wrong = [
        replace(segment, picture=_picture("test", lie, False, rng)) for segment, lie in zip(segments, lies, strict=True)
    ]
    spoken = sound(segments)
    crowd = _babble(len(spoken), rng)
    level = float(np.sqrt(np.mean([np.square(s.word).mean() for s in segments if s.word is not None])))
    noisy = spoken + crowd * level  # 0 dB
    noisy *= min(1.0, 0.95 / float(np.abs(noisy).max()))
    pictures = list(film(segments, np.random.default_rng(1)))
    write_clip(folder / "clean.mp4", pictures, spoken, qp=26)
    write_clip(folder / "noise.mp4", pictures, noisy, qp=26)
    # One key frame only: each new one would be coded anew and differ by a little.
    write_clip(folder / "frozen.mp4", pictures[:1] * len(pictures), spoken, qp=26, gop=2 * len(pictures))
    write_clip(folder / "black.mp4", _dark(len(pictures), np.random.default_rng(2)), spoken, qp=32)
    write_clip(folder / "wrong.mp4", film(wrong, np.random.default_rng(1)), spoken, qp=26)
    document = {"segment_s": SEGMENT_S, "digits": list(DEMO_DIGITS), "wrong": lies, "hard": sorted(hard)}
    (folder / "truth.json").write_text(json.dumps(document) + "\n")


def calibration(folder: Path) -> None:
    """Write four recordings from the train split: digits and none, loud and soft, in several places; and claims."""
    for number, name in enumerate(("brick.png", "chelsea.png", "astronaut.png", None)):
        rng = np.random.default_rng((_SEED, number))
        room = _room(name, rng)
        segments = [_any_segment(room, rng) for _ in range(10)]
        write_clip(folder / f"room{number + 1}.mp4", film(segments, rng), sound(segments), qp=28)
        typed(folder / f"room{number + 1}.text.txt", np.random.default_rng((_SEED, number, 1)))


def typed(path: Path, rng: np.random.Generator) -> None:
    """Write 48 claims of the train split, one a line; they do not follow the recording."""
    claims = Claims("train")
    lines = [claims.make(int(rng.integers(NONE + 1)), rng, 0.3) for _ in range(48)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _any_segment(room: FloatArray, rng: np.random.Generator) -> Segment:
    digit = int(rng.integers(10))
    shows, says = rng.random() < 0.8, rng.random()
    text = DIGITS[digit] if says < 0.7 else str(rng.choice(OTHER_WORDS)) if says < 0.85 else None
    word = None if text is None else _say(str(rng.choice(("kal16", "rms"))), text) * rng.uniform(0.15, 1.3)
    light, dark = rng.uniform(160, 250), rng.uniform(10, 70)
    noise = coloured_noise(_SAMPLES, rng.uniform(0, 1), rng) if rng.random() < 0.5 else _babble(_SAMPLES, rng)
    return Segment(
        picture=_picture("train", digit, bool(rng.random() < 0.5), rng) if shows else None,
        word=word,
        noise=noise * 10 ** rng.uniform(-3.5, -1.2),
        tone=(light, dark) if rng.random() < 0.75 else (dark, light),
        background=room,
        sheet=0.0 if not shows and rng.random() < 0.5 else rng.uniform(0.55, 1.1),
    )


def film(segments: Sequence[Segment], rng: np.random.Generator) -> Iterator[ByteArray]:
    """Yield the frames: paper in an unsteady hand, uneven light, the noise of a sensor.

    Frames are uint8 gray [height, width], 0..255.
    """
    light = uneven((HEIGHT, WIDTH), rng, 0.8, 1.1)
    phases = rng.uniform(0, 2 * np.pi, 5)
    number = 0
    for segment in segments:
        sheet = None if segment.sheet == 0 else _sheet(segment, rng)
        centre = np.array([WIDTH / 2 + rng.uniform(-30, 30), HEIGHT / 2 + rng.uniform(-15, 15)])
        tilt = rng.normal(0, 0.04)
        keystone = rng.normal(0, 6, (4, 2)).astype(np.float32)
        for _ in range(_FRAMES):
            t = number / FPS
            number += 1
            scene = segment.background.copy()
            if sheet is not None:
                sway = 6 * np.sin(2 * np.pi * np.array([0.31, 0.23]) * t + phases[:2])
                sway += 2 * np.sin(2 * np.pi * np.array([1.1, 0.9]) * t + phases[2:4])
                angle = tilt + 0.02 * np.sin(2 * np.pi * 0.4 * t + phases[4])
                rows = segment.sheet * HEIGHT
                place(scene, sheet, corners(centre + sway, rows, rows * 1.05, angle) + keystone)
            noisy = scene * light + rng.standard_normal(scene.shape, np.float32) * 2
            yield noisy.round().clip(0, 255).astype(np.uint8)


def _sheet(segment: Segment, rng: np.random.Generator) -> FloatArray:
    ink = np.zeros((PATCH, PATCH), np.float32)
    if segment.picture is not None:
        side = int(0.85 * PATCH)
        edge = (PATCH - side) // 2
        picture = cv2().resize(segment.picture, (side, side), interpolation=2).astype(np.float32) / 255
        ink[edge : edge + side, edge : edge + side] = picture.clip(0, 1)
    return paper(ink, rng, tone=segment.tone)


def _dark(frames: int, rng: np.random.Generator) -> Iterator[ByteArray]:
    """Yield what a camera behind a closed shutter gives: black with sensor noise, coarse enough to be coded."""
    for _ in range(frames):
        grain = rng.normal(6, 3, (HEIGHT // 8, WIDTH // 8)).clip(0, 255).astype(np.uint8)
        yield cv2().resize(grain, (WIDTH, HEIGHT), interpolation=1)


def sound(segments: Sequence[Segment]) -> FloatArray:
    """Return the sound of all segments; each word begins 0.2 s into its own.

    It is float32 [samples] at 16 kHz.
    """
    parts = []
    start = round(WORD_AT_S * SOUND_HZ)
    for segment in segments:
        part = segment.noise.copy()
        if segment.word is not None:
            part[start : start + len(segment.word)] += segment.word
        parts.append(part)
    return np.concatenate(parts).clip(-1, 1)


def _say(voice: str, text: str) -> FloatArray:
    """Return a word at 16 kHz that ends 0.95 s into its segment at the latest: a long one is said faster."""
    for stretch in (1.0, 0.85, 0.7, 0.55):
        spoken, rate_hz = synthesise(flite(voice, text, OTHER, stretch))
        word = trim(require("soxr", "resampling speech").resample(spoken, rate_hz, SOUND_HZ), SOUND_HZ)
        if len(word) <= 0.72 * SOUND_HZ:
            break
    return word[: int(0.75 * SOUND_HZ)] * (0.4 / float(np.abs(word).max()))


def _picture(split: Split, digit: int, hard: bool, rng: np.random.Generator) -> ByteArray:
    digits = load_digits(split)
    index = int(rng.choice(np.flatnonzero(digits.labels == digit)))
    picture: ByteArray = (digits.hard if hard else digits.clean)[index]
    return picture


def _room(name: str | None, rng: np.random.Generator) -> FloatArray:
    if name is None:
        return uneven((HEIGHT, WIDTH), rng, 40, 200)
    photo = cv2().resize(free_photo(name), (WIDTH, HEIGHT), interpolation=3)
    room: FloatArray = cv2().GaussianBlur(photo, (0, 0), 2).astype(np.float32)
    return room


def _babble(samples: int, rng: np.random.Generator) -> FloatArray:
    """Return flite voices saying words that are not digits, RMS 1, at 16 kHz."""
    spoken = babble(_chatter(), samples // 2 + RATE_HZ, rng, voices=8)
    upsampled: FloatArray = require("soxr", "resampling speech").resample(spoken, RATE_HZ, SOUND_HZ)
    return unit(upsampled[:samples])


@lru_cache(maxsize=1)
def _chatter() -> Bank:
    return make_bank([flite(voice, text, OTHER) for voice in ("kal16", "rms") for text in OTHER_WORDS])


def main(arguments: Sequence[str]) -> int:
    """Write everything into the folder that is named."""
    if len(arguments) != 1:
        err.print("usage: python -m mmedge.export.datasets.clips FOLDER")
        return 2
    for part, make in (("clips", demo), ("calibration", calibration)):
        folder = Path(arguments[0]) / part
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
