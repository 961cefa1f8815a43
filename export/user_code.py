"""The user's own modules behind a network: found by their imports, hashed, and imported again when they were edited."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import sysconfig
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np

from .identity import digest_of

_OURS = "mmedge"
# Of this package, what a recipe can name and what makes weights: the rest is left to the digest of the toolchain.
_OWN_ROOMS = tuple(f"mmedge.export.{room}." for room in ("datasets", "models", "training"))
_SITES = ("site-packages", "dist-packages")
_STDLIB = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
# Of these a version says everything, and their lists are long.
_KNOWN = frozenset({"torch", "numpy", "onnx", "onnxruntime", "onnxscript", "lightning", "scipy", "av", "cv2"})
_PLAIN = (bool, int, float, complex, str, bytes, np.ndarray, np.generic)


class _Module(NamedTuple):
    file: Path
    content: bytes  # hash of the file
    data: bytes  # hash of the plain data at its top
    is_ours: bool  # imported for a recipe, not by the user's own program


# Module behind a recipe -> what it was when it was first seen.
_imported: dict[str, _Module] = {}
# Module that a recipe names -> what was imported with it, however it found it.
_with: dict[str, set[str]] = {}


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported; those that were edited since, or are another folder's, are imported anew."""
    _forget_stale(folder)
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    # Bytecode goes by size and second: an edit within the same second would be overlooked.
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        _note(set(sys.modules) - before, is_ours=True)


def import_anew() -> None:
    """Forget the modules that were imported for recipes: they may read files when they are imported."""
    for name, module in list(_imported.items()):
        if module.is_ours:
            sys.modules.pop(name, None)
            del _imported[name]
    _with.clear()


def code_digest(targets: Iterable[str], folder: Path) -> bytes:
    """Return the hash of the code behind ``"pkg.mod:name"`` targets.

    That is every module of the user's that theirs import, directly or not, with the plain data that these hold
    (a table that was read on import), name, version and file list of every package of others that they import, and
    the data sets, models and training of this package that they are or import.

    Args:
        targets: What a recipe names.
        folder: Of the recipe, inside ``importable(folder)``.
    """
    roots = {target.partition(":")[0] for target in targets}
    digest = hashlib.sha256()
    for root in sorted(roots):
        before = set(sys.modules)
        with suppress(Exception):  # whoever calls what it names says what is wrong with it
            importlib.import_module(root)
        _note(set(sys.modules) - before, is_ours=True)
        _with.setdefault(root, set()).update(name for name in set(sys.modules) - before if name in _imported)
    files, packages, own = _reached(roots)
    _note(files)
    for name, file in sorted(own.items()):
        digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for name, file in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        digest.update(_loaded(name, folder))
    for package in sorted(packages):
        digest.update(_package(package))
    return digest.digest()


def _reached(roots: set[str]) -> tuple[dict[str, Path], set[str], dict[str, Path]]:
    """Return what the roots' imports reach: module -> file of the user's, other packages, module -> file of ours."""
    own_packages = {root.partition(".")[0] for root in roots} - {_OURS}
    waiting = [*roots, *(name for root in roots for name in _with.get(root, ()))]
    files: dict[str, Path] = {}
    own: dict[str, Path] = {}
    packages: set[str] = set()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        ours = top == _OURS
        if name in seen or top in sys.stdlib_module_names or (ours and not f"{name}.".startswith(_OWN_ROOMS)):
            continue
        seen.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        file = _file(name)
        if file is None:
            continue
        if ours:
            own[name] = file
            # Of packages the name alone: to look for a part of one imports it.
            found = _imports(name, file)
            waiting += [other if other.startswith(_OWN_ROOMS) else other.partition(".")[0] for other in found]
            continue
        if not is_user_file(file) and top not in own_packages:
            packages.add(top)
            continue
        files[name] = file
        if file.suffix == ".py":
            waiting += _imports(name, file)
    return files, packages, own


def is_user_file(file: str | Path, *, packages: bool = False) -> bool:
    """Tell whether a source file belongs neither to Python nor to an installed package, and is not generated.

    Args:
        file: Of a module or a frame.
        packages: Whether those of every package but torch count as the user's.
    """
    parts = Path(file).parts
    package = next((parts[index + 1 :][:1] for index, part in enumerate(parts) if part in _SITES), None)
    if package is not None:
        return packages and package != ("torch",)
    return not str(file).startswith(("<", *_STDLIB))


def _file(name: str) -> Path | None:
    """Return the file of a module, which need not be imported yet; None if there is none, or no such module."""
    module = sys.modules.get(name)
    with suppress(Exception):  # a parent that cannot be imported, a module without a spec
        spec = find_spec(name) if module is None else module.__spec__
        origin = getattr(module, "__file__", None) or (None if spec is None else spec.origin)
        if origin is not None and Path(origin).is_file():
            return Path(origin).resolve()
    return None


def _imports(name: str, file: Path) -> list[str]:
    """Return the modules that a source file may import, wherever in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing it says so
        return []
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            with suppress(ImportError):  # relative to no package
                base = resolve_name(base, package) if node.level else base
                found += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    return found


def _loaded(name: str, folder: Path) -> bytes:
    """Return the hash of an imported module's code and plain data; of containers, as they were when it was noted.

    Its file alone is not enough: a notebook may have edited it since it was imported.
    """
    module = sys.modules.get(name)
    if module is None:
        return b""
    live: dict[str, object] = {}
    for key, value in vars(module).items():
        if key.startswith("__"):
            continue
        if isinstance(value, _PLAIN) or _is_torch(value):
            live[key] = value
        elif getattr(value, "__module__", None) == name:
            live[key] = _codes(value)
    return digest_of(live, folder=folder) + (_imported[name].data if name in _imported else b"")


def _codes(value: object) -> object:
    """Return the code of a function, or of the functions of a class."""
    if isinstance(value, type):
        return {key: _codes(part) for key, part in vars(value).items() if not key.startswith("__") or callable(part)}
    with suppress(Exception):  # an object of the user's own may raise anything
        for attribute in ("__func__", "__wrapped__", "fget"):  # a static method, a cached function, a property
            value = getattr(value, attribute, None) or value
        return getattr(value, "__code__", None)
    return None


def _is_torch(value: object) -> bool:
    return any(
        (cls.__module__, cls.__name__) in (("torch", "Tensor"), ("torch.nn.modules.module", "Module"))
        for cls in type(value).__mro__
    )


def _containers(module: ModuleType, folder: Path) -> bytes:
    """Return the hash of the data at the top of a module: containers, settings, what classes and functions hold."""
    held: dict[str, object] = {}
    for key, value in vars(module).items():
        if key.startswith("__"):
            continue
        if _is_plain(value):
            held[key] = value
        elif getattr(value, "__module__", None) == module.__name__:
            parts = _class_data(value) if isinstance(value, type) else _bound(value)
            held |= {f"{key}.{name}": part for name, part in parts.items() if _is_plain(part, 1)}
    return digest_of(held, folder=folder)


def _class_data(cls: type) -> dict[str, object]:
    """Return what a class holds beside its code: a table that was read where it is defined."""
    return {name: part for name, part in vars(cls).items() if not name.startswith("__")}


def _bound(value: object) -> dict[str, object]:
    """Return what a function holds beside its code: defaults, and what the function around it has left it."""
    value = getattr(value, "__wrapped__", value)
    if not isinstance(value, FunctionType):
        return {}
    bound: dict[str, object] = {f"default {i}": part for i, part in enumerate(value.__defaults__ or ())}
    bound |= value.__kwdefaults__ or {}
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with suppress(ValueError):  # not bound yet
            bound[f"around {name}"] = cell.cell_contents
    return bound


def _is_plain(value: object, depth: int = 0) -> bool:
    if depth and (value is None or isinstance(value, _PLAIN) or _is_torch(value)):
        return True
    if isinstance(value, (SimpleNamespace, Namespace, partial)) or (
        not isinstance(value, (type, ModuleType)) and (is_dataclass(value) or _is_of_user(type(value)))
    ):
        return True  # settings that were read on import
    if isinstance(value, dict):
        return depth < 8 and all(_is_plain(part, depth + 1) for pair in value.items() for part in pair)
    return (
        isinstance(value, (list, tuple, set, frozenset)) and depth < 8 and all(_is_plain(v, depth + 1) for v in value)
    )


def _is_of_user(cls: type) -> bool:
    """Tell whether a class is the user's own, and no kind of function."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return cls.__module__.partition(".")[0] != _OURS and file is not None and is_user_file(file)


def _note(names: Iterable[str], *, is_ours: bool = False) -> None:
    """Remember what the user's modules are now, and whether they were imported for a recipe."""
    for name in names:
        if name in _imported or name.partition(".")[0] == _OURS:
            continue
        file, module = _file(name), sys.modules.get(name)
        if file is not None and module is not None and is_user_file(file):
            content = hashlib.sha256(file.read_bytes()).digest()
            _imported[name] = _Module(file, content, _containers(module, file.parent), is_ours)


def _forget_stale(folder: Path) -> None:
    """Remove from ``sys.modules`` what was imported for a recipe and is another file now, with all that was noted."""
    importlib.invalidate_caches()
    for name, module in _imported.items():
        try:
            stale = hashlib.sha256(module.file.read_bytes()).digest() != module.content
        except OSError:
            stale = True
        if stale or _displaced(name, module.file, folder):
            break
    else:
        return
    for name in _imported:  # whoever imported an edited module holds on to what it was
        sys.modules.pop(name, None)
    _imported.clear()
    _with.clear()


def _displaced(name: str, file: Path, folder: Path) -> bool:
    """Tell whether the folder has a module of its own of that name."""
    top = name.partition(".")[0]
    here = folder.resolve()
    return not file.is_relative_to(here) and ((here / f"{top}.py").is_file() or (here / top / "__init__.py").is_file())


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


@lru_cache(maxsize=256)
def _package(top: str) -> bytes:
    """Return name, version and file list, with hashes, of what installed a package of others; of large ones no list."""
    digest = hashlib.sha256(top.encode())
    for name in sorted(set(_distributions().get(top, ()))):
        with suppress(PackageNotFoundError):
            found = distribution(name)
            digest.update(f"{name} {found.version}\n".encode())
            for file in () if top in _KNOWN else sorted(found.files or (), key=str):
                if file.hash is not None and ".dist-info" not in str(file) and file.suffix != ".pyc":
                    digest.update(f"{file} {file.hash.value}\n".encode())
    return digest.digest()
