"""The folder of built engines and of prepared networks: ours, and closed to others, since what lies there is run."""

from __future__ import annotations

import os
from pathlib import Path

from mmedge.errors import ConfigError
from mmedge.files import engine_cache


def checked_cache(folder: Path | None = None) -> Path:
    """Return the folder of the cache, made if missing.

    Args:
        folder: Which; None takes ``engine_cache()``.

    Raises:
        ConfigError: If others may write there.
        OSError: If it cannot be made.
    """
    folder = engine_cache() if folder is None else folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.stat()
    if info.st_uid not in (os.geteuid(), 0) or info.st_mode & 0o022:  # an engine is code
        raise ConfigError(
            "others may write into the engine cache",
            where=str(folder),
            fix=f"chmod go-w {folder}, or set MMEDGE_CACHE to a folder of your own",
        )
    return folder
