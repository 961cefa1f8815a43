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
from mmedge.fusion.stream import least_samples
from mmedge.types import Tensors

from .peaks import lasting
from .picture_files import FileSamples
from .recipe import Recipe
from .recording_files import found_recordings, found_sessions, plain_files, spoken_texts, warn_unread
from .spool import Spool
from .tokenizer import load_tokenizer

_STRETCH = 8  # triggers in a row, of a stage with a memory
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
    """

    calibration: Sequence[RawSample]
    held_out: Sequence[RawSample]

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
        if count < 3:
            raise _too_few(count, name)

        def read(index: int) -> RawSample:
            return RawSample(name=f"{name} {index}", arrays=kept[index], number=index)

        cut = count * 2 // 3
        return cls(calibration=LazySamples(read, range(cut)), held_out=LazySamples(read, range(cut, count)))


def as_samples(samples: RawSamples | Iterable[Tensors] | None, recipe: Recipe) -> RawSamples:
    """Return samples as they are, split, or read from the recipe's recordings.

    Arrays have the raw shapes [...] and dtypes of the recipe's inputs; each sample is checked when it is taken.

    Raises:
        ConfigError: When a sample of another shape, dtype or input is taken; or if there are fewer than three.
    """
    if samples is None:
        return raw_samples(recipe)
    split = samples if isinstance(samples, RawSamples) else RawSamples.split(samples)
    return RawSamples(calibration=_Checked(split.calibration, recipe), held_out=_Checked(split.held_out, recipe))


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


def spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` different numbers of 0..total-1, evenly spread over all of them.

    Example:
        >>> spread(10, 4), spread(3, 100)
        ([1, 3, 6, 8], [0, 1, 2])
    """
    count = min(count, total)
    return [round((i + 0.5) * total / count - 0.5) for i in range(count)]


def choose(recipe: Recipe, total: int, count: int) -> list[int]:
    """Return what ``spread`` does; for a stage with a memory stretches without a gap, which it needs to have one.

    Args:
        recipe: Its stages.
        total: How many there are.
        count: How many to choose at most.
    """
    if count >= total or not any(stage.states for stage in recipe.stages.values()):
        return spread(total, count)
    length = min(_STRETCH, count)
    starts = spread(total // length, count // length)
    return [start * length + step for start in starts for step in range(length)]


def shares(triggers: Sequence[int], total: int) -> list[int]:
    """Return how many of ``total`` samples each recording gives: as many as the others, as far as it has them.

    Example:
        >>> shares([100, 4, 100], 30)
        [13, 4, 13]
    """
    given = [0] * len(triggers)
    left, unfilled = min(total, sum(triggers)), list(range(len(triggers)))
    while left:
        each, more = divmod(left, len(unfilled))
        for turn, index in enumerate(unfilled):
            taken = min(each + (turn < more), triggers[index] - given[index])
            given[index] += taken
            left -= taken
        unfilled = sorted((i for i in unfilled if given[i] < triggers[i]), key=given.__getitem__)
    return given


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
        held_out_only: Leave out those that calibrate, when many are read to measure with.

    Returns:
        The samples: those of the first two thirds of each recording calibrate, those of its last third are held out,
        whatever ``count`` is. They lie in a temporary file.

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
    if sum(triggers) < 3:
        raise _too_few(sum(triggers), "calibration.recordings")
    total = max(count or recipe.calibration.frames * 3 // 2, 3 * len(found))
    chosen = [choose(recipe, *pair) for pair in zip(triggers, shares(triggers, total), strict=True)]
    held_out = _held_out(triggers, chosen)
    spool, silent, folder = Spool(), set(tokenizers), found_recordings(recipe)[0].parent
    notes: list[tuple[str, str, frozenset[str], int]] = []
    places: dict[bool, list[int]] = {False: [], True: []}
    for (name, uris), own, late, seen in zip(found.items(), chosen, held_out, surveys, strict=True):
        lasts = lasting(seen.peaks)
        wanted = [(n, index) for n, index in enumerate(own) if late[n] or not held_out_only]
        texts = spoken_texts(recipe, folder, name, tokenizers)
        indices = [index for _, index in wanted]
        arrays = read_samples(
            recipe.inputs, recipe.sync, uris, tokenizers=tokenizers, needed=needed, chosen=indices, least=least
        )
        for (number, index), sample in zip(wanted, arrays, strict=True):
            said = {n: lines[number % len(lines)] for n, lines in texts.items()} | sample
            places[late[number]].append(spool.add(said))
            notes.append((f"{name} {number}", name, frozenset(n for n, at in lasts.items() if at[index]), index))
            silent = _silent(recipe, said, silent)
    _warn_silent(() if held_out_only else silent)

    def read(place: int) -> RawSample:
        name, recording, lasts, index = notes[place]
        return RawSample(name=name, arrays=spool[place], recording=recording, lasting=lasts, number=index)

    return RawSamples(
        calibration=LazySamples(read, places[False]) if places[False] else (), held_out=LazySamples(read, places[True])
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


def _held_out(triggers: Sequence[int], chosen: Sequence[Sequence[int]]) -> list[list[bool]]:
    """Return which chosen triggers are held out: those of the last third of each recording.

    Of recordings too short to be split, every third is held out as a whole.
    """
    late: list[list[bool]] = []
    short = 0
    for own, indices in zip(triggers, chosen, strict=True):
        short += own < 3
        late.append([3 * index >= 2 * own if own >= 3 else short % 3 == 0 for index in indices])
    if not any(map(any, late)):
        late[-1][-1] = True
    return late


def _too_few(count: int, where: str) -> ConfigError:
    return ConfigError(
        f"{count} samples are not enough to calibrate and to measure", where=where, fix="give a longer recording"
    )


def _of_files(recipe: Recipe, path: Path, count: int | None, *, held_out_only: bool) -> RawSamples:
    """Read samples evenly over plain files. They have no order in time: every third one of all is held out."""
    files = FileSamples(recipe.inputs, path)
    total = min(len(files), count or recipe.calibration.frames * 3 // 2)
    if total < 3:
        raise _too_few(total, str(path))
    folder = path if path.is_dir() else path.parent
    spoken = [n for n, s in recipe.inputs.items() if isinstance(s, TextInput)]
    tokenizers = {n: load_tokenizer(recipe, n) for n in spoken if any(folder.glob(f"*.{n}.txt"))}
    texts = {stem: spoken_texts(recipe, folder, stem, tokenizers) for stem in dict.fromkeys(files.stems)}
    if not held_out_only:
        _warn_silent(n for n in spoken if n not in tokenizers)

    def read(place: int) -> RawSample:
        said = {name: lines[place % len(lines)] for name, lines in texts[files.stems[place]].items()}
        return RawSample(name=files.name(place), arrays={**said, **files[place]}, recording=None)

    # By its place among all files, not among those taken: another count holds out no sample that calibrates here.
    early, late = ([p for p in range(len(files)) if (p % 3 == 2) == held] for held in (False, True))
    held_out = [late[k] for k in spread(len(late), total // 3)]
    calibration = [] if held_out_only else [early[k] for k in spread(len(early), total - total // 3)]
    return RawSamples(calibration=LazySamples(read, calibration), held_out=LazySamples(read, held_out))
