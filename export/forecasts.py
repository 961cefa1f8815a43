"""What a bundle is expected to take on the boards that are known, said when it is made: nobody has run it yet."""

from __future__ import annotations

import logging
from pathlib import Path

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.forecast import Forecast, Sources, expect, known_boards
from mmedge.forecast.expect import counted_gmacs, tensorrt_file

from .onnx.multiply_adds import multiply_adds
from .onnx.network_file import load_network

_log = logging.getLogger(__name__)


def forecasts(path: Path) -> tuple[Forecast, ...]:
    """Return the forecast of a bundle on each board, by the work of its networks; none without TensorRT files.

    Args:
        path: A bundle that was packed just now.
    """
    with load(path) as bundle:
        if not any(tensorrt_file(bundle, stage) for stage in bundle.manifest.stages):
            return ()
        counted = counted_gmacs(bundle, lambda content: multiply_adds(load_network(content)))
        try:
            return tuple(expect(bundle, Sources(gmacs=counted), device=name) for name in known_boards())
        except ConfigError as error:  # not all of its inputs may be present together
            _log.warning("there is no forecast: %s", error.message)
            return ()
