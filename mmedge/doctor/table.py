"""The report of `mmedge doctor` for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmedge.doctor.report import DoctorReport

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


def print_report(console: Console, report: DoctorReport) -> None:
    """Print the checks with their fixes, then the optional packages.

    Args:
        console: Where to.
        report: What ``collect`` returned.

    Example:
        >>> print_report(Console(), collect())  # doctest: +SKIP
    """
    host = report.platform
    place = f"{host.board}, " if host.board else ""
    l4t = f", Jetson Linux {host.l4t}" if host.l4t else ""
    console.print(
        f"mmedge {report.mmedge} on {place}{host.system} ({host.arch}{l4t}), {host.cpu}: evidence '{report.evidence}'",
        markup=False,
        highlight=False,
    )
    checks = Table(show_edge=False, pad_edge=False)
    for title in ("check", "", "what was found"):
        checks.add_column(title, overflow="fold")
    for check in report.checks:
        fix = f"\n[bold]fix:[/] {escape(check.fix)}" if check.fix else ""
        checks.add_row(escape(check.name), _MARKS[check.status], escape(check.detail) + fix)
    console.print(checks)

    packages = Table(show_edge=False, pad_edge=False)
    for title in ("package", "version", "for", "install"):
        packages.add_column(title, overflow="fold")
    for name, package in report.packages.items():
        version = (package.version or "unknown") if package.installed else "[dim]-[/]"
        packages.add_row(escape(name), version, package.purpose, "" if package.installed else escape(package.install))
    console.print()
    console.print(packages)
    failed = sum(check.status == "fail" for check in report.checks)
    warned = sum(check.status == "warn" for check in report.checks)
    console.print(f"\n{failed} failed, {warned} warnings", highlight=False)
