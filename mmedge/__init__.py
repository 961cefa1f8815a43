"""mmedge: live fused inference (image, audio, text) on the edge.

Map of the package::

    load, Bundle          the deployable artefact, verified
    Pipeline, Result      live fused inference
    load_engine           one network, no pipeline
    attach                a pipeline that runs in another process
    Recorder              a recording of what your own code pushes
    bench                 latency report
    errors                the exception tree
    export                the host toolchain (needs mmedge[export])

Importing it loads nothing heavy: every part is imported on first use.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

if sys.argv[:1] and (sys.argv[0].endswith("/mmedge") or (sys.argv[0] == "-m" and "mmedge" in sys.orig_argv[:5])):
    # The command line, which has loaded nothing yet. `python -m`, and an empty entry of PYTHONPATH, have modules looked
    # for in the working directory, before all others: a stranger's archive that was unpacked there must not be heard.
    _named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    try:
        _here = os.getcwd()  # noqa: PTH109  (pathlib is not loaded yet)
    except FileNotFoundError:
        _here = ""
    if sys.argv[0] == "-m" and not getattr(sys.flags, "safe_path", False) and sys.path[:1] in ([_here], [""]):
        del sys.path[0]
    if not any(name and os.path.abspath(name) == _here for name in _named):  # noqa: PTH100
        for _entry in [entry for entry in sys.path[: len(_named)] if entry in (_here, "")]:
            sys.path.remove(_entry)
    # Ctrl-C ends it at once, without a traceback of its imports.
    _signal = import_module("_signal")
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # what a shell starts with & ignores it
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

import logging
from typing import TYPE_CHECKING

from mmedge.lazy import lazily
from mmedge.version import __version__

if TYPE_CHECKING:
    from mmedge.bench import Report, bench
    from mmedge.bundle import Bundle, load
    from mmedge.clients import Attached, attach
    from mmedge.engine import Engine, load_engine
    from mmedge.errors import MmedgeError
    from mmedge.pipeline import Pipeline
    from mmedge.replay.pushes import Recorder
    from mmedge.types import Result, TaskResult

__all__ = [
    "Attached",
    "Bundle",
    "Engine",
    "MmedgeError",
    "Pipeline",
    "Recorder",
    "Report",
    "Result",
    "TaskResult",
    "__version__",
    "attach",
    "bench",
    "load",
    "load_engine",
]

_HOME = {
    "Attached": "mmedge.clients",
    "Bundle": "mmedge.bundle",
    "Engine": "mmedge.engine",
    "MmedgeError": "mmedge.errors",
    "Pipeline": "mmedge.pipeline",
    "Recorder": "mmedge.replay.pushes",
    "Report": "mmedge.bench",
    "Result": "mmedge.types",
    "TaskResult": "mmedge.types",
    "attach": "mmedge.clients",
    "bench": "mmedge.bench",
    "load": "mmedge.bundle",
    "load_engine": "mmedge.engine",
}

# Nothing leaves the device unasked. Every process of ours comes by here before it imports what may report home: ONNX
# Runtime from 1.32 on writes a device id under the user's cache and looks up a host some seconds after its first
# session; huggingface_hub, which tokenizers brings, tells which versions ask. What the user has set stays.
for _setting in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_setting, "1")
logging.getLogger("mmedge").addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    return lazily(__name__, _HOME, name)


def __dir__() -> list[str]:
    return __all__
