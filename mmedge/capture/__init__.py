"""Sources: cameras, microphones, media files, network streams and text become timestamped packets."""

from mmedge.capture.base import Emit, Source, SourceHealth, StartTime, ThreadSource
from mmedge.capture.devices import Device, list_devices
from mmedge.capture.kinds import KINDS
from mmedge.capture.open import open_sources
from mmedge.capture.text import TextSource
from mmedge.capture.uri import Uri, parse

__all__ = [
    "KINDS",
    "Device",
    "Emit",
    "Source",
    "SourceHealth",
    "StartTime",
    "TextSource",
    "ThreadSource",
    "Uri",
    "list_devices",
    "open_sources",
    "parse",
]
