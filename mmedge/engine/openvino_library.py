"""OpenVINO's module, imported without what would report that it is: nothing leaves the device unasked.

Importing this raises MissingDependencyError if openvino is not installed.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from mmedge.extras import require

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
openvino: Any = require("openvino", "running networks on OpenVINO")


@cache
def core() -> Any:
    """Return what reads and compiles networks, one for this process."""
    return openvino.Core()
