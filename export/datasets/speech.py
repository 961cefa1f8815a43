"""A bank of spoken words: synthesised by espeak-ng and flite, or read from human recordings; cached as one npz."""

from __future__ import annotations

import os
import subprocess
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.capture.channels import RowReader, channel_count
from mmedge.capture.demux import choose_tracks
from mmedge.errors import MissingDependencyError, SourceError
from mmedge.extras import require
from mmedge.files import scratch
from mmedge.types import FloatArray

from .base import Split
from .cache import cache_folder
from .fetch import debian_folder

RATE_HZ = 8000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHER = len(DIGITS)  # label of any word that is no digit
OTHER_WORDS = (
    *("hello", "yes", "no", "stop", "go", "left", "right", "up", "down", "house", "water", "music", "people"),
    *("camera", "paper", "table", "window", "garden", "morning", "please", "thank you", "computer", "happy"),
    *("yellow", "orange", "banana", "monday", "winter", "doctor", "letter", "apple", "dog", "cat", "bird", "bed"),
    *("wow", "forward", "backward", "follow", "learn", "visual", "excuse me", "good bye", "what is that", "my name"),
    *("ten", "eleven", "twelve", "a hundred", "coffee", "street", "summer", "again", "maybe", "school", "red", "blue"),
)
_VERSION = 2  # of the cached banks: raise it with every change of the words below
_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
_VALIDATION = frozenset(
    ("belinda", "linda", "Michael", "Mario", "adam", "quincy", "f3", "m5", "zac", "norbert", "Alicia", "miguel")
)
# Whispers, robots and other voices that nobody sounds like.
_ODD = ("whisper", "robo", "uniro", "anikarobot", "croak", "demonic", "storm", "tweaky", "fast", "announcer")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bank:
    """Words as float32 at 8 kHz, silence trimmed.

    Attributes:
        samples: All words, one after the other.
        starts: int64 [n + 1]; word i is ``samples[starts[i]:starts[i + 1]]``.
        labels: 0..9, or 10 for a word that is not a digit.
        speakers: ``ENGINE:VOICE`` of each word.
    """

    samples: FloatArray
    starts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.str_]

    def word(self, index: int) -> FloatArray:
        """Return one word, a view. It is float32 [samples] at 8 kHz."""
        return self.samples[self.starts[index] : self.starts[index + 1]]

    def where(self, speakers: Sequence[str]) -> Bank:
        """Return the words of some speakers."""
        chosen = np.flatnonzero(np.isin(self.speakers, speakers))
        return _bank([(self.word(i), int(self.labels[i]), str(self.speakers[i])) for i in chosen.tolist()])


_Item = tuple[FloatArray, int, str]


@dataclass(frozen=True, slots=True)
class _Job:
    command: tuple[str, ...]
    label: int
    speaker: str
    formant: float


def load_bank(split: Split, *, humans: bool = True) -> Bank:
    """Return the words of a split, synthesised on first use (about a minute on two cores).

    Args:
        split: Speakers are disjoint between splits.
        humans: Add the human recordings to the test split.

    Returns:
        The bank.

    Raises:
        MissingDependencyError: If espeak-ng, flite or a recording is not there.
    """
    humans = humans and split == "test"
    path = cache_folder("av_digits") / f"speech-{split}{'-humans' if humans else ''}-v{_VERSION}.npz"
    if not path.exists():
        bank = make_bank(_jobs(split), _human_words() if humans else ())
        part = path.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(part, samples=bank.samples, starts=bank.starts, labels=bank.labels, speakers=bank.speakers)
        part.replace(path)
    with np.load(path, allow_pickle=False) as file:
        return Bank(**{key: file[key] for key in ("samples", "starts", "labels", "speakers")})


def make_bank(jobs: Iterable[_Job], more: Iterable[_Item] = ()) -> Bank:
    """Return the words that ``flite`` and others describe, synthesised in parallel, and ``more``."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _bank([*pool.map(_speak, jobs), *more])


def _bank(items: Sequence[_Item]) -> Bank:
    lengths = [len(item[0]) for item in items]
    return Bank(
        samples=np.concatenate([item[0] for item in items]) if items else np.zeros(0, np.float32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.array([item[1] for item in items], np.int64),
        speakers=np.array([item[2] for item in items], np.str_),
    )


def _jobs(split: Split) -> Iterator[_Job]:
    rng = np.random.default_rng(list(split.encode()))
    texts = [(word, label) for label, word in enumerate(DIGITS)] + [(word, OTHER) for word in OTHER_WORDS]
    if split == "test":
        for voice in ("awb", "slt"):
            for text, label in texts:
                for stretch in (0.85, 1.0, 1.15) if label < OTHER else (1.0,):
                    yield flite(voice, text, label, stretch)
        return
    for variant in espeak_variants(split):
        chosen = [*texts[:OTHER] * 5, *(texts[i] for i in rng.choice(np.arange(OTHER, len(texts)), 10, replace=False))]
        for text, label in chosen:
            yield _espeak(variant, text, label, rng)
    if split == "train":
        for voice in ("kal", "kal16", "rms"):
            for text, label in [*texts[:OTHER] * 60, *texts[OTHER:] * 3]:
                # All are men: resampling moves formants and pitch to those of women and children, the stretch
                # gives the tempo back. Only kal and kal16 heed the pitch.
                formant, pitch_hz = rng.uniform(0.85, 1.25), np.exp(rng.uniform(np.log(80), np.log(230)))
                yield flite(voice, text, label, rng.uniform(0.8, 1.25) * formant, pitch_hz, formant)


def espeak_variants(split: Split) -> list[str]:
    """Return the names of espeak-ng's voice variants that a split uses."""
    try:
        command = ["espeak-ng", "--voices=variant"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise _no_command("espeak-ng") from error
    names = sorted({line.split("!v/", 1)[1].split()[0] for line in listing.splitlines() if "!v/" in line})
    sane = [name for name in names if not name.lower().startswith(_ODD)]
    return [name for name in sane if (name in _VALIDATION) == (split == "validation")]


def _no_command(name: str) -> MissingDependencyError:
    package = name if name == "espeak-ng" else "flite"
    return MissingDependencyError(
        f"speech synthesis needs the command '{name}'", where="data", fix=f"apt-get install {package}"
    )


def _espeak(variant: str, text: str, label: int, rng: np.random.Generator) -> _Job:
    accent, speed, pitch = rng.choice(_ACCENTS), rng.integers(125, 210), rng.integers(20, 85)
    command = ("espeak-ng", "-v", f"{accent}+{variant}", "-s", f"{speed}", "-p", f"{pitch}", "-w", "{out}", text)
    return _Job(command, label, f"espeak:{variant}", 1.0)


def flite(
    voice: str, text: str, label: int, stretch: float = 1.0, pitch_hz: float | None = None, formant: float = 1.0
) -> _Job:
    """Return the work of one flite word; kal and kal16 are the same person."""
    settings = ["--setf", f"duration_stretch={stretch:.3f}"]
    if pitch_hz is not None:
        settings += ["--setf", f"int_f0_target_mean={pitch_hz:.0f}"]
    command = ("flite", "-voice", voice, *settings, "-t", text, "-o", "{out}")
    return _Job(command, label, f"flite:{voice.removesuffix('16')}", formant)


def synthesise(job: _Job) -> tuple[FloatArray, int]:
    """Return the sound of one word and its sample rate, as the command made it.

    The sound is float32 [samples], -1..1; the rate is in Hz.
    """
    with scratch() as folder:
        out = f"{folder}/word.wav"
        command = [part.replace("{out}", out) for part in job.command]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            raise _no_command(command[0]) from error
        except subprocess.CalledProcessError as error:
            message = f"'{command[0]}' failed: {error.stderr.decode(errors='replace').strip()}"
            raise SourceError(message, where=" ".join(command), fix="run the command in a shell") from error
        return _read_wave(Path(out))


def _speak(job: _Job) -> _Item:
    sound, rate_hz = synthesise(job)
    return trim(_resample(sound, rate_hz * job.formant), RATE_HZ), job.label, job.speaker


def _read_wave(path: Path) -> tuple[FloatArray, int]:
    with wave.open(str(path)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return (raw / 32768).astype(np.float32), file.getframerate()


def _resample(sound: FloatArray, rate_hz: float) -> FloatArray:
    resampled: FloatArray = require("soxr", "resampling speech").resample(sound, rate_hz, RATE_HZ)
    return resampled


def trim(sound: FloatArray, rate_hz: int) -> FloatArray:
    """Return ``sound`` without the silence around it (10 ms blocks below 2 % of the loudest).

    Both are float32 [samples].
    """
    block = rate_hz // 100
    levels = np.sqrt(np.square(sound[: len(sound) // block * block].reshape(-1, block)).mean(1))
    loud = np.flatnonzero(levels > 0.02 * levels.max())
    return np.ascontiguousarray(sound[loud[0] * block : (loud[-1] + 2) * block])


def _human_words() -> Iterator[_Item]:
    """Allison (Asterisk, CC-BY-SA) and Dawson (saytime, GPL): fetched when needed, never redistributed."""
    sounds = debian_folder("asterisk-core-sounds-en-wav") / "usr/share/asterisk/sounds/en_US_f_Allison/digits"
    times = debian_folder("saytime") / "usr/share/saytime"
    read: Callable[[Path], tuple[FloatArray, int]]
    for speaker, folder, suffix, read in (
        ("human:allison", sounds, "wav", _read_wave),
        ("human:dawson", times, "au", _read_mulaw),
    ):
        for digit in range(10):
            sound, rate_hz = read(folder / f"{digit}.{suffix}")
            yield trim(_resample(sound, rate_hz), RATE_HZ), digit, speaker


def _read_mulaw(path: Path) -> tuple[FloatArray, int]:
    # Despite its name a headerless mu-law file.
    return read_audio(path, RATE_HZ, "mulaw", sample_rate="8000"), RATE_HZ


def _mono(frame: Any, reader: RowReader) -> Any:
    """Return an ``av.AudioFrame`` of one channel: the mean of all, as the runtime takes it."""
    if frame.layout.nb_channels == 1:
        return frame
    mean = reader.read(frame).mean(axis=0, dtype=np.float64).astype(np.float32)
    mono = require("av", "reading media files").AudioFrame.from_ndarray(mean[None], format="fltp", layout="mono")
    mono.sample_rate = frame.sample_rate
    return mono


def read_audio(path: Path, rate_hz: int, form: str | None = None, **options: str) -> FloatArray:
    """Return the sound of a media file as mono float32: of its usual track the mean of all channels.

    The samples are float32 [n], -1..1, at ``rate_hz``.

    Args:
        path: Any file PyAV reads.
        rate_hz: Wanted sample rate.
        form: Name of the file format where the file does not tell, for example ``"mulaw"``.
        **options: Options of that format.

    Returns:
        The samples.

    Raises:
        SourceError: If the file cannot be read or has no sound.
    """
    av = require("av", "reading media files")
    try:
        with av.open(str(path), format=form, options=options) as container:
            tracks, _ = choose_tracks(container, "audio", {"audio": None})
            if not tracks:
                raise SourceError("the file has no audio track", where=str(path), fix="give a file with an audio track")
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
            reader, stream = RowReader(), tracks[0][0]
            channel_count(stream)  # makes its layout safe to decode
            frames = [f for each in container.decode(stream) for f in resampler.resample(_mono(each, reader))]
            frames += resampler.resample(None)
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"cannot read sound: {error}", where=str(path), fix="check the file") from error
    if not frames:
        raise SourceError("the sound has no samples", where=str(path), fix="give a file with sound in it")
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
