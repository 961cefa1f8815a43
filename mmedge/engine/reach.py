"""Where a built engine may run: on which versions of TensorRT, on which GPUs, on a DLA; asked before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mmedge.engine.shapes import Range
from mmedge.engine.tensorrt_loader import PlanError, PrecisionError, TensorRT
from mmedge.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from mmedge.engine.cache import EngineKey

Gpus: TypeAlias = Literal["same", "capability", "ampere"]
_NOT_ON_DLA = ("fp8", "int4")
DLA_BOARDS = (
    "of the Jetson boards, AGX Orin has one (JetPack 6, or JetPack 7.2.2 with TensorRT 11.4.1 or later) and Orin NX "
    "(JetPack 6); Orin Nano and Thor have none"
)
_LEVELS = {"capability": "SAME_COMPUTE_CAPABILITY", "ampere": "AMPERE_PLUS"}
_AMPERE_SM = 80
_NEXT_MAJOR = {8: 10, 10: 11}  # built by -> the other major version that runs it, too (TensorRT's support matrix)
# A plan begins with a tag; four bytes from here on are the version that built it. Of TensorRT-RTX that was looked at,
# of TensorRT it is said, so a major version that there cannot be means another form.
_TAGS, _VERSION_AT = {b"ftrt": ("tensorrt", range(8, 32)), b"vtrt": ("tensorrt_rtx", range(1, 8))}, 24


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is to be, beside what its file says.

    Attributes:
        dla_core: The DLA that runs what it can of the network, the GPU the rest; None is the GPU alone.
        newer_versions: Newer versions of TensorRT may run it, too. It holds a runtime of its own, and may be slower.
        gpus: ``same``: the GPU that it is built on; ``capability``: each of the same compute capability; ``ampere``:
            each from Ampere on. What more than one may run can be slower.
        sms: The GPU's multiprocessors are split, this many for some stages; None leaves them to all. The engine is the
            same with and without.
        reserved: Whether it runs on those, or on the rest.
    """

    dla_core: int | None = None
    newer_versions: bool = False
    gpus: Gpus = "same"
    sms: int | None = None
    reserved: bool = True

    @property
    def is_placed(self) -> bool:
        """Whether it was asked to run in a place that TensorRT alone has."""
        return self.dla_core is not None or (self.sms is not None and self.reserved)

    @property
    def reach(self) -> frozenset[str]:
        """Where it may run besides, as flags of its key."""
        versions = {"versions=newer"} if self.newer_versions else set[str]()
        return frozenset(versions if self.gpus == "same" else versions | {f"gpus={self.gpus}"})

    @property
    def flags(self) -> tuple[str, ...]:
        """All of it, as flags of an engine's key."""
        return (*(() if self.dla_core is None else (f"dla={self.dla_core}",)), *sorted(self.reach))

    @property
    def level(self) -> str | None:
        """The name of TensorRT's ``HardwareCompatibilityLevel``; None for the GPU that it is built on."""
        return _LEVELS.get(self.gpus)

    def check(
        self, trt: TensorRT, precision: str, ranges: Mapping[str, Range] = {}, *, integrated: bool = False
    ) -> None:
        """Raise what forbids it.

        Args:
            trt: The module that is to build.
            precision: What it is to build.
            ranges: Input -> least, usual and most shape.
            integrated: Whether the GPU is a Jetson's.

        Raises:
            ConfigError: If the options do not go with the shapes.
            PrecisionError: If they do not go with the precision.
            EngineError: If this TensorRT or board does not have it.
        """
        builder = f"{trt.name} {trt.version}"
        if self.reach and trt.name == "tensorrt_rtx":
            raise EngineError(
                f"engines of {builder} run on that version alone, and on GPUs of one compute capability",
                where="engine options",
                fix="leave --newer-versions and --gpus out, and build again after an update",
            )
        if self.level is not None and integrated:
            raise EngineError(
                "engines for other GPUs are not built on a Jetson: TensorRT does not support it there",
                where="engine options",
                fix="leave --gpus out, and build on each board",
            )
        if self.gpus == "capability" and "same_capability" not in trt.caps:
            raise EngineError(
                f"{builder} cannot build for all GPUs of one compute capability",
                where="engine options",
                fix="use --gpus ampere, or a newer TensorRT",
            )
        if self.dla_core is None:
            return
        if self.dla_core < 0:
            raise ConfigError(f"there is no DLA core {self.dla_core}", where="engine options", fix="use 0 or 1")
        if precision in _NOT_ON_DLA:
            raise PrecisionError(
                f"a DLA computes in FP16 and INT8, not in {precision.upper()}",
                where="engine options",
                fix="use --precision fp16 or int8, or the GPU",
            )
        if any(least != most for least, _, most in ranges.values()):
            raise ConfigError("a DLA has no dynamic shapes", where="engine options", fix="give each input one shape")


PLAIN = EngineOptions()


def check_dla(core: int, there: int, builder: str) -> None:
    """Raise EngineError unless a DLA core is among those that the builder has, naming the boards that have any."""
    if core >= there:
        has = f"has {there} DLA core{'' if there == 1 else 's'}" if there else "has no DLA here"
        raise EngineError(f"{builder} {has}, so not core {core}: {DLA_BOARDS}", fix="run this stage on the GPU")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def runs_on(built: str, here: str, *, newer_versions: bool) -> bool:
    """Tell whether TensorRT ``here`` runs a plan of version ``built``."""
    before, now = _numbers(built), _numbers(here)
    common = min(len(before), len(now))
    if common and before[:common] == now[:common]:
        return True
    if not newer_versions or not common:
        return False
    return (before[0] == now[0] and before < now) or _NEXT_MAJOR.get(before[0]) == now[0]


def may_serve(built: EngineKey, here: EngineKey) -> bool:
    """Tell whether an engine that was built for one key may serve where another one is asked for.

    Args:
        built: Of an engine in the cache.
        here: Of the engine that is needed.
    """
    reach = {flag for flag in built.flags if flag.startswith(("versions=", "gpus="))}
    wanted = {flag for flag in here.flags if flag.startswith(("versions=", "gpus="))}
    if not wanted <= reach or set(built.flags) - reach != set(here.flags) - wanted:
        return False
    if (built.variant_sha256, built.module, built.profile, built.ranges) != (
        *(here.variant_sha256, here.module, here.profile, here.ranges),
    ):
        return False
    if "none" in (built.cuda, here.cuda) or _numbers(built.cuda) > _numbers(here.cuda):
        return False
    if not runs_on(built.version, here.version, newer_versions="versions=newer" in reach):
        return False
    sms = [int(key.compute_capability.removeprefix("SM")) for key in (built, here)]
    gpu = [(key.compute_capability, key.device, key.memory_gib) for key in (built, here)]
    return (
        gpu[0] == gpu[1]
        or ("gpus=capability" in reach and sms[0] == sms[1])
        or ("gpus=ampere" in reach and min(sms) >= _AMPERE_SM)
    )


def plan_origin(plan: bytes) -> tuple[str, str] | None:
    """Return the module and version that a plan says has built it; None where it does not say in a known form."""
    numbers = plan[_VERSION_AT : _VERSION_AT + 4]
    if plan[:4] not in _TAGS or len(numbers) < 4:
        return None
    module, majors = _TAGS[plan[:4]]
    return (module, ".".join(map(str, numbers))) if numbers[0] in majors else None


def check_plan(plan: bytes, trt: TensorRT, version: str | None, options: EngineOptions) -> None:
    """Refuse a plan of another version before TensorRT reads it.

    Args:
        plan: The serialised engine.
        trt: The module that is to load it.
        version: What is known to have built it; None asks the plan itself.
        options: What it was built as.

    Raises:
        PlanError: If this version does not run it; names both.
    """
    module, built = (trt.name, version) if version is not None else plan_origin(plan) or (trt.name, trt.version)
    if module != trt.name or not runs_on(built, trt.version, newer_versions=options.newer_versions):
        raise PlanError(
            f"the plan was built by {module} {built}; this is {trt.name} {trt.version}",
            fix="build it on this device: `mmedge compile BUNDLE`, with --newer-versions for engines that outlive an "
            "update of TensorRT",
        )
