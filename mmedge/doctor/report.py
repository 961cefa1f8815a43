"""The report of `mmedge doctor`: facts about the machine, never its name, user or serial numbers."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mmedge.doctor.kernels import Kernels
from mmedge.types import Evidence

Status: TypeAlias = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict; ``fix`` is what to type or change."""

    name: str
    status: Status
    detail: str
    fix: str | None = None


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An optional package; ``version`` is None when it is installed without metadata."""

    installed: bool
    version: str | None
    purpose: str
    install: str


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The computer.

    Attributes:
        system: Distribution, ``"Ubuntu 22.04.5 LTS"``.
        l4t: Jetson Linux release, ``"36.4.3"``; None elsewhere.
        board: Model of an embedded board.
        cores: Those this process may use.
    """

    system: str
    arch: str
    kernel: str
    cpu: str
    cores: int
    memory_bytes: int
    l4t: str | None
    board: str | None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU, or why none can be used; ``driver`` is the kernel module's version."""

    usable: bool
    problem: str | None = None
    driver: str | None = None
    name: str | None = None
    compute_capability: str | None = None
    memory_bytes: int | None = None
    integrated: bool | None = None
    cuda: str | None = None


class TensorRT(msgspec.Struct, frozen=True, kw_only=True):
    """The TensorRT that is used, or why there is none, and what is known about it on this platform."""

    module: str | None = None
    version: str | None = None
    caps: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    problem: str | None = None


class Camera(msgspec.Struct, frozen=True, kw_only=True):
    """A V4L2 device; ``held_by`` are the programs that have it open."""

    device: str
    name: str
    held_by: tuple[str, ...] = ()


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A Jetson, by its own files.

    Attributes:
        model: As its device tree says.
        module: Part number of the module, ``"p3767-0005"``.
        soc: ``"tegra234"`` (Orin) or ``"tegra264"`` (Thor).
        compute_capability: Of its GPU, ``"SM87"``.
        l4t: Jetson Linux release, ``"39.2.1"``.
        jetpack: Version of the package ``nvidia-jetpack``; None where it is not installed.
        memory_bytes: Shared by CPU and GPU.
        power_mode: Number of the mode that ``nvpmodel`` set.
        power_modes: Number -> name of each mode it knows.
        clocks_locked: Whether ``jetson_clocks`` holds the GPU's clock; None where that cannot be seen.
        python: Version of the system's Python, ``"3.12"``, which JetPack's TensorRT is for.
    """

    model: str
    module: str | None
    soc: str | None
    compute_capability: str | None
    l4t: str | None
    jetpack: str | None
    memory_bytes: int | None
    power_mode: int | None
    power_modes: dict[str, str]
    clocks_locked: bool | None
    python: str | None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a system say.

    Attributes:
        board: The Jetson; None on any other machine.
        tensorrt: Version (three numbers) -> who brought it.
        kernels: Libraries with GPU code of their own.
        cameras: V4L2 devices and who holds them.
        cuda: Versions of the CUDA toolkits, oldest first.
        cuda_on_path: Whether ``nvcc`` is found.
        read_only: Whether the root file system is mounted so.
        unix_s: What the clock says.
        unreadable: Files that are there and say nothing that is understood.
    """

    board: Board | None
    tensorrt: dict[str, tuple[str, ...]]
    kernels: tuple[Kernels, ...]
    cameras: tuple[Camera, ...]
    cuda: tuple[str, ...]
    cuda_on_path: bool
    read_only: bool
    unix_s: float
    unreadable: tuple[str, ...] = ()


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """The engine cache; ``folder`` has the home folder written as ``~``."""

    folder: str
    writable: bool
    engines: int
    bytes: int
    problem: str | None = None


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``collect`` found.

    Attributes:
        native_problem: Why the compiled core does not load; None when it does.
        evidence: The strongest evidence a run on this machine can give.
        commands: Program -> its version, ``""`` when it does not say, None when it is missing.
    """

    schema: str = "mmedge.doctor/1"
    mmedge: str
    native_problem: str | None
    python: str
    evidence: Evidence
    platform: Platform
    gpu: Gpu
    tensorrt: TensorRT
    packages: dict[str, Package]
    commands: dict[str, str | None]
    cameras: tuple[Camera, ...]
    cache: Cache
    machine: Machine
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    def to_json(self) -> bytes:
        """Return the report as one JSON document."""
        return msgspec.json.encode(self)
