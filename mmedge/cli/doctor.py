"""``mmedge doctor``: what this machine has, what is wrong, how to fix it."""

from __future__ import annotations

import msgspec

from mmedge.cli.output import Json, out, print_json
from mmedge.doctor import collect, print_report
from mmedge.errors import CheckError


def command(json: Json = False) -> None:
    """Show what this machine has, what is wrong and how to fix it; exit code 1 if something must be fixed."""
    report = collect()
    if json:
        print_json(msgspec.to_builtins(report))
    else:
        print_report(out, report)
    failed = [check for check in report.checks if check.status == "fail"]
    if failed and not json:
        raise CheckError(f"{len(failed)} checks failed", where=", ".join(c.name for c in failed), fix=failed[0].fix)
