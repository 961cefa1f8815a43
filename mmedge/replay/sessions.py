"""Which files feed which seats: recordings, and media files beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.errors import ConfigError
from mmedge.recording.event_log import HEADER, read_header

_MEDIA = {".mkv", ".mp4", ".mov", ".avi", ".webm", ".wav", ".flac", ".ogg", ".mp3", ".m4a"}


def is_recorded(path: Path) -> bool:
    """Tell whether a path is the folder of a recording."""
    return (path / HEADER).is_file()


def session_paths(path: Path) -> list[Path]:
    """Return a file or a recording itself, whatever its name; of a folder its media files and recordings, by name."""
    if path.is_file() or is_recorded(path):
        return [path]
    return sorted(p for p in path.glob("[!.]*") if p.suffix.lower() in _MEDIA or is_recorded(p))


def sessions(paths: Iterable[Path], inputs: Mapping[str, Input]) -> dict[str, dict[str, str]]:
    """Return session -> seat -> file: ``NAME.SEAT.EXT`` feeds one seat of a session, any other media file all others.

    Args:
        paths: Media files, and folders of recordings.
        inputs: The seats.

    Raises:
        SourceError: If the header of a recording is damaged.
        ConfigError: If two of them would feed one seat of a session.
    """
    media = [name for name, spec in inputs.items() if isinstance(spec, (ImageInput, AudioInput))]
    found: dict[str, dict[str, str]] = {}
    named: dict[str, dict[str, Path]] = {}
    whole: dict[str, Path] = {}

    def claim(places: dict[str, Path], name: str, path: Path) -> None:
        if name in places:
            raise ConfigError(
                f"'{places[name].name}' and '{path.name}' would feed the same inputs of one recording",
                where=str(path),
                fix="rename one of them: NAME.INPUT.EXT feeds one input, files of one NAME belong together",
            )
        places[name] = path

    for path in paths:
        name, dot, seat = path.stem.rpartition(".")
        if is_recorded(path):
            claim(whole, path.name, path)
            found[path.name] = {n: str(path) for n in inputs if n in read_header(path).inputs}
        elif dot and seat in media:
            claim(named.setdefault(name, {}), seat, path)
            found.setdefault(name, {})
        else:
            claim(whole, path.stem, path)
            found[path.stem] = dict.fromkeys(media, str(path))
    for name, files in named.items():
        found[name] |= {seat: str(path) for seat, path in files.items()}
    return found
