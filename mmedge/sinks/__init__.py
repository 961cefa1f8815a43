"""Where results go: console, files, what other packages bring, your own objects."""

from mmedge.sinks.base import Sink
from mmedge.sinks.console import ConsoleSink
from mmedge.sinks.jsonl import JsonlSink
from mmedge.sinks.named import is_sink, make_sink, sink_forms, sink_names

__all__ = ["ConsoleSink", "JsonlSink", "Sink", "is_sink", "make_sink", "sink_forms", "sink_names"]
