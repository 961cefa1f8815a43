"""Weights as safetensors, with what training measured in the header as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mmedge.errors import ConfigError

from ..failures import own_words, user_line_of
from ..models.staged import StagedModel
from ..recipe import Recipe


def make_model(recipe: Recipe) -> StagedModel:
    """Return the untrained model of ``[model]``.

    Args:
        recipe: Names the factory, ``"pkg.mod:make"``, called with the recipe and the parameters.

    Raises:
        ConfigError: If the factory cannot be imported or returns something else.
    """
    return _made(recipe, StagedModel)


def make_pretrained(recipe: Recipe) -> nn.Module:
    """Return the model of ``[model]`` whose factory loads the weights itself: a submodule per stage.

    Raises:
        ConfigError: If the factory cannot be imported or returns something else.
    """
    return _made(recipe, nn.Module).eval()


_Made = TypeVar("_Made", bound=nn.Module)


def _made(recipe: Recipe, kind: type[_Made]) -> _Made:
    if recipe.model is None:
        raise ConfigError("the recipe has no [model], so it cannot be trained", fix="mmedge export RECIPE")
    where, fix = "model.factory", f'name a callable that returns a {kind.__name__}: "pkg.mod:make"'
    # What a factory imports when it is called lies beside the recipe as well.
    with own_words("model", recipe), recipe.importable():
        factory = import_named(recipe.model.factory, where=where, fix=fix)
        try:
            model = factory(recipe, **recipe.model.parameters)
        except TypeError as error:
            if user_line_of(error) is not None:
                raise
            raise ConfigError(str(error), where="model.parameters", fix="match the factory's parameters") from error
    if not isinstance(model, kind):
        raise ConfigError(f"the factory returned {type(model).__name__}", where=where, fix=fix)
    return model


def import_named(name: str, *, where: str, fix: str) -> Any:
    """Return what ``"pkg.mod:name"`` names.

    Raises:
        ConfigError: If there is no such module or name.
    """
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ImportError("there is no ':'")
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import '{name}': {error}", where=where, fix=fix) from error


def save_weights(model: StagedModel, metadata: dict[str, Any], path: Path) -> None:
    """Write the weights atomically; every value of ``metadata`` becomes a JSON string.

    Args:
        model: The model.
        metadata: What training measured.
        path: Where to, ``.safetensors``.

    Raises:
        ConfigError: If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, {key: json.dumps(value) for key, value in metadata.items()})
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write the weights: {error.strerror}", where=str(path), fix="choose another --output"
        ) from error


def load_weights(recipe: Recipe, path: str | Path | None = None) -> tuple[StagedModel, dict[str, Any]]:
    """Return the trained model in evaluation mode, and what training measured.

    Args:
        recipe: Names the model and, in ``train.weights``, the file.
        path: Another file.

    Returns:
        The model and its metadata: seed, temperature, validated_masks, metrics.

    Raises:
        ConfigError: If the file is missing, damaged or belongs to another model.

    Example:
        >>> model, metadata = load_weights(Recipe.load("recipes/av_digits.toml"))  # doctest: +SKIP
    """
    if path is None:
        if recipe.train.weights is None:
            raise ConfigError("the recipe names no weights", where="train.weights", fix="set train.weights")
        path = recipe.path(recipe.train.weights)
    model = make_model(recipe)
    with _opened(path) as file:
        metadata = _metadata(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(
            "the weights belong to another model: " + " ".join(str(error).split())[:300],
            where=str(path),
            fix="train again, or restore [model] and [stages] of the recipe",
        ) from error
    model.eval()
    model.metadata = metadata
    return model, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what ``save_weights`` was given beside the weights, without these.

    Raises:
        ConfigError: If the file is missing or damaged.
    """
    with _opened(path) as file:
        return _metadata(file)


def _metadata(file: Any) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ConfigError("there are no weights", where=str(path), fix="mmedge train RECIPE") from error
    except (SafetensorError, OSError, ValueError) as error:  # the last of metadata that are no JSON
        raise ConfigError(f"cannot read the weights: {error}", where=str(path), fix="mmedge train RECIPE") from error
