"""``mmedge verify``: schema, hashes, golden self-test."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mmedge.bundle import load
from mmedge.cli.output import Json, add_names, bar, next_step, out, print_json
from mmedge.errors import CheckError
from mmedge.fusion import check_variants


def command(bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")], json: Json = False) -> None:
    """Check a bundle: schema, hashes, golden self-test of every variant on ONNX Runtime."""
    with load(bundle) as opened, bar("self-test") as progress:
        rows = check_variants(opened, progress)
        files = len(opened.manifest.files)
    failed = [row for row in rows if row["error"]]
    document: dict[str, Any] = {
        "schema": "mmedge.verify/1",
        "bundle": opened.name,
        "evidence": "cpu",
        "files": files,
        "ok": not failed,
        "variants": rows,
    }
    if json:
        print_json(document)
        raise typer.Exit(1 if failed else 0)
    table = Table(title=f"{opened.name}: {files} files match their SHA-256")
    add_names(table, "stage", [row["stage"] for row in rows])
    for heading in ("target", "precision", "ms here", "self-test (error / tolerance)"):
        table.add_column(heading)
    for row in rows:
        verdict = (
            f"[red]{escape(row['error'])}[/]" if row["error"] else f"[green]ok[/] {row['error_over_tolerance']:.2f}"
        )
        table.add_row(
            escape(row["stage"]),
            row["target"],
            row["precision"],
            "-" if row["run_ms"] is None else f"{row['run_ms']:.2f}",
            verdict,
        )
    out.print(table)
    if failed:
        raise CheckError(
            f"{len(failed)} of {len(rows)} variants fail their self-test",
            where=", ".join(f"{r['stage']} {r['target']} {r['precision']}" for r in failed),
            fix="; ".join(dict.fromkeys(row["fix"] or "export the bundle again" for row in failed)),
        )
    next_step(f"mmedge compile {escape(quote(str(bundle)))}")
