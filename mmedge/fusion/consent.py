"""Consent to code: which functions a bundle may name, and where their modules are looked for.

A bundle comes from anywhere, and a module that is imported has run. What is listed in ``mmedge.fusion.rules`` runs by
itself; any other module is imported only if the user has allowed it by name, or a project of the user's own has.
"""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Annotated, Literal

import msgspec

from mmedge.bundle.manifest import Manifest
from mmedge.errors import ConfigError, shortage
from mmedge.files import changing_settings, user_config
from mmedge.fusion.rules import LISTED
from mmedge.learn import learn
from mmedge.plain import unsafe

PROJECT_FILE = "mmedge.toml"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MAX_BYTES, _MAX_PROJECTS = 1 << 20, 1000
_ours: dict[str, str] = {}  # module of a project, imported here -> the project's folder
_Module = Annotated[str, msgspec.Meta(pattern=rf"^{_MODULE.pattern}\Z")]


class _Callables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: tuple[_Module, ...] = ()


class _Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    callables: _Callables = _Callables()


class _Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: Literal["mmedge.projects/1"]
    folders: tuple[str, ...]


class Consent:
    """What the user allows a bundle to call.

    Args:
        allow: Modules, exactly as bundles name them (``pkg.mod``; a package does not bring its submodules along), and
            paths of ``mmedge.toml`` files of the user's own.
        bundle: Where the bundle lies: a project that the user has made or exported here (``remember``), and that
            holds the bundle or the working directory, counts as allowed. A ``mmedge.toml`` that merely lies there
            does not: it may have come with the bundle.

    Raises:
        ConfigError: If an entry is neither, or a file cannot be used.

    Example:
        >>> Consent(["my_package.rules"]).covers("my_package.rules:decide")
        True
        >>> Consent(["my_package"]).covers("my_package.rules:decide")
        False
        >>> Consent().covers("mmedge.fusion.rules:joint_of_two")
        True
    """

    def __init__(self, allow: Sequence[str] = (), bundle: Path | None = None) -> None:
        if isinstance(allow, str):
            raise ConfigError("allow must be a list of modules, got a str", where="allow", fix=f"allow=[{allow!r}]")
        projects = [Path(entry) for entry in allow if entry.endswith(".toml")]
        self._modules = {entry for entry in allow if not entry.endswith(".toml")}
        for entry in self._modules:
            if not _MODULE.fullmatch(entry):
                raise ConfigError(
                    f"'{entry}' is not a module", where="--allow-callable", fix="name it as in 'pkg.mod', no function"
                )
        if bundle is not None:
            projects += [folder / PROJECT_FILE for folder in _projects_of(bundle)]
        self._projects = {path.resolve().parent: read_project(path) for path in projects}

    def covers(self, target: str) -> bool:
        """Return whether the function ``target`` (``pkg.mod:name``) may be imported; imports nothing."""
        return target in LISTED or self._allows(target.partition(":")[0])

    def _allows(self, module: str) -> bool:
        return module in self._modules or any(module in allowed for allowed in self._projects.values())

    def projects_for(self, target: str) -> list[Path]:
        """Return the ``mmedge.toml`` files that allow the module of ``target``."""
        module = target.partition(":")[0]
        return [folder / PROJECT_FILE for folder, allowed in self._projects.items() if module in allowed]

    def check(self, target: str, stage: str) -> None:
        """Raise ConfigError unless ``target`` may be imported."""
        if not self.covers(target):
            raise ConfigError(
                f"the bundle needs code '{target}', which was not allowed",
                where=f"stage '{stage}': callable",
                fix=how_to_allow([target]),
            )

    def load(self, module: str) -> ModuleType:
        """Import a module that is allowed: from its project's folder, else where Python finds installed packages.

        Raises:
            ConfigError: If it would come from the working directory, or another module has its name.
            ImportError: As the import itself does, and whatever else the module raises.
        """
        top = module.partition(".")[0]
        for folder, allowed in self._projects.items():
            spec = PathFinder.find_spec(top, [str(folder)]) if module in allowed else None
            if spec is None or spec.loader is None:
                continue
            _make_room(top, str(folder), spec.origin)
            if top not in sys.modules:
                sys.path.append(str(folder))  # last: what lies there replaces nothing that is installed
                _ours[top] = str(folder)
                sys.modules[top] = made = module_from_spec(spec)
                try:
                    spec.loader.exec_module(made)
                except BaseException:
                    _forget(top)
                    raise
            return import_module(module)
        self._refuse_working_directory(top)
        return import_module(module)

    def _refuse_working_directory(self, top: str) -> None:
        """Raise ConfigError if Python would find the module only since it looks into the working directory."""
        if top in sys.modules or "" not in sys.path:
            return
        found = find_spec(top)  # of a module without a dot: this imports nothing
        places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin or ""]
        if any(Path(place).parent == Path.cwd() for place in places if place):
            raise ConfigError(
                f"'{top}' lies in the working directory, which is not searched for code",
                where=str(Path.cwd()),
                fix=f"name its folder: PYTHONPATH={Path.cwd()}, or allow=['PROJECT/{PROJECT_FILE}']",
            )

    def owns(self, function: object, module: str) -> bool:
        """Return whether a function that an allowed module has is its own, or another allowed one's.

        What it has imported from elsewhere (``from os import system``) is not meant by the consent.
        """
        if not callable(function) or not hasattr(function, "__qualname__"):  # an object that the module has made
            return True
        home = getattr(function, "__module__", None)
        return home == module or (isinstance(home, str) and self._allows(home)) or f"{home}:" in _LISTED_MODULES


def _make_room(top: str, folder: str, origin: str | None) -> None:
    """Forget a module of this name that another project has brought; raise ConfigError if it is from elsewhere."""
    known = sys.modules.get(top)
    if known is None or getattr(known, "__file__", None) == origin:
        return
    if top not in _ours:
        raise ConfigError(
            f"module '{top}' of the project is hidden by another one that is imported already",
            where=f"{folder}: {getattr(known, '__file__', None) or top}",
            fix="give it another name",
        )
    _forget(top)


def _forget(top: str) -> None:
    folder = _ours.pop(top)
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]


_LISTED_MODULES = {name.partition(":")[0] + ":" for name in LISTED}


def needed_code(manifest: Manifest, consent: Consent) -> dict[str, str]:
    """Return stage -> function of what a bundle calls and nobody has allowed; nothing is imported."""
    named = {name: stage.callable for name, stage in manifest.stages.items() if stage.callable is not None}
    return {name: target for name, target in named.items() if not consent.covers(target)}


def how_to_allow(targets: Iterable[str]) -> str:
    """Return what to type to have functions called: a project of the user's own that has their modules, or these."""
    wanted = dict.fromkeys(target.partition(":")[0] for target in targets)
    options = " ".join(f"--allow-callable {_project_with(module) or module}" for module in wanted)
    return f"if it is your own, or you have read it: {options} (Python: allow=[...])"


def _project_with(module: str) -> str | None:
    try:
        paths = [Path(folder) / PROJECT_FILE for folder in _known(user_config("projects.json"))]
        found = [path for path in paths if path.is_file() and module in read_project(path)]
    except ConfigError:  # it is a hint and no more
        return None
    return quote(str(found[-1])) if found else None


def check_consent(manifest: Manifest, consent: Consent) -> None:
    """Raise ConfigError if a bundle calls what nobody has allowed; nothing is imported."""
    for stage, target in needed_code(manifest, consent).items():
        consent.check(target, stage)


def read_project(path: Path) -> tuple[str, ...]:
    """Return the modules that a ``mmedge.toml`` allows.

    Raises:
        ConfigError: If it cannot be read, is malformed, or everybody may change it or its folder.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError("not a file", where=str(path), fix=f"name a {PROJECT_FILE}")
        if (info.st_mode | path.resolve().parent.stat().st_mode) & stat.S_IWOTH:
            raise ConfigError(
                "everybody on this machine may change what this project allows",
                where=str(path),
                fix=f"chmod o-w {path} {path.resolve().parent}",
            )
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES)
        return msgspec.toml.decode(raw, type=learn(_Project)).callables.allow
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path), fix="check the path") from error
    except (ValueError, RecursionError) as error:  # of TOML, UTF-8 and msgspec
        raise ConfigError(
            f"not a project's file: {error}", where=str(path), fix='write: [callables] allow = ["pkg.mod"]'
        ) from error


def project_text(modules: Iterable[str]) -> str:
    """Return the text of a new ``mmedge.toml``."""
    listed = ", ".join(f'"{module}"' for module in modules)
    return (
        "# Python modules that bundles of this project may call; they are looked for in this folder first.\n"
        f"[callables]\nallow = [{listed}]\n"
    )


def remember(folder: Path) -> None:
    """Note that the user has made, or runs code of, the project in ``folder``: its ``mmedge.toml`` counts from now on.

    Raises:
        ConfigError: If that cannot be written down, or the path is not UTF-8 or has a control character.
    """
    path = user_config("projects.json")
    own = str(folder.resolve())
    if unsafe(own) is not None:
        raise ConfigError(
            f"the project cannot be noted: its path has the character {unsafe(own)}",
            where=own,
            fix="give its folder another name",
        )
    with changing_settings(path, "the project cannot be noted") as file:
        others = [name for name in _known(path) if name != own]
        known = _Known(schema="mmedge.projects/1", folders=(*others[-(_MAX_PROJECTS - 1) :], own))
        file.write(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")


def _projects_of(bundle: Path) -> list[Path]:
    """Return the user's own projects that hold the bundle or the working directory, the innermost first."""
    try:
        path = user_config("projects.json")
    except ConfigError:  # without a home folder there are none
        return []
    known = set(_known(path))
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody has deleted it
        here = Path("/")
    around = dict.fromkeys((*bundle.resolve().parents, here, *here.parents))
    return [folder for folder in around if str(folder) in known and (folder / PROJECT_FILE).is_file()]


def _known(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=learn(_Known)).folders
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        if shortage(error) is not None:
            raise  # the list is in order: there is no descriptor or memory left to read it
        raise ConfigError(
            f"the list of your projects cannot be read: {error}", where=str(path), fix="correct it, or remove it"
        ) from error
