"""Which tensor is fed by what, and when a stage runs: what a manifest says of stages, worked out once."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle.manifest import Input
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.order import stage_order
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, State
from mmedge.plan.parts import Due, Hearing, StagePlan
from mmedge.plan.stream import check_stream, is_stream, what_is_heard


def plan_stages(stages: Mapping[str, StageSpec], inputs: Mapping[str, Input]) -> tuple[StagePlan, ...]:
    """Return the plans of all stages, in the order in which they run.

    Args:
        stages: By name, as in a manifest.
        inputs: The inputs of the bundle, in its order.

    Raises:
        BundleError: If they form a cycle, or a stream does not keep to what ``check_stream`` asks for.

    Example:
        >>> from mmedge.bundle.manifest import AudioInput
        >>> ear, join = StageSpec(inputs={"x": "audio"}, outputs={}), StageSpec(inputs={"x": "ear.y"}, outputs={})
        >>> plans = plan_stages({"join": join, "ear": ear}, {"audio": AudioInput(sample_rate_hz=8000, window_ms=10)})
        >>> [(plan.name, plan.depends, plan.ancestors) for plan in plans]
        [('ear', ('audio',), ()), ('join', ('audio',), ('ear',))]
    """
    plans: dict[str, StagePlan] = {}
    for name in stage_order(stages):
        plans[name] = plan_stage(name, stages[name], inputs, plans)
    return tuple(plans.values())


def plan_stage(name: str, spec: StageSpec, inputs: Mapping[str, Input], upstream: Mapping[str, StagePlan]) -> StagePlan:
    """Return the plan of one stage; ``upstream`` has those that may feed it, in the order in which they run.

    Raises:
        BundleError: If it is a stream that does not keep to what ``check_stream`` asks for.
    """
    hears: Hearing | None = None
    if is_stream(spec, inputs):
        check_stream(spec, inputs, f"manifest.json: $.stages.{name}")
        sound, seat, samples = what_is_heard(spec, inputs)
        hears = Hearing(seat=sound, step=round(samples), window=seat.samples, rate_hz=seat.sample_rate_hz)
    seats: dict[str, str] = {}
    links: dict[str, Output] = {}
    states: dict[str, str] = {}
    constants: dict[str, float] = {}
    presence: tuple[str, ...] = ()
    ages: tuple[str, ...] = ()
    for tensor, source in spec.sources.items():
        match source:
            case Seat(input_name):
                seats[tensor] = input_name
            case Output():
                links[tensor] = source
            case State(output):
                states[tensor] = output
            case Constant(number):
                constants[tensor] = number
            case Presence():
                presence += (tensor,)
            case Age():
                ages += (tensor,)
    producers = [upstream[producer] for producer in dict.fromkeys(link.stage for link in links.values())]
    depends = set(seats.values()).union(*(producer.depends for producer in producers))
    before = {producer.name for producer in producers}.union(*(producer.ancestors for producer in producers))
    watched = set(seats.values()) if spec.on in (None, "change") else {spec.on}
    return StagePlan(
        name=name,
        outputs={output: tuple(1 if isinstance(d, str) else d for d in dims) for output, dims in spec.outputs.items()},
        due=Due(
            watches=tuple(seat for seat in inputs if seat in watched),
            links=spec.on in (None, "change"),
            every_ns=None if spec.every_ms is None else round(spec.every_ms * 1e6),
            differs=spec.on == "change",
            # Presence and age of every input are inputs like any other; that time goes by makes no age new.
            masks=bool(presence or ages),
        ),
        calls=spec.callable,
        background=spec.mode == "async",
        timeout_ms=spec.timeout_ms,
        seats=seats,
        links={tensor: str(link) for tensor, link in links.items()},
        states=states,
        constants=constants,
        presence=presence,
        ages=ages,
        depends=tuple(seat for seat in inputs if seat in depends),
        producers=tuple(producer.name for producer in producers),
        ancestors=tuple(stage for stage in upstream if stage in before),
        hears=hears,
        behind=any(producer.hears is not None or producer.behind for producer in producers),
    )
