"""Networks of others are tried first: loaded and self-tested in a child, within bounds of time and memory.

A network is a program: a loop of 2^62 trips, or one operator that asks for all memory, cannot be told from its file. So
what was never run here runs first where its end ends nothing else. What has passed is remembered, so that the next
start pays nothing.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec

from mmedge.bundle import Bundle, Variant
from mmedge.engine.cpu_backends import CPU_BACKENDS, library_module, library_version
from mmedge.errors import BundleError, ConfigError, EngineError, MmedgeError
from mmedge.files import user_cache
from mmedge.fusion.tensors import Shapes
from mmedge.learn import learn
from mmedge.version import __version__

log = logging.getLogger("mmedge.fusion")
_CPU_S, _CPU_S_PER_MB = 4.0, 0.1  # of processor time, whatever else the machine does; and of the networks' files
_MB, _MB_PER_MB = 384, 6.0  # beyond what the process has before it loads anything
Progress = Callable[[str, float], None]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one trial; None is a bound in proportion to the size of the networks.

    Attributes:
        cpu_s: Seconds of processor time.
        memory_mb: Megabytes, beyond what Python and the backend's library take.
    """

    cpu_s: float | None = None
    memory_mb: float | None = None

    def of(self, bundle: Bundle, indices: Iterable[int]) -> Limits:
        """Return the bounds for trying these variants of ``bundle``."""
        # What was packed to nothing is nothing: weights hardly shrink.
        packed = bundle.path.stat().st_size / 1e6 if bundle.path.is_file() else math.inf
        sizes = [bundle.network_bytes(bundle.manifest.variants[i].file) / 1e6 for i in indices]
        return Limits(
            cpu_s=_CPU_S + _CPU_S_PER_MB * min(sum(sizes), packed) if self.cpu_s is None else self.cpu_s,
            memory_mb=_MB + _MB_PER_MB * min(max(sizes, default=0.0), packed)
            if self.memory_mb is None
            else self.memory_mb,
        )


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to try, and within which bounds."""

    bundle: str
    manifest_sha256: str
    only: tuple[int, ...] | None
    known: Shapes
    allow: tuple[str, ...] | None
    backend: str
    cpu_s: float
    memory_mb: float


class Told(msgspec.Struct, frozen=True):
    """What a child says: what it is at, or a row of ``check_variants``."""

    text: str = ""
    share: float = 0.0
    row: dict[str, Any] | None = None


class Trial:
    """Which variants of a bundle may be loaded in this process.

    Args:
        bundle: An open bundle.
        limits: Bounds for what was not tried before.
    """

    def __init__(self, bundle: Bundle, limits: Limits | None = None) -> None:
        self._bundle, self._limits = bundle, limits or Limits()
        self._index = {id(variant): index for index, variant in enumerate(bundle.manifest.variants)}
        self._faults: dict[tuple[str, int], MmedgeError] = {}
        self._passed: set[tuple[str, int]] = set()

    def prepare(self, choices: Sequence[tuple[str, Variant]]) -> None:
        """Try variants in one child for each backend, unless all have passed before; what comes of it is kept."""
        for backend in dict.fromkeys(backend for backend, _ in choices):
            wanted = tuple(self._index[id(variant)] for own, variant in choices if own == backend)
            if not all(self._has_passed(backend, index) for index in wanted):
                self._try(backend, wanted, {})

    def check(self, backend: str, variant: Variant, known: Shapes) -> None:
        """Raise what came of trying a variant; try it now if that was not done yet.

        Args:
            backend: What it is to run on; what is to run on a GPU is tried on the CPU.
            variant: One of the bundle.
            known: Stage -> output -> shape and dtype, of the stages that are loaded.
        """
        backend = backend if backend in CPU_BACKENDS else CPU_BACKENDS[0]  # a GPU cannot be bounded
        index = self._index[id(variant)]
        if (backend, index) not in self._faults and not self._has_passed(backend, index):
            self._try(backend, (index,), known)
            if (backend, index) not in self._faults and (backend, index) not in self._passed:
                raise BundleError(
                    f"network '{variant.file}' could not be tried",
                    where=str(self._bundle.path),
                    fix="run `mmedge verify` on the bundle",
                )
        if (backend, index) in self._faults:
            raise self._faults[backend, index]

    def _has_passed(self, backend: str, index: int) -> bool:
        if (backend, index) not in self._passed and has_passed(_key(self._bundle, backend, index)):
            self._passed.add((backend, index))
        return (backend, index) in self._passed

    def _try(self, backend: str, indices: tuple[int, ...], known: Shapes) -> None:
        from mmedge.ipc.process import error_from

        for row in _run(self._bundle, indices, known, None, self._limits, None, backend):
            if row["fault"] is None:
                self._passed.add((backend, row["index"]))
            else:
                self._faults[backend, row["index"]] = error_from(row["fault"])


def verify_bundle(
    bundle: Bundle, progress: Progress | None = None, *, allow: Sequence[str] = (), limits: Limits | None = None
) -> list[dict[str, Any]]:
    """Run the golden self-test of every variant in a child; what passes is remembered.

    Args:
        bundle: An open bundle.
        progress: Called with a message and a share 0..1.
        allow: Modules whose functions the bundle may call: they are imported there, to see whether they fit.
        limits: Bounds of the whole.

    Returns:
        The rows of ``check_variants``.

    Raises:
        BundleError: If a network breaks the bounds.
        ConfigError: If a function that is allowed cannot be imported or does not fit.
    """
    return _run(bundle, None, {}, tuple(allow), limits or Limits(), progress)


def _run(
    bundle: Bundle,
    only: tuple[int, ...] | None,
    known: Shapes,
    allow: tuple[str, ...] | None,
    limits: Limits,
    progress: Progress | None,
    backend: str = "onnxruntime",
) -> list[dict[str, Any]]:
    if bundle.manifest.variants:
        library_version(backend)  # or the child would say that it is missing
    bounds = limits.of(bundle, range(len(bundle.manifest.variants)) if only is None else only)
    assert bounds.cpu_s is not None
    assert bounds.memory_mb is not None
    order = Order(
        bundle=str(bundle.path.absolute()),
        manifest_sha256=bundle.manifest_sha256,
        only=only,
        known=known,
        allow=allow,
        backend=backend,
        cpu_s=bounds.cpu_s,
        memory_mb=bounds.memory_mb,
    )
    rows: list[dict[str, Any]] = []
    now = ["network"]

    def take(body: bytes) -> None:
        told = msgspec.msgpack.decode(body, type=learn(Told))
        if told.row is not None:
            rows.append(told.row)
            if told.row["fault"] is None:
                note_passed(_key(bundle, backend, told.row["index"]))
        else:
            now[0] = told.text
            if progress is not None:
                progress(told.text, told.share)

    # With all that starts a process: what has passed needs none.
    from mmedge.fusion.bounded import run_bounded
    from mmedge.ipc.control import pack

    run_bounded(
        "mmedge.fusion.trial_child:main",
        pack(order),
        name="its self-test",
        cpu_s=bounds.cpu_s,
        memory_mb=bounds.memory_mb,
        take=take,
        over=lambda what: over(bundle.path, now[0], what, backend),
        modules=("mmedge.fusion.trial_child", library_module(backend)),
    )
    return rows


def over(path: str | Path, network: str, what: str, backend: str) -> MmedgeError:
    """Return the error of a network that breaks its bounds: the bundle's fault, but that of a backend beside others."""
    if backend != CPU_BACKENDS[0]:
        return EngineError(f"{network} {what}", where=f"{path} on {backend}", fix=f"use backend '{CPU_BACKENDS[0]}'")
    return BundleError(
        f"{network} {what}",
        where=str(path),
        fix="do not use this bundle, unless you know where it is from: then verify it once with wider bounds, "
        f"mmedge verify {quote(str(path))} --cpu-s 60 --memory-mb 4000",
    )


def _key(bundle: Bundle, backend: str, index: int) -> str:
    # The manifest holds the hashes of all members, so its own stands for the content of the bundle.
    text = "\n".join((bundle.manifest_sha256, str(index), __version__, backend, library_version(backend)))
    return hashlib.sha256(text.encode()).hexdigest()


def _folder() -> Path | None:
    """Return the private folder of what has passed, None if there can be none: then nothing is remembered."""
    try:
        folder = user_cache("passed")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    except (ConfigError, OSError) as error:
        log.info("what passes its self-test is not remembered: %s", error)
        return None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        log.warning("%s belongs to others, or others may write there: nothing in it is believed", folder)
        return None
    return folder


def has_passed(key: str) -> bool:
    """Return whether what has this key has passed its trial before."""
    folder = _folder()
    return folder is not None and (folder / key).is_file()


def note_passed(key: str) -> None:
    """Note that what has this key has passed its trial."""
    folder = _folder()
    if folder is None:
        return
    try:
        (folder / key).touch(mode=0o600)
    except OSError as error:
        log.info("that a trial has passed is not remembered: %s", error)
