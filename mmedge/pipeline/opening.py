"""What the user asked for becomes the parts of a pipeline: checked, and nothing started yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mmedge.address import Address
from mmedge.bundle import Bundle, load
from mmedge.errors import MmedgeError
from mmedge.fusion.consent import Consent, check_consent
from mmedge.lazy import collector_paused
from mmedge.pipeline.arguments import (
    check_choices,
    check_duration,
    check_sinks,
    check_sources,
    check_speed,
    chosen_engines,
    chosen_isolation,
    chosen_results,
    has_device,
    share_sources,
)
from mmedge.pipeline.check import check_run
from mmedge.pipeline.pushed import Pushes
from mmedge.pipeline.spec import RunSpec
from mmedge.privacy import Privacy
from mmedge.types import Backend, Engines, Latency, Precision, Video

if TYPE_CHECKING:
    from mmedge.pipeline.delivery import Delivery, Sinks
    from mmedge.pipeline.remote import RemoteRuntime
    from mmedge.pipeline.runtime import Runtime
    from mmedge.pipeline.swap import BundleSwap
    from mmedge.sinks import Sink


_LATE_S = 2.0  # beyond its time, for a swap to be taken back


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a ``Pipeline``, as it was given them."""

    sinks: Sequence[str | Address | Sink]
    latency: Latency
    isolation: Literal["auto", "process", "thread"]
    backend: Backend
    precision: Precision | None
    speed: float
    duration_s: float | None
    record: str | Path | None
    record_privacy: Privacy
    video: Video
    results: Literal["auto", "latest", "all"]
    allow: Sequence[str]
    engines: Engines
    attach: str | Path | None = None
    spans: bool = False
    place: Mapping[str, str] = {}


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a pipeline that has not started.

    Attributes:
        bundle: What it runs.
        own: Whether the pipeline closes the bundle.
        runtime: Runs it, here or in another process.
        sinks: Where results go; None without any.
        delivery: Takes results for the sinks and the reader.
        pushes: Takes what the user's own code feeds.
    """

    bundle: Bundle
    own: bool
    runtime: Runtime | RemoteRuntime
    sinks: Sinks | None
    delivery: Delivery | None
    pushes: Pushes


def open_pipeline(
    bundle: Bundle | str | Path, inputs: Mapping[str, str] | Mapping[str, Address], wishes: Wishes
) -> Opened:
    """Return the parts of a pipeline; if that fails, none is left open.

    Raises:
        BundleError: If the bundle is not valid.
        ConfigError: If inputs and bundle do not fit, or the bundle calls what was not allowed.
    """
    latency, record = wishes.latency, wishes.record
    check_choices(latency=latency, isolation=wishes.isolation, results=wishes.results, backend=wishes.backend)
    check_choices(engines=wishes.engines, record_privacy=wishes.record_privacy)
    check_speed(wishes.speed)
    check_duration(wishes.duration_s)
    sources = check_sources(inputs)
    check_sinks(wishes.sinks)
    if wishes.attach is not None:
        from mmedge.clients.socket_file import check_path  # a run without loads none of it

        check_path(str(Path(wishes.attach).absolute()))
    if wishes.isolation == "process" or (wishes.isolation == "auto" and has_device(sources)):
        from mmedge.pipeline.remote import prepare_process

        prepare_process(sources)  # while the bundle is read
    own = not isinstance(bundle, Bundle)
    opened = bundle if isinstance(bundle, Bundle) else load(bundle)
    sinks: Sinks | None = None
    try:
        given = set(sources)
        sources = share_sources(sources, opened.inputs)
        # What is pushed to an input is pushed to those that share its source.
        sharing = {
            n: tuple(o for o in sources.keys() - given if opened.inputs[o].shares == n)  # type: ignore[union-attr]
            for n in given
        }
        check_consent(opened.manifest, Consent(wishes.allow, opened.path))
        if wishes.place:
            from mmedge.fusion.placement import placements  # a run without loads none of it

            placements(opened.manifest, wishes.place)
        wanted = chosen_results(wishes.results, latency, sources)
        spec = RunSpec(
            bundle=str(opened.path.absolute()),
            manifest_sha256=opened.manifest_sha256,
            inputs=sources,
            backend=wishes.backend,
            precision=wishes.precision,
            latency=latency,
            speed=wishes.speed,
            duration_s=wishes.duration_s,
            isolation=chosen_isolation(wishes.isolation, sources, opened.manifest),
            record=None if record is None else str(Path(record).absolute()),
            record_privacy=wishes.record_privacy,
            video=wishes.video,
            results="all" if wishes.sinks else wanted,  # sinks get every result, whatever the reader wants
            allow=tuple(wishes.allow),
            engines=chosen_engines(wishes.engines, latency, record),
            attach=None if wishes.attach is None else str(Path(wishes.attach).absolute()),
            sharing=sharing,
            spans=wishes.spans,
            place=dict(wishes.place),
        )
        check_run(spec, opened.manifest)
        runtime = _runtime(spec, opened)
        delivery: Delivery | None = None
        if wishes.sinks:
            from mmedge.pipeline.delivery import Delivery, Sinks

            latest, lossless = wanted == "latest", latency == "offline"
            sinks = Sinks(wishes.sinks, opened, runtime.statistics, latest=latest, lossless=lossless)
            runtime.keeps_pictures |= sinks.want_pictures
            delivery = Delivery(runtime, sinks, latest=latest, lossless=lossless)
        pushes = Pushes(opened.inputs, runtime)
    except BaseException:
        if own:
            opened.close()
        if sinks is not None:
            sinks.close()
        raise
    return Opened(bundle=opened, own=own, runtime=runtime, sinks=sinks, delivery=delivery, pushes=pushes)


def _runtime(spec: RunSpec, bundle: Bundle) -> Runtime | RemoteRuntime:
    if spec.isolation == "process":
        from mmedge.pipeline.remote import RemoteRuntime

        return RemoteRuntime(spec, bundle.manifest)
    with collector_paused():
        from mmedge.pipeline.runtime import Runtime  # with the synchroniser and the stages, which run here then

    return Runtime(spec, bundle)


def open_swap(
    runtime: Runtime | RemoteRuntime, old: Bundle, new: Bundle | str | Path, *, trial: int, timeout_s: float
) -> tuple[Bundle, bool, BundleSwap]:
    """Let ``new`` take the place of ``old`` in a runtime that goes on; return it, whether to close it, and more.

    Raises:
        MmedgeError: What ``Pipeline.swap`` raises; then ``old`` runs on.
    """
    from mmedge.pipeline.swap import SwapOrder, check_limits, check_run_can_swap, check_swap

    check_limits(trial, timeout_s)
    check_run_can_swap(runtime.spec)
    own = not isinstance(new, Bundle)
    opened = new if isinstance(new, Bundle) else load(new)
    try:
        check_consent(opened.manifest, Consent(runtime.spec.allow, opened.path))
        chosen_isolation(runtime.spec.isolation, runtime.spec.inputs, opened.manifest)
        check_swap(runtime.spec, old.manifest, opened.manifest)
        order = SwapOrder(
            bundle=str(opened.path.absolute()),
            manifest_sha256=opened.manifest_sha256,
            trial=trial,
            timeout_s=timeout_s,
        )
        try:
            return opened, own, runtime.swap(order).result(timeout_s + _LATE_S)
        except FutureTimeoutError:
            raise MmedgeError(
                f"the new bundle did not take over within {timeout_s:g} s; the old one runs on",
                where=opened.name,
                fix="raise timeout_s; engines can be built before: mmedge compile",
            ) from None
    except BaseException:
        if own:
            opened.close()
        raise
