"""A range of rates as it is typed: ``LOW:HIGH``."""

from __future__ import annotations

import re

from mmedge.errors import ConfigError


def rates_of(text: str) -> tuple[float, float]:
    """Return the rates of ``LOW:HIGH``, a second.

    Raises:
        ConfigError: If it is not written like that.

    Example:
        >>> rates_of("10:240")
        (10.0, 240.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text.strip())
    if found is None:
        raise ConfigError(f"'{text}' is not a range of rates", where="--sweep", fix="use LOW:HIGH, e.g. 10:240")
    return float(found[1]), float(found[2])
