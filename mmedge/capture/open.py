"""From source addresses to open sources: which class reads what, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.capture.base import Source, StartTime, ThreadSource
from mmedge.capture.gstreamer import GStreamerSource
from mmedge.capture.media import MediaSource
from mmedge.capture.microphone import MicrophoneSource
from mmedge.capture.network import NetworkSource
from mmedge.capture.picture import slots_for
from mmedge.capture.supervisor import WorkerSource
from mmedge.capture.synthetic import SyntheticSource
from mmedge.capture.text import TextSource
from mmedge.capture.uri import LIVE, Kind, Uri, parse
from mmedge.capture.v4l2 import CameraSource
from mmedge.errors import ConfigError

_FEEDS: dict[Kind, tuple[type, ...]] = {
    "v4l2": (ImageInput,),
    "csi": (ImageInput,),
    "gst": (ImageInput,),
    "network": (ImageInput, AudioInput),
    "file": (ImageInput, AudioInput),
    "microphone": (AudioInput,),
    "text": (TextInput,),
    "test": (ImageInput, AudioInput),
}


def open_sources(
    inputs: Mapping[str, Input],
    uris: Mapping[str, str],
    *,
    speed: float | None = None,
    realtime: bool = True,
    workers: bool = False,
    hold_ns: int = 0,
) -> list[Source]:
    """Open every source of a run; either all of them are open on return, or none.

    Inputs that name one file, network or test address share one source.

    Args:
        inputs: The inputs of the bundle.
        uris: Input name -> source address.
        speed: How many times faster than real time files are played; needs ``realtime`` and files only.
        realtime: Play files at their own pace; otherwise as fast as they are taken.
        hold_ns: For how long the frames' reader may hold them.
        workers: Read each live device in a process of its own, which is started again when it dies or hangs.

    Returns:
        The sources, open but not started; ``stop`` every one of them.

    Raises:
        ConfigError: If an address is malformed, does not fit its input, or names no file.
        DeviceError: If a device is not there.
        MissingDependencyError: If a package or program is not installed.
        SourceError: If a file is damaged.
    """
    groups: dict[object, tuple[Uri, list[str]]] = {}
    for name, text in uris.items():
        uri = parse(text)
        _check_fit(name, text, uri, inputs)
        target = str(Path(uri.target).resolve()) if uri.kind == "file" else uri.target
        _, names = groups.setdefault((uri.kind, target), (uri, []))
        names.append(name)
    for uri, names in groups.values():
        if len(names) > 1 and uri.kind not in ("file", "network", "test"):
            raise ConfigError(
                f"inputs {' and '.join(repr(name) for name in names)} name the same device",
                where=str(uri),
                fix="give each input its own device",
            )
        if speed not in (None, 1.0) and (uri.kind != "file" or not realtime or speed <= 0):
            raise ConfigError(
                f"a playing speed of {speed:g} cannot be used with {uri}",
                where="speed",
                fix="use a speed above 0, with files alone, in real time",
            )
    sources: list[Source] = []
    base = StartTime()
    try:
        for uri, names in groups.values():
            group = {name: inputs[name] for name in names}
            if workers and uri.kind in LIVE:
                sources.append(WorkerSource(group, {name: uris[name] for name in names}, str(uri), hold_ns))
            else:
                reader = _open(uri, group, speed or 1.0, realtime, base)
                reader.slots = slots_for(hold_ns)
                sources.append(reader)
        for source in sources:
            if isinstance(source, WorkerSource):  # all are started before the first is waited for
                source.open()
    except BaseException:
        for source in sources:
            source.stop()
        raise
    return sources


def _check_fit(name: str, text: str, uri: Uri, inputs: Mapping[str, Input]) -> None:
    if name not in inputs:
        raise ConfigError(
            f"there is no input '{name}'", where=f"{name}={text}", fix=f"this bundle has: {', '.join(inputs)}"
        )
    spec = inputs[name]
    if not isinstance(spec, _FEEDS[uri.kind]):
        kind = type(spec).__name__.removesuffix("Input").lower()
        raise ConfigError(
            f"a {uri.kind} source cannot feed the {kind} input '{name}'",
            where=f"{name}={text}",
            fix=f"give '{name}' a source of its own modality ({kind})",
        )


def _open(uri: Uri, inputs: Mapping[str, Input], speed: float, realtime: bool, base: StartTime) -> ThreadSource:
    name = next(iter(inputs))
    spec = inputs[name]
    images = tuple(n for n, i in inputs.items() if isinstance(i, ImageInput))
    sounds = {n: i.sample_rate_hz for n, i in inputs.items() if isinstance(i, AudioInput)}
    if uri.kind == "file":
        return MediaSource(uri.target, images=images, sounds=sounds, realtime=realtime, speed=speed, base=base)
    if uri.kind == "network":
        return NetworkSource(uri, images=images, sounds=sounds)
    if uri.kind == "test":
        return SyntheticSource(uri, images=images, sounds=sounds)
    if uri.kind == "microphone":
        assert isinstance(spec, AudioInput)
        return MicrophoneSource(name, uri.target, spec.sample_rate_hz)
    if uri.kind == "v4l2":
        return CameraSource(name, uri)
    if uri.kind == "text":
        return TextSource(name, uri.target)
    return GStreamerSource(name, uri)
