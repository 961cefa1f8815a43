"""Runs a GStreamer pipeline as ``gst-launch-1.0 -q`` does, but reads its words from the standard input, as JSON.

Before each buffer that its element ``mmedge-out`` writes to the standard output, 8 bytes go there: the buffer's time on
CLOCK_MONOTONIC, in ns, of the machine's byte order; 0 if it has none.

Arguments of a process can be read by everybody on the machine, and a pipeline may hold a password. It is run as a
program, by its path; it imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_EOS, _ERROR, _WARNING, _CLOCK_LOST, _LATENCY = 1 << 0, 1 << 1, 1 << 2, 1 << 10, 1 << 19
_PAUSED, _PLAYING = 3, 4
# On 64-bit machines. A GstMessage's type follows its GstMiniObject; so do a GstBuffer's pool and its time. A
# GstPadProbeInfo has its kind, an id, the buffer.
_TYPE_AT, _PTS_AT, _DATA_AT = 64, 72, 16
_BUFFER, _SEGMENT, _TIME = 1 << 4, (70 << 8) | 14, 3
_NONE = 2**64 - 1
_PROBE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


def main() -> int:
    """Return the exit code: 0 at the end of the stream, 1 after an error, which is on the standard error."""
    words = [word.encode("utf-8", "surrogateescape") for word in json.load(sys.stdin)]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gst = ctypes.CDLL("libgstreamer-1.0.so.0")
    for name in ("gst_parse_launchv", "gst_element_get_bus", "gst_bus_timed_pop_filtered"):
        getattr(gst, name).restype = ctypes.c_void_p
    gst.gst_init(None, None)
    error = ctypes.POINTER(_GError)()
    argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    address = gst.gst_parse_launchv(argv, ctypes.byref(error))
    if error or not address:
        _say("erroneous pipeline", error)
        return 1
    pipeline = ctypes.c_void_p(address)
    kept = _stamps(gst, pipeline)  # for as long as it runs
    bus = ctypes.c_void_p(gst.gst_element_get_bus(pipeline))
    failed = gst.gst_element_set_state(pipeline, _PLAYING) == 0
    while True:
        wait = ctypes.c_uint64(0 if failed else 2**64 - 1)
        found = gst.gst_bus_timed_pop_filtered(bus, wait, _EOS | _ERROR | _WARNING | _CLOCK_LOST | _LATENCY)
        if found is None:
            sys.stderr.write("the pipeline does not want to play\n")
            return 1
        message = ctypes.c_void_p(found)
        kind = ctypes.c_int.from_address(found + _TYPE_AT).value
        if kind in (_ERROR, _WARNING):
            debug = ctypes.c_char_p()
            parse = gst.gst_message_parse_error if kind == _ERROR else gst.gst_message_parse_warning
            parse(message, ctypes.byref(error), ctypes.byref(debug))
            _say("ERROR" if kind == _ERROR else "WARNING", error, debug.value)
        elif kind == _LATENCY:
            gst.gst_bin_recalculate_latency(pipeline)
        elif kind == _CLOCK_LOST:
            gst.gst_element_set_state(pipeline, _PAUSED)
            gst.gst_element_set_state(pipeline, _PLAYING)
        gst.gst_mini_object_unref(message)
        if kind in (_EOS, _ERROR):
            gst.gst_element_set_state(pipeline, 1)
            del kept
            return int(kind == _ERROR)


def _stamps(gst: ctypes.CDLL, pipeline: ctypes.c_void_p) -> Callable[..., int]:
    """Write a time before each buffer that leaves; return what is called for it, to be kept."""
    pointers = (
        "gst_bin_get_by_name",
        "gst_element_get_static_pad",
        "gst_element_get_clock",
        "gst_pad_get_sticky_event",
    )
    for name in pointers:
        getattr(gst, name).restype = ctypes.c_void_p
    for name in ("gst_clock_get_time", "gst_element_get_base_time", "gst_segment_to_running_time"):
        getattr(gst, name).restype = ctypes.c_uint64
    sink = ctypes.c_void_p(gst.gst_bin_get_by_name(pipeline, b"mmedge-out"))
    pad = ctypes.c_void_p(gst.gst_element_get_static_pad(sink, b"sink"))

    def stamp_ns(buffer: int) -> int:
        pts = ctypes.c_uint64.from_address(buffer + _PTS_AT)
        clock = ctypes.c_void_p(gst.gst_element_get_clock(pipeline))
        event = ctypes.c_void_p(gst.gst_pad_get_sticky_event(pad, _SEGMENT, 0))
        try:
            if pts.value == _NONE or not clock or not event:
                return 0
            segment = ctypes.c_void_p()
            gst.gst_event_parse_segment(event, ctypes.byref(segment))
            running = gst.gst_segment_to_running_time(segment, _TIME, pts)
            if running == _NONE:
                return 0
            ahead = time.monotonic_ns() - gst.gst_clock_get_time(clock)  # of the pipeline's clock
            return max(0, int(gst.gst_element_get_base_time(pipeline) + running + ahead))
        finally:
            if clock:
                gst.gst_object_unref(clock)
            if event:
                gst.gst_mini_object_unref(event)

    def leaves(_pad: Any, info: int, _data: Any) -> int:
        with suppress(BrokenPipeError):  # who reads has gone, which the element will find as well
            os.write(1, stamp_ns(ctypes.c_size_t.from_address(info + _DATA_AT).value).to_bytes(8, sys.byteorder))
        return 1  # and on it goes

    probe = _PROBE(leaves)
    gst.gst_pad_add_probe.argtypes = (ctypes.c_void_p, ctypes.c_int, _PROBE, ctypes.c_void_p, ctypes.c_void_p)
    gst.gst_pad_add_probe(pad, _BUFFER, probe, None, None)
    return probe


def _say(what: str, error: ctypes._Pointer[_GError], debug: bytes | None = None) -> None:
    text = error.contents.message if error else None
    for line in (text or b"no reason is given", debug or b""):
        if line:
            sys.stderr.write(f"{what}: {line.decode(errors='replace')}\n")
            what = "details"


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
