"""What only a board can show: each line says what an attestation still lacks of it, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from mmedge.errors import ConfigError
from mmedge.learn import learn

SOAK_S = 180.0
_GROWN_MIB = 16.0  # of the runtime in a soak: more is a leak until somebody explains it


class _Verdict(msgspec.Struct, frozen=True):
    name: str
    status: str
    detail: str


class _Model(msgspec.Struct, frozen=True):
    model: str


class _Machine(msgspec.Struct, frozen=True):
    board: _Model | None


class _Doctor(msgspec.Struct, frozen=True):
    machine: _Machine | None = None
    checks: tuple[_Verdict, ...] = ()


class _Engine(msgspec.Struct, frozen=True):
    stage: str
    precision: str
    error: str | None
    run_ms: float | None


class _Compile(msgspec.Struct, frozen=True):
    engines: tuple[_Engine, ...] = ()
    problem: str | None = None


class _Golden(msgspec.Struct, frozen=True):
    stage: str
    target: str
    precision: str
    error: str | None


class _Process(msgspec.Struct, frozen=True):
    name: str
    grown_mib: float | None = None


class _Conditions(msgspec.Struct, frozen=True):
    duration_s: float = 0.0
    inputs: dict[str, Any] | str = {}
    temperature_c: dict[str, float] = {}
    clock_mhz: dict[str, tuple[float, float]] = {}
    throttled: dict[str, int] = {}


class _Rate(msgspec.Struct, frozen=True):
    due: int = 0
    answered: int = 0


class _Bench(msgspec.Struct, frozen=True):
    evidence: str
    valid: bool = True
    problem: str | None = None
    conditions: _Conditions = _Conditions()
    processes: tuple[_Process, ...] = ()
    rate: _Rate = _Rate()


class _Sweep(msgspec.Struct, frozen=True):
    valid: bool
    knee_hz: float | None


class _Stream(msgspec.Struct, frozen=True):
    modality: Literal["image", "audio"]
    packets: int


class _Device(msgspec.Struct, frozen=True):
    uri: str
    error: dict[str, Any] | None = None
    streams: tuple[_Stream, ...] = ()


class _Calibration(msgspec.Struct, frozen=True):
    offset_ns: int | None = None
    problem: str | None = None


class _OnBoard(msgspec.Struct, frozen=True):
    devices: tuple[_Device, ...] = ()
    calibration: _Calibration = _Calibration()
    soak: _Bench | None = None


class _Attested(msgspec.Struct, frozen=True):
    doctor: _Doctor
    compile: _Compile
    golden: tuple[_Golden, ...]
    bench: _Bench
    sweep: _Sweep | None
    board: _OnBoard = _OnBoard()


class Line(NamedTuple):
    """A line of the checklist: its name, what it shows, what is missing (None: shown), what to type."""

    name: str
    what: str
    missing: str | None
    fix: str


class _Item(NamedTuple):
    name: str
    what: str
    lacks: Callable[[_Attested], str | None]
    fix: str


def _board(seen: _Attested) -> str | None:
    if model_of(seen) is None:
        return "this machine is no Jetson"
    failed = [f"{check.name}: {check.detail}" for check in seen.doctor.checks if check.status == "fail"]
    return "; ".join(failed) or None


def _engines(seen: _Attested) -> str | None:
    if not seen.compile.engines:
        return seen.compile.problem or "no engine was built"
    bad = [
        f"{engine.stage} {engine.precision}: {engine.error or 'built, but not run'}"
        for engine in seen.compile.engines
        if engine.error or engine.run_ms is None
    ]
    return "; ".join(bad) or None


def _golden(seen: _Attested) -> str | None:
    bad = [f"{row.stage} {row.target} {row.precision}: {row.error}" for row in seen.golden if row.error]
    return "; ".join(bad) or (None if seen.golden else "no network was tested")


def _of_a_jetson(report: _Bench) -> str | None:
    if not report.valid:
        return report.problem or "its figures are not valid"
    return None if report.evidence == "jetson" else f"its evidence is '{report.evidence}': no engine ran on a Jetson"


def _knee(seen: _Attested) -> str | None:
    if seen.sweep is None:
        return "no rates were tried"
    return None if seen.sweep.valid and seen.sweep.knee_hz is not None else "no knee was found in valid conditions"


def _delivers(modality: str, schemes: tuple[str, ...]) -> Callable[[_Attested], str | None]:
    def lacks(seen: _Attested) -> str | None:
        devices = [device for device in seen.board.devices if device.uri.startswith(schemes)]
        if any(stream.modality == modality and stream.packets for device in devices for stream in device.streams):
            return None
        said = [f"{device.uri}: {device.error.get('message')}" for device in devices if device.error]
        return "; ".join(said) or "no such device was found"

    return lacks


def _one_clock(seen: _Attested) -> str | None:
    found = seen.board.calibration
    return None if found.offset_ns is not None else found.problem or "no camera and microphone were calibrated"


def _live(seen: _Attested) -> str | None:
    given = seen.board.soak.conditions.inputs if seen.board.soak else {}
    inputs = [str(uri) for uri in given.values()] if isinstance(given, dict) else []  # a text says what was generated
    if not any(uri.startswith(("v4l2://", "/dev/video", "csi://")) or uri.isdigit() for uri in inputs):
        return "the soak ran on generated pictures"
    return None if any(uri.startswith("mic://") for uri in inputs) else "the soak ran without a microphone"


def _soak(seen: _Attested) -> str | None:
    soak = seen.board.soak
    if soak is None or soak.conditions.duration_s < SOAK_S:
        return f"{0 if soak is None else soak.conditions.duration_s:g} of {SOAK_S:g} s"
    if (lost := soak.rate.due - soak.rate.answered) > 0:
        return f"{lost} of {soak.rate.due} triggers were dropped"
    grown = [p.grown_mib for p in soak.processes if p.name != "user" and p.grown_mib is not None]
    if not grown:
        return "how its processes grew was not measured"
    if sum(grown) > _GROWN_MIB:
        return f"its processes grew by {sum(grown):.0f} MiB"
    return _of_a_jetson(soak)


def _throttle(seen: _Attested) -> str | None:
    soak = seen.board.soak
    if soak is None:
        return "there was no soak to watch"
    if not (soak.conditions.temperature_c and soak.conditions.clock_mhz):
        return "this machine does not tell its temperatures and clocks"
    slowed = soak.conditions.throttled
    return f"slowed down by {', '.join(slowed)}" if slowed else None


def _by_hand(seen: _Attested) -> str | None:
    return "is done by hand"


CHECKLIST = (
    _Item("board", "the doctor names the board and finds nothing wrong", _board, "mmedge doctor, and what it says"),
    _Item("engines", "engines of every precision build, run and use it", _engines, "mmedge compile BUNDLE"),
    _Item("golden", "every network answers its golden inputs", _golden, "mmedge verify BUNDLE"),
    _Item("latency", "latency, and which steps it is", lambda seen: _of_a_jetson(seen.bench), "mmedge bench BUNDLE"),
    _Item("knee", "the highest rate that is kept", _knee, "mmedge bench BUNDLE --sweep 10:240"),
    _Item(
        "csi",
        "a CSI camera",
        _delivers("image", ("csi://", "vi-output")),  # a sensor that cannot be read goes by its own name
        "sudo apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer; mmedge devices --probe csi://0",
    ),
    _Item(
        "usb-camera",
        "a USB camera",
        _delivers("image", ("v4l2://", "/dev/video")),
        "plug one in; mmedge devices --probe 0",
    ),
    _Item(
        "microphone",
        "a USB microphone",
        _delivers("audio", ("mic://",)),
        "sudo apt-get install libportaudio2; mmedge devices --probe mic://default",
    ),
    _Item(
        "one-clock",
        "camera and microphone on one clock",
        _one_clock,
        "mmedge calibrate --write flash.mp4; play it before both, on another device, while this runs",
    ),
    _Item(
        "live",
        "a fused run on the board's own camera and microphone",
        _live,
        "mmedge attest BUNDLE --board --input image=0 --input audio=mic://default",
    ),
    _Item("soak", "minutes without a drop or a leak", _soak, "mmedge attest BUNDLE --board --soak 180"),
    _Item(
        "throttle",
        "a clock that is not throttled while it works",
        _throttle,
        "cool it, use the supply that its maker names, sudo nvpmodel -q",
    ),
    _Item(
        "dla",
        "what a DLA takes of a stage, and what falls back",
        _by_hand,
        "on an Orin with a DLA: mmedge compile BUNDLE --place image_encoder=dla:0 --json",
    ),
    _Item(
        "multiprocessors",
        "a stage with multiprocessors of its own is on time",
        _by_hand,
        "mmedge run BUNDLE --place STAGE=sms:4, beside other load on the GPU",
    ),
    _Item(
        "gpu-tests",
        "the GPU's own tests, CUDA kernels among them",
        _by_hand,
        "in a checkout on the board: .venv/bin/pytest tests/gpu",
    ),
    _Item(
        "memory-order",
        "the order of memory in the shared rings",
        _by_hand,
        "in a checkout on the board: cmake -S . -B build/native -DMMEDGE_TESTS_ONLY=ON, build it, ctest",
    ),
    _Item(
        "install",
        "the wheel from an index, and how long that takes",
        _by_hand,
        "time pip install 'mmedge[capture,cpu]'",
    ),
)


def model_of(seen: _Attested) -> str | None:
    """Return the model of the Jetson that an attestation is of; None if it is of another machine."""
    machine = seen.doctor.machine
    return machine.board.model if machine and machine.board else None


def view(document: Mapping[str, Any]) -> _Attested:
    """Return what the checklist reads of an attestation.

    Raises:
        ConfigError: If a part of it is not what an attestation has there.
    """
    try:
        return msgspec.convert(document, learn(_Attested))
    except msgspec.ValidationError as error:
        message = f"a part of the attestation is malformed: {error}"
        raise ConfigError(message, where="attestation", fix="measure again with this version") from None


def checklist(document: Mapping[str, Any]) -> list[Line]:
    """Return every line of the checklist, with what an attestation lacks of it.

    Args:
        document: An attestation, as ``read`` returns it or as it is about to be sealed.

    Raises:
        ConfigError: If a part of it is not what an attestation has there.

    Example:
        >>> rest = {"compile": {}, "golden": [], "bench": {"evidence": "cpu"}, "sweep": None}
        >>> checklist({"doctor": {}, **rest})[0].missing
        'this machine is no Jetson'
    """
    seen = view(document)
    return [Line(item.name, item.what, item.lacks(seen), item.fix) for item in CHECKLIST]


def shown(document: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Return whether an attestation is of a Jetson and lacks nothing of these lines."""
    missing = {line.name: line.missing for line in checklist(document)}
    return missing["board"] is None and all(missing[name] is None for name in names)
