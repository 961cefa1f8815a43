"""The runtime in a process of its own, the child's side: it runs a bundle and writes its results into a ring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import msgspec

from mmedge.bundle import Archive, Bundle, Manifest
from mmedge.bundle.references import count_told
from mmedge.capture.supervisor import Pulse
from mmedge.errors import BundleError
from mmedge.ipc.channel import PacketReader
from mmedge.ipc.control import unpack
from mmedge.ipc.wake import Wake
from mmedge.ipc.worker import Link
from mmedge.learn import learn
from mmedge.pipeline.runtime import Runtime
from mmedge.pipeline.sent import REPORT_S, Report, ResultWriter
from mmedge.pipeline.spec import RunSpec
from mmedge.pipeline.swap import BundleSwap, SwapOrder

for _kind in (RunSpec, Manifest, Report, Pulse):  # before a fork: whoever comes of it shares what was learned
    learn(_kind)


def main(link: Link) -> None:
    """Run a bundle until its sources end or the parent wants it; the child's entry."""
    spec = unpack(link.payload, RunSpec)
    wake_results, wake_pushed, wake_flow = map(Wake, link.fds)
    pushed = PacketReader("push", wake_pushed, wake_flow)
    link.on_ring(pushed.add)
    with Bundle(Archive(spec.bundle)) as bundle:  # the user's process has read it all; each member is checked when used
        if bundle.manifest_sha256 != spec.manifest_sha256:
            raise BundleError("the bundle has changed just now", where=spec.bundle, fix="start the run again")
        lossless, values = spec.latency == "offline", count_told(bundle.manifest)
        results = ResultWriter(link.control, wake_results, lossless=lossless, values=values, over=link.stopping)
        runtime = Runtime(spec, bundle, results, pushed)

        def report() -> None:
            link.report(msgspec.msgpack.encode(Report(runtime.health(), runtime.statistics.encode())))

        def repeat() -> None:
            while True:
                time.sleep(REPORT_S)
                report()

        runtime.start()
        link.on_ask(partial(_swap, runtime, report))
        try:
            report()
            link.ready()
            while not link.stopping.wait(REPORT_S):
                report()
        finally:
            # The end may take its time, and who falls silent is killed.
            threading.Thread(target=repeat, name="mmedge-report", daemon=True).start()
            runtime.stop()
        report()
        if results.error is not None:
            raise results.error


def _swap(runtime: Runtime, report: Callable[[], None], order: bytes) -> Future[bytes]:
    """Let another bundle take over; the future has what ``SwapOrder`` led to, encoded. ``report`` goes before it."""
    told: Future[bytes] = Future()

    def take(done: Future[BundleSwap]) -> None:
        report()  # so that whoever gets the answer finds it in health and statistics, too
        error = done.exception()
        if error is None:
            told.set_result(msgspec.msgpack.encode(done.result()))
        else:
            told.set_exception(error)

    runtime.swap(unpack(order, SwapOrder)).add_done_callback(take)
    return told
