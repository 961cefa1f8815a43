"""The sinks that a command line names."""

from __future__ import annotations

from mmedge.address import Address
from mmedge.cli.addresses import typed
from mmedge.privacy import Privacy
from mmedge.sinks import JsonlSink, Sink
from mmedge.sinks.named import options_of
from mmedge.sinks.options import read_typed


def make_sinks(texts: list[str], *, json: bool, privacy: Privacy = "picture") -> list[Sink | Address]:
    """Return the sinks of ``--sink``, and that of ``--json``; the console without any.

    Sinks that take ``?privacy=``, as that of videos does, keep to ``privacy``, unless they say something else.
    """
    sinks: list[Sink | Address] = [JsonlSink("-")] if json else []
    for text in texts or ([] if json else ["console"]):
        address = typed(text, "--sink")
        sort = read_typed(address)
        if privacy != "picture" and "privacy" not in sort.options and "privacy" in options_of(sort):
            address = Address(f"{address.reveal()}{'&' if sort.options else '?'}privacy={privacy}")
        sinks.append(address)
    return sinks
