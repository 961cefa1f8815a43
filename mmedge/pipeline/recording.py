"""Raw samples out of recordings: media through the same capture and synchroniser as a live run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Sync
from mmedge.capture import open_sources
from mmedge.clock import now_ns
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.runtime import INBOX, drop_packet
from mmedge.preprocess import ImagePreprocessor
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, FloatArray, Packet, Snapshot


def raw_samples(
    inputs: Mapping[str, Input], sync: Sync, uris: dict[str, str], count: int | None = None
) -> Iterator[dict[str, AnyArray]]:
    """Yield what a TensorRT variant would have been fed, trigger by trigger.

    Args:
        inputs: The seats, in order.
        sync: Trigger and cutting.
        uris: Input name -> media file.
        count: Take only so many triggers, evenly spread over the recording; the media are read twice.

    Yields:
        Input name -> its own copy of the raw array: image uint8 [1, H, W, C], audio float32 [1, samples]; an
        absent input has no key.

    Raises:
        SourceError: If a file breaks in the middle.
    """
    images = {n: ImagePreprocessor(s) for n, s in inputs.items() if isinstance(s, ImageInput)}
    wanted: set[int] | None = None
    if count is not None:
        total = sum(1 for _ in _snapshots(inputs, sync, uris))
        wanted = {round((i + 0.5) * total / count - 0.5) for i in range(min(count, total))}
    for index, (core, snapshot) in enumerate(_snapshots(inputs, sync, uris)):
        if wanted is not None and index not in wanted:
            continue
        sample: dict[str, AnyArray] = {}
        for name, frame in snapshot.frames.items():
            pixels = np.empty(_raw_shape(inputs[name]), np.uint8)
            images[name].raw(frame, pixels)
            sample[name] = pixels
        for name in snapshot.audio_end:
            pcm: FloatArray = np.empty(_raw_shape(inputs[name]), np.float32)
            core.read_audio(name, snapshot, pcm.reshape(-1))
            sample[name] = pcm
        yield sample


def _snapshots(
    inputs: Mapping[str, Input], sync: Sync, uris: dict[str, str]
) -> Iterator[tuple[Synchronizer, Snapshot]]:
    sources = open_sources({n: inputs[n] for n in uris}, uris, speed=None, realtime=False)
    inbox: Mailbox[Packet] = Mailbox(INBOX, lossless=True, on_drop=drop_packet)
    core = Synchronizer(inputs, dict.fromkeys(uris, False), {}, sync, started_ns=now_ns(), lossless=True)

    def emit(packet: Packet) -> None:
        if not inbox.put(packet):
            drop_packet(packet)

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
            drop_packet(packet)
        core.close()


def _raw_shape(spec: Input) -> tuple[int, ...]:
    assert isinstance(spec, (ImageInput, AudioInput))
    return spec.raw_shape
