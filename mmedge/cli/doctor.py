"""``mmedge doctor``: what this machine has, what is wrong, how to fix it."""

from __future__ import annotations

import msgspec
import typer

from mmedge.cli.output import Json, out, print_json
from mmedge.doctor import collect, print_report
from mmedge.errors import CheckError


def command(json: Json = False) -> None:
    """Show what this machine has, what is wrong and how to fix it; exit code 1 if something must be fixed."""
    report = collect()
    failed = [check for check in report.checks if check.status == "fail"]
    if json:
        print_json(msgspec.to_builtins(report))
        raise typer.Exit(1 if failed else 0)
    print_report(out, report)
    if failed:
        raise CheckError(f"{len(failed)} checks failed", where=", ".join(c.name for c in failed), fix=failed[0].fix)
