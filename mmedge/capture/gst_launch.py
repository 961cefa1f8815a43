"""Runs a GStreamer pipeline as ``gst-launch-1.0 -q`` does, but reads its words from the standard input, as JSON.

Arguments of a process can be read by everybody on the machine, and a pipeline may hold a password. It is run as a
program, by its path; it imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

_EOS, _ERROR, _WARNING, _CLOCK_LOST, _LATENCY = 1 << 0, 1 << 1, 1 << 2, 1 << 10, 1 << 19
_PAUSED, _PLAYING = 3, 4
_TYPE_AT = 64  # of a GstMessage, on 64-bit machines: its type follows a GstMiniObject


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
            return int(kind == _ERROR)


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
