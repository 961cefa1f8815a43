"""What the CPU forms of a network took on this machine, kept beside the engines until machine or libraries change."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

import msgspec

from mmedge.engine.cpu import cpu_name, instruction_sets
from mmedge.errors import ConfigError
from mmedge.files import engine_cache, replacing
from mmedge.learn import learn

_log = logging.getLogger(__name__)
LEAST_GAIN = 0.05
"""Share of FP32's time that another form must save to serve in its place: what differs less may differ by chance."""


class Timed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One form of a network on one backend.

    Attributes:
        backend: Its name.
        version: Of its library.
        precision: As in ``mmedge.types.Precision``.
        file: Member of the bundle.
        sha256: Its hash.
        run_ms: Median time of a run on one thread; None if it must not serve.
        error: Why it must not serve: it has failed its self-test, or cannot be loaded; None if it may.
    """

    backend: str
    version: str
    precision: str
    file: str
    sha256: str
    run_ms: float | None = None
    error: str | None = None


class TimingKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the choice among forms depends on.

    Attributes:
        forms: Backend, its version and the file's hash, of each.
        profile: Shapes given to inputs.
        cpu: Name of the processor.
        instructions: Instruction sets that kernels choose by.
    """

    forms: tuple[tuple[str, str, str], ...]
    profile: dict[str, tuple[int, ...]] = {}
    cpu: str = msgspec.field(default_factory=cpu_name)
    instructions: tuple[str, ...] = msgspec.field(default_factory=instruction_sets)

    @property
    def stem(self) -> str:
        """File name of the record without its suffix; its first part tells the network."""
        own = hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
        return f"{_first({sha for _, _, sha in self.forms})}-{own[:24]}"


def _first(hashes: set[str]) -> str:
    return f"cpu-{hashlib.sha256(chr(10).join(sorted(hashes)).encode()).hexdigest()[:16]}"


class Timings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of a network's forms, in the order in which they serve where nothing was.

    Attributes:
        key: What it holds for.
        forms: All that were tried.
    """

    schema: str = "mmedge.timings/1"
    key: TimingKey
    forms: tuple[Timed, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Places in ``forms`` of those that may serve: the fastest first, unless it gains too little.

        It gains over FP32, and over the best form on the first backend: one more library takes memory and time to load.
        """
        times = {place: form.run_ms for place, form in enumerate(self.forms) if form.run_ms is not None}
        order = sorted(times, key=times.__getitem__)
        home = [place for place in order if self.forms[place].backend == self.forms[0].backend]
        plain = [place for place in times if self.forms[place].precision == "fp32"]
        for near in (*plain[:1], *home[:1]):
            if times[order[0]] > (1 - LEAST_GAIN) * times[near]:
                order.remove(near)
                order.insert(0, near)
                break
        return tuple(order)

    def why(self) -> str:
        """Say in one sentence what serves and why."""
        order = [self.forms[place] for place in self.order]
        said = [f"{form.backend} {form.precision} {form.run_ms:.3f} ms" for form in order]
        if any((form.run_ms or 0.0) < (order[0].run_ms or 0.0) for form in order[1:]):
            said.append(f"less than {LEAST_GAIN:.0%} is not worth leaving it for")
        said += [f"{form.backend} {form.precision}: {form.error}" for form in self.forms if form.run_ms is None]
        return "; ".join(said)


def kept_timings(key: TimingKey) -> Timings | None:
    """Return what was measured for ``key`` before; None, with the reason logged, where nothing holds any more."""
    try:
        folder = engine_cache()
        found = msgspec.json.decode((folder / f"{key.stem}.json").read_bytes(), type=learn(Timings))
    except FileNotFoundError:
        for other in sorted(folder.glob(f"{key.stem.rpartition('-')[0]}-*.json")):
            _log.info("%s was measured on another machine or by other libraries: run `mmedge compile` again", other)
        return None
    except (ConfigError, OSError, msgspec.MsgspecError) as error:
        _log.warning("what was measured on this CPU cannot be read: %s", error)
        return None
    return found if found.key == key else None


def timed_before(hashes: Iterable[str]) -> Timings | None:
    """Return what was measured last of a network's forms on this processor, by whatever libraries; None of nothing.

    Args:
        hashes: SHA-256 of the forms' files.
    """
    own, newest = (cpu_name(), instruction_sets()), -1
    found: Timings | None = None
    try:
        paths = list(engine_cache().glob(f"{_first(set(hashes))}-*.json"))
    except (ConfigError, OSError):  # whoever measures will say so
        return None
    for path in paths:
        try:
            at, record = path.stat().st_mtime_ns, msgspec.json.decode(path.read_bytes(), type=learn(Timings))
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("what was measured on this CPU cannot be read: %s", error)
            continue
        if at > newest and (record.key.cpu, record.key.instructions) == own:
            found, newest = record, at
    return found


def keep_timings(timings: Timings) -> None:
    """Keep what was measured, until the next time.

    Raises:
        ConfigError: If it cannot be written.
    """
    folder = engine_cache()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(folder / f"{timings.key.stem}.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(timings), indent=1))
    except OSError as error:
        raise ConfigError(
            f"what was measured cannot be kept: {error.strerror}",
            where=str(folder),
            fix="make the folder writable, or set MMEDGE_CACHE to one that is",
        ) from error
