"""Run every benchmark in a process of its own; write ``docs/benchmarks.md`` and the README's table of ratios."""

from __future__ import annotations

import argparse
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import msgspec

import benchmarks
from benchmarks.harness import HEADS, BenchmarkReport, cells, figure, show
from benchmarks.readme import PAGE, README, written

# Not benchmarks: what they share.
SHARED = {
    "__main__",
    "attention",
    "attention_choice",
    "bench_bundles",
    "cost",
    "digits",
    "digits_choice",
    "export_cost",
    "export_nets",
    "fusion_study",
    "fusion_table",
    "goals",
    "graph",
    "harness",
    "images",
    "impacts",
    "limits",
    "live_user",
    "loopback",
    "media_clips",
    "media_damage",
    "media_times",
    "nets",
    "null_bundle",
    "overload_rule",
    "pictures",
    "readme",
    "simulation",
    "stamped",
}


def section(report: BenchmarkReport) -> str:
    """Return one report as Markdown."""
    lines = [
        f"## {report.name}",
        "",
        *textwrap.wrap(report.title, 132, break_long_words=False, break_on_hyphens=False),
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
    ]
    lines += [f"| {' | '.join([row.what, *cells(row)])} |".replace("\n", "<br>") for row in report.rows]
    facts = {**report.host, **report.conditions, "evidence": report.evidence}
    said = "; ".join(f"{key}: {value}" for key, value in facts.items())
    lines += ["", *textwrap.wrap(said, 132, break_long_words=False, break_on_hyphens=False), ""]
    lines += [figure(report, name, "`") + "  " for name in report.targets]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these; the page keeps its sections of the others"
    )
    parser.add_argument("--quick", action="store_true", help="each benchmark ends within a minute")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write each document there as NAME.json")
    options = parser.parse_args()
    found = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg]
    known = [name for name in found if name not in SHARED and not name.startswith("media_")]  # parts of "media"
    if unknown := set(options.names) - set(known):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    names = [name for name in known if not options.names or name in options.names]
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    sections, missed = dict[str, str](), list[str]()
    for name in names:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(["--quick"] if options.quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE)
        if not done.stdout:  # hours of others' runs are not thrown away for it
            sections[name] = f"## {name}\n\nIt ended without a report: exit code {done.returncode}."
            missed.append(name)
            continue
        if options.output is not None:
            (options.output / f"{name}.json").write_bytes(done.stdout)
        report = msgspec.json.decode(done.stdout, type=BenchmarkReport)
        show(report)
        missed += report.missed
        sections[name] = section(report)
    if not options.quick:
        write_page(sections if names == known else kept(PAGE) | sections)
    if missed:
        sys.exit(1)


def kept(page: Path) -> dict[str, str]:
    """Return the sections of a page that was written before, by name."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return {part.split("\n", 1)[0]: f"## {part.rstrip()}" for part in re.split(r"^## ", text, flags=re.M)[1:]}


def page_of(sections: Mapping[str, str]) -> str:
    """Return the page of sections, by name."""
    head = "# Benchmarks\n\nWritten by `python -m benchmarks`. Every figure carries its evidence class."
    return "\n\n".join([head, *(sections[name] for name in sorted(sections))]) + "\n"


def write_page(sections: Mapping[str, str]) -> None:
    PAGE.parent.mkdir(exist_ok=True)
    page = page_of(sections)
    PAGE.write_text(page, encoding="utf-8")
    README.write_text(written(README.read_text(encoding="utf-8"), page), encoding="utf-8")


if __name__ == "__main__":
    main()
