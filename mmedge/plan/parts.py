"""What a run does, decided beforehand: the plan as data, without a name to look up or a rule to read while it runs."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmedge.bundle.manifest import Input, Task
from mmedge.types import Latency

FOREVER_NS = 1 << 62  # 146 years: beyond any time, and sums of two stay in int64


class SeatPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input that has a source, as the synchroniser cuts it.

    Attributes:
        name: Of the input.
        kind: How it is cut: the nearest picture, a window of sound, or the newest value.
        live: Whether its source is live.
        policy: What happens when it is absent.
        max_age_ns: How old what is held may be; None: as the policy says.
        trigger: Whether it makes the triggers.
        rate_hz: Of sound: samples a second.
        window: Of sound: samples that are cut.
        ahead_ns: Of sound: by how much the window ends after the trigger.
        reserve_ns: Of sound: for how much longer than the window it can be read.
        ttl_ns: Of texts: how long one is valid; None: until the next.
        period_ns: Of arrays: from one to the next; None: they come when they like.
        paced: Of arrays: whether silence says that something is wrong.
    """

    name: str
    kind: Literal["image", "audio", "value"]
    live: bool
    policy: Literal["hold", "zero", "skip", "fail"]
    max_age_ns: int | None = None
    trigger: bool = False
    rate_hz: int = 0
    window: int = 0
    ahead_ns: int = 0
    reserve_ns: int = 0
    ttl_ns: int | None = None
    period_ns: int | None = None
    paced: bool = False


class SyncPlan(msgspec.Struct, frozen=True, kw_only=True):
    """When a fused inference is made, and what each of its inputs gives.

    Attributes:
        trigger: The input that makes the triggers, or ``timer``.
        latest: Whether the newest of each input is taken, not what belongs to the trigger's time.
        every_ns: Hop of the triggers of sound and of the timer.
        wait_ns: How long after its delivery a trigger waits.
        hold_ns: For how long frames are held.
        lossless: Whether data is waited for as long as it takes.
        present: All inputs of the bundle, in the order of ``@present``.
        seats: Those that have a source.
    """

    trigger: str
    latest: bool
    every_ns: int
    wait_ns: int
    hold_ns: int
    lossless: bool
    present: tuple[str, ...]
    seats: tuple[SeatPlan, ...]


class Due(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a stage runs; a stream runs as often as steps of its sound have come.

    Attributes:
        watches: It runs when one of these inputs is new.
        links: Whether a new output of a stage that feeds it makes it run.
        every_ns: It runs at most this often.
        differs: Whether something that is new but equal does not count.
        masks: Whether it runs when any input comes or goes, not only one that it depends on.
    """

    watches: tuple[str, ...]
    links: bool
    every_ns: int | None = None
    differs: bool = False
    masks: bool = False


class Hearing(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream hears: steps of one sound, each in a window that ends with it."""

    seat: str
    step: int
    window: int
    rate_hz: int


class StagePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network, or rule, of the graph.

    Attributes:
        name: Of the stage.
        outputs: Output -> shape; named dimensions are 1.
        due: When it runs.
        calls: The function that it calls instead of a network.
        background: Whether triggers do not wait for it.
        timeout_ms: A run that takes longer has failed.
        seats: Tensor -> the input that feeds it.
        links: Tensor -> ``STAGE.OUTPUT`` that feeds it.
        states: Tensor -> the stage's own output that is fed back.
        constants: Tensor -> the number that fills it.
        presence: Tensors that are told which inputs are present.
        ages: Tensors that are told how old each input is, in ms.
        depends: Inputs that it is fed by, directly or through other stages, in the order of the inputs.
        producers: Stages that feed it directly.
        ancestors: Stages that feed it, directly or through others, in order.
        hears: What it hears, if it is a stream.
        behind: Whether a stream feeds it, directly or through others.
    """

    name: str
    outputs: dict[str, tuple[int, ...]]
    due: Due
    calls: str | None = None
    background: bool = False
    timeout_ms: float
    seats: dict[str, str] = {}
    links: dict[str, str] = {}
    states: dict[str, str] = {}
    constants: dict[str, float] = {}
    presence: tuple[str, ...] = ()
    ages: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    hears: Hearing | None = None
    behind: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run does, from packets to results.

    Attributes:
        schema: Of this document.
        bundle: Name of the bundle.
        manifest_sha256: Hash of its manifest.
        latency: The preset that the times of ``sync`` come from.
        inputs: What each input is and how it is preprocessed.
        sync: When triggers are made, and how inputs are cut.
        stages: In the order in which they run.
        tasks: How outputs are read.
        outputs: Outputs that are told as they are.
        masks: Which inputs may be present together.
    """

    schema: Literal["mmedge.plan/1"] = "mmedge.plan/1"
    bundle: str
    manifest_sha256: str
    latency: Latency
    inputs: dict[str, Input]
    sync: SyncPlan
    stages: tuple[StagePlan, ...]
    tasks: dict[str, Task]
    outputs: tuple[str, ...]
    masks: tuple[tuple[str, ...], ...]
