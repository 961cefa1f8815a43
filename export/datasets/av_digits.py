"""AV-digits: handwritten digits in generated scenes, paired at random within a class with spoken and typed ones."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.errors import ConfigError
from mmedge.learn import learn
from mmedge.preprocess import Tokenizer
from mmedge.types import AnyArray, ByteArray

from ..recipe import Recipe
from ..tokenizer import load_tokenizer
from .base import SPLITS, Dataset, Sample, Samples, Split, class_labels
from .cache import cache_folder
from .claims import Claims
from .digits import load_digits
from .pictures import faces, photos
from .scenes import SceneRenderer
from .speech import DIGITS, RATE_HZ, load_bank
from .windows import WindowMaker, crowd

NONE = len(DIGITS)
# Same digit, two different ones, a digit and nothing, nothing and a digit, nothing at all.
_PAIRS = (0.62, 0.13, 0.10, 0.10, 0.05)
# What is typed: a digit that is shown or said (any, where there is none), nothing, another digit.
_TYPED = (0.65, 0.2, 0.15)
_SLIPS = 0.3  # of the claims have a slip of the finger, in every split: without, they would be always right
_SCENES_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scenes:
    images: ByteArray
    labels: npt.NDArray[np.int64]
    hard: npt.NDArray[np.bool_]


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[data] options`` of the recipe.

    Attributes:
        samples: Pairs per training epoch.
        scenes: Scenes rendered per handwritten digit of the train split.
        humans: Test on human recordings too, fetched by apt-get when first needed.
    """

    samples: int = 16_000
    scenes: int = 5
    humans: bool = True


class AVDigits(Dataset):
    """Pictures, sounds and typed names of digits, or some of these, as the recipe's inputs ask.

    Args:
        recipe: With at most one image input, one audio input (8 kHz) and one text input.
        **options: See ``Options``.

    Raises:
        ConfigError: If an input or option does not fit.
    """

    def __init__(self, recipe: Recipe, **options: object) -> None:
        super().__init__(recipe)
        if class_labels(recipe) != (*map(str, range(NONE)), "none"):
            raise ConfigError("AVDigits needs the labels 0..9 and none", where="tasks", fix="list these eleven labels")
        try:
            self.options = msgspec.convert(options, learn(Options))
        except msgspec.ValidationError as error:
            raise ConfigError(str(error), where="data.options", fix="correct the option") from error
        self.image = self.audio = self.text = ""
        self.tokenizer: Tokenizer | None = None
        for name, spec in recipe.inputs.items():
            if isinstance(spec, ImageInput) and spec.color == "gray" and not self.image:
                self.image = name
                # Scenes are drawn as the area reduction leaves them: a frame of 480x640 would be 16 times the memory.
                size = (spec.frame[0] // spec.reduce, spec.frame[1] // spec.reduce)
                self.inputs[name] = msgspec.structs.replace(spec, frame=size, reduce=1)
                self.scene_size = size
            elif isinstance(spec, AudioInput) and spec.sample_rate_hz == RATE_HZ and not self.audio:
                self.audio = name
                self.samples = spec.samples
            elif isinstance(spec, TextInput) and not self.text:
                self.text, self.tokenizer = name, load_tokenizer(recipe, name)
            else:
                raise ConfigError(
                    "AVDigits fills one gray image, one 8 kHz audio and one text input",
                    where=f"inputs.{name}",
                    fix="remove the input, or set color = 'gray' or sample_rate_hz = 8000",
                )
        self._scenes: dict[Split, _Scenes] = {}
        self._windows: dict[Split, WindowMaker] = {}

    def prepare(self) -> None:
        """Render all scenes and synthesise all words, once."""
        for name in SPLITS:
            if self.image and name not in self._scenes:
                self._scenes[name] = self._load_scenes(name)
            if self.audio and name not in self._windows:
                bank = load_bank(name, humans=self.options.humans)
                self._windows[name] = WindowMaker(bank, self.samples, crowd(name))

    def split(self, name: Split, *, epoch: int = 0) -> Samples:
        """Return random pairs of a split; those of validation and test are always the same."""
        self.prepare()
        seed = (SPLITS.index(name), self.recipe.seed if name == "train" else 0, epoch)
        count = self.options.samples if name == "train" else 2000
        return Pairs(self, self._scenes.get(name), self._windows.get(name), Claims(name), count=count, seed=seed)

    def groups(self, name: Split) -> frozenset[str]:
        """Return the speakers of a split; writers of MNIST are not known, so pictures are groups of their own."""
        self.prepare()
        return frozenset(self._windows[name].bank.speakers) if self.audio else frozenset()

    def conditions(self) -> Mapping[str, Samples]:
        """Return the rows of the test table: hard pictures with each kind of unseen speaker and noise.

        Claims are made of phrases that training never saw.
        """
        self.prepare()
        scenes, rows = self._scenes.get("test"), {"mixed scenes": self.split("test")}
        hard = None
        if scenes:
            chosen = np.flatnonzero(scenes.hard | (scenes.labels == NONE))
            hard = _Scenes(images=scenes.images[chosen], labels=scenes.labels[chosen], hard=scenes.hard[chosen])
        claims = Claims("test")
        if not self.audio:
            return rows | {"PCA-25 pictures": Pairs(self, hard, None, claims, count=2000, seed=(9,), agree=True)}
        maker = self._windows["test"]
        kinds = {"humans": ("human:allison", "human:dawson")} if self.options.humans else {}
        for who, speakers in (kinds | {"synthetic": ("flite:awb", "flite:slt")}).items():
            windows = WindowMaker(maker.bank.where(speakers), self.samples, maker.recorded)
            for what, snr_db in (("clean", math.inf), ("10 dB", 10.0), ("0 dB", 0.0)):
                title = f"PCA-25, unseen {who}, {what}"
                rows[title] = Pairs(self, hard, windows, claims, count=1000, seed=(9,), agree=True, snr_db=snr_db)
        return rows

    def _load_scenes(self, split: Split) -> _Scenes:
        height, width = self.scene_size
        repeats = self.options.scenes if split == "train" else 2
        path = cache_folder("av_digits") / f"scenes-{split}-{height}x{width}-{repeats}-v{_SCENES_VERSION}.npz"
        if not path.exists():
            scenes = _render(split, height, width, repeats)
            part = path.with_suffix(f".{os.getpid()}.part.npz")
            np.savez(part, images=scenes.images, labels=scenes.labels, hard=scenes.hard)
            part.replace(path)
        with np.load(path, allow_pickle=False) as file:
            return _Scenes(images=file["images"], labels=file["labels"], hard=file["hard"])


def _render(split: Split, height: int, width: int, repeats: int) -> _Scenes:
    digits, renderer = load_digits(split), SceneRenderer(photos(split), faces(split), height, width)
    count = len(digits.labels) * repeats
    nothing = count // 5
    labels = np.concatenate([np.tile(digits.labels, repeats), np.full(nothing, NONE)])
    # Alternately whole and reduced; every digit comes both ways.
    hard = np.arange(len(labels)) // len(digits.labels) % 2 == 0
    hard[count:] = False

    def draw(index: int) -> ByteArray:
        rng = np.random.default_rng((SPLITS.index(split), index))
        if index >= count:
            return renderer.nothing(rng)
        source = digits.hard if hard[index] else digits.clean
        return renderer.digit(source[index % len(digits.labels)], hard=bool(hard[index]), rng=rng)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = np.stack(list(pool.map(draw, range(len(labels)))))
    return _Scenes(images=images, labels=labels, hard=hard)


class Pairs:
    """Random pairs by number: sample ``i`` is the same whoever asks for it, in whatever order.

    Its picture and its sound do not depend on whether there is a text.

    Args:
        dataset: Names the inputs.
        scenes: Pictures to choose from, or None.
        windows: Makes sounds, or None.
        claims: Makes texts, where the data set has them.
        count: How many there are.
        seed: With the number, the seed of a sample.
        agree: Only pairs that show and say the same digit, undisturbed, for tests.
        snr_db: Fixed noise level of the sound.
    """

    def __init__(
        self,
        dataset: AVDigits,
        scenes: _Scenes | None,
        windows: WindowMaker | None,
        claims: Claims,
        *,
        count: int,
        seed: tuple[int, ...],
        agree: bool = False,
        snr_db: float | None = None,
    ) -> None:
        self.dataset, self.scenes, self.windows, self.claims = dataset, scenes, windows, claims
        self.count, self.seed, self.agree, self.snr_db = count, seed, agree, snr_db
        self.by_label = [np.flatnonzero(scenes.labels == label) for label in range(NONE + 1)] if scenes else []

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return pair ``index``."""
        rng = np.random.default_rng((*self.seed, index))
        shown, said = self._labels(rng)
        inputs: dict[str, AnyArray] = {}
        labels: dict[str, int] = {}
        if self.scenes is not None:
            image = self.scenes.images[rng.choice(self.by_label[shown])]
            inputs[self.dataset.image], labels[self.dataset.image] = image[..., None], shown
        if self.windows is not None:
            sound = self.windows.make(said, rng, snr_db=self.snr_db, plain=self.agree)
            inputs[self.dataset.audio], labels[self.dataset.audio] = sound, said
        if self.dataset.tokenizer is not None:
            name, spec = self.dataset.text, self.dataset.inputs[self.dataset.text]
            assert isinstance(spec, TextInput)
            rng = np.random.default_rng((*self.seed, index, 1))
            labels[name] = shown if self.agree else _typed(shown, said, rng)
            ids = np.empty(spec.tensor_shape, np.int64)
            self.dataset.tokenizer.ids(self.claims.make(labels[name], rng, _SLIPS), ids)
            inputs[name] = ids[0]
        return Sample(inputs=inputs, labels=labels)

    def _labels(self, rng: np.random.Generator) -> tuple[int, int]:
        digit, other = int(rng.integers(NONE)), int(rng.integers(1, NONE))
        if self.agree:
            return digit, digit
        kinds = ((digit, digit), (digit, (digit + other) % NONE), (digit, NONE), (NONE, digit), (NONE, NONE))
        return kinds[rng.choice(len(kinds), p=_PAIRS)]


def _typed(shown: int, said: int, rng: np.random.Generator) -> int:
    named = [digit for digit in (shown, said) if digit != NONE]
    digit = int(rng.choice(named)) if named else int(rng.integers(NONE))
    return int(rng.choice((digit, NONE, (digit + int(rng.integers(1, NONE))) % NONE), p=_TYPED))
