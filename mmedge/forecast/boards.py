"""Boards and networks of which figures are public: ``boards.toml``, each with where it stands."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from mmedge.errors import ConfigError
from mmedge.learn import learn


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is public of a board; peaks are of its GPU, dense.

    Attributes:
        name: In full.
        models: What ``/proc/device-tree/model`` begins with.
        compute_capability: As ``SM87``.
        memory_gb: Shared by processor and GPU, in 10^9 bytes.
        bandwidth_gb_s: Of the memory.
        fp16_tflops: Peak of the tensor cores.
        why: How that follows from what is printed.
        source: Where it stands.
    """

    name: str
    models: tuple[str, ...]
    compute_capability: str
    memory_gb: float
    bandwidth_gb_s: float
    fp16_tflops: float
    why: str
    source: str


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Public times of a network in one precision.

    Attributes:
        name: Of the network.
        family: Networks that are built alike.
        precision: As in ``mmedge.types.Precision``.
        gmacs: Multiply-adds of a run, in 10^9; None where they are not public.
        ms: Key of a board -> time of a run.
        source: Where they stand.
    """

    name: str
    family: str
    precision: str
    gmacs: float | None = None
    ms: dict[str, float]
    source: str


class Desktop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory that the desktop of a board takes, in 10^9 bytes, and where that stands."""

    gb: float
    source: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    boards: dict[str, Board]
    desktop: Desktop
    networks: tuple[Known, ...]


@cache
def _file() -> _File:
    return msgspec.toml.decode(Path(__file__).with_name("boards.toml").read_bytes(), type=learn(_File))


def known_boards() -> dict[str, Board]:
    """Return the boards by their short names.

    Example:
        >>> list(known_boards())
        ['orin-nano', 'orin-nx', 'agx-orin', 'thor']
    """
    return dict(_file().boards)


def known_networks() -> tuple[Known, ...]:
    """Return the networks of which times are public."""
    return _file().networks


def desktop() -> Desktop:
    """Return what is known of the memory that a board's own system takes."""
    return _file().desktop


def board_named(name: str) -> str:
    """Return a short name that is known.

    Raises:
        ConfigError: If it is not.
    """
    if name not in _file().boards:
        raise ConfigError(
            f"nothing is known of a device '{name}'", where="--device", fix=f"use {', '.join(_file().boards)}"
        )
    return name


def board_of(machine: str) -> str | None:
    """Return the short name of the board that a machine says it is; None of any other machine.

    Example:
        >>> board_of("NVIDIA Jetson AGX Orin Developer Kit"), board_of("AMD EPYC")
        ('agx-orin', None)
    """
    found = (key for key, board in _file().boards.items() if machine.startswith(board.models))
    return next(found, None)
