"""Raw samples out of recordings: media through the same capture and synchroniser as a live run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TextInput
from mmedge.capture import StartTime, open_sources
from mmedge.errors import ConfigError
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.inbox import INBOX, release
from mmedge.plan import hold_ns, plan_sync
from mmedge.preprocess import ImagePreprocessor, Tokenizer
from mmedge.recording.event_log import HEADER
from mmedge.recording.reader import Recording
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, EndOfStream, FloatArray, Packet, Snapshot, Tensor

log = logging.getLogger("mmedge.recording")


@dataclass(kw_only=True, slots=True)
class Survey:
    """What a recording has, before any of it is kept.

    Attributes:
        triggers: How many there are.
        complete: At how many of them each of the ``needed`` inputs has data; ``raw_samples`` numbers these.
        absent: Of the other triggers, how often each of these is absent.
        peaks: Float tensor -> at each of these, when its newest data were captured in ns, and their largest magnitude.
    """

    triggers: int = 0
    complete: int = 0
    absent: Counter[str] = field(default_factory=Counter)
    peaks: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def survey(
    inputs: Mapping[str, Input],
    sync: Sync,
    uris: dict[str, str],
    needed: Collection[str] = (),
    *,
    least: Mapping[str, int] | None = None,
) -> Survey:
    """Go through a recording once and return what it has.

    Args:
        inputs: The seats, in order.
        sync: Trigger and cutting.
        uris: Input name -> media file, or for all of them the folder of one recording.
        needed: Inputs without which a trigger does not count.
        least: Of a sound, how many samples must have come, or it counts as absent.
    """
    found = Survey()
    for _, snapshot in snapshots(inputs, sync, uris):
        found.triggers += 1
        absent = [name for name in needed if not _complete(snapshot, [name], least or {})]
        found.absent.update(absent)
        if absent:
            continue
        found.complete += 1
        for name, value in snapshot.values.items():
            if isinstance(value, Tensor) and value.data.dtype.kind == "f":
                largest = float(np.abs(value.data).max(initial=0.0))
                found.peaks.setdefault(name, []).append((value.capture_ns, largest))
    return found


def raw_samples(
    inputs: Mapping[str, Input],
    sync: Sync,
    uris: dict[str, str],
    *,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    needed: Collection[str] = (),
    chosen: Collection[int] | None = None,
    least: Mapping[str, int] | None = None,
) -> Iterator[dict[str, AnyArray]]:
    """Yield what a TensorRT variant would have been fed, trigger by trigger.

    Args:
        inputs: The seats, in order.
        sync: Trigger and cutting.
        uris: Input name -> media file, or for all of them the folder of one recording.
        tokenizers: Of the recorded texts.
        needed: Inputs without which a trigger does not count.
        chosen: Numbers of the triggers to take, of those that count; by default all.
        least: Of a sound, how many samples must have come, or it counts as absent.

    Yields:
        Input name -> its own copy of the raw array: image uint8 [1, H, W, C], audio float32 [1, samples], text int64
        [1, max_tokens], tensor as it was; an absent input has no key.

    Raises:
        SourceError: If a file breaks in the middle.
    """
    images = {n: ImagePreprocessor(s) for n, s in inputs.items() if isinstance(s, ImageInput)}
    wanted = None if chosen is None else frozenset(chosen)
    index = -1
    for core, snapshot in snapshots(inputs, sync, uris):
        if not _complete(snapshot, needed, least or {}):
            continue
        index += 1
        if wanted is not None and index not in wanted:
            continue
        sample: dict[str, AnyArray] = {}
        for name, frame in snapshot.frames.items():
            if not frame.data.size:
                continue  # a recording's disk was too slow for it
            pixels = np.empty(_raw_shape(inputs[name]), np.uint8)
            images[name].raw(frame, pixels)
            sample[name] = pixels
        for name in snapshot.audio_end:
            if not _heard(snapshot, name, least or {}):
                continue
            pcm: FloatArray = np.empty(_raw_shape(inputs[name]), np.float32)
            core.read_audio(name, snapshot, pcm.reshape(-1))
            sample[name] = pcm
        for name, value in snapshot.values.items():
            if isinstance(value, Tensor):
                sample[name] = value.data
            elif tokenizers is not None and name in tokenizers:
                sample[name] = np.empty(_raw_shape(inputs[name]), np.int64)
                tokenizers[name].ids(value.text, sample[name])
        yield sample


def _complete(snapshot: Snapshot, needed: Collection[str], least: Mapping[str, int]) -> bool:
    """Tell whether each of ``needed`` has data at a trigger."""
    return all(
        snapshot.frames[name].data.size > 0
        if name in snapshot.frames
        else _heard(snapshot, name, least)
        if name in snapshot.audio_end
        else name in snapshot.values
        for name in needed
    )


def _heard(snapshot: Snapshot, name: str, least: Mapping[str, int]) -> bool:
    """Tell whether enough of a sound has come."""
    return snapshot.audio_end[name] - snapshot.audio_span[name][0] >= least.get(name, 0)


def snapshots(
    inputs: Mapping[str, Input],
    sync: Sync,
    uris: dict[str, str],
    missing: Mapping[str, Missing] | None = None,
    base: StartTime | None = None,
) -> Iterator[tuple[Synchronizer, Snapshot]]:
    """Yield the triggers of media or of a recording, each with what holds its sound.

    Args:
        inputs: The seats, in order.
        sync: Trigger and cutting.
        uris: Input name -> media file, or for all of them the folder of one recording.
        missing: What becomes of inputs that are absent; by default they just are.
        base: When the timelines of media begin, for two readings of one file; by default now.

    Raises:
        ConfigError: If a recording lacks an input.
        SourceError: If a file breaks in the middle.
    """
    missing, base = missing or {}, base or StartTime()
    folders = {uri for uri in uris.values() if (Path(uri) / HEADER).is_file()}
    if folders:
        yield from _recorded_snapshots(inputs, sync, uris, folders, missing)
        return
    own = {n: inputs[n] for n in uris}
    sources = open_sources(own, uris, speed=None, realtime=False, hold_ns=hold_ns(sync, own, lossless=True), base=base)
    inbox: Mailbox[Packet] = Mailbox(INBOX, lossless=True, on_drop=release)
    core = Synchronizer(
        plan_sync(inputs, dict.fromkeys(uris, False), missing, sync, lossless=True), started_ns=base.get()
    )

    def emit(packet: Packet) -> None:
        if not inbox.put(packet):
            release(packet)

    try:
        for source in sources:
            source.start(emit)
        while not core.finished:
            for packet in inbox.take_all(0.5):
                core.push(packet)
            for snapshot in core.poll():
                yield core, snapshot
            core.trim()
        for source in sources:
            if source.error is not None:
                raise source.error
    finally:
        inbox.close()
        for source in sources:
            source.stop()
        for packet in inbox.take_all(0):
            release(packet)
        core.close()


def _recorded_snapshots(
    inputs: Mapping[str, Input], sync: Sync, uris: dict[str, str], folders: set[str], missing: Mapping[str, Missing]
) -> Iterator[tuple[Synchronizer, Snapshot]]:
    folder = min(folders)
    recording = Recording(folder)
    if set(uris.values()) != {folder} or not set(uris) <= set(recording.header.inputs):
        asked = {name: str(Address(uri)) for name, uri in uris.items()}
        raise ConfigError(
            f"the recording holds {list(recording.header.inputs)}, not {asked}",
            where=folder,
            fix="use one recording that has all these inputs",
        )
    attached, started_ns = dict.fromkeys(uris, False), recording.header.started_ns
    core = Synchronizer(plan_sync(inputs, attached, missing, sync, lossless=True), started_ns=started_ns)
    rates_hz = {name: spec.sample_rate_hz for name, spec in inputs.items() if isinstance(spec, AudioInput)}
    ends: dict[str, EndOfStream] = {}
    try:
        for turn in recording.turns(rates_hz=rates_hz):
            for packet in turn.packets:
                if packet.stream in uris:
                    core.push(packet)
                    last_ns = packet.arrive_ns
                    ends[packet.stream] = EndOfStream(
                        stream=packet.stream, seq=0, epoch=packet.epoch, capture_ns=last_ns, arrive_ns=last_ns
                    )
            for snapshot in core.poll():
                yield core, snapshot
            core.trim()
        for end in ends.values():
            core.push(end)
        for snapshot in core.poll():
            yield core, snapshot
    finally:
        core.close()
    if recording.cut is not None:
        log.warning("the recording '%s' ends early: %s", folder, recording.cut)


def _raw_shape(spec: Input) -> tuple[int, ...]:
    if isinstance(spec, TextInput):
        return spec.tensor_shape
    assert isinstance(spec, (ImageInput, AudioInput))
    return spec.raw_shape
