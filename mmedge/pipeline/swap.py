"""The update of the bundle in a running pipeline: what is asked for, what must fit, what has come of it."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from mmedge.bundle.manifest import AudioInput, ImageInput, Manifest, TextInput
from mmedge.bundle.references import count_told
from mmedge.errors import ConfigError, MmedgeError
from mmedge.pipeline.check import check_run
from mmedge.pipeline.spec import RunSpec

TRIAL = 30  # results: a second of a camera
MAX_TRIAL, MAX_TIMEOUT_S = 100_000, 86_400.0
_START = "or end the run and start it with the new bundle"
# What the stages alone read of a seat; on everything else capture, synchroniser, recordings and pushes depend.
_FREE: dict[type, tuple[str, ...]] = {
    ImageInput: ("size", "fit", "mean", "std", "frame", "reduce", "layout"),
    AudioInput: ("features", "gain"),
    TextInput: ("max_tokens", "tokenizer", "pad"),
}


class SwapOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Another bundle is to take the place of the one that runs.

    Attributes:
        bundle: Its path.
        manifest_sha256: Hash of its manifest, as it was when it was checked: another is not run.
        trial: So many results it must give without a failure of its stages, before the old one is let go.
        timeout_s: All that must be over after this many seconds, or the old one stays.
    """

    bundle: str
    manifest_sha256: str
    trial: int = TRIAL
    timeout_s: float


class BundleSwap(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that has taken the place of another one between two triggers, and has passed its trial.

    Attributes:
        name: Its name.
        manifest_sha256: Hash of its manifest.
        before: Name of the one that ran until then.
        before_sha256: Hash of its manifest.
        kept: Stages that are the same in both, and went on with all that they knew.
        anew: Stages that began with empty states.
        smoothing_anew: Tasks whose smoothing began anew.
        t_ns: When it took over, on CLOCK_MONOTONIC.
        load_s: Seconds for loading and self-test, beside the old one.
        trial: Results that it has given since, before the old one was let go.
    """

    name: str
    manifest_sha256: str
    before: str
    before_sha256: str
    kept: tuple[str, ...]
    anew: tuple[str, ...]
    smoothing_anew: tuple[str, ...]
    t_ns: int
    load_s: float
    trial: int


def check_limits(trial: int, timeout_s: float) -> None:
    """Raise ConfigError unless the limits of a swap are in their ranges."""
    if not 0 <= trial <= MAX_TRIAL:
        raise ConfigError(
            f"trial must be 0 to {MAX_TRIAL} results, got {trial}", where="trial", fix=f"leave it out: it is {TRIAL}"
        )
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(
            f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}, got {timeout_s}",
            where="timeout_s",
            fix="leave it out: it is 120",
        )


def check_run_can_swap(spec: RunSpec) -> None:
    """Raise ConfigError if a run of this kind keeps its bundle."""
    if spec.record is not None:
        raise ConfigError(
            "a recorded run cannot change its bundle, or its replay would differ",
            where="swap",
            fix="run without record, or end the run and start it with the new bundle",
        )
    if spec.latency == "offline":
        raise ConfigError(
            "latency 'offline' answers a file with one bundle from start to end",
            where="swap",
            fix="use latency 'low' or 'balanced', or run the file again with the new bundle",
        )


def check_swap(spec: RunSpec, old: Manifest, new: Manifest) -> None:
    """Raise ConfigError, naming the key, unless ``new`` can take the place of ``old`` in a run that goes on.

    Args:
        spec: Of the run.
        old: The manifest of what runs.
        new: The manifest of what is to run.
    """
    if list(old.inputs) != list(new.inputs):
        _refuse("inputs", f"the inputs are {list(new.inputs)}, those of the running bundle {list(old.inputs)}")
    for name, seat in old.inputs.items():
        other = new.inputs[name]
        if type(other) is not type(seat):
            _refuse(f"inputs.{name}.modality", f"input '{name}' is of another modality")
        for key in seat.__struct_fields__:
            ours, theirs = getattr(seat, key), getattr(other, key)
            if ours != theirs and key not in _FREE.get(type(seat), ()):
                _refuse(f"inputs.{name}.{key}", f"input '{name}' has {key} {theirs}, in the running bundle {ours}")
    for key in ("sync", "missing"):
        if getattr(old, key) != getattr(new, key):
            _refuse(key, f"'{key}' differs from that of the running bundle")
    kinds = {name: task.kind for name, task in old.tasks.items()}
    if kinds != {name: task.kind for name, task in new.tasks.items()}:
        given = ", ".join(f"{name} ({task.kind})" for name, task in new.tasks.items())
        running = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        _refuse("tasks", f"the tasks are {given or 'none'}, those of the running bundle {running or 'none'}")
    if old.outputs != new.outputs or count_told(old) != count_told(new):
        _refuse("outputs", "the outputs that results tell differ in name or size from those of the running bundle")
    check_run(msgspec.structs.replace(spec, record=None), new)


def run_ended() -> MmedgeError:
    """Return the error of a swap whose run has ended before it was over."""
    return MmedgeError("the run has ended", where="swap", fix="start a run with the new bundle")


def _refuse(key: str, message: str) -> NoReturn:
    raise ConfigError(
        message, where=f"manifest.json: $.{key}", fix=f"export the new bundle with what the running one has, {_START}"
    )
