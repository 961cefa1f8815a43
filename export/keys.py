"""What each step depends on, as hashes: the network itself, the code behind it, files, packages, options."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from sys import version_info
from typing import Any

import msgspec

import mmedge
from mmedge.bundle.manifest import TextInput
from mmedge.files import file_hash

from .identity import digest_of
from .onnx.network_file import network_digest
from .recipe import Recipe
from .recording_files import plain_files, recording_files
from .tokenizer import read_tokenizer
from .user_code import code_digest

PACKAGES = ("mmedge", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "av", "soxr", "opencv-python-headless")
# What decides over the answer of every step; data sets and training over that of some: `code_digest`.
_EXPORT_ROOMS = (".", "brought", "int8", "models", "onnx", "preprocess")
_RUNTIME_ROOMS = (
    ".",
    "bundle",
    "preprocess",
    "engine",
    "fusion",
    "interpret",
    "sync",
    "capture",
    "recording",
    "replay",
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return package -> version of those that are installed, and of Python.

    Example:
        >>> sorted(versions(["numpy", "no-such-package"]))
        ['numpy', 'python']
    """
    found = {"python": f"{version_info.major}.{version_info.minor}.{version_info.micro}"}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


_TRAINING = "mmedge.export.training"
_FOLDER = "mmedge.export.datasets.folder"
_FILES = "mmedge.export.datasets.files"  # reads pictures, sounds and arrays that calibrate


@lru_cache(maxsize=1)
def toolchain_digest() -> str:
    """Return the hash of this toolchain: versions of what it calls, and its own sources."""
    digest = hashlib.sha256(repr(sorted(versions().items())).encode())
    export, runtime = Path(__file__).parent, Path(mmedge.__file__).parent
    for folder, rooms in ((export, _EXPORT_ROOMS), (runtime, _RUNTIME_ROOMS)):
        for room in rooms:
            files = sorted((folder / room).glob("*.py"))
            for file in files:
                digest.update(f"{room}/{file.name}".encode() + hashlib.sha256(file.read_bytes()).digest())
    digest.update(Path(str(import_module("mmedge._core").__file__)).read_bytes())
    return digest.hexdigest()


def graph_digest(recipe: Recipe) -> bytes:
    """Return the hash of a recipe's graph: seats, stages, their networks' files and rules, tokenizers."""
    files = {
        name: network_digest(recipe.path(stage.onnx))
        for name, stage in recipe.stages.items()
        if stage.onnx is not None  # with the weights that lie beside it
    }
    texts = {
        name: hashlib.sha256(read_tokenizer(recipe, name)).digest()
        for name, seat in recipe.inputs.items()
        if isinstance(seat, TextInput)
    }
    rules = [stage.callable for stage in recipe.stages.values() if stage.callable is not None]
    stages = {name: {**plain(stage), "onnx": None} for name, stage in recipe.stages.items()}
    with recipe.importable():
        code = code_digest(rules, recipe.folder)
    inputs = {name: {**plain(seat), "tokenizer": None} for name, seat in recipe.inputs.items()}
    options = (recipe.missing, recipe.sync, recipe.seed, recipe.export.opset)
    return digest_of(inputs, stages, plain(options), files, texts, code)


def model_digest(recipe: Recipe, model: Any) -> bytes:
    """Return the hash of what a model is: its stages with all they hold, and the code of the user's modules.

    Args:
        recipe: Names the factory.
        model: The loaded model, a submodule per stage; None where there is none.
    """
    if recipe.model is None or model is None:
        return b""
    held = {name: getattr(model, name, None) for name in recipe.stages}
    with recipe.importable():
        code = code_digest([recipe.model.factory], recipe.folder)
    return digest_of(held, code, folder=recipe.folder)


def samples_digest(recipe: Recipe) -> bytes:
    """Return the hash of the recordings, by name and content, and of what reads plain files; of nothing for noise."""
    if recipe.calibration.recordings is None:
        return b"noise"
    root = recipe.path(recipe.calibration.recordings)
    folder = root if root.is_dir() else root.parent
    digest = hashlib.sha256()
    if plain_files(recipe) is not None:
        with recipe.importable():
            digest.update(code_digest([_FILES], recipe.folder))
    for file in recording_files(recipe):
        name = file.relative_to(folder) if file.is_relative_to(folder) else Path(file.name)
        digest.update(f"{name} {file_hash(file)}\n".encode())
    return digest.digest()


def plain(value: object) -> Any:
    """Return structures as mappings, lists and numbers."""
    return msgspec.to_builtins(value)


def train_digest(recipe: Recipe, data: bytes) -> bytes:
    """Return the hash of what training depends on.

    Args:
        recipe: All of it but how it is exported.
        data: The hash of the data set.
    """
    parts = (recipe.data, recipe.inputs, recipe.model, recipe.stages, recipe.tasks, recipe.missing, recipe.sync)
    train = {**plain(recipe.train), "weights": None}
    made_by = None if recipe.model is None else recipe.model.factory
    return digest_of(plain(parts), train, recipe.seed, data, data_code(recipe, made_by))


def data_code(recipe: Recipe, *others: str | None) -> bytes:
    """Return the hash of the code of a recipe's data set, of training, and of other ``"pkg.mod:name"`` targets."""
    named = [recipe.data.dataset or _FOLDER, _TRAINING, *filter(None, others)]
    with recipe.importable():
        return code_digest(named, recipe.folder)
