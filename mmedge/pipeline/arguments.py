"""Checks of the arguments of a Pipeline, made before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
from msgspec.structs import replace

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Manifest
from mmedge.capture import parse
from mmedge.errors import ConfigError
from mmedge.ipc.limits import MAX_TEXT
from mmedge.learn import learn
from mmedge.pipeline.spec import PUSH
from mmedge.types import Backend, Description, Engines, Frame, Latency, Packet

MAX_DURATION_S = 1e7  # 116 days: far below what int64 ns hold


def check_capture(capture_ns: object, now_ns: int, where: str) -> None:
    """Raise ConfigError unless a capture time can be one of CLOCK_MONOTONIC."""
    if not isinstance(capture_ns, (int, np.integer)) or not 0 <= capture_ns <= now_ns + 1_000_000_000:
        raise ConfigError(
            f"capture time {capture_ns} is not on CLOCK_MONOTONIC (now {now_ns})",
            where=where,
            fix="use time.monotonic_ns()",
        )


def check_text(text: object, where: str) -> None:
    """Raise ConfigError unless ``text`` is a str that a text input takes."""
    if not isinstance(text, str):
        fix = "pass a str; an empty one takes the text back"
        raise ConfigError(f"text must be a str, got {type(text).__name__}", where=where, fix=fix)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"the text is not valid Unicode: {error}", where=where, fix="pass a valid str") from error
    if size > MAX_TEXT or "\0" in text:
        what = "has a NUL character" if size <= MAX_TEXT else f"is longer than {MAX_TEXT} bytes"
        raise ConfigError(f"the text {what}", where=where, fix="correct or shorten it")


def check_sources(inputs: object) -> dict[str, Address]:
    """Return the addresses of ``inputs``; raise ConfigError unless it is a mapping of names to URIs."""
    if not isinstance(inputs, Mapping):
        raise ConfigError(
            f"inputs must be a dict of names and URIs, got {type(inputs).__name__}",
            where="inputs",
            fix='{"image": "0"}',
        )
    found: dict[str, Address] = {}
    for name, uri in inputs.items():
        if not isinstance(name, str) or not isinstance(uri, (str, Address)):
            wanted = "'image': 'clip.mp4'"
            if isinstance(uri, (int, Path)):
                wanted = f"'{Address(str(name))}': '{Address(str(uri))}'"
            raise ConfigError(
                f"name and URI of an input must be strings, got {type(name).__name__} and {type(uri).__name__}",
                where="inputs",
                fix=f"{{{wanted}}}",
            )
        found[name] = Address(uri)
    return found


def share_sources(sources: Mapping[str, Address], inputs: Mapping[str, Input]) -> dict[str, Address]:
    """Return the sources, and for each input that shares another's and has none of its own, that one's.

    Example:
        >>> seats: dict[str, Input] = {"a": AudioInput(sample_rate_hz=8000, window_ms=10)}
        >>> seats["b"] = AudioInput(sample_rate_hz=16000, window_ms=10, shares="a")
        >>> sorted(share_sources({"a": Address("clip.mp4")}, seats))
        ['a', 'b']

    Raises:
        ConfigError: If what is pushed to an input would feed one of another sample rate as well: names both.
    """
    shared = {n: s.shares for n, s in inputs.items() if isinstance(s, (ImageInput, AudioInput)) and s.shares}
    shared = {n: of for n, of in shared.items() if of in sources and n not in sources}
    for name, of in shared.items():
        own, other = inputs[name], inputs[of]
        if sources[of] != PUSH or not isinstance(own, AudioInput) or not isinstance(other, AudioInput):
            continue
        if own.sample_rate_hz != other.sample_rate_hz:  # a file is resampled for each, a pushed block is not
            raise ConfigError(
                f"'{name}' takes {own.sample_rate_hz} Hz, but shares what is pushed to '{of}' at "
                f"{other.sample_rate_hz} Hz",
                where=f"input '{name}'",
                fix="push to both, without shares, or give both the same sample_rate_hz",
            )
    return {**sources, **{n: sources[of] for n, of in shared.items()}}


def check_sinks(sinks: object) -> None:
    """Raise ConfigError unless sinks are a list of names and objects that can be sinks."""
    if isinstance(sinks, str) or not isinstance(sinks, Sequence):
        raise ConfigError(
            f"sinks must be a list, got {type(sinks).__name__}",
            where="sinks",
            fix=f"sinks=[{sinks!r}]" if isinstance(sinks, str) else 'sinks=["console"]',
        )
    for sink in sinks:
        if isinstance(sink, (str, Address)):
            continue
        from mmedge.sinks import is_sink, sink_forms  # a run without sinks loads none

        if not is_sink(sink):
            raise ConfigError(
                f"{sink!r} is not a sink", where="sinks", fix=f"{sink_forms()}; or an object with write and close"
            )


CHOICES = {
    "latency": ("low", "balanced", "offline"),
    "isolation": ("auto", "process", "thread"),
    "results": ("auto", "latest", "all"),
    "backend": get_args(Backend),
    "engines": ("auto", "now", "wait"),
    "record_privacy": ("none", "blur", "picture"),
}


def check_choices(**options: str) -> None:
    """Raise ConfigError at the first option whose value is not one of its choices."""
    for name, value in options.items():
        if value not in CHOICES[name]:
            raise ConfigError(f"unknown {name} '{value}'", where=name, fix=f"use one of {', '.join(CHOICES[name])}")


def check_speed(speed: float) -> None:
    """Raise ConfigError unless files can be played that fast."""
    if not 0 < speed <= 1000:
        raise ConfigError(
            f"speed must be above 0 and at most 1000, got {speed}",
            where="speed",
            fix="use latency='offline' for top speed",
        )


def check_duration(duration_s: float | None) -> None:
    """Raise ConfigError unless ``duration_s`` is None or a time one can wait for."""
    if duration_s is not None and not 0 < duration_s <= MAX_DURATION_S:
        raise ConfigError(
            f"duration_s must be above 0 and at most {MAX_DURATION_S:g}, got {duration_s}",
            where="duration_s",
            fix="leave it out to run until the sources end",
        )


def described(packet: Packet, description: Description) -> Frame:
    """Return a pushed picture with its description, or raise ConfigError if it is none or the description has none."""
    where = f"input '{packet.stream}'"
    if not isinstance(packet, Frame):
        raise ConfigError("only an image has a description", where=where, fix="leave it out")
    try:
        checked = msgspec.convert(msgspec.to_builtins(description), learn(Description))
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(
            f"the description is not valid: {error}", where=where, fix="see mmedge.types.Description"
        ) from error
    return replace(packet, description=checked)


def has_device(inputs: Mapping[str, Address]) -> bool:
    """Tell whether a live device feeds an input."""
    return any(uri != PUSH and parse(uri).live for uri in inputs.values())


def chosen_results(
    results: Literal["auto", "latest", "all"], latency: Latency, inputs: Mapping[str, Address]
) -> Literal["latest", "all"]:
    """Return which results a slow reader gets: of live devices the latest, of files and pushes all."""
    if results != "auto":
        return results
    return "latest" if has_device(inputs) and latency != "offline" else "all"


def chosen_engines(engines: Engines, latency: Latency, record: str | Path | None) -> Literal["now", "wait"]:
    """Return whether a run starts before its engines are built: not where its answers are to be the same again.

    Raises:
        ConfigError: If a recorded run is to change its engines: it could not be replayed.
    """
    if engines == "now" and record is not None:
        raise ConfigError(
            "a recorded run cannot change its engines, or its replay would differ",
            where="engines",
            fix="use engines 'wait', or build them first: mmedge compile",
        )
    if engines != "auto":
        return engines
    return "wait" if latency == "offline" or record is not None else "now"


def chosen_isolation(
    isolation: Literal["auto", "process", "thread"], inputs: Mapping[str, Address], manifest: Manifest
) -> Literal["process", "thread"]:
    """Return where the runtime runs.

    Raises:
        ConfigError: If it is a process of its own, which cannot find a callable of the bundle.
    """
    if isolation == "auto":
        isolation = "process" if has_device(inputs) else "thread"
    for name, stage in manifest.stages.items():
        if isolation == "process" and (stage.callable or "").startswith("__main__:"):
            raise ConfigError(
                f"the callable '{stage.callable}' cannot be found by another process",
                where=f"stage '{name}'",
                fix="put it into a module of its own, or use isolation='thread'",
            )
    return isolation
