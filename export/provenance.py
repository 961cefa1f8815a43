"""Where a bundle comes from: versions, seed, hashes of recipe, calibration data and networks. Nothing is guessed."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from mmedge.bundle.manifest import TextInput
from mmedge.files import file_hash

from .keys import versions
from .onnx.network_file import network_digest
from .recipe import Recipe
from .recording_files import recording_files

_PACKAGES = ("mmedge", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def provenance(recipe: Recipe, *, seed: int | None = None) -> dict[str, str | int | float | None]:
    """Return what the manifest says of a bundle's origin; neither path nor machine nor user is in it.

    Args:
        recipe: What was exported.
        seed: The seed the model was trained with; the recipe's by default.
    """
    return {
        "mmedge": version("mmedge"),
        "torch": version("torch"),
        "onnx": version("onnx"),
        "opset": recipe.export.opset,
        "recipe_sha256": recipe.sha256,
        "seed": recipe.seed if seed is None else seed,
        **{name: found for name, found in versions(_PACKAGES).items() if name not in ("mmedge", "torch", "onnx")},
        **_calibration(recipe),
        **_networks(recipe),
    }


def places_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the folders of this machine that a recipe's files lie in: reports do not name them."""
    named = [recipe.calibration.recordings, recipe.train.weights, recipe.data.folder]
    named += [stage.onnx for stage in recipe.stages.values()]
    named += [spec.tokenizer for spec in recipe.inputs.values() if isinstance(spec, TextInput)]
    paths = [recipe.folder / name for name in named if name is not None and not name.startswith("wheel:")]
    places = {recipe.folder, *(place for path in paths for place in (path.parent, path.resolve().parent))}
    return tuple(map(str, places))


def _calibration(recipe: Recipe) -> dict[str, str | int]:
    """Return how many files calibrated INT8 and one hash over theirs; their names are their owner's affair."""
    if recipe.calibration.recordings is None:
        return {}
    hashes = sorted(file_hash(file) for file in recording_files(recipe))
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return {"calibration_files": len(hashes), "calibration_sha256": digest}


def _networks(recipe: Recipe) -> dict[str, str]:
    """Return the hash of each network file that was brought along, and of the weights."""
    hashes = {
        f"network_sha256.{name}": network_digest(recipe.path(stage.onnx))
        for name, stage in recipe.stages.items()
        if stage.onnx is not None
    }
    weights = None if recipe.model is None or recipe.train.weights is None else recipe.path(recipe.train.weights)
    if weights is not None and weights.is_file():
        hashes["weights_sha256"] = file_hash(weights)
    return hashes
