"""Open sources by their addresses: which class reads each one, and in which process it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.capture.base import Source, StartTime
from mmedge.capture.channels import CHOICE, Choice, split_choice
from mmedge.capture.kinds import KINDS, Opening
from mmedge.capture.picture import slots_for
from mmedge.capture.uri import Uri, parse
from mmedge.errors import ConfigError

if TYPE_CHECKING:
    from mmedge.capture.supervisor import WorkerSource


def open_sources(
    inputs: Mapping[str, Input],
    uris: Mapping[str, str] | Mapping[str, Address],
    *,
    speed: float | None = None,
    realtime: bool = True,
    workers: bool = False,
    hold_ns: int = 0,
    base: StartTime | None = None,
) -> list[Source]:
    """Open every source of a run; either all of them are open on return, or none.

    Inputs that name one device, file or address share one source, whatever tracks and channels of it they choose.

    Args:
        inputs: The inputs of the bundle.
        uris: Input name -> source address.
        speed: How many times faster than real time files are played; needs ``realtime`` and files only.
        realtime: Play files at their own pace; otherwise as fast as they are taken.
        hold_ns: For how long the frames' reader may hold them.
        base: When the timelines of files begin; by default when the first of them is read.
        workers: Read each live device in a process of its own, which is started again when it dies or hangs.

    Returns:
        The sources, open but not started; ``stop`` every one of them.

    Raises:
        ConfigError: If an address is malformed, does not fit its input, or names no file; if inputs want
            one camera with different settings.
        DeviceError: If a device is not there.
        MissingDependencyError: If a package or program is not installed.
        SourceError: If a file is damaged.
    """
    groups = _groups(inputs, addresses(uris))
    for uri, _ in groups:
        if speed not in (None, 1.0) and (not KINDS[uri.kind].played or not realtime or speed <= 0):
            raise ConfigError(
                f"a playing speed of {speed:g} cannot be used with {uri}",
                where="speed",
                fix="use a speed above 0, with files alone, in real time",
            )
    sources: list[Source] = []
    started: list[WorkerSource] = []
    base = base or StartTime()
    try:
        for uri, members in groups:
            group = {name: inputs[name] for name in members}
            if workers and uri.live:
                from mmedge.capture.supervisor import WorkerSource

                started.append(WorkerSource(group, members, str(uri), hold_ns, uri.kind))
                sources.append(started[-1])
            else:
                reader = KINDS[uri.kind].open(
                    Opening(
                        uri=uri,
                        images=tuple(n for n, i in group.items() if isinstance(i, ImageInput)),
                        sounds={n: i.sample_rate_hz for n, i in group.items() if isinstance(i, AudioInput)},
                        texts=tuple(n for n, i in group.items() if isinstance(i, TextInput)),
                        realtime=realtime,
                        speed=speed or 1.0,
                        base=base,
                        choices={name: Choice.of(parse(text).params) for name, text in members.items()},
                    )
                )
                reader.slots = slots_for(hold_ns)
                sources.append(reader)
        for worker in started:  # all of them before the first is waited for
            worker.open()
    except BaseException:
        for source in sources:
            source.stop()
        raise
    return sources


def addresses(uris: Mapping[str, str] | Mapping[str, Address]) -> dict[str, Address]:
    """Return input name -> address, each as a value whose text is masked."""
    return {name: Address(uri) for name, uri in uris.items()}


def _groups(inputs: Mapping[str, Input], uris: Mapping[str, Address]) -> list[tuple[Uri, dict[str, Address]]]:
    """Return each device with the inputs it feeds and their addresses: one spelling, but for what each chooses."""
    parsed: dict[str, Uri] = {}
    for name, text in uris.items():
        parsed[name] = parse(text)
        _check_fit(name, text, parsed[name], inputs)
        if "channel" in "".join(parsed[name].params) and isinstance(inputs[name], ImageInput):
            _check_picture(name, text, inputs, uris)
    # Only PortAudio knows whether two names mean one microphone: it is asked if there are two.
    numbers: dict[tuple[str, str], int] = {}
    for kind, entry in KINDS.items():
        targets = {uri.target for uri in parsed.values() if uri.kind == kind}
        if entry.same is not None and len(targets) > 1:
            numbers |= {(kind, target): number for target, number in entry.same(targets).items()}
    together: dict[object, list[str]] = {}
    for name, uri in parsed.items():
        number = numbers.get((uri.kind, uri.target))
        together.setdefault(uri.device if number is None else (uri.kind, number), []).append(name)
    groups: list[tuple[Uri, dict[str, Address]]] = []
    for names in together.values():
        wishes = {name: frozenset((k, v) for k, v in parsed[name].params.items() if k not in CHOICE) for name in names}
        asked = {wish: name for name, wish in wishes.items() if wish}
        speaker = next(iter(asked.values()), names[0])
        _check_shared(parsed[speaker], names, [uris[name] for name in asked.values()])
        texts = {name: _respelt(parsed[name], uris[name], parsed[speaker], uris[speaker]) for name in names}
        groups.append((parsed[speaker], texts))
    return groups


def _respelt(own: Uri, text: Address, speaker: Uri, spoken: Address) -> Address:
    """Return the speaker's spelling of an address with an input's own choice of track and channels."""
    choice = {name: value for name, value in own.params.items() if name in CHOICE}
    if not choice and speaker.params.keys().isdisjoint(CHOICE):
        return spoken
    if own.device == speaker.device:
        return text
    query = "&".join(f"{name}={value}" for name, value in choice.items())
    return Address(split_choice(spoken.reveal())[0] + (f"?{query}" if query else ""))


def _check_shared(uri: Uri, names: list[str], wishes: list[Address]) -> None:
    together = f"inputs {' and '.join(repr(name) for name in names)}"
    if len(wishes) > 1:
        both = " and ".join(f"'{wish}'" for wish in wishes)
        raise ConfigError(
            f"{together} share one camera, which cannot be {both} at once",
            where=uri.target,
            fix="give both addresses the same parameters, or one of them none: each input resizes for itself",
        )
    if len(names) > 1 and not KINDS[uri.kind].shared:
        what = " and ".join(KINDS[uri.kind].feeds)
        raise ConfigError(f"{together} read the same {what}", where=str(uri), fix=f"give each input its own {what}")


def _check_picture(name: str, text: Address, inputs: Mapping[str, Input], uris: Mapping[str, Address]) -> None:
    """Refuse channels of sound for a picture, unless it shares its very address with sound."""
    if not any(other == text and isinstance(inputs.get(each), AudioInput) for each, other in uris.items()):
        raise ConfigError(
            f"input '{name}' takes pictures, which have no channels of sound",
            where=f"{name}={text}",
            fix="leave ?channel out; if it is the camera's own parameter, write & behind it: ...?channel=1&",
        )


def _check_fit(name: str, text: Address, uri: Uri, inputs: Mapping[str, Input]) -> None:
    if name not in inputs:
        raise ConfigError(
            f"there is no input '{Address(name)}'",
            where=f"{Address(name)}={text}",
            fix=f"this bundle has: {', '.join(inputs)}",
        )
    kind = type(inputs[name]).__name__.removesuffix("Input").lower()
    if kind not in KINDS[uri.kind].feeds:
        raise ConfigError(
            f"a {uri.kind} source cannot feed the {kind} input '{name}'",
            where=f"{name}={text}",
            fix=f"give '{name}' a source of its own modality ({kind})",
        )
