"""``mmedge export MODEL.onnx``: a network without a recipe, with the seats and tasks that can be read off it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec

from mmedge.errors import ConfigError

from ..bounded import new_from_networks
from ..identity import digest_of
from ..keys import toolchain_digest
from ..onnx.network_file import network_digest
from ..recipe import Recipe
from ..store import Store, unwritable

_log = logging.getLogger(__name__)


def recipe_of(network: Path, recordings: Path | None = None, licence: str | None = None) -> Recipe:
    """Return a recipe for one network, as ``mmedge new`` would write it.

    Args:
        network: The ONNX file.
        recordings: Media files or a folder made by ``mmedge record``: INT8 ranges are found on them. Without, the
            bundle has fp32 alone, and a warning says so.
        licence: Of the network; by default what its file says.

    Raises:
        ConfigError: If the file is not a network, its inputs or outputs cannot be read off it, or there are no
            recordings where ``recordings`` points.

    Example:
        >>> recipe_of(Path("yolo.onnx"), Path("recordings"))  # doctest: +SKIP
    """
    store = Store()
    key = digest_of(toolchain_digest(), network.stem, network_digest(network)).hex()[:24]
    folder = store.folder / f"network-{key}" / network.stem
    file = folder / "recipe.toml"
    if not file.is_file():
        try:
            shutil.rmtree(folder.parent, ignore_errors=True)
            folder.parent.mkdir()
        except OSError as error:
            raise unwritable(store.folder, error) from error
        new_from_networks(folder, [network])
    recipe = Recipe.load(file)
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
