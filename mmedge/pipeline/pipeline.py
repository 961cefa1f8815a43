"""The user's Pipeline: a client of the runtime."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, cast

from mmedge.errors import ConfigError, MmedgeError
from mmedge.lazy import collector_paused

# Whoever names the class has not made a pipeline yet: what one needs is imported when it is made.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mmedge.address import Address
    from mmedge.bundle import Bundle
    from mmedge.pipeline.statistics import Statistics
    from mmedge.pipeline.swap import BundleSwap
    from mmedge.privacy import Privacy
    from mmedge.sinks import Sink
    from mmedge.types import Backend, Description, Engines, Latency, PixelFormat, Precision, Result, Video

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
        backend: ``auto``, or one of ``mmedge.types.Backend``.
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
        attach: Path of a socket, on which programs of this user attach to the run, get its results and push data of
            theirs; see ``mmedge.attach`` and docs/attach.md.
        place: Stage -> ``dla:CORE``, or ``sms:COUNT`` for multiprocessors of the GPU that no other stage uses
            (docs/engines.md); such a stage runs on TensorRT.
        spans: Let each result say when its stages were fed and ran (``Result.spans``).

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
        attach: str | Path | None = None,
        spans: bool = False,
        place: Mapping[str, str] | None = None,
    ) -> None:
        with collector_paused():
            from mmedge.pipeline.opening import Wishes, open_pipeline

        self._on_result = on_result
        opened = open_pipeline(
            bundle,
            inputs,
            Wishes(
                sinks=sinks,
                latency=latency,
                isolation=isolation,
                backend=backend,
                precision=precision,
                speed=speed,
                duration_s=duration_s,
                record=record,
                record_privacy=record_privacy,
                video=video,
                results=results,
                allow=allow,
                engines=engines,
                attach=attach,
                spans=spans,
                place=place or {},
            ),
        )
        self.bundle, self._own = opened.bundle, opened.own
        self._runtime, self._sinks, self._delivery = opened.runtime, opened.sinks, opened.delivery
        self._pushes = opened.pushes
        # What comes out of another process, for one reader, is the reader's own; else there are others who have it.
        self._owns_results = self._delivery is None and self.isolation == "process"
        self._started = self._closed = False
        self._swapping = threading.Lock()

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
            age_ns = result.age_ns(before)
            if self._owns_results:
                result.latency_ms["received"] = round(age_ns / 1e6, 3)
            else:
                result = result.received(age_ns)
            try:
                if self._on_result is not None:
                    self._on_result(result)
                    statistics.steps["sink"].add(time.monotonic_ns() - before)
                yield result
            finally:  # while nobody waits for it
                statistics.received.add(age_ns)

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
        from mmedge.pipeline.unanswered import unanswered

        return unanswered(self.health(), self._pushes.counts(), self.statistics)

    def run(self, duration_s: float | None = None) -> Statistics:
        """Take results until the sources end, or for ``duration_s`` seconds.

        Returns:
            Counts and latencies of the run.

        Raises:
            MmedgeError: Whatever ended the run before its time, or why it has ended without any result. That nothing
                has come within ``duration_s`` is logged, as a warning with the reasons: the run goes on.
        """
        from mmedge.pipeline.arguments import check_duration

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
        format: PixelFormat | None = None,
        description: Description | None = None,
    ) -> None:
        """Feed an input from your own driver; the array is copied.

        Args:
            name: An input whose URI is ``push://``.
            array: Image: uint8 (h, w) gray or (h, w, 3) RGB, or as ``format`` has it. Audio: float32 (n,) mono at the
                input's sample rate. Tensor: the manifest's shape and dtype.
            capture_ns: When it was sensed, on CLOCK_MONOTONIC; of sound, the instant after the last sample.
            format: Of an image in another pixel format, such as ``nv12`` or ``yuyv422``: see ``mmedge.types.Frame``.
            description: Of an image: its range and matrix, how it is to be turned, the shape of its pixels; by default
                upright, square, 0..255.

        Raises:
            ConfigError: If the input is not pushed, the array or the description does not fit it, the time is of
                another clock, or the run has ended.
        """
        self._pushes.push(name, array, capture_ns, format=format, description=description, started=self._started)

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
        self._pushes.text(text, name, capture_ns=capture_ns, started=self._started)

    def swap(self, bundle: Bundle | str | Path, *, trial: int = 30, timeout_s: float = 120.0) -> BundleSwap:
        """Let another bundle take the place of the one that runs, between two triggers and without losing a frame.

        It is loaded and self-tested beside the old one, which goes on, also if this fails, or if a stage of the new one
        fails at one of its first results: that one is answered by the old bundle. Blocks; call it from a thread of its
        own where the caller reads results.

        Args:
            bundle: A bundle, or the path of one: the same inputs, sync, missing and names of tasks (docs/processes.md).
            trial: How many results it must give before the old one is let go.
            timeout_s: After this many seconds the old one stays.

        Returns:
            Which stages and smoothing went on, which began anew, and when.

        Raises:
            BundleError: If the bundle is not valid.
            ConfigError: If it does not fit the run, or the run cannot change its bundle: it is recorded or offline.
            CheckError: If it fails its self-test or its trial.
            MmedgeError: Whatever else it failed by. After each of these the old bundle runs on.

        Example:
            >>> pipe.swap("digits-2.mmedge").anew  # doctest: +SKIP
            ('fusion',)
        """
        from mmedge.pipeline.opening import open_swap

        if not self._started or self._closed:
            raise ConfigError("the pipeline does not run", where="swap", fix="start it first")
        with self._swapping:
            opened, own, told = open_swap(self._runtime, self.bundle, bundle, trial=trial, timeout_s=timeout_s)
            old, old_own = self.bundle, self._own
            self.bundle, self._own = opened, own
            if old_own:
                old.close()
        return told

    def health(self) -> dict[str, dict[str, object]]:
        """Return each source's state (OK, LATE, STALE, MISSING, RECONNECTING), reason and counters.

        So do ``@engines`` of builds, ``@bundle`` once another was to take over, ``@recording``, ``@attach``,
        ``@sink NAME``; ``@clock`` has the run's pair of times.
        """
        health = self._runtime.health()
        if (statistics := self.statistics).started_unix_ns:
            health["@clock"] = {"state": "OK", "reason": None, "counters": {}, **statistics.clock}
        health |= {f"@sink {name}": report for name, report in statistics.sinks.items()}
        for name in self._pushes.refused.keys() & health.keys():  # this process alone knows of them
            counters = cast("Mapping[str, int]", health[name]["counters"])
            health[name]["counters"] = {**counters, "refused_pushes": self._pushes.refused[name]}
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
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
