"""Sources: cameras, microphones, media files, network streams and text become timestamped packets."""

from typing import TYPE_CHECKING

from mmedge.lazy import lazily

if TYPE_CHECKING:
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

# Who only checks an address opens none.
_HOMES = {
    "KINDS": "mmedge.capture.kinds",
    "Device": "mmedge.capture.devices",
    "Emit": "mmedge.capture.base",
    "Source": "mmedge.capture.base",
    "SourceHealth": "mmedge.capture.base",
    "StartTime": "mmedge.capture.base",
    "TextSource": "mmedge.capture.text",
    "ThreadSource": "mmedge.capture.base",
    "Uri": "mmedge.capture.uri",
    "list_devices": "mmedge.capture.devices",
    "open_sources": "mmedge.capture.open",
    "parse": "mmedge.capture.uri",
}


def __getattr__(name: str) -> object:
    return lazily(__name__, _HOMES, name)
