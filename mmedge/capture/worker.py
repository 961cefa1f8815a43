"""Capture in a process of its own, the child's side: it opens one source and writes its packets into rings."""

from __future__ import annotations

import logging

import msgspec

from mmedge.capture.base import COUNTED, ThreadSource
from mmedge.capture.open import open_sources
from mmedge.capture.supervisor import HEARTBEAT_NS, LOOK_S, Order, Pulse
from mmedge.capture.uri import parse
from mmedge.clock import now_ns
from mmedge.ipc.channel import PacketWriter
from mmedge.ipc.control import unpack
from mmedge.ipc.wake import Wake
from mmedge.ipc.worker import Link
from mmedge.learn import learn
from mmedge.types import EndOfStream, Packet

_USUAL = frozenset(COUNTED.values())  # counters of what arrives, as it should
learn(Order)  # before a fork, so that workers share what was learned


def main(link: Link) -> None:
    """Open, read, report; ends with the source or when the parent wants it."""
    order = unpack(link.payload, Order)
    if {parse(uri).kind for uri in order.uris.values()} == {"microphone"}:
        from mmedge.capture.alsa import forget_encoder

        forget_encoder()
    (source,) = open_sources(order.inputs, order.uris, hold_ns=order.hold_ns)
    try:
        source.epoch = order.epoch
        writer = PacketWriter(link.control, *map(Wake, link.fds))
        if isinstance(source, ThreadSource):
            source.writer = writer
        running = set(source.streams)
        unsaid: list[Packet] = []  # ends for which there was no room yet

        def emit(packet: Packet) -> None:
            if isinstance(packet, EndOfStream):
                running.discard(packet.stream)
                if source.error is not None:  # the supervisor reads it again: not the end of the stream
                    return
            else:
                running.add(packet.stream)  # a sender may come back with what it lacked
            if not writer.put(packet) and isinstance(packet, EndOfStream):
                unsaid.append(packet)

        said: tuple[object, ...] = ()
        said_ns = 0

        def pulse(*, final: bool = False) -> None:
            nonlocal said, said_ns
            health, now = source.health(), now_ns()
            for stream, count in writer.dropped.items():
                if count:
                    health.counters[f"dropped_unsent_{stream}"] = count
            unusual = {name: n for name, n in health.counters.items() if name not in _USUAL}
            state = health.state, health.reason, unusual, source.refused
            if state == said and now - said_ns < HEARTBEAT_NS and not final:
                return
            said, said_ns = state, now
            refused = None if (error := source.refused) is None else (error.message, error.where, error.fix)
            told = Pulse(health=health, refused=refused, refused_streams=source.refused_streams)
            link.report(msgspec.msgpack.encode(told))

        # What is wrong reaches the user through the supervisor, who does not repeat himself.
        logging.getLogger("mmedge.capture").addFilter(
            lambda record: record.levelno != logging.ERROR or bool(record.exc_info) or hasattr(record, "traced")
        )
        source.start(emit)
        link.ready()
        while (running or unsaid) and not link.stopping.wait(LOOK_S):
            pulse()
            for end in list(unsaid):
                if writer.put(end):
                    unsaid.remove(end)
        pulse(final=True)
        if source.error is not None:
            raise source.error
    finally:
        source.stop()
