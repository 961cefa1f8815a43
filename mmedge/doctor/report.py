"""The report of `mmedge doctor`: facts about the machine, never its name, user or serial numbers."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

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
    """A V4L2 device."""

    device: str
    name: str


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
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    def to_json(self) -> bytes:
        """Return the report as one JSON document."""
        return msgspec.json.encode(self)
