"""Where data sets keep what they have fetched and made."""

from __future__ import annotations

from pathlib import Path

from mmedge.files import user_cache


def cache_folder(*parts: str) -> Path:
    """Return a folder under ``$XDG_CACHE_HOME/mmedge``, created if need be."""
    folder = user_cache(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
