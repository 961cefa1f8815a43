"""Which files ``calibration.recordings`` stands for: media, recordings of ours, pictures, sounds, arrays, texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmedge.bundle.manifest import TextInput
from mmedge.errors import ConfigError
from mmedge.preprocess import Tokenizer
from mmedge.replay.sessions import is_recorded, session_paths, sessions
from mmedge.types import AnyArray

from .picture_files import holds_plain_files, is_plain
from .recipe import Recipe

_WHERE = "calibration.recordings"
# What lies beside recordings and is none.
_BESIDE = frozenset(("", ".txt", ".md", ".rst", ".html", ".pdf", ".csv", ".json", ".toml", ".log", ".sha256", ".py"))
_TOLD = 3
_log = logging.getLogger(__name__)


def plain_files(recipe: Recipe) -> Path | None:
    """Return ``calibration.recordings`` where it is pictures or arrays in place of recordings."""
    if recipe.calibration.recordings is None:
        return None
    path = recipe.path(recipe.calibration.recordings)
    return path if not is_recorded(path) and holds_plain_files(path) else None


def recording_files(recipe: Recipe) -> list[Path]:
    """Return every file that ``calibration.recordings`` stands for, texts included.

    Raises:
        ConfigError: If the key is not set or there is nothing there.
    """
    found = found_recordings(recipe)
    files = [f for p in found for f in (sorted(filter(Path.is_file, p.iterdir())) if p.is_dir() else [p])]
    return files + sorted({text for path in found for text in path.parent.glob("*.txt")})


def warn_unread(recipe: Recipe) -> None:
    """Say which files and folders lie among the recordings and are not read."""
    if recipe.calibration.recordings is None or not (path := recipe.path(recipe.calibration.recordings)).is_dir():
        return
    if is_recorded(path):
        return
    read = set(found_recordings(recipe))
    left = [
        entry
        for entry in sorted(path.iterdir())
        if entry not in read and not entry.name.startswith((".", "__")) and _could_be_read(entry)
    ]
    if left:
        named = ", ".join(f"'{entry.name}'" for entry in left[:_TOLD]) + (", ..." if len(left) > _TOLD else "")
        _log.warning("not read among the recordings, %d in all: %s", len(left), named)


def _could_be_read(entry: Path) -> bool:
    if entry.is_dir():
        return holds_plain_files(entry) or bool(session_paths(entry))
    return entry.suffix.lower() not in _BESIDE


def found_recordings(recipe: Recipe) -> list[Path]:
    """Return the media files and the folders that ``mmedge record`` made; or the pictures, sounds and arrays.

    Raises:
        ConfigError: If there are none, or of both kinds, or one has a name that cannot be written.
    """
    if recipe.calibration.recordings is None:
        raise ConfigError("the recipe names no recordings", where=_WHERE, fix="make a recording: mmedge record DIR")
    path = recipe.path(recipe.calibration.recordings)
    files = session_paths(path)
    if not path.is_file() and not is_recorded(path) and holds_plain_files(path):
        plain = sorted(file for file in path.iterdir() if is_plain(file))
        if media := [file for file in files if file not in plain]:
            raise ConfigError(
                f"there are pictures or arrays ('{plain[0].name}') beside recordings ('{media[0].name}')",
                where=str(path),
                fix="keep one kind there: put the others into a folder of their own",
            )
        files = plain
    if not files:
        raise ConfigError(
            f"no media files, pictures or arrays in {path}", where=_WHERE, fix="make a recording: mmedge record DIR"
        )
    for file in files:
        try:
            file.name.encode()
        except UnicodeEncodeError as error:
            raise ConfigError("the name of the file is not UTF-8", where=str(file), fix="rename it") from error
    return files


def found_sessions(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return recording -> input -> file.

    Raises:
        ConfigError: If an input has none.
    """
    needed = [name for name, spec in recipe.inputs.items() if not isinstance(spec, TextInput)]
    found = sessions(found_recordings(recipe), recipe.inputs)
    for name, uris in found.items():
        missing = sorted(set(needed) - set(uris))
        if missing:
            raise ConfigError(
                f"recording '{name}' has no data for input '{missing[0]}'",
                where=_WHERE,
                fix=f"add {name}.{missing[0]}.EXT",
            )
    return found


def spoken_texts(
    recipe: Recipe, folder: Path, session: str, tokenizers: Mapping[str, Tokenizer]
) -> dict[str, list[AnyArray]]:
    """Return the token numbers of what each text input says during a recording, in turn: one padding if nothing.

    They are int64 [1, max_tokens].

    Args:
        recipe: Its text inputs.
        folder: Where the recordings lie.
        session: What files of one recording or sample share.
        tokenizers: Of the text inputs that may say something.

    Raises:
        ConfigError: If a file is not UTF-8.
    """
    texts: dict[str, list[AnyArray]] = {}
    for name, spec in recipe.inputs.items():
        if not isinstance(spec, TextInput):
            continue
        path = folder / f"{session}.{name}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if name in tokenizers and path.is_file() else []
        except UnicodeDecodeError as error:
            raise ConfigError(f"not UTF-8: {error.reason}", where=str(path), fix="save it as UTF-8") from error
        texts[name] = [np.full(spec.tensor_shape, spec.pad, np.int64) for _ in lines or [""]]
        for line, ids in zip(lines, texts[name], strict=False):
            tokenizers[name].ids(line, ids)
    return texts
