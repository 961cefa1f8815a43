"""``mmedge export MODEL.onnx``: a network without a recipe, with the seats and tasks that can be read off it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mmedge.bundle.onnx_file import is_weights
from mmedge.errors import ConfigError
from mmedge.files import file_hash, scratch
from mmedge.fusion.consent import PROJECT_FILE

from ..bounded import new_from_networks
from ..identity import digest_of
from ..keys import toolchain_digest
from ..onnx.network_file import network_digest, weight_files
from ..onnx.outside import link_or_copy
from ..recipe import Recipe
from ..store import DRAFT, Store, Stored
from .infer import stage_name
from .said import said_of

# One network has no rule of the user's to allow, and nothing runs here.
_needless = shutil.ignore_patterns("*.mmedge", PROJECT_FILE, "*.service", "said*.txt")
_log = logging.getLogger(__name__)


def recipe_of(
    network: Path,
    recordings: Path | None = None,
    licence: str | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
    tokenizer: Path | None = None,
) -> Recipe:
    """Return a recipe for one network, as ``mmedge new`` would write it; what that asks and hints is a warning.

    Args:
        network: The ONNX file.
        recordings: Media files or a folder made by ``mmedge record``: INT8 ranges are found on them. Without, the
            bundle has fp32 alone, and a warning says so.
        licence: Of the network; by default what its file says.
        options: What the user says where the file does not tell, as ``said_of`` takes it.
        tokenizer: ``tokenizer.json`` for an input ``input_ids``.

    Raises:
        ConfigError: If the file is not a network, its inputs or outputs cannot be read off it, or there are no
            recordings where ``recordings`` points.

    Example:
        >>> recipe_of(Path("yolo.onnx"), Path("recordings"))  # doctest: +SKIP
    """
    made = _made(network, options or {}, tokenizer)
    for text in made.notes.warnings:
        _log.warning("%s", text)
    recipe = Recipe.load(made.folder / network.stem / "recipe.toml")
    if licence is not None:
        recipe = msgspec.structs.replace(recipe, licence=licence)
    elif recipe.licence == "unknown":
        _log.warning("the file of the network does not name its licence: say it with --licence")
    if recordings is None:
        _log.warning("packed in fp32 alone: INT8 needs recordings like those of use, --calibrate FOLDER")
        return recipe
    if not recordings.exists():
        raise ConfigError(
            "there are no recordings", where=f"--calibrate {recordings}", fix="make some: mmedge record DIR"
        )
    calibration = msgspec.structs.replace(recipe.calibration, recordings=str(recordings.resolve()))
    precisions = msgspec.structs.replace(recipe.export, precisions=("fp32", "int8"))
    return msgspec.structs.replace(recipe, calibration=calibration, export=precisions)


def _take(source: str, target: str) -> None:
    """Copy a file; weights of gigabytes are not held twice."""
    link_or_copy(source, target) if is_weights(source) else shutil.copy2(source, target)


def _made(network: Path, options: Mapping[str, Sequence[str]], tokenizer: Path | None) -> Stored:
    """Return the project that ``mmedge new`` makes of a network, made once for what goes in."""
    store = Store()
    # Files of class names and tokens count by what they hold; whether they can be read shows where they are used.
    tokens = file_hash(tokenizer) if tokenizer is not None and tokenizer.is_file() else tokenizer
    given = (options, said_of(stage_name(network), options), tokens)
    key = digest_of(toolchain_digest(), network.stem, network_digest(network), given).hex()[:24]
    if (stored := store.get("network", key)) is not None:
        return stored
    # Where names can be given to gigabytes instead of copies.
    with scratch(store.folder, DRAFT) if weight_files(network) else scratch() as made:
        folder = made / network.stem
        try:
            report = new_from_networks(folder, [network], tokenizer, options)
        except ConfigError as error:
            if error.where != str(folder / "recipe.toml"):
                raise
            fix = f"say what it takes with --scale, or correct its recipe: mmedge new DIR --from {network}"
            raise ConfigError(error.message, where=str(network), fix=fix) from error
        return store.put(
            "network",
            key,
            lambda final: shutil.copytree(folder, final / folder.name, ignore=_needless, copy_function=_take),
            (*report.asks, *report.hints),
        )
