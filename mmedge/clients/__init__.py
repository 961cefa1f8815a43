"""Programs of their own that attach to a running pipeline: the line to them, and ours for Python.

Map of the package::

    attach, Attached      a program's side, in Python; in C and C++: mmedge.h (docs/attach.md)
    prefix                where the library for C and C++ lies
    server                the pipeline's side: who is attached gets results, and may push
    wire                  what goes over the socket and lies in the rings, as native/attach/protocol.hpp has it
"""

from mmedge.clients.attached import Attached, attach
from mmedge.clients.paths import prefix

__all__ = ["Attached", "attach", "prefix"]
