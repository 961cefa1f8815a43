"""Raw samples from media files: what the camera and the microphone gave, cut by the runtime's own rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmedge.bundle.manifest import TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.fusion.stream import least_samples
from mmedge.preprocess import Tokenizer
from mmedge.types import AnyArray, Tensors

from .recipe import Recipe
from .tokenizer import load_tokenizer

_HEADER = "recording.json"
_MEDIA = {".mkv", ".mp4", ".mov", ".avi", ".webm", ".wav", ".flac", ".ogg", ".mp3", ".m4a"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """The raw arrays of one trigger: uint8 [1, H, W, C] per image, float32 [1, samples] per sound, int64 per text."""

    name: str
    arrays: Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSamples:
    """RawSamples to find ranges with, and later ones of the same recordings to measure with.

    Attributes:
        calibration: The first two thirds of every recording.
        held_out: The rest.
    """

    calibration: tuple[RawSample, ...]
    held_out: tuple[RawSample, ...]

    @classmethod
    def split(cls, arrays: Iterable[Tensors], name: str = "sample") -> RawSamples:
        """Split the samples of one recording by time.

        Arrays have the raw shapes [...] and dtypes of the recipe's inputs.

        Args:
            arrays: Raw arrays by input name, in order of time.
            name: Names the samples in reports: ``"name 17"``.

        Raises:
            ConfigError: If there are fewer than three.
        """
        samples = tuple(RawSample(name=f"{name} {index}", arrays=a) for index, a in enumerate(arrays))
        if len(samples) < 3:
            raise ConfigError(
                f"{len(samples)} samples are not enough to calibrate and to measure",
                where=name,
                fix="give a longer recording",
            )
        cut = len(samples) * 2 // 3
        return cls(calibration=samples[:cut], held_out=samples[cut:])


def as_samples(samples: RawSamples | Sequence[Tensors] | None, recipe: Recipe) -> RawSamples:
    """Return samples as they are, split, or read from the recipe's recordings.

    Arrays have the raw shapes [...] and dtypes of the recipe's inputs.
    """
    if isinstance(samples, RawSamples):
        return samples
    return raw_samples(recipe) if samples is None else RawSamples.split(samples)


def raw_samples(recipe: Recipe, count: int | None = None, *, held_out_only: bool = False) -> RawSamples:
    """Read raw samples evenly over the recipe's recordings.

    A media file feeds every image and audio input; ``NAME.INPUT.EXT`` feeds that input alone, together with
    the files of the same ``NAME``. ``NAME.INPUT.txt`` holds texts, one a line, which the samples take in turn; a text
    input without it, and a text that was absent, is padding. Tensors come from folders of ``mmedge run --record``.

    Args:
        recipe: ``calibration.recordings`` is a media file, a folder made by ``mmedge record``, or a folder of such.
        count: RawSamples in total; by default 1.5 times ``calibration.frames``, two thirds of which calibrate.
        held_out_only: Forget those that calibrate, when many are read to measure with.

    Returns:
        The samples, split by time within each recording.

    Raises:
        ConfigError: If there are no recordings, or none for some input.
    """
    # The runtime's reader loads the whole capture stack; callers with samples of their own do without.
    from mmedge.replay.samples import raw_samples as read_samples

    sessions, least = _sessions(recipe), least_samples(recipe.stages, recipe.inputs)
    tokenizers = {n: load_tokenizer(recipe, n) for n, s in recipe.inputs.items() if isinstance(s, TextInput)}
    total = count or recipe.calibration.frames * 3 // 2
    calibration: list[RawSample] = []
    held_out: list[RawSample] = []
    for index, (name, uris) in enumerate(sessions.items()):
        share = max(total // len(sessions) + (index < total % len(sessions)), 3)
        arrays = read_samples(recipe.inputs, recipe.sync, uris, share, tokenizers=tokenizers, least=least)
        # At the very start of a recording an input may not have data yet.
        told = _with_texts(arrays, recipe, _texts(recipe, name, tokenizers))
        complete = (sample for sample in told if recipe.inputs.keys() <= sample.keys())
        if held_out_only:
            held_out += _last_third(complete, name)
        else:
            part = RawSamples.split(complete, name)
            calibration += part.calibration
            held_out += part.held_out
    return RawSamples(calibration=tuple(calibration), held_out=tuple(held_out))


def _texts(recipe: Recipe, session: str, tokenizers: Mapping[str, Tokenizer]) -> dict[str, list[AnyArray]]:
    """Return the token numbers of what each text input says during a recording, in turn: one padding if nothing."""
    folder = _recordings(recipe)[0].parent
    texts: dict[str, list[AnyArray]] = {}
    for name, tokenizer in tokenizers.items():
        spec = recipe.inputs[name]
        assert isinstance(spec, TextInput)
        path = folder / f"{session}.{name}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        except UnicodeDecodeError as error:
            raise ConfigError(f"not UTF-8: {error.reason}", where=str(path), fix="save it as UTF-8") from error
        texts[name] = [np.full(spec.tensor_shape, spec.pad, np.int64) for _ in lines or [""]]
        for line, ids in zip(lines, texts[name], strict=False):
            tokenizer.ids(line, ids)
    return texts


def _with_texts(
    samples: Iterable[Tensors], recipe: Recipe, texts: Mapping[str, Sequence[AnyArray]]
) -> Iterator[Tensors]:
    for number, sample in enumerate(samples):
        yield {name: said[number % len(said)] for name, said in texts.items()} | dict(sample)


def _last_third(arrays: Iterable[Tensors], name: str) -> deque[RawSample]:
    """Return what ``RawSamples.split`` holds out, forgetting the others while they are read."""
    kept: deque[RawSample] = deque()
    for number, sample in enumerate(arrays):
        kept.append(RawSample(name=f"{name} {number}", arrays=sample))
        while len(kept) > number + 1 - (number + 1) * 2 // 3:
            kept.popleft()
    if not kept:
        raise ConfigError(
            "the recording has no moment at which every input has data", where=name, fix="give a longer recording"
        )
    return kept


def recording_files(recipe: Recipe) -> list[Path]:
    """Return every file that ``calibration.recordings`` stands for, texts included.

    Raises:
        ConfigError: If the key is not set or there is nothing there.
    """
    found = _recordings(recipe)
    files = [f for p in found for f in (sorted(filter(Path.is_file, p.iterdir())) if p.is_dir() else [p])]
    return files + sorted({text for path in found for text in path.parent.glob("*.txt")})


def _is_recorded(path: Path) -> bool:
    return (path / _HEADER).is_file()


def _recordings(recipe: Recipe) -> list[Path]:
    """Return the media files, and the folders that ``mmedge record`` made."""
    where = "calibration.recordings"
    if recipe.calibration.recordings is None:
        raise ConfigError("the recipe names no recordings", where=where, fix="make a recording: mmedge record DIR")
    path = recipe.path(recipe.calibration.recordings)
    if path.is_file() or _is_recorded(path):
        return [path]
    files = sorted(p for p in path.glob("*") if p.suffix.lower() in _MEDIA or _is_recorded(p))
    if not files:
        raise ConfigError(f"no media files in {path}", where=where, fix="make a recording: mmedge record DIR")
    return files


def _sessions(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return recording -> input -> file."""
    from mmedge.recording.event_log import read_header

    needed = [name for name, spec in recipe.inputs.items() if not isinstance(spec, TextInput)]
    media = [name for name in needed if not isinstance(recipe.inputs[name], TensorInput)]
    sessions: dict[str, dict[str, str]] = {}
    for file in _recordings(recipe):
        name, dot, seat = file.stem.rpartition(".")
        if _is_recorded(file):
            sessions[file.stem] = {n: str(file) for n in recipe.inputs if n in read_header(file).inputs}
        elif dot and seat in media:
            sessions.setdefault(name, {})[seat] = str(file)
        else:
            sessions[file.stem] = dict.fromkeys(media, str(file))
    for name, uris in sessions.items():
        missing = sorted(set(needed) - set(uris))
        if missing:
            raise ConfigError(
                f"recording '{name}' has no data for input '{missing[0]}'",
                where="calibration.recordings",
                fix=f"add {name}.{missing[0]}.EXT",
            )
    return sessions
