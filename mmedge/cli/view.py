"""``mmedge view``: the live page over a recording."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from mmedge.bundle import load
from mmedge.cli.output import Allow, Json, PrivacyOption, bar, print_json, tell_links
from mmedge.cli.signals import Stopped
from mmedge.view.access import DEFAULT, parse_place
from mmedge.view.messages import SCHEMA
from mmedge.view.recorded import RecordedFeed
from mmedge.view.server import ViewServer


def command(
    folder: Annotated[Path, typer.Argument(help="The recording: a folder made by `record` or `run --record`.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle that answers it anew; default: what the recorded run answered.")
    ] = None,
    at: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to serve the page.")] = DEFAULT,
    privacy: PrivacyOption = "picture",
    allow: Allow = [],
    json: Json = False,
) -> None:
    """Serve the page of a recording until Ctrl-C: scrub, play, step by trigger, and why each saw what it saw."""
    with ExitStack() as stack:
        opened = None if bundle is None else stack.enter_context(load(bundle))
        with bar("reading the recording"):
            feed = RecordedFeed(folder, opened, privacy, allow=allow)
        stack.callback(feed.close)
        server = ViewServer(feed, parse_place(at))
        stack.callback(server.close)
        feed.start()
        server.start()
        if json:
            print_json({"schema": SCHEMA, "links": server.links, "triggers": feed.triggers})
        tell_links(server.links)
        with suppress(Stopped):
            threading.Event().wait()
