"""Raw samples from media files: what the camera and the microphone gave, cut by the runtime's own rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.errors import CheckError, ConfigError
from mmedge.plan.stream import least_samples
from mmedge.types import Tensors

from .parts import CHOOSING, LEAST, MIN_SAMPLES, choose, choosing_counts, held_out_of, shares, spread
from .peaks import lasting
from .picture_files import FileSamples
from .recipe import Recipe
from .recording_files import found_recordings, found_sessions, plain_files, spoken_texts, warn_unread
from .spool import Spool
from .tokenizer import load_tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """The raw arrays of one trigger: uint8 [1, H, W, C] per image, float32 [1, samples] per sound, int64 per text.

    Attributes:
        name: For reports.
        arrays: By input name.
        recording: What it is of: samples side by side of one recording are neighbours in time; None without an order.
        lasting: Inputs of which the data before and after, which may be no samples, are as unusual as these.
        number: Of its trigger in the recording; None where every trigger is a sample.
    """

    name: str
    arrays: Tensors
    recording: str | None = ""
    lasting: frozenset[str] = frozenset()
    number: int | None = None

    def follows(self, other: RawSample | None) -> bool:
        """Tell whether it is the trigger after another one, so that a memory goes on from there."""
        if other is None or self.recording is None or other.recording != self.recording:
            return False
        return self.number is None or (other.number is not None and self.number == other.number + 1)


class LazySamples(Sequence[RawSample]):
    """Samples that are made when they are asked for, each time anew, so that one at a time is in memory."""

    def __init__(self, read: Callable[[int], RawSample], places: Sequence[int]) -> None:
        self._read, self._places = read, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> RawSample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RawSample]: ...
    def __getitem__(self, index: int | slice) -> RawSample | Sequence[RawSample]:
        if isinstance(index, slice):
            return LazySamples(self._read, self._places[index])
        return self._read(self._places[index])


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSamples:
    """RawSamples to find ranges with, and later ones of the same recordings to measure with.

    Both can be gone through any number of times, and neither needs to be in memory as a whole.

    Attributes:
        calibration: Of the first two thirds of every recording.
        held_out: Of the rest.
        choosing: Of what is held out, those that choose among forms of a network; None where it is not split.
        judging: Those of ``held_out`` that do not choose; None where it is not split.
    """

    calibration: Sequence[RawSample]
    held_out: Sequence[RawSample]
    choosing: Sequence[RawSample] | None = None
    judging: Sequence[RawSample] | None = None

    @classmethod
    def split(cls, arrays: Iterable[Tensors], name: str = "sample") -> RawSamples:
        """Split the samples of one recording by time.

        Arrays have the raw shapes [...] and dtypes of the recipe's inputs.

        Args:
            arrays: Raw arrays by input name, in order of time. Of a sequence, items are taken when they are needed;
                others are kept in a temporary file.
            name: Names the samples in reports: ``"name 17"``.

        Raises:
            ConfigError: If there are fewer than three.
        """
        kept: Sequence[Tensors] | Spool
        if isinstance(arrays, Sequence):
            kept = arrays
        else:
            kept = Spool()
            for sample in arrays:
                kept.add(sample)
        count = len(kept)
        if count < LEAST:
            raise _too_few(count, name, f"give at least {LEAST}, in order of time")

        def read(index: int) -> RawSample:
            return RawSample(name=f"{name} {index}", arrays=kept[index], number=index)

        cut = count * 2 // 3
        middle = cut + (choosing_counts([count - cut]) or [0])[0]
        return cls(
            calibration=LazySamples(read, range(cut)),
            held_out=LazySamples(read, range(cut, count)),
            choosing=LazySamples(read, range(cut, middle)) if middle > cut else None,
            judging=LazySamples(read, range(middle, count)) if middle > cut else None,
        )


def as_samples(samples: RawSamples | Iterable[Tensors] | None, recipe: Recipe) -> RawSamples:
    """Return samples as they are, split, or read from the recipe's recordings.

    Arrays have the raw shapes [...] and dtypes of the recipe's inputs; each sample is checked when it is taken.

    Raises:
        ConfigError: When a sample of another shape, dtype or input is taken; or if there are fewer than three.
    """
    if samples is None:
        return raw_samples(recipe)
    split = samples if isinstance(samples, RawSamples) else RawSamples.split(samples)
    return RawSamples(
        calibration=_Checked(split.calibration, recipe),
        held_out=_Checked(split.held_out, recipe),
        choosing=None if split.choosing is None else _Checked(split.choosing, recipe),
        judging=None if split.judging is None else _Checked(split.judging, recipe),
    )


class _Checked(LazySamples):
    """Samples, each held against the recipe's inputs when it is taken."""

    def __init__(self, samples: Sequence[RawSample], recipe: Recipe) -> None:
        super().__init__(lambda index: _fits(samples[index], recipe), range(len(samples)))


def _fits(sample: RawSample, recipe: Recipe) -> RawSample:
    for name, spec in recipe.inputs.items():
        if name not in sample.arrays:
            raise ConfigError(
                f"sample '{sample.name}' has no array for input '{name}'", where="samples", fix="record every input"
            )
        array = sample.arrays[name]
        if isinstance(spec, ImageInput):
            shape, dtype, fits = spec.raw_shape, "uint8", array.dtype == np.uint8
        elif isinstance(spec, AudioInput):
            shape, dtype, fits = spec.raw_shape, "float32", array.dtype.kind == "f"
        elif isinstance(spec, TextInput):
            shape, dtype, fits = spec.tensor_shape, "int64", array.dtype.kind in "iu"
        else:
            shape, dtype = spec.shape, spec.dtype
            fits = np.can_cast(array.dtype, np.dtype(dtype), "same_kind")
        if array.shape != tuple(shape) or not fits:
            span = f" in {array.min():.4g}..{array.max():.4g}" if array.size and array.dtype.kind in "fiub" else ""
            raise ConfigError(
                f"sample '{sample.name}': input '{name}' is {array.dtype} {list(array.shape)}{span}, "
                f"not raw {dtype} {list(shape)}",
                where="samples",
                fix="give what the camera or microphone gave: size, mean and std of the recipe are applied here",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckError(
                f"sample '{sample.name}': input '{name}' has NaN or infinite numbers",
                where="samples",
                fix="leave this sample out, and look at what recorded it",
            )
    return sample


def raw_samples(recipe: Recipe, count: int | None = None, *, held_out_only: bool = False) -> RawSamples:
    """Read raw samples evenly over the recipe's recordings, every trigger at most once.

    A media file feeds every image and audio input; ``NAME.INPUT.EXT`` feeds that input alone, together with
    the files of the same ``NAME``. ``NAME.INPUT.txt`` holds texts, one a line, which the samples take in turn; a text
    input without it, and a text that was absent, is padding; a warning says so where all are. Tensors come from folders
    of ``mmedge run --record``, or as arrays: see ``picture_files`` for folders of pictures, sounds and arrays.

    Args:
        recipe: ``calibration.recordings`` is a media file, a folder made by ``mmedge record``, or a folder of such.
        count: RawSamples in total; by default 1.5 times ``calibration.frames``, two thirds of which calibrate. There
            are fewer where the recordings have fewer triggers.
        held_out_only: Leave out those that calibrate or choose, when many are read to measure with.

    Returns:
        The samples: those of the first two thirds of each recording calibrate, those of its last third are held out,
        whatever ``count`` is; which of these choose and which judge is said by ``choosing_counts``. They lie in a
        temporary file.

    Raises:
        ConfigError: If there are no recordings, or none for some input, or fewer than three triggers in all.
    """
    # The runtime's reader loads the whole capture stack; callers with samples of their own do without.
    from mmedge.replay.samples import raw_samples as read_samples
    from mmedge.replay.samples import survey

    if not held_out_only:  # else it was said before
        warn_unread(recipe)
    if (path := plain_files(recipe)) is not None:
        return _of_files(recipe, path, count, held_out_only=held_out_only)
    found, least = found_sessions(recipe), least_samples(recipe.stages, recipe.inputs)
    needed = [name for name, spec in recipe.inputs.items() if not isinstance(spec, TextInput)]
    tokenizers = {n: load_tokenizer(recipe, n) for n, s in recipe.inputs.items() if isinstance(s, TextInput)}
    # At the very start of a recording an input may not have data yet.
    surveys = [survey(recipe.inputs, recipe.sync, uris, needed, least=least) for uris in found.values()]
    triggers = [seen.complete for seen in surveys]
    for name, seen in zip(found, surveys, strict=True):
        if not held_out_only and 0 < seen.complete < seen.triggers / 2:
            _log.warning(
                "recording '%s': %s of %d triggers, which are not read; one that stands still counts as absent, too",
                name,
                " and ".join(f"'{absent}' is absent at {count}" for absent, count in seen.absent.most_common()),
                seen.triggers,
            )
    if 0 in triggers:
        raise ConfigError(
            "the recording has no moment at which every input has data",
            where=list(found)[triggers.index(0)],
            fix="give a longer recording",
        )
    if sum(triggers) < LEAST:
        raise _too_few(sum(triggers), "calibration.recordings", "give a longer recording, or more of them")
    held = [[i for i, late in enumerate(own) if late] for own in held_out_of(triggers, [range(n) for n in triggers])]
    counts = choosing_counts(list(map(len, held)))
    chooses = [own[:n] for own, n in zip(held, counts or [0] * len(held), strict=True)]
    total = max(count or recipe.calibration.frames * 3 // 2, 3 * len(found))
    if held_out_only and counts is not None:
        total *= 2  # as many judge as would without those that choose
    chosen = [choose(recipe, *pair) for pair in zip(triggers, shares(triggers, total), strict=True)]
    held_out = held_out_of(triggers, chosen)
    picked = [
        [] if held_out_only else [own[k] for k in choose(recipe, len(own), n)]
        for own, n in zip(chooses, shares(list(map(len, chooses)), CHOOSING), strict=True)
    ]
    spool, silent, folder = Spool(), set(tokenizers), found_recordings(recipe)[0].parent
    notes: list[tuple[str, str, frozenset[str], int]] = []
    early, late, choosing, judging = (list[int]() for _ in range(4))
    for (name, uris), own, is_late, first, picks, seen in zip(
        found.items(), chosen, held_out, map(set, chooses), map(set, picked), surveys, strict=True
    ):
        lasts = lasting(seen.peaks)
        numbers = {i: n for n, i in enumerate(own) if not held_out_only or (is_late[n] and i not in first)}
        indices = sorted(numbers.keys() | picks)
        texts = spoken_texts(recipe, folder, name, tokenizers)
        arrays = read_samples(
            recipe.inputs, recipe.sync, uris, tokenizers=tokenizers, needed=needed, chosen=indices, least=least
        )
        for index, sample in zip(indices, arrays, strict=True):
            number = numbers.get(index, index)
            said = {n: lines[number % len(lines)] for n, lines in texts.items()} | sample
            place = spool.add(said)
            notes.append((f"{name} {number}", name, frozenset(n for n, at in lasts.items() if at[index]), index))
            silent = _silent(recipe, said, silent)
            if index in picks:
                choosing.append(place)
            if index in numbers:
                (late if is_late[number] else early).append(place)
                if is_late[number] and index not in first:
                    judging.append(place)
    _warn_silent(() if held_out_only else silent)

    def read(place: int) -> RawSample:
        name, recording, lasts, index = notes[place]
        return RawSample(name=name, arrays=spool[place], recording=recording, lasting=lasts, number=index)

    return RawSamples(
        calibration=LazySamples(read, early) if early else (),
        held_out=LazySamples(read, late),
        choosing=None if counts is None else LazySamples(read, choosing),
        judging=None if counts is None else LazySamples(read, judging),
    )


def _silent(recipe: Recipe, arrays: Tensors, so_far: set[str]) -> set[str]:
    """Return the text inputs of ``so_far`` that say nothing in this sample either."""
    return {n for n in so_far if isinstance(s := recipe.inputs[n], TextInput) and (arrays[n] == s.pad).all()}


def _warn_silent(names: Iterable[str]) -> None:
    for name in sorted(names):
        _log.warning(
            "input '%s' says nothing in any sample, so nothing is known of INT8 with words: write some, one a line, "
            "into NAME.%s.txt beside the recordings",
            name,
            name,
        )


def _too_few(count: int, where: str, fix: str) -> ConfigError:
    told = f"{count} sample{' is' if count == 1 else 's are'} not enough to calibrate and to measure"
    return ConfigError(f"{told}: {LEAST} are the least", where=where, fix=fix)


def _of_files(recipe: Recipe, path: Path, count: int | None, *, held_out_only: bool) -> RawSamples:
    """Read samples evenly over plain files. They have no order in time: every third one of all is held out."""
    files = FileSamples(recipe.inputs, path)
    total = min(len(files), count or recipe.calibration.frames * 3 // 2)
    if total < LEAST:
        fix = f"put at least {LEAST} files there, the {recipe.calibration.frames * 3 // 2} that are read at best"
        raise _too_few(total, str(path), fix)
    folder = path if path.is_dir() else path.parent
    spoken = [n for n, s in recipe.inputs.items() if isinstance(s, TextInput)]
    tokenizers = {n: load_tokenizer(recipe, n) for n in spoken if any(folder.glob(f"*.{n}.txt"))}
    texts = {stem: spoken_texts(recipe, folder, stem, tokenizers) for stem in dict.fromkeys(files.stems)}
    begins = {stem: place for place, stem in reversed([*enumerate(files.stems)])}
    if not held_out_only:
        _warn_silent(n for n in spoken if n not in tokenizers)

    def read(place: int) -> RawSample:
        stem = files.stems[place]
        said = {name: lines[(place - begins[stem]) % len(lines)] for name, lines in texts[stem].items()}
        return RawSample(name=files.name(place), arrays={**said, **files[place]}, recording=None)

    # By its place among all files, not among those taken: another count holds out no sample that calibrates here.
    early, late = ([p for p in range(len(files)) if (p % 3 == 2) == held] for held in (False, True))
    split = len(late) // 2 >= MIN_SAMPLES
    first, rest = (late[::2], late[1::2]) if split else ([], late)
    taken = rest if held_out_only else late
    held_out = [taken[k] for k in spread(len(taken), total // 3)]
    calibration = [] if held_out_only else [early[k] for k in spread(len(early), total - total // 3)]
    choosing = [] if held_out_only else [first[k] for k in spread(len(first), CHOOSING)]
    return RawSamples(
        calibration=LazySamples(read, calibration),
        held_out=LazySamples(read, held_out),
        choosing=LazySamples(read, choosing) if split else None,
        judging=LazySamples(read, sorted(set(held_out).intersection(rest))) if split else None,
    )
