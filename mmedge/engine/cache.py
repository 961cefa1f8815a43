"""The cache of built engines: keyed by everything an engine depends on, verified, written atomically."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmedge.engine.build_parent import BuildReport, BuildResult
from mmedge.engine.cache_folder import checked_cache
from mmedge.engine.reach import may_serve
from mmedge.errors import ConfigError, EngineError
from mmedge.files import engine_cache, replacing
from mmedge.learn import learn

_log = logging.getLogger(__name__)


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan depends on; two equal keys may share an engine.

    Attributes:
        variant_sha256: Hash of the ONNX file.
        module: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: Its full version.
        compute_capability: What it is built for.
        device: Name of the GPU; ``"none"`` when built ahead of time.
        memory_gib: Its memory, rounded: the builder chooses by it.
        cuda: CUDA version of the driver; ``"none"`` when built ahead of time.
        profile: Shapes given to inputs.
        ranges: Least, usual and most shapes given to inputs.
        flags: Build options that change the plan.
    """

    variant_sha256: str
    module: str
    version: str
    compute_capability: str
    device: str
    memory_gib: int
    cuda: str
    profile: dict[str, tuple[int, ...]] = {}
    ranges: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {}
    flags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over all fields."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    @property
    def stem(self) -> str:
        """File name of the entry without its suffix; starts with the variant's hash."""
        return f"{self.variant_sha256[:16]}-{self.digest[:24]}"

    def describe(self) -> str:
        """The builder and its target in words."""
        device = "" if self.device == "none" else f" '{self.device}' {self.memory_gib} GiB, CUDA {self.cuda}"
        text = f"{self.module} {self.version} for {self.compute_capability}{device}"
        extra = [f"{name}={list(shape)}" for name, shape in self.profile.items()]
        extra += [f"{name}={list(least)} to {list(most)}" for name, (least, _, most) in self.ranges.items()]
        extra += self.flags
        return f"{text} ({', '.join(extra)})" if extra else text


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of running an engine on its golden inputs on the device that it was built for.

    Attributes:
        error: Why it must not serve; None if it has passed.
        run_ms: Median time of a run; None if it has failed.
    """

    error: str | None = None
    run_ms: float | None = None


class Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies beside a plan."""

    schema: str = "mmedge.engine/1"
    key: EngineKey
    plan_sha256: str
    plan_bytes: int
    build: BuildReport
    verdict: Verdict | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it must not serve: it has failed its self-test."""
        return self.verdict is not None and self.verdict.error is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheEntry:
    """A verified plan in the cache."""

    plan_path: Path
    build: BuildReport
    verdict: Verdict | None = None


class EngineCache:
    """Built engines on disk.

    Args:
        folder: Where; None takes ``engine_cache()``. Made if missing.

    Raises:
        ConfigError: If the folder cannot be written, or others may write there.

    Example:
        >>> cache = EngineCache(Path("/tmp/engines"))  # doctest: +SKIP
        >>> cache.get(key) or cache.put(key, build_engine(...))  # doctest: +SKIP
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = engine_cache() if folder is None else folder
        try:
            checked_cache(self.folder)
            with self._locked(exclusive=False), tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"the engine cache cannot be written: {error.strerror}",
                where=str(self.folder),
                fix="make the folder writable, or set MMEDGE_CACHE to one that is",
            ) from error

    def get(self, key: EngineKey) -> CacheEntry | None:
        """Return the verified engine of ``key``; None, with the reason logged, if it must be built.

        Args:
            key: What is needed.

        Returns:
            The entry, or None if there is none, or it is damaged, or was built for something else.
        """
        plan_path, sidecar_path = self.plan_path(key), self._sidecar(key)
        with self._locked(exclusive=False):
            if not sidecar_path.exists():
                if (other := self.explain_miss(key)) is not None:
                    _log.warning("%s", other)
                return None
            problem = None
            try:
                sidecar = msgspec.json.decode(sidecar_path.read_bytes(), type=learn(Sidecar))
                if sidecar.key == key and sidecar.is_refused and not plan_path.exists():
                    _log.info("the engine %s was built before, and refused: %s", plan_path, sidecar.verdict)
                    return None
                with plan_path.open("rb") as plan:
                    found = _sha256(plan.read())
            except (OSError, msgspec.MsgspecError) as error:
                problem = str(error)
            else:
                if sidecar.key != key:
                    problem = "its key differs"
                elif found != sidecar.plan_sha256:
                    problem = "its hash differs"
        if problem is not None:
            _log.warning("cached engine %s is damaged (%s); rebuilding", plan_path, problem)
            return None
        return CacheEntry(plan_path=plan_path, build=sidecar.build, verdict=sidecar.verdict)

    def find(self, key: EngineKey) -> EngineKey:
        """Return the key of an engine that may serve where ``key`` is asked for: its own, or one that reaches as far.

        Those are engines for newer versions of TensorRT or for other GPUs, as they were built; the newest of them.
        """
        if self._sidecar(key).exists():
            return key
        found = [other for other in self._of_variant(key) if may_serve(other, key)]
        return found[-1] if found else key

    def peek(self, key: EngineKey) -> Sidecar | None:
        """Return what is said of the engine of ``key``, None if there is none; the plan itself is not verified.

        Of one that was refused there is no plan, and the verdict says why.
        """
        try:
            sidecar = msgspec.json.decode(self._sidecar(key).read_bytes(), type=learn(Sidecar))
        except (OSError, msgspec.MsgspecError):
            return None
        return sidecar if sidecar.key == key and (sidecar.is_refused or self.plan_path(key).exists()) else None

    def note(self, key: EngineKey, verdict: Verdict) -> None:
        """Note what came of running an engine, for the choice among precisions; a cache that is full forgets it."""
        path = self._sidecar(key)
        try:
            with self._locked(exclusive=True):
                sidecar = msgspec.json.decode(path.read_bytes(), type=learn(Sidecar))
                if sidecar.verdict == verdict:
                    return
                self._write(path, msgspec.structs.replace(sidecar, verdict=verdict))
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("the verdict of cached engine %s is not noted: %s", path, error)

    def discard(self, key: EngineKey) -> None:
        """Remove an engine that turned out to be wrong, so that it is built again; idempotent."""
        try:
            with self._locked(exclusive=True):
                self._sidecar(key).unlink(missing_ok=True)  # without it there is no entry
                self.plan_path(key).unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(
                f"a wrong engine cannot be removed from the cache: {error.strerror}",
                where=str(self.plan_path(key)),
                fix="remove it by hand, or set MMEDGE_CACHE to another folder",
            ) from error

    def timing_path(self, key: EngineKey) -> Path:
        """Where the builder's measurements are kept that later builds for the same device start from."""
        device = hashlib.sha256(f"{key.device} {key.memory_gib}".encode()).hexdigest()[:8]
        return self.folder / f"timing-{key.module}-{key.version}-{key.compute_capability}-{device}.bin"

    def put(self, key: EngineKey, build: BuildResult, verdict: Verdict | None = None) -> CacheEntry:
        """Publish a built engine; readers see all of it or nothing.

        Args:
            key: What it was built for.
            build: The plan and its report.
            verdict: What came of running it, where it was run.

        Returns:
            The entry.

        Raises:
            EngineError: If it cannot be written.
        """
        sidecar = _described(key, build, verdict)
        try:
            with self._locked(exclusive=True):
                with replacing(self.plan_path(key)) as file:
                    file.write(build.plan)
                self._write(self._sidecar(key), sidecar)
        except OSError as error:
            raise EngineError(
                f"the built engine cannot be saved: {error.strerror}",
                where=str(self.folder),
                fix="free disk space, or set MMEDGE_CACHE to another folder",
            ) from error
        return CacheEntry(plan_path=self.plan_path(key), build=sidecar.build, verdict=verdict)

    def refuse(self, key: EngineKey, build: BuildResult, verdict: Verdict) -> None:
        """Note why a built engine is not published, so that it is not built at every start; a full cache forgets it."""
        try:
            with self._locked(exclusive=True):
                self.plan_path(key).unlink(missing_ok=True)
                self._write(self._sidecar(key), _described(key, build, verdict))
        except OSError as error:
            _log.warning("that engine %s was refused is not noted: %s", self.plan_path(key), error)

    def log_path(self, key: EngineKey) -> Path:
        """Where the builder's log of ``key`` is kept."""
        return self.folder / f"{key.stem}.log"

    def explain_miss(self, key: EngineKey) -> str | None:
        """Name both sides when the same variant was built for something else; None if it never was.

        Args:
            key: What is needed.

        Returns:
            One sentence, or None.
        """
        built = [
            other
            for other in self._of_variant(key)
            if (other.profile, other.ranges) == (key.profile, key.ranges) and other != key
        ]
        if not built:
            return None
        return f"the cached engine was built by {built[-1].describe()}; this is {key.describe()}: rebuilding"

    def _of_variant(self, key: EngineKey) -> list[EngineKey]:
        """Return the keys of what was built of a variant, the newest last."""
        return [sidecar.key for sidecar in _sidecars(self.folder, key.variant_sha256)]

    @staticmethod
    def _write(path: Path, sidecar: Sidecar) -> None:
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(sidecar), indent=1))

    def plan_path(self, key: EngineKey) -> Path:
        """Where the plan of ``key`` is kept."""
        return self.folder / f"{key.stem}.plan"

    def _sidecar(self, key: EngineKey) -> Path:
        return self.folder / f"{key.stem}.json"

    @contextmanager
    def _locked(self, *, exclusive: bool) -> Iterator[None]:
        # Plan and sidecar are two files; the lock keeps a reader from seeing one of each.
        with (self.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield


def timed_engine(variant_sha256: str) -> Sidecar | None:
    """Return what is said of the newest engine of a network that was run here; None of nothing. Nothing is loaded."""
    try:
        found = _sidecars(engine_cache(), variant_sha256)
    except (ConfigError, OSError):  # whoever builds one will say so
        return None
    return next((s for s in reversed(found) if s.verdict is not None and s.verdict.run_ms is not None), None)


def _sidecars(folder: Path, variant_sha256: str) -> list[Sidecar]:
    """Return what is said of the engines of a variant, the newest last; one that cannot be read hides no other."""
    found = []
    for path in folder.glob(f"{variant_sha256[:16]}-*.json"):
        try:
            sidecar, when_ns = msgspec.json.decode(path.read_bytes(), type=learn(Sidecar)), path.stat().st_mtime_ns
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("unreadable entry in the engine cache: %s: %s", path, error)
            continue
        if sidecar.key.variant_sha256 == variant_sha256:
            found.append((when_ns, sidecar))
    return [sidecar for _, sidecar in sorted(found, key=lambda item: item[0])]


def _described(key: EngineKey, build: BuildResult, verdict: Verdict | None) -> Sidecar:
    plan = build.plan
    return Sidecar(key=key, plan_sha256=_sha256(plan), plan_bytes=len(plan), build=build.report(), verdict=verdict)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
