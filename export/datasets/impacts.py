"""Impacts: four objects bounce in silence, and at a random time one of the hits makes a click. Which one was it?

Everything is drawn from a seed. The flights know nothing of the click, so the picture alone says nothing; the
click's timbre knows nothing of the object, so the sound alone says nothing. Only the times fit together::

    python -m mmedge.export.datasets.impacts            # what an oracle reaches with sound that is late
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.console import out
from mmedge.errors import ConfigError
from mmedge.learn import learn
from mmedge.types import AnyArray, ByteArray, FloatArray

from ..recipe import Recipe
from .base import SPLITS, Dataset, Sample, Samples, Split, class_labels

OBJECTS = 4
FPS = 30
# A click this old has left what the model looks at; longer than any flight, so that every object hits in that time.
USABLE_S = 0.84
FLIGHT_S = (0.68, 0.82)
SKEWS_MS = (0.0, 5.0, 30.0, 60.0, 92.0, 150.0)
_LATE_S = 0.04
_BLUR = 4  # pictures that one exposure is the mean of
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class World:
    """Four objects, each of which flies up and down, one flight after the other.

    Attributes:
        hits_s: Per object the times at which it hits the ground, ascending.
        apex: Per object the height of its flights, 0..1.
    """

    hits_s: tuple[Times, ...]
    apex: Times

    def heights(self, t_s: Times) -> Times:
        """Return the heights [n, 4] at ``t_s`` [n], which must lie between the first and the last hits."""
        rows = []
        for hits, apex in zip(self.hits_s, self.apex, strict=True):
            after = np.searchsorted(hits, t_s, side="right")
            done = (t_s - hits[after - 1]) / (hits[after] - hits[after - 1])
            rows.append(4 * apex * done * (1 - done))
        return np.stack(rows, 1)

    def nearest(self, t_s: float) -> int:
        """Return the object whose hit is nearest to ``t_s``."""
        return int(np.argmin([np.abs(hits - t_s).min() for hits in self.hits_s]))


def make_world(rng: np.random.Generator, begin_s: float, end_s: float) -> World:
    """Return a world whose flights cover the given time; which object is which makes no difference to them."""
    longest = FLIGHT_S[1]
    count = int((end_s - begin_s + 4 * longest) / FLIGHT_S[0]) + 2
    hits = []
    for _ in range(OBJECTS):
        flights = rng.uniform(*FLIGHT_S, count)
        # Far enough before the beginning that its phase is forgotten.
        start_s = begin_s - 2 * longest - rng.uniform(0, longest)
        hits.append(start_s + np.cumsum(flights))
    return World(hits_s=tuple(hits), apex=rng.uniform(0.6, 1.0, OBJECTS))


def choose_hit(world: World, rng: np.random.Generator, begin_s: float, end_s: float) -> tuple[int, float]:
    """Return an object and the time of one of its hits in ``begin_s`` <= t < ``end_s``: first who, then when.

    The object is drawn without a look at the flights: one that hits twice is no likelier than the others.
    """
    who = int(rng.integers(OBJECTS))
    hits = world.hits_s[who]
    return who, float(rng.choice(hits[(hits >= begin_s) & (hits < end_s)]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Look:
    """How a camera sees the world: levels of grey in 0..255, sizes and places as a share of the picture.

    Attributes:
        back, ground: Grey above and below the ground.
        slope: Grey that is added from the left to the right edge.
        tones: Grey of each object.
        centres: Where each object is, from the left.
        sizes: Width and height of each object.
        levels: Where the ground is under each object, from the top: the camera may be tilted.
        reach: How far the highest flight goes up.
        exposure_s: For how long a frame is exposed, around its capture time.
        noise: Standard deviation of the sensor's noise.
    """

    back: float
    ground: float
    slope: float
    tones: Times
    centres: Times
    sizes: Times
    levels: Times
    reach: float
    exposure_s: float
    noise: float


def make_look(rng: np.random.Generator, *, plain: bool = False) -> Look:
    """Return a random look; a ``plain`` one is what a screen shows: straight, centred, sharp, without noise."""
    if plain:
        return Look(
            back=40.0,
            ground=90.0,
            slope=0.0,
            tones=np.full(OBJECTS, 225.0),
            centres=(np.arange(OBJECTS) + 0.5) / OBJECTS,
            sizes=np.tile((0.09, 0.12), (OBJECTS, 1)),
            levels=np.full(OBJECTS, 0.88),
            reach=0.68,
            exposure_s=0.002,
            noise=0.0,
        )
    back = rng.uniform(15, 240)
    far = rng.uniform(50, 200, OBJECTS) * rng.choice((-1, 1), OBJECTS)
    # An object that would be out of range is as far on the other side.
    tones = np.where((back + far < 0) | (back + far > 255), back - far, back + far).clip(0, 255)
    at = (np.arange(OBJECTS) + 0.5) / OBJECTS - 0.5
    return Look(
        back=back,
        ground=float(np.clip(back + rng.uniform(-60, 60), 0, 255)),
        slope=rng.uniform(-25, 25),
        tones=tones,
        centres=0.5 + at * rng.uniform(0.88, 1.02) + rng.uniform(-0.02, 0.02) + rng.uniform(-0.01, 0.01, OBJECTS),
        sizes=rng.uniform((0.06, 0.08), (0.13, 0.17), (OBJECTS, 2)),
        levels=rng.uniform(0.8, 0.95) + at * rng.uniform(-0.08, 0.08),
        reach=rng.uniform(0.5, 0.72),
        exposure_s=rng.uniform(0.001, 0.025),
        noise=rng.uniform(0, 6),
    )


def render(world: World, look: Look, t_s: Times, size: tuple[int, int], rng: np.random.Generator) -> ByteArray:
    """Return the frames captured at ``t_s``: exact coverage of every pixel, blurred by the exposure.

    Args:
        world: What moves.
        look: How it is seen.
        t_s: Capture times, the middle of each exposure.
        size: Rows and columns.
        rng: For the noise.

    Returns:
        uint8 [len(t_s), rows, columns].
    """
    rows, columns = size
    during = (np.arange(_BLUR) + 0.5) / _BLUR - 0.5
    heights = world.heights((t_s[:, None] + look.exposure_s * during).ravel()) * look.reach
    tall, wide = look.sizes[:, 1] / 2, look.sizes[:, 0] / 2
    middle = look.levels - tall - heights
    vertical = _coverage(middle * rows, tall * rows, rows).reshape(len(t_s), _BLUR, OBJECTS, rows).mean(1)
    horizontal = _coverage(look.centres * columns, wide * columns, columns)
    x = np.linspace(-0.5, 0.5, columns, dtype=np.float32)
    floor = look.levels.mean() + np.polyfit(look.centres - 0.5, look.levels, 1)[0] * x
    under = np.clip(np.arange(1, rows + 1)[:, None] - floor * rows, 0, 1)
    scene = (look.back + (look.ground - look.back) * under + look.slope * x).astype(np.float32)
    frames = np.repeat(scene[None], len(t_s), 0)
    for number, across in enumerate(horizontal):
        touched = slice(*np.flatnonzero(across)[[0, -1]] + (0, 1))
        contrast = (np.float32(look.tones[number]) - scene[:, touched]) * across[touched]
        frames[:, :, touched] += vertical[:, number, :, None] * contrast
    if look.noise:
        frames += np.float32(look.noise) * rng.standard_normal(frames.shape, np.float32)
    result: ByteArray = frames.round().clip(0, 255).astype(np.uint8)
    return result


def _coverage(centre: Times, half: Times, pixels: int) -> FloatArray:
    """Return how much of every pixel lies within ``half`` of ``centre``; both are in pixels."""
    edges = np.arange(pixels + 1)
    inside = np.clip(edges, (centre - half)[..., None], (centre + half)[..., None])
    result: FloatArray = np.diff(inside).astype(np.float32)
    return result


def click(rng: np.random.Generator, rate_hz: int) -> FloatArray:
    """Return a short decaying sound, its peak at 1: two tones and a little noise, sometimes in a room.

    It is float32 [samples] at ``rate_hz``.
    """
    t = np.arange(round(0.12 * rate_hz)) / rate_hz
    sound = np.zeros(len(t))
    for _ in range(2):
        tone = np.sin(2 * np.pi * rng.uniform(400, 3200) * t + rng.uniform(0, 2 * np.pi))
        sound += rng.uniform(0.2, 1) * tone * np.exp(-t / rng.uniform(0.003, 0.025))
    sound += rng.uniform(0, 0.5) * rng.standard_normal(len(t)) * np.exp(-t / 0.004)
    if rng.random() < 0.4:
        for _ in range(6):
            late = int(rng.uniform(0.002, 0.05) * rate_hz)
            sound[late:] += rng.uniform(-0.3, 0.3) * sound[: len(t) - late]
    result: FloatArray = (sound / np.abs(sound).max()).astype(np.float32)
    return result


def make_sound(
    clicks_s: Sequence[float],
    begin_s: float,
    samples: int,
    rate_hz: int,
    rng: np.random.Generator,
    *,
    snr_db: float,
    unsteady_db: float = 0.0,
) -> FloatArray:
    """Return sound from ``begin_s`` on, with clicks of random timbre over noise.

    Args:
        clicks_s: When they sound; those outside leave no trace.
        begin_s: Time of the first sample.
        samples: How many.
        rate_hz: Sample rate.
        rng: Where timbre, level and noise come from.
        snr_db: Peak of a full click over the noise's RMS.
        unsteady_db: By how much the noise's level changes from one moment to the next, as a codec makes it.

    Returns:
        float32 [samples], -1..1.
    """
    sound = rng.standard_normal(samples + 1).astype(np.float32)
    # From white to dull, as rooms are.
    sound = sound[1:] + rng.uniform(0, 0.95) * sound[:-1]
    sound *= 10 ** (-snr_db / 20) / np.sqrt(np.square(sound).mean())
    if unsteady_db:
        blocks = rng.normal(0, unsteady_db, samples // round(0.016 * rate_hz) + 1)
        sound *= (10 ** (np.repeat(blocks, round(0.016 * rate_hz))[:samples] / 20)).astype(np.float32)
    for t_s in clicks_s:
        burst = click(rng, rate_hz) * rng.uniform(0.5, 1)
        first = round((t_s - begin_s) * rate_hz)
        skipped, kept = max(-first, 0), min(len(burst), samples - first)
        if skipped < kept:
            sound[first + skipped : first + kept] += burst[skipped:kept]
    gain = 10 ** (rng.uniform(-30, -1) / 20) / float(np.abs(sound).max())
    sound *= np.float32(gain)
    return sound


def oracle(skew_ms: float, worlds: int = 4000, seed: int = 0) -> float:
    """Return how often the hit nearest to the click is the right one if the sound is late by ``skew_ms``.

    Example:
        >>> oracle(0.0, worlds=100)
        1.0
    """
    right = 0
    for index in range(worlds):
        rng = np.random.default_rng((seed, index))
        world = make_world(rng, -USABLE_S - 0.3, 0.3)
        who, when_s = choose_hit(world, rng, -USABLE_S, 0.0)
        right += world.nearest(when_s + skew_ms / 1000) == who
    return right / worlds


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[data] options`` of the recipe.

    Attributes:
        samples: Sequences per training epoch.
        steps: Frames of a sequence: as many as the model remembers.
        silent: Share of training sequences without a click that counts.
        late: Share of training sequences whose sound is early or late. Without them nothing says that a hit 30 ms
            from the click fits better than one 100 ms from it: the clocks of real devices err.
    """

    samples: int = 3000
    steps: int = 27
    silent: float = 0.18
    late: float = 0.3


class Impacts(Dataset):
    """Sequences of frames, the last of which makes the trigger, and the sound until then.

    Args:
        recipe: With one gray image input and one audio input.
        **options: See ``Options``.

    Raises:
        ConfigError: If an input or option does not fit.
    """

    def __init__(self, recipe: Recipe, **options: object) -> None:
        super().__init__(recipe)
        if class_labels(recipe) != (*map(str, range(1, OBJECTS + 1)), "none"):
            raise ConfigError("Impacts needs the labels 1..4 and none", where="tasks", fix="list these five labels")
        try:
            self.options = msgspec.convert(options, learn(Options))
        except msgspec.ValidationError as error:
            raise ConfigError(str(error), where="data.options", fix="correct the option") from error
        images = {n: spec for n, spec in recipe.inputs.items() if isinstance(spec, ImageInput) and spec.color == "gray"}
        sounds = {n: spec for n, spec in recipe.inputs.items() if isinstance(spec, AudioInput)}
        if len(images) != 1 or len(sounds) != 1 or len(recipe.inputs) != 2:
            raise ConfigError(
                "Impacts fills one gray image and one audio input", where="inputs", fix="declare these two"
            )
        ((self.image, picture),) = images.items()
        ((self.audio, self.sound),) = sounds.items()
        self.size = (picture.frame[0] // picture.reduce, picture.frame[1] // picture.reduce)
        self.inputs[self.image] = msgspec.structs.replace(picture, frame=self.size, reduce=1)

    def prepare(self) -> None:
        """Nothing is kept: every sequence is drawn when it is wanted."""

    def split(self, name: Split, *, epoch: int = 0) -> Samples:
        """Return sequences of a split; those of validation and test are always the same, and all have a click."""
        train = name == "train"
        seed = (SPLITS.index(name), self.recipe.seed if train else 0, epoch)
        options = self.options
        if train:
            return Sequences(self, count=options.samples, seed=seed, silent=options.silent, late=options.late)
        return Sequences(self, count=1000, seed=seed)

    def groups(self, name: Split) -> frozenset[str]:
        """Return the seed's name: splits share no world."""
        return frozenset((name,))

    def conditions(self) -> Mapping[str, Samples]:
        """Return the rows of the test table: with a click, and without one that counts."""
        return {"a click": self.split("test"), "no click": Sequences(self, count=500, seed=(8,), silent=1.0)}


class Sequences:
    """Sequences by number: number ``i`` is the same whoever asks for it, in whatever order.

    Args:
        dataset: Names the inputs and their sizes.
        count: How many there are.
        seed: With the number, the seed of a sequence.
        silent: Share in which no click counts: none is heard, or one that is too old.
        late: Share whose sound is early or late.
    """

    def __init__(
        self, dataset: Impacts, *, count: int, seed: tuple[int, ...], silent: float = 0.0, late: float = 0.0
    ) -> None:
        self.dataset, self.count, self.seed, self.silent, self.late = dataset, count, seed, silent, late

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return sequence ``index``; its trigger is at 0 s."""
        rng = np.random.default_rng((*self.seed, index))
        data = self.dataset
        steps, spec = data.options.steps, data.sound
        t_s = np.arange(1 - steps, 1) / FPS
        window_s = spec.samples / spec.sample_rate_hz
        world = make_world(rng, min(t_s[0], -window_s) - 0.1, 0.1)
        if rng.random() < self.silent:
            who = OBJECTS
            clicks = [-rng.uniform(USABLE_S + 0.03, window_s + 0.1)] if rng.random() < 0.5 else []
        else:
            who, when_s = choose_hit(world, rng, -USABLE_S, 0.0)
            heard_s = when_s + rng.laplace(0, _LATE_S) * (rng.random() < self.late)
            clicks = [heard_s if -USABLE_S <= heard_s < 0 else when_s]
        frames = render(world, make_look(rng), t_s, data.size, rng)
        noise = {"snr_db": rng.uniform(18, 55), "unsteady_db": rng.uniform(0, 6) * (rng.random() < 0.5)}
        sound = make_sound(clicks, -window_s, spec.samples, spec.sample_rate_hz, rng, **noise)
        inputs: dict[str, AnyArray] = {data.image: frames[..., None], data.audio: sound}
        return Sample(inputs=inputs, labels=dict.fromkeys(inputs, who))


def main() -> int:
    """Print what the oracle reaches."""
    for skew_ms in SKEWS_MS:
        out.print(f"{skew_ms:5.0f} ms  {(oracle(skew_ms) + oracle(-skew_ms)) / 2:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
