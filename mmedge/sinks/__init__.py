"""Where results go."""

from mmedge.sinks.base import ConsoleSink, JsonlSink, Sink, make_sink

__all__ = ["ConsoleSink", "JsonlSink", "Sink", "make_sink"]
