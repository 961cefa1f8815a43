"""The recipes that ship with mmedge."""

from __future__ import annotations

from importlib.resources import as_file, files

from mmedge.errors import ConfigError

from .recipe import Recipe


def shipped_recipe(name: str) -> Recipe:
    """Return a shipped recipe.

    Args:
        name: Without its ending: ``"av_digits"``.

    Raises:
        ConfigError: If there is no such recipe.

    Example:
        >>> shipped_recipe("av_digits").name
        'digits'
    """
    resource = files("mmedge.recipes") / f"{name}.toml"
    if not resource.is_file():
        raise ConfigError(f"mmedge has no recipe '{name}'", where="mmedge.recipes", fix="name a file, or install again")
    with as_file(resource) as path:
        return Recipe.load(path)
