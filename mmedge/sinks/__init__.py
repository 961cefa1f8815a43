"""Where results go: console, files, brokers, what other packages bring, your own objects."""

from mmedge.sinks.base import Event, Run, Sink
from mmedge.sinks.console import ConsoleSink
from mmedge.sinks.jsonl import JsonlSink
from mmedge.sinks.named import check_sink, is_sink, make_sink, open_sink, sink_forms, sink_names
from mmedge.sinks.queue import SinkQueue

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
