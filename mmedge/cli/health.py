"""``mmedge health``: does a run that goes on still answer? For a container's health check."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mmedge.cli.output import Json, out, print_json
from mmedge.clients.attached import attach
from mmedge.errors import CheckError, DeviceError


def command(
    path: Annotated[Path, typer.Argument(metavar="SOCKET", help="The path that the run was given with --attach.")],
    within: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds in which a result must come.")] = 10.0,
    json: Json = False,
) -> None:
    """Wait for the next result of a run: `mmedge run ... --attach SOCKET`.

    Exit code 0 if one comes in time; 1 if none comes or the run has ended, as it may be stuck or its devices away;
    3 if no run answers there.
    """
    began_s = time.monotonic()
    with attach(path) as run:
        try:
            result = next(run.results(began_s + within), None)
        except DeviceError as error:  # it was there, and ended by an error
            raise CheckError(error.message, where=error.where, fix=error.fix) from error
    waited_ms = round(1000 * (time.monotonic() - began_s), 1)
    if result is None:
        raise CheckError(
            f"no result within {within:g} s", where=str(path), fix="see what the run says; mmedge devices --probe"
        )
    latency_ms = result.latency_ms.get("end_to_end")
    if json:
        document = {"schema": "mmedge.health/1", "status": result.status, "waited_ms": waited_ms}
        print_json({**document, "t_ns": result.t_ns, "latency_ms": latency_ms})
        return
    shown = "-" if latency_ms is None else f"{latency_ms:.1f} ms"
    out.print(f"{result.status}: a result after {waited_ms:.0f} ms, end to end {shown}", highlight=False)
