"""The user's Pipeline: a client of the runtime."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from mmedge.address import Address
from mmedge.bundle import Bundle, load
from mmedge.bundle.manifest import TextInput
from mmedge.errors import ConfigError, MmedgeError
from mmedge.fusion.consent import Consent, check_consent
from mmedge.pipeline.arguments import (
    check_capture,
    check_choices,
    check_duration,
    check_sinks,
    check_sources,
    check_speed,
    check_text,
    chosen_engines,
    chosen_isolation,
    chosen_results,
    described,
    share_sources,
)
from mmedge.pipeline.check import check_run
from mmedge.pipeline.delivery import Delivery, Sinks
from mmedge.pipeline.pushed import pushed_packet
from mmedge.pipeline.remote import RemoteRuntime
from mmedge.pipeline.runtime import Runtime
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.pipeline.unanswered import unanswered
from mmedge.privacy import Privacy
from mmedge.sinks import Sink
from mmedge.types import Backend, Description, Engines, Latency, Packet, Precision, Result, Text, Video

log = logging.getLogger("mmedge.pipeline")


class Pipeline:
    """Live fused inference: results come out as they are made.

    Args:
        bundle: A bundle, or the path of one.
        inputs: Input name -> URI (``"0"``, ``"clip.mp4"``, ``"mic://default"``, ``"udp://..."``...); an input
            that is fed by ``push`` or ``text`` has the URI ``"push://"``.
        sinks: ``"NAME[:TARGET][?OPTION=VALUE&...]"`` (docs/sinks.md), or objects with ``write`` and ``close``. Each has
            a queue and a thread of its own: a slow or failing one loses its own results, and ``health()`` says so.
        on_result: Called with each result in the thread that iterates or calls ``run``.
        latency: ``low``, ``balanced`` or ``offline`` (files only: nothing is dropped, as fast as it goes).
        isolation: ``process`` runs the runtime in a process of its own and each live device in another, where
            neither your Python nor a hung driver can hold them up; ``thread`` runs everything in this process
            (files, tests, notebooks). ``auto`` is ``process`` when an input is a live device.
        backend: ``auto``, ``onnxruntime`` or ``tensorrt``.
        precision: Use only ``fp32``, ``fp16``, ``int8``, ``fp8`` or ``int4`` variants.
        speed: Playing speed of files; 1 is real time.
        duration_s: Stop after this many seconds of capture time.
        record: Folder to record the run into, new or empty; see ``mmedge replay``.
        record_privacy: What it keeps of pictures and sound: ``picture``, all; ``blur``, shapes; ``none``. But for
            ``picture`` a replay answers otherwise.
        video: Record pictures ``lossless`` (bit by bit) or ``visual`` (they look the same, in a tenth of the space).
        results: What a reader, or a sink, gets that is slower than the run: the ``latest`` result (older ones are
            counted), or ``all``, in order, as long as no more than 64 wait. ``auto`` is ``latest`` when an input
            is a live device, else ``all``; ``offline`` loses none.
        allow: Modules whose functions the bundle may call, exactly as it names them (``["pkg.mod"]``), and paths of
            ``mmedge.toml`` files of your own. The rules of ``mmedge.fusion.rules`` need no consent.
        engines: ``now`` starts on what is there and puts in better engines, between two triggers, when they are built;
            ``wait`` builds them first. ``auto`` is ``wait`` when offline or recorded, else ``now``.

    Raises:
        BundleError: If the bundle is not valid.
        ConfigError: If inputs and bundle do not fit, or the bundle calls what was not allowed.
        DeviceError: If a device is not there.

    Example:
        >>> with mmedge.Pipeline("digits.mmedge", inputs={"image": "clip.mp4", "audio": "clip.mp4"}) as pipe:
        ...     for result in pipe:
        ...         print(result.tasks["digit"], result.latency_ms["end_to_end"])  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        inputs: Mapping[str, str] | Mapping[str, Address],
        *,
        sinks: Sequence[str | Address | Sink] = (),
        on_result: Callable[[Result], None] | None = None,
        latency: Latency = "balanced",
        isolation: Literal["auto", "process", "thread"] = "auto",
        backend: Backend = "auto",
        precision: Precision | None = None,
        speed: float = 1.0,
        duration_s: float | None = None,
        record: str | Path | None = None,
        record_privacy: Privacy = "picture",
        video: Video = "lossless",
        results: Literal["auto", "latest", "all"] = "auto",
        allow: Sequence[str] = (),
        engines: Engines = "auto",
    ) -> None:
        check_choices(latency=latency, isolation=isolation, results=results, backend=backend, engines=engines)
        check_choices(record_privacy=record_privacy)
        check_speed(speed)
        check_duration(duration_s)
        sources = check_sources(inputs)
        check_sinks(sinks)
        self._own = not isinstance(bundle, Bundle)
        self.bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
        own = set(sources)
        sources = share_sources(sources, self.bundle.inputs)
        # What is pushed to an input is pushed to those that share its source.
        self._sharing = {n: [o for o in sources.keys() - own if self.bundle.inputs[o].shares == n] for n in own}  # type: ignore[union-attr]
        self._on_result = on_result
        self._sinks: Sinks | None = None
        self._delivery: Delivery | None = None
        self._pushed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        try:
            check_consent(self.bundle.manifest, Consent(allow, self.bundle.path))
            wanted = chosen_results(results, latency, sources)
            spec = RunSpec(
                bundle=str(self.bundle.path.absolute()),
                inputs=sources,
                backend=backend,
                precision=precision,
                latency=latency,
                speed=speed,
                duration_s=duration_s,
                isolation=chosen_isolation(isolation, sources, self.bundle.manifest),
                record=None if record is None else str(Path(record).absolute()),
                record_privacy=record_privacy,
                video=video,
                results="all" if sinks else wanted,  # sinks get every result, whatever the reader wants
                allow=tuple(allow),
                engines=chosen_engines(engines, latency, record),
            )
            check_run(spec, self.bundle.manifest)
            self._runtime: Runtime | RemoteRuntime
            if spec.isolation == "process":
                self._runtime = RemoteRuntime(spec, self.bundle.manifest)
            else:
                self._runtime = Runtime(spec, self.bundle)
            if sinks:
                rules = {"latest": wanted == "latest", "lossless": latency == "offline"}
                self._sinks = Sinks(sinks, self.bundle, self._runtime.statistics, **rules)
                if isinstance(self._runtime, Runtime):
                    self._runtime.keeps_pictures |= self._sinks.want_pictures
                self._delivery = Delivery(self._runtime, self._sinks, **rules)
        except BaseException:
            self._close_own()
            raise
        self._started = self._closed = False

    @property
    def isolation(self) -> Literal["process", "thread"]:
        """What ``isolation`` came to: where the runtime runs."""
        return self._runtime.spec.isolation

    @property
    def inputs(self) -> Mapping[str, Address]:
        """Input name -> the address of its source; ``push://`` of those that are pushed."""
        return self._runtime.spec.inputs

    @property
    def statistics(self) -> Statistics:
        """Counts and latencies so far."""
        if self._sinks is not None:
            self._runtime.statistics.sinks = self._sinks.report()
        return self._runtime.statistics

    def start(self) -> Pipeline:
        """Load engines, open sources, start; ``with`` does this."""
        if self._closed:
            raise ConfigError("the pipeline was closed", where="start", fix="make a new one")
        if not self._started:
            self._runtime.start()
            if self._sinks is not None and self._delivery is not None:
                self._sinks.begin(self)
                self._delivery.start()
            self._started = True
        return self

    def __iter__(self) -> Iterator[Result]:
        """Yield results in order; what a slow reader loses is counted, and offline it loses none.

        Raises:
            MmedgeError: Whatever ended the run before its time, or why it has ended without any result.
        """
        return self.results()

    def results(self, deadline_s: float | None = None) -> Iterator[Result]:
        """Yield results in order until the run ends, or until ``deadline_s`` on ``time.monotonic``.

        Raises:
            MmedgeError: Whatever ended the run before its time, or why it has ended without any result.
        """
        self.start()
        statistics = self._runtime.statistics
        while (result := self._next(deadline_s)) is not None:
            before = time.monotonic_ns()
            statistics.received.add(age_ns := result.age_ns(before))
            result = result.received(age_ns)
            if self._on_result is not None:
                self._on_result(result)
                statistics.steps["sink"].add(time.monotonic_ns() - before)
            yield result

    def _next(self, deadline_s: float | None) -> Result | None:
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return None
        try:
            result = (self._delivery or self._runtime).get(deadline_s)
        except TimeoutError:
            return None
        if result is None:
            nothing = self._unanswered()
            if nothing is not None:
                raise nothing
        return result

    def _unanswered(self) -> MmedgeError | None:
        """Return why there is no result yet, None if there is one, or if it was closed before there could be."""
        if self.statistics.results or self._closed:
            return None
        pushed = {name: self._pushed[name] for name, uri in self._runtime.spec.inputs.items() if uri == PUSH}
        return unanswered(self.health(), pushed, self.statistics)

    def run(self, duration_s: float | None = None) -> Statistics:
        """Take results until the sources end, or for ``duration_s`` seconds.

        Returns:
            Counts and latencies of the run.

        Raises:
            MmedgeError: Whatever ended the run before its time, or why it has ended without any result. That nothing
                has come within ``duration_s`` is logged, as a warning with the reasons: the run goes on.
        """
        check_duration(duration_s)
        self.start()
        for _ in self.results(None if duration_s is None else time.monotonic() + duration_s):
            pass
        nothing = self._unanswered()
        if nothing is not None:  # it goes on, and may be run for longer
            log.warning("no result within %s s: %s", duration_s, nothing)
        return self.statistics

    def push(
        self,
        name: str,
        array: npt.NDArray[np.generic],
        capture_ns: int,
        *,
        description: Description | None = None,
    ) -> None:
        """Feed an input from your own driver; the array is copied.

        Args:
            name: An input whose URI is ``push://``.
            array: Image: uint8 (h, w) gray or (h, w, 3) RGB. Audio: float32 (n,) mono at the input's sample
                rate. Tensor: the manifest's shape and dtype.
            capture_ns: When it was sensed, on CLOCK_MONOTONIC; of sound, the instant after the last sample.
            description: Of an image: its range if it is gray, how it is to be turned, the shape of its pixels; by
                default upright, square, 0..255.

        Raises:
            ConfigError: If the input is not pushed, the array or the description does not fit it, the time is of
                another clock, or the run has ended.
        """
        self._check_pushed(name)
        now_ns = time.monotonic_ns()
        for sharing in self._sharing.get(name, ()):
            self.push(sharing, array, capture_ns, description=description)
        with self._counted(name):
            check_capture(capture_ns, now_ns, f"input '{name}'")
            spec, seq = self.bundle.inputs[name], self._pushed[name]
            packet = pushed_packet(name, spec, array, seq=seq, capture_ns=int(capture_ns), arrive_ns=now_ns)
            if description is not None:
                packet = described(packet, description)
        self._put(packet)

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count what is pushed to an input, or refused."""
        try:
            yield
        except ConfigError:
            self._refused[name] += 1
            raise
        self._pushed[name] += 1

    def text(self, text: str, name: str | None = None, *, capture_ns: int | None = None) -> None:
        """Set a text input from now on, until the next text or the end of its time.

        Args:
            text: Up to 64 KiB of UTF-8; a blank one takes the text back, and the input is absent.
            name: The input, where the bundle has more than one text.
            capture_ns: When it was said or typed, on CLOCK_MONOTONIC; now by default.

        Raises:
            ConfigError: If there is no such input, it is not fed by ``push://``, the text is too long or not plain
                Unicode, the time is of another clock, or the run has ended.

        Example:
            >>> pipe.text("it's a seven")  # doctest: +SKIP
            >>> pipe.text("")  # doctest: +SKIP
        """
        names = [n for n, spec in self.bundle.inputs.items() if isinstance(spec, TextInput)]
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise ConfigError(f"the bundle's text inputs are {names}", where="text", fix="name one of them")
        self._check_pushed(name)
        now_ns = time.monotonic_ns()
        with self._counted(name):
            check_text(text, f"input '{name}'")
            said_ns = now_ns if capture_ns is None else capture_ns
            check_capture(said_ns, now_ns, f"input '{name}'")
            packet = Text(stream=name, seq=self._pushed[name], capture_ns=said_ns, arrive_ns=now_ns, text=text)
        self._put(packet)

    def _put(self, packet: Packet) -> None:
        if not self._started:
            raise ConfigError(
                "the run has not started", where=f"input '{packet.stream}'", fix="call start() first, or use with"
            )
        if not self._runtime.push(packet):
            raise ConfigError("the run has ended", where=f"input '{packet.stream}'", fix="push while it is running")

    def _check_pushed(self, name: str) -> None:
        if self._runtime.spec.inputs.get(name) != PUSH:
            raise ConfigError(
                "this input is not fed by push", where=f"input '{name}'", fix=f"give it the URI '{PUSH}' in inputs"
            )

    def health(self) -> dict[str, dict[str, object]]:
        """Return each source's state (OK, LATE, STALE, MISSING, RECONNECTING), reason and counters.

        So do ``@engines`` of builds, ``@recording``, ``@sink NAME``; ``@clock`` has the run's pair of times.
        """
        health = self._runtime.health()
        if (statistics := self.statistics).started_unix_ns:
            health["@clock"] = {"state": "OK", "reason": None, "counters": {}, **statistics.clock}
        health |= {f"@sink {name}": report for name, report in statistics.sinks.items()}
        for name in self._refused.keys() & health.keys():  # this process alone knows of them
            counters = cast("Mapping[str, int]", health[name]["counters"])
            health[name]["counters"] = {**counters, "refused_pushes": self._refused[name]}
        return health

    def close(self) -> None:
        """Stop, release devices and engines, close sinks within a few seconds each; idempotent."""
        self._closed = True
        self._runtime.stop()
        self._close_own()

    def _close_own(self) -> None:
        with ExitStack() as stack:  # closes all of them, whichever fails
            if self._own:
                stack.callback(self.bundle.close)
            for own in (self._sinks, self._delivery):
                if own is not None:
                    stack.callback(own.close)

    def __enter__(self) -> Pipeline:
        try:
            return self.start()
        except BaseException:
            self._close_own()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
