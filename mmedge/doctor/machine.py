"""What the files of a system say of it, read below a root folder: a recorded tree is read as a live board is."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmedge.doctor.kernels import Kernels, read_kernels
from mmedge.doctor.platforms import SOCS, parse_l4t, parse_version
from mmedge.doctor.report import Board, Camera, Machine

_MAX_BYTES = 1 << 16
_MAX_PACKAGES_BYTES = 64 << 20
_MAX_PROCESSES = 20_000
_PACKAGE_FOLDERS = ("usr/lib/python3*/dist-packages", "usr/local/lib/python3*/dist-packages")
_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/local/lib", "usr/local/tensorrt*/lib", "usr/local/cuda-*/lib64")
# What has kernels of its own: below a folder of Python packages, or of system libraries.
_WITH_KERNELS = ("onnxruntime/capi/libonnxruntime_providers_cuda.so", "torch/lib/libtorch_cuda.so")
_NVINFER = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)$")
_WHEEL = re.compile(r"(tensorrt(?:_cu\d+)?(?:_libs|_bindings)?)-(\d+\.\d+\.\d+)[\d.]*\.dist-info$")
_MODE = re.compile(r"^< *POWER_MODEL +ID=(\d{1,4}) +NAME=([\w.-]{1,64}) *>", re.MULTILINE)


def read_machine(root: Path, *, path: str, python_path: Sequence[str], unix_s: float) -> Machine:
    """Read a system's files. Whatever they hold, this does not fail: what is not understood is listed.

    Args:
        root: ``/``, or the folder of a recorded tree.
        path: The ``PATH`` to look for programs in.
        python_path: Folders of Python packages, besides those of the system.
        unix_s: What the clock says, seconds.

    Returns:
        What they say; no host name, no user name, no serial number.

    Example:
        >>> read_machine(Path("/"), path="/usr/bin", python_path=[], unix_s=1.8e9).unix_s
        1800000000.0
    """
    unreadable: list[str] = []
    folders = [*_glob(root, *_PACKAGE_FOLDERS), *(_below(root, folder) for folder in python_path if folder)]
    libraries = _glob(root, *_LIBRARY_FOLDERS)
    packages = _packages(root)
    return Machine(
        board=_board(root, packages, unreadable),
        tensorrt=_tensorrt(packages, folders, libraries),
        kernels=tuple(_kernels(folders, libraries)),
        cameras=read_cameras(root),
        cuda=tuple(sorted((folder.name[5:] for folder in _glob(root, "usr/local/cuda-*.*")), key=parse_version)),
        cuda_on_path=any(_below(root, f"{folder}/nvcc").is_file() for folder in path.split(":") if folder),
        read_only=_read_only(read_text(root / "proc/mounts") or ""),
        unix_s=unix_s,
        unreadable=tuple(unreadable),
    )


def read_text(path: Path) -> str | None:
    """Return the beginning of a small file, without the zero bytes of the device tree; None if it cannot be read."""
    return (_read(path, _MAX_BYTES) or b"").decode(errors="replace").replace("\0", "\n").strip() or None


def _read(path: Path, limit: int) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None  # a pipe or a device would be waited for
            return file.read(limit)
    except OSError:
        return None  # the file is there on some machines only; its absence is the answer


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _glob(root: Path, *patterns: str) -> list[Path]:
    try:
        return [found for pattern in patterns for found in sorted(root.glob(pattern)) if found.is_dir()]
    except OSError:
        return []  # a folder that may not be read


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []  # not there, or it may not be read


def _packages(root: Path) -> Mapping[str, str]:
    """Return the version of each package of Debian's that is installed and of interest here."""
    text = (_read(root / "var/lib/dpkg/status", _MAX_PACKAGES_BYTES) or b"").decode(errors="replace")
    found = {}
    for part in re.finditer(r"^Package: (nvidia-jetpack|nvidia-l4t-core|libnvinfer\d+)\n(.*\n)*?(?=\n|\Z)", text, re.M):
        version = re.search(r"^Version: (\S{1,80})$", part[0], re.M)
        if version and re.search(r"^Status: .* installed$", part[0], re.M):
            found[part[1]] = version[1]
    return found


def _board(root: Path, packages: Mapping[str, str], unreadable: list[str]) -> Board | None:
    tree = root / "proc/device-tree"
    compatible = read_text(tree / "compatible") or ""
    soc = re.search(r"nvidia,(tegra\d+)", compatible)
    release = read_text(root / "etc/nv_tegra_release")
    if soc is None and release is None:
        return None
    l4t = parse_l4t(release or "")
    if l4t is None:
        unreadable.append("/etc/nv_tegra_release")
        core = re.match(r"\d+\.\d+(\.\d+)?", packages.get("nvidia-l4t-core", ""))
        l4t = core[0] if core else None
    if soc is None:
        unreadable.append("/proc/device-tree/compatible")
    module = re.search(r"(p3\d{3}-\d{4})(?!.*p3\d{3}-\d{4})", compatible.splitlines()[0] if compatible else "")
    modes = {int(number): name for number, name in _MODE.findall(read_text(root / "etc/nvpmodel.conf") or "")}
    status = read_text(root / "var/lib/nvpmodel/status")
    mode = re.fullmatch(r"pmode:(\d{1,4})(\D.*)?", status or "")
    if status is not None and mode is None:
        unreadable.append("/var/lib/nvpmodel/status")
    memory = re.search(r"^MemTotal:\s+(\d{1,12}) kB", read_text(root / "proc/meminfo") or "", re.M)
    return Board(
        model=(read_text(tree / "model") or "unknown Jetson")[:120],
        module=module[1] if module else None,
        soc=soc[1] if soc else None,
        compute_capability=SOCS.get(soc[1]) if soc else None,
        l4t=l4t,
        jetpack=packages.get("nvidia-jetpack"),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        power_mode=int(mode[1]) if mode else None,
        power_modes={str(number): name for number, name in modes.items()},
        clocks_locked=_locked(root),
        python=_system_python(root),
    )


def _system_python(root: Path) -> str | None:
    try:
        name = (root / "usr/bin/python3").readlink().name
    except OSError:
        return None  # no Python of the system's, or no link to it
    return name.removeprefix("python") if re.fullmatch(r"python3\.\d{1,2}", name) else None


def _locked(root: Path) -> bool | None:
    """Tell whether ``jetson_clocks`` holds the GPU's clock: it sets the least frequency to the greatest."""
    for folder in _glob(root, "sys/class/devfreq/*.gpu", "sys/class/devfreq/*.ga10b", "sys/class/devfreq/gpu-gpc-0"):
        least, most = (read_text(folder / f"{end}_freq") or "" for end in ("min", "max"))
        if least.isdecimal() and most.isdecimal():
            return least == most
    return None


def _tensorrt(packages: Mapping[str, str], folders: list[Path], libraries: list[Path]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for name, version in packages.items():
        if name.startswith("libnvinfer"):
            found.setdefault(".".join(map(str, parse_version(version)[:3])), set()).add(f"apt {name}")
    for folder in folders:
        for name in _names(folder):
            if match := _WHEEL.fullmatch(name):
                found.setdefault(match[2], set()).add(f"Python package {match[1]}")
    for folder in libraries:
        for name in _names(folder):
            if match := _NVINFER.fullmatch(name):
                found.setdefault(match[1], set()).add(name)
    return {version: tuple(sorted(owners)) for version, owners in sorted(found.items())}


def _kernels(folders: list[Path], libraries: list[Path]) -> Iterator[Kernels]:
    files = [(folder / name, name) for folder in folders for name in _WITH_KERNELS]
    files += [(folder / name, name) for folder in libraries for name in _names(folder) if _NVINFER.fullmatch(name)]
    seen = set()
    for path, name in files:
        try:
            real = path.resolve()
        except (OSError, RuntimeError):
            continue  # links that go round
        if real.is_file() and real not in seen and (kernels := read_kernels(path, name)) is not None:
            seen.add(real)
            yield kernels


def _read_only(mounts: str) -> bool:
    """Tell whether the last thing mounted on ``/`` may only be read."""
    options = [fields[3] for line in mounts.splitlines() if len(fields := line.split()) >= 4 and fields[1] == "/"]
    return bool(options) and "ro" in options[-1].split(",")


def read_cameras(root: Path) -> tuple[Camera, ...]:
    """Return the V4L2 devices, and the programs that hold them as far as this user may see."""
    names = [name for name in _names(root / "sys/class/video4linux") if re.fullmatch(r"video\d{1,4}", name)]
    holders = _holders(root, {f"/dev/{name}" for name in names}) if names else {}
    return tuple(
        Camera(
            device=f"/dev/{name}",
            name=(read_text(root / "sys/class/video4linux" / name / "name") or "unnamed")[:80],
            held_by=tuple(sorted(holders.get(f"/dev/{name}", ()))),
        )
        for name in sorted(names, key=lambda name: (len(name), name))
    )


def _holders(root: Path, devices: set[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    processes = [name for name in _names(root / "proc") if name.isdecimal() and int(name) != os.getpid()]
    for process in processes[:_MAX_PROCESSES]:
        folder = root / "proc" / process
        for number in _names(folder / "fd"):
            try:
                target = str((folder / "fd" / number).readlink())
            except OSError:
                continue  # it was closed, or is no link
            if target in devices:
                program = read_text(folder / "comm") or "a program"
                found.setdefault(target, set()).add(f"{program[:32]} (process {process})")
    return found
