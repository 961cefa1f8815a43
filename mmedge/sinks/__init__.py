"""Where results go: console, files, brokers, what other packages bring, your own objects."""

from typing import TYPE_CHECKING

from mmedge.sinks.base import Event, Run, Sink
from mmedge.sinks.jsonl import JsonlSink
from mmedge.sinks.named import check_sink, is_sink, make_sink, open_sink, sink_forms, sink_names
from mmedge.sinks.queue import SinkQueue

if TYPE_CHECKING:
    from mmedge.sinks.console import ConsoleSink

__all__ = [
    "ConsoleSink",
    "Event",
    "JsonlSink",
    "Run",
    "Sink",
    "SinkQueue",
    "check_sink",
    "is_sink",
    "make_sink",
    "open_sink",
    "sink_forms",
    "sink_names",
]


def __getattr__(name: str) -> object:
    if name != "ConsoleSink":
        raise AttributeError(f"module 'mmedge.sinks' has no attribute '{name}'")
    from mmedge.sinks.console import ConsoleSink  # which imports rich: not for a run without it

    return ConsoleSink
