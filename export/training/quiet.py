"""Silence Lightning's advice about workers and devices, which the recipe decides."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's banners and its own advice, nothing else; enter it after the import, which sets the levels."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", message=".*The number of training batches")
            # Lightning 2.6 asks torch's tree utilities in a way that torch 2.9 and newer call deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
