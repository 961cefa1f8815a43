"""What a run needs to go on as if it had never been interrupted: written after each epoch, whole or not at all.

A checkpoint holds tensors and plain values, and is read as such: nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from mmedge.errors import ConfigError
from mmedge.version import __version__

from ..datasets.base import Dataset
from ..recipe import Recipe
from ..user_code import code_digest

_KEY = "mmedge"
_DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError),
    *(AssertionError, MemoryError, ImportError, pickle.UnpicklingError, zipfile.BadZipFile),
)  # what reading a file raises that is no checkpoint


def identity(recipe: Recipe, dataset: Dataset, limit: int | None) -> dict[str, str]:
    """Return what must be the same for a run to go on: the recipe, the data, the code it names, the versions.

    Args:
        recipe: With the run's own seed; where its weights go, how many seeds there are and where its file lies does
            not matter.
        dataset: Prepared.
        limit: Of batches.
    """
    train = msgspec.structs.replace(recipe.train, weights=None, seeds=1)
    plain = msgspec.structs.replace(recipe, folder=Path(), file=None, sha256="", train=train)
    with recipe.importable():
        code = code_digest(recipe.modules(), recipe.folder)
    return {
        "recipe": hashlib.sha256(msgspec.json.encode(plain, enc_hook=str)).hexdigest(),
        "data": hashlib.sha256(dataset.digest("train") + dataset.digest("validation")).hexdigest(),
        "code": code.hex(),
        "mmedge": __version__,
        "torch": str(torch.__version__),
        "limit": str(limit),
    }


class Checkpoint:
    """The checkpoint of one run.

    Args:
        path: Its file.
        own: The run's ``identity``.

    Attributes:
        epochs: How many are in the file.
        seconds: How long they took.
    """

    def __init__(self, path: Path, own: dict[str, str]) -> None:
        self.path, self.identity = path, own
        self.epochs = 0
        self.seconds = 0.0

    def save(self, trainer: Any, seconds: float) -> None:
        """Write the state of a Lightning trainer after an epoch.

        Raises:
            ConfigError: If it cannot be written; the one before stays.
        """
        self.epochs, self.seconds = trainer.current_epoch + 1, seconds
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ConfigError(
                f"cannot write the checkpoint: {error.strerror}", where=str(self.path), fix="choose another --output"
            ) from error

    def fill(self, state: dict[str, Any]) -> None:
        """Add what Lightning does not keep: whose state it is, and where every source of chance stands."""
        state[_KEY] = {
            "identity": self.identity,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "random": random_state(),
        }

    def load(self) -> bool:
        """Read what an interrupted run left; return whether there is anything.

        Raises:
            ConfigError: If it is damaged, no checkpoint, or of another run: says what differs.
        """
        if not self.path.is_file():
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what it makes of other files
                state = torch.load(self.path, map_location="cpu", weights_only=True)
            known = state[_KEY]
            told = {key: str(value) for key, value in known["identity"].items()}
            epochs, seconds = int(known["epochs"]), float(known["seconds"])
        except _DAMAGED as error:
            raise ConfigError(
                "cannot read the checkpoint: it is damaged, or holds more than tensors and plain values",
                where=str(self.path),
                fix="train again without --resume",
            ) from error
        self.check(told, self.path)
        self.epochs, self.seconds = epochs, seconds
        return True

    def check(self, told: Mapping[str, str], path: Path) -> None:
        """Raise ConfigError if a file that says ``told`` of its run is of another one; names what differs."""
        changed = [key for key in self.identity if told.get(key) != self.identity[key]]
        if changed:
            raise ConfigError(
                f"the checkpoint is of another run: since then {' and '.join(changed)} changed",
                where=str(path),
                fix="train again without --resume, or restore what was changed",
            )

    def remove(self) -> None:
        """Remove the file: the run has ended well."""
        self.path.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Return the state of every source of chance that training may draw from, as plain values and tensors."""
    _, words, place, has_gauss, gauss = np.random.get_state()
    version, inner, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (torch.from_numpy(np.array(words, np.int64)), int(place), int(has_gauss), float(gauss)),
        "python": (int(version), torch.tensor(inner, dtype=torch.int64), following),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set what ``random_state`` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    words, place, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), place, has_gauss, gauss))
    version, inner, following = state["python"]
    random.setstate((version, tuple(inner.tolist()), following))
