"""``mmedge verify``: schema, hashes, golden self-test."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from mmedge.bundle import load
from mmedge.cli.output import Allow, Json, add_names, bar, next_step, out, print_json, styled
from mmedge.errors import CheckError
from mmedge.fusion import Limits, verify_bundle
from mmedge.fusion.consent import Consent, how_to_allow, needed_code


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    allow: Allow = [],
    cpu_s: Annotated[
        float | None, typer.Option(min=1, max=1e6, help="Seconds of processor time that the networks may take.")
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option(min=1, max=1e6, help="Megabytes of memory that the networks may take.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a bundle: schema, hashes, golden self-test of every variant on ONNX Runtime, in a process with bounds.

    No code that the bundle names is imported, unless it is allowed. Exit code 1 if something fails or is not allowed.
    """
    with load(bundle) as opened:
        missing = needed_code(opened.manifest, Consent(allow, opened.path))
        with bar("self-test") as progress:
            limits = Limits(cpu_s=cpu_s, memory_mb=memory_mb)
            rows = verify_bundle(opened, progress, allow=allow, limits=limits)
        files = len(opened.manifest.files)
    failed = [row for row in rows if row["error"]]
    document: dict[str, Any] = {
        "schema": "mmedge.verify/1",
        "bundle": opened.name,
        "evidence": "cpu",
        "files": files,
        "ok": not failed and not missing,
        "needs_code": missing,
        "variants": [{key: value for key, value in row.items() if key not in ("index", "fault")} for row in rows],
    }
    if json:
        print_json(document)
        raise typer.Exit(0 if document["ok"] else 1)
    table = Table(title=f"{opened.name}: {files} files match their SHA-256")
    add_names(table, "stage", [row["stage"] for row in rows])
    for heading in ("target", "precision", "ms here", "self-test (error / tolerance)"):
        table.add_column(heading)
    for row in rows:
        verdict = (
            styled((row["error"], "red"))
            if row["error"]
            else styled(("ok", "green"), f" {row['error_over_tolerance']:.2f}")
        )
        table.add_row(
            row["stage"],
            row["target"],
            row["precision"],
            "-" if row["run_ms"] is None else f"{row['run_ms']:.2f}",
            verdict,
        )
    out.print(table if rows else f"{opened.name}: {files} files match their SHA-256")
    for stage, target in missing.items():
        out.print(f"stage '{stage}' needs code {target}", highlight=False, markup=False)
    if failed:
        raise CheckError(
            f"{len(failed)} of {len(rows)} variants fail their self-test",
            where=", ".join(f"{r['stage']} {r['target']} {r['precision']}" for r in failed),
            fix="; ".join(dict.fromkeys(row["fix"] or "export the bundle again" for row in failed)),
        )
    if missing:
        raise CheckError(
            f"the bundle needs code {', '.join(missing.values())}, which was not allowed",
            where=", ".join(f"stage '{stage}'" for stage in missing),
            fix=how_to_allow(missing.values()),
        )
    next_step(f"mmedge compile {quote(str(bundle))}")
