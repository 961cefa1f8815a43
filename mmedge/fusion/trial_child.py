"""The child of a trial: tests variants of a bundle within bounds of memory, time and files."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import msgspec

from mmedge.bundle import Archive, Bundle
from mmedge.engine.cpu_backends import library_module
from mmedge.errors import BundleError, shortage
from mmedge.fusion.bounded import bound_self
from mmedge.fusion.check import check_variants
from mmedge.fusion.consent import Consent
from mmedge.fusion.trial import Order, Told, over
from mmedge.ipc.control import State, unpack
from mmedge.ipc.worker import Link

log = logging.getLogger("mmedge.fusion")
# What the libraries say of it.
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "does not fit into memory")


def main(link: Link) -> None:
    """Test variants of a bundle within bounds; the child's entry."""
    order = unpack(link.payload, Order)
    bundle = Bundle(Archive(order.bundle))  # each member is checked when it is read
    if bundle.manifest_sha256 != order.manifest_sha256:
        raise BundleError("the bundle has changed just now", where=order.bundle, fix="run the command again")
    consent = None if order.allow is None else Consent(order.allow, bundle.path)
    if bundle.manifest.variants:
        import_module(library_module(order.backend))
    for spec in bundle.manifest.stages.values():
        if consent is not None and spec.callable is not None and consent.covers(spec.callable):
            try:  # what the user trusts may take what it likes; whatever is wrong is said when it is used
                consent.load(spec.callable.partition(":")[0])
            except BaseException:
                log.debug("importing %s", spec.callable, exc_info=True)

    def tell(text: str, share: float) -> None:
        link.control.send(State(msgspec.msgpack.encode(Told(text, share))))

    def give(row: dict[str, Any]) -> None:
        fault = row["fault"]
        if fault is not None and any(words in fault["message"] for words in _NO_MEMORY):
            raise over(order.bundle, f"network '{row['file']}'", _needs(order), order.backend)
        link.control.send(State(msgspec.msgpack.encode(Told(row=row))))

    bound_self(order.cpu_s, order.memory_mb)
    try:
        check_variants(
            bundle, tell, only=order.only, known=order.known, consent=consent, give=give, backend=order.backend
        )
    except (MemoryError, RuntimeError) as error:
        if shortage(error) is None:
            raise
        raise over(order.bundle, "a network", _needs(order), order.backend) from error


def _needs(order: Order) -> str:
    return f"needs more than {order.memory_mb:.0f} MB of memory for its self-test"
