"""Streams: stages that hear each sample of a sound once, in steps of equal length."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle.manifest import AudioInput, Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.source import Constant, Seat, State
from mmedge.errors import BundleError


def is_stream(spec: StageSpec, inputs: Mapping[str, Input]) -> bool:
    """Tell whether a stage hears a stream: it has a state, ``every_ms`` and an input of sound."""
    sounds = any(isinstance(inputs.get(source), AudioInput) for source in spec.inputs.values())
    return spec.every_ms is not None and sounds and bool(spec.states)


def check_stream(spec: StageSpec, inputs: Mapping[str, Input], where: str) -> None:
    """Check what a stream must keep to, when a recipe is read and when a bundle is loaded.

    Args:
        spec: Of a stage that ``is_stream``.
        inputs: The seats.
        where: The stage's place in its file, for errors.

    Raises:
        BundleError: If the step is not a whole number of samples, is longer than the window, or another input, a rule
            ``on`` an input, or the background is wanted.
    """
    sound, seat, samples = what_is_heard(spec, inputs)
    for tensor, source in spec.sources.items():
        if source != Seat(sound) and not isinstance(source, (State, Constant)):
            raise BundleError(
                f"a stream that is fed by '{sound}' cannot be fed by '{source}' as well",
                where=f"{where}.inputs.{tensor}",
                fix="join the two in a later stage, or remove every_ms",
            )
    if spec.on is not None:
        raise BundleError(
            f"a stream runs when its sound arrives, so 'on' cannot be '{spec.on}'",
            where=f"{where}.on",
            fix="remove 'on'",
        )
    if abs(samples - round(samples)) > 1e-6:
        raise BundleError(
            f"{spec.every_ms:g} ms of '{sound}' are {samples:g} samples, which must be a whole number",
            where=f"{where}.every_ms",
            fix=f"choose an every_ms that fits the sample rate of {seat.sample_rate_hz} Hz",
        )
    if round(samples) > seat.samples:
        raise BundleError(
            f"a step of {round(samples)} samples does not fit into the window of {seat.samples}",
            where=f"{where}.every_ms",
            fix=f"lengthen the window_ms of '{sound}' or shorten the step",
        )
    if spec.mode == "async":
        raise BundleError("a stream cannot run in the background", where=f"{where}.mode", fix="remove 'mode'")


def least_samples(stages: Mapping[str, StageSpec], inputs: Mapping[str, Input]) -> dict[str, int]:
    """Return for each seat that a stream hears how many samples it needs before anything is heard: one step."""
    least: dict[str, int] = {}
    for spec in stages.values():
        if is_stream(spec, inputs):
            sound, _, samples = what_is_heard(spec, inputs)
            least[sound] = max(least.get(sound, 0), round(samples))
    return least


def what_is_heard(spec: StageSpec, inputs: Mapping[str, Input]) -> tuple[str, AudioInput, float]:
    """Return what a stream hears, its seat, and how many samples a step has."""
    sound = min(source for source in spec.inputs.values() if isinstance(inputs.get(source), AudioInput))
    seat = inputs[sound]
    assert isinstance(seat, AudioInput)
    assert spec.every_ms is not None
    return sound, seat, spec.every_ms * seat.sample_rate_hz / 1000
