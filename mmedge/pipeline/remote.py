"""The runtime in a process of its own: the client that stands in its place.

The hot path then runs where neither the user's Python nor a hung driver can hold it up. Results come back
through a ring of shared memory, pushed data goes there the same way.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec

from mmedge._native import core
from mmedge.address import Address
from mmedge.bundle.manifest import Manifest
from mmedge.capture.picture import slots_for
from mmedge.capture.uri import modules_of
from mmedge.errors import FrameExpiredError, InternalError, MmedgeError, internal, shortage
from mmedge.ipc.channel import PacketWriter
from mmedge.ipc.control import Answer, Ask, Done, Message, Ready, Ring, State, pack
from mmedge.ipc.frame_record import FrameRecords, lay_out
from mmedge.ipc.process import Child, error_from
from mmedge.ipc.spawned import load_ahead
from mmedge.ipc.wake import Wake
from mmedge.learn import learn
from mmedge.pipeline.arguments import has_device
from mmedge.pipeline.sent import REPORT_S, Reference, Report, Sent, SoundReference
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.pipeline.swap import BundleSwap, SwapOrder, run_ended
from mmedge.plan import apply_preset, hold_ns
from mmedge.sound_cut import Sound, SoundCut
from mmedge.types import Frame, Packet, Result

_SILENT_S = 4.0  # REPORT_S 8 times: a process that is starved of everything for that long answers nothing either
_ASLEEP_S = 1.0  # a wait that took longer means that this process itself was stopped
_TEXTS = 256  # of 64 KiB that may be pushed while the runtime is busy; memory of those that never were is not used
_STOP_S = 10.0  # for an orderly end; then the runtime is killed
_START_STOP_S = 0.5  # an engine build does not hear
ENTRY = "mmedge.pipeline.worker:main"
# What is read out of a bundle has codecs: of its members' names, and of labels.
_MODULES = ("mmedge.pipeline.worker", "onnxruntime", "encodings.cp437", "encodings.utf_8_sig")
log = logging.getLogger("mmedge.runtime")


def modules_for(inputs: Mapping[str, Address]) -> tuple[str, ...]:
    """Return what a run imports: the runtime, and what reads its sources.

    All at once, as what the spawner imports after a fork lies over what its earlier children share with it.
    """
    sources = [uri for uri in inputs.values() if uri != PUSH]
    worker = ("mmedge.capture.worker", "mmedge.calibration.offsets") if has_device(inputs) else ()
    return (*_MODULES, *worker, *modules_of(sources))


def prepare_process(inputs: Mapping[str, Address]) -> None:
    """Have what a run needs imported while this process does something else."""
    with suppress(OSError):  # whatever has run short is said when the process is started
        load_ahead(modules_for(inputs))


class RemoteRuntime:
    """Stands for a ``Runtime`` that runs in a process of its own.

    Args:
        spec: What to run.
        manifest: That of the bundle.

    Attributes:
        statistics: Counts and latencies, at most half a second old.
        keeps_pictures: Without a meaning here: results know where their pictures lie, and bring no copies.
    """

    def __init__(self, spec: RunSpec, manifest: Manifest) -> None:
        self.spec = spec
        self._trigger = manifest.sync.trigger
        rules, _ = apply_preset(spec.latency, manifest.sync, manifest.missing, manifest.inputs)
        self._slots = slots_for(hold_ns(rules, manifest.inputs))
        self.statistics = Statistics()
        self.keeps_pictures = False
        self._health: dict[str, dict[str, Any]] = {}
        self._child: Child | None = None
        self._ring: Any = None
        self._rings: dict[str, tuple[int, Any]] = {}  # input -> the ring its pictures or sound lie in, and its number
        self._frames = FrameRecords()
        self._decoder: msgspec.msgpack.Decoder[Sent] = msgspec.msgpack.Decoder(learn(Sent))
        self._error: MmedgeError | None = None
        self._open = self._done = False
        self._ended = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="mmedge-runtime", daemon=True)
        self._results_wake, self._pushed_wake, self._flow_wake = Wake(), Wake(), Wake()
        self._writer: PacketWriter | None = None
        self._closing = threading.Lock()
        self._asked: dict[int, Future[BundleSwap]] = {}
        self._numbers = count(1)

    def start(self) -> None:
        """Start the process; blocks until the engines are loaded and the sources are open.

        Raises:
            MmedgeError: What the runtime could not do; nothing is left running.
        """
        try:
            self._child = Child(
                ENTRY,
                pack(self.spec),
                name="the runtime",
                fds=[each.fileno() for each in (self._results_wake, self._pushed_wake, self._flow_wake)],
                stdin="text://stdin" in self.spec.inputs.values(),
                modules=modules_for(self.spec.inputs),
            )
            self._writer = PacketWriter(
                self._child.control, self._pushed_wake, self._flow_wake, slots=self._slots, texts=_TEXTS
            )
            self._thread.start()
            self._ready.wait()
            if not self._open:
                raise self._error or InternalError("the runtime process ended while it started", fix="please report it")
        except OSError as error:
            self.stop()
            what, fix = shortage(error) or (
                str(error.strerror),
                "raise the limits (ulimit -a), or use isolation='thread'",
            )
            message = f"the runtime process cannot be started: {what}"
            raise MmedgeError(message, where="limits of this process", fix=fix) from error
        except BaseException:
            self.stop()
            raise

    def _listen(self) -> None:
        child = self._child
        assert child is not None
        silent_s = 0.0
        try:
            # While it loads it may be busy for long, but never stopped.
            while silent_s < _SILENT_S or not (self._open or child.state().startswith("T")):
                before = time.monotonic()
                received = child.receive(REPORT_S)
                took_s = time.monotonic() - before
                if received is not None:
                    self._take(*received)
                # This process may have been stopped itself, and the runtime with it: only what it heard awake counts.
                silent_s = silent_s + took_s if received is None and took_s < _ASLEEP_S else 0.0
            self._error = MmedgeError(
                f"the runtime has not reported for {silent_s:.0f} s and was killed",
                where=f"process {child.pid}, {child.state()}",
                fix="leave it running (kill -CONT); a callable that holds the GIL has to release it",
            )
            child.kill()
        except EOFError:
            if not self._done:
                self._error = child.error or MmedgeError(
                    f"the runtime has died: {child.reason()}",
                    where=f"process {child.pid}",
                    fix="run again with isolation='thread' to debug it; report it if it is not your code",
                )
        except Exception as error:  # whatever it is must reach who waits for results
            log.exception("listening to the runtime failed")
            self._error = internal(error)
        finally:
            if self._error is not None:
                self.statistics.state = "FAILED"
                gone = {"state": "MISSING", "reason": self._error.message}
                self._health = {name: {**report, **gone} for name, report in self._health.items()}
            self._ended.set()
            while self._asked:
                self._asked.popitem()[1].set_exception(self._error or run_ended())
            self._ready.set()
            self._results_wake.set()

    def _take(self, message: Message, fds: list[int]) -> None:
        try:
            if isinstance(message, Ring) and message.number:
                kind = core.SampleRing if message.kind == "samples" else core.SlotRing
                self._rings[message.stream] = message.number, kind.attach(fds[0])
            elif isinstance(message, Ring):
                self._ring = core.SlotRing.attach(fds[0])
            elif isinstance(message, State):
                report = msgspec.msgpack.decode(message.body, type=learn(Report))
                self.statistics.update(report.statistics)
                unsent = self._writer.dropped[self._trigger] if self._writer is not None else 0
                if unsent:
                    self.statistics.triggers += unsent
                    self.statistics.drops["dropped_unsent"] = unsent
                self._health = report.health
            elif isinstance(message, Ready):
                self._open = True
                self._ready.set()
            elif isinstance(message, Answer):
                asked = self._asked.pop(message.number)
                if message.error is None:
                    asked.set_result(msgspec.msgpack.decode(message.body, type=learn(BundleSwap)))
                else:
                    asked.set_exception(error_from(message.error))
            elif isinstance(message, Done):
                self._done = True
        finally:
            for fd in fds:
                os.close(fd)

    def get(self, deadline_s: float | None = None) -> Result | None:
        """Return the next result, waiting for it; None at the end of the run.

        Raises:
            TimeoutError: If nothing came until ``deadline_s`` on ``time.monotonic``.
            MmedgeError: What ended the run.
        """
        while True:
            ended = self._ended.is_set()
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            message = self._next(0.0 if ended else left_s)
            if message is not None:
                return self._decoder.decode(message).take(self)
            if ended:
                self._results_wake.set()  # for the next who waits
                if self._error is not None:
                    raise self._error
                return None
            if left_s == 0.0:
                raise TimeoutError

    def _next(self, timeout_s: float | None) -> bytes | None:
        """Return the next result, or the newest one where older ones do not matter; None if none has come."""
        assert self._ring is not None, "start comes first"
        newest = self.spec.results == "latest"
        found: tuple[bytes, int] | None = core.next_message(self._ring, self._results_wake.fileno(), timeout_s, newest)
        if found is None:
            return None
        message, passed_over = found
        if passed_over:
            self.statistics.unread += passed_over
        return message

    def picture(self, name: str, reference: Reference | None, /) -> Frame:
        """Copy a picture, see ``MediaReader``."""
        # A result knows where its picture lies and no more: to keep results is not to keep rings.
        if reference is None:
            raise FrameExpiredError("the picture is gone", where=f"input '{name}'", fix="copy it as its result arrives")
        ring = self._attached(name, reference.ring)
        slot = core.RingSlot(ring, reference.index, reference.seq, held=False)
        record = self._frames.decode(reference.record)
        return record.frame(lay_out(record.kind, ring.data(reference.index)), slot).copy()

    def sound(self, name: str, reference: SoundReference | None, since: int | None, /) -> Sound:
        """Copy a window of sound, see ``MediaReader``."""
        if reference is None:
            raise FrameExpiredError("the sound is gone", where=f"input '{name}'", fix="copy it as its result arrives")
        return SoundCut(self._attached(name, reference.ring), *msgspec.structs.astuple(reference)[1:])(since)

    def _attached(self, name: str, wanted: int) -> Any:
        patience = 100  # the ring was announced before the result, but on the control line, which another thread reads
        while self._rings.get(name, (0, None))[0] < wanted and patience and not self._ended.wait(0.001):
            patience -= 1
        number, ring = self._rings.get(name, (0, None))
        if number != wanted:
            raise FrameExpiredError(
                "what was captured is gone: its device was opened again",
                where=f"input '{name}'",
                fix="copy it as its result arrives",
            )
        return ring

    def push(self, packet: Packet) -> bool:
        """Feed a packet; False when the run has ended."""
        assert self._writer is not None, "start comes first"
        if self._ended.is_set():
            return False
        self._writer.put(packet)
        return True

    def swap(self, order: SwapOrder) -> Future[BundleSwap]:
        """Let another bundle take over in the runtime's process; what comes of it is in the future."""
        assert self._child is not None, "start comes first"
        number, future = next(self._numbers), Future[BundleSwap]()
        self._asked[number] = future
        sent = not self._ended.is_set() and self._child.control.send(Ask(number, pack(order)))
        if not sent and self._asked.pop(number, None) is not None:
            future.set_exception(self._error or run_ended())
        return future

    def health(self) -> dict[str, dict[str, Any]]:
        """Return each source's state, at most half a second old."""
        health = {name: dict(report) for name, report in self._health.items()}
        for name, unsent in (self._writer.dropped if self._writer is not None else {}).items():
            health[name]["counters"] = {**health[name]["counters"], "dropped_unsent": unsent}
        return health

    def stop(self) -> None:
        """End the run and its process; idempotent."""
        with self._closing:
            if self._child is not None:
                self._child.stop(_STOP_S if self._open else _START_STOP_S, deaf=not self._open)
                if self._thread.ident is not None:
                    self._thread.join()
                self._child.close()
                self._child = None
