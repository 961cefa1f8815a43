"""The report of `mmedge doctor` for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mmedge.console import styled
from mmedge.doctor.report import DoctorReport

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def print_report(console: Console, report: DoctorReport) -> None:
    """Print the checks with their fixes, then the optional packages.

    Args:
        console: Where to.
        report: What ``collect`` returned.

    Example:
        >>> print_report(mmedge.console.out, collect())  # doctest: +SKIP
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
        found = styled(check.detail)
        if check.fix:
            found = styled(check.detail, "\n", ("fix:", "bold"), f" {check.fix}")
        checks.add_row(check.name, styled(_MARKS[check.status]), found)
    console.print(checks)

    packages = Table(show_edge=False, pad_edge=False)
    for title in ("package", "version", "for", "install"):
        packages.add_column(title, overflow="fold")
    for name, package in report.packages.items():
        version = styled(package.version or "unknown" if package.installed else ("-", "dim"))
        packages.add_row(name, version, package.purpose, "" if package.installed else package.install)
    console.print()
    console.print(packages)
    failed = sum(check.status == "fail" for check in report.checks)
    warned = sum(check.status == "warn" for check in report.checks)
    console.print(f"\n{failed} failed, {warned} warnings", highlight=False)
