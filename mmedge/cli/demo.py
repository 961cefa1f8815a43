"""``mmedge demo``: the whole path on this machine, with tables at the end."""

from __future__ import annotations

from importlib import import_module
from itertools import cycle
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from mmedge.address import Address
from mmedge.bundle import load
from mmedge.cli.compile import engines_table
from mmedge.cli.output import Json, PrivacyOption, ViewOption, bar, err, next_step, out, print_json, styled, tell_links
from mmedge.cli.signals import Stopped
from mmedge.extras import demo_data
from mmedge.pipeline import Pipeline
from mmedge.pipeline.statistics import told
from mmedge.privacy import Privacy


def command(
    train: Annotated[bool, typer.Option("--train", help="Train the weights from scratch first (minutes).")] = False,
    output: Annotated[Path, typer.Option(help="Where the bundle is written.")] = Path("digits.mmedge"),
    view: ViewOption = None,
    privacy: PrivacyOption = "picture",
    json: Json = False,
) -> None:
    """PyTorch weights -> ONNX -> INT8 -> bundle -> TensorRT engines -> live fused run, measured.

    With --view: the clips on the live page, one after the other until Ctrl-C, instead of the measurements; a bundle
    that is there already is used.
    """
    demo_data("digits")  # before anything takes minutes
    module = import_module("mmedge.export.demo")
    with bar("demo") as progress:
        last = ""

        def show(text: str, share: float | None) -> None:
            nonlocal last
            progress(text, share)
            step = text.partition(":")[0]
            if step != last and not err.is_terminal:
                err.print(f"- {text}", highlight=False)
            last = step

        if view is not None:
            if train or not output.exists():
                module.make_bundle(output, train=train, progress=show)
            progress("the page", 1.0)
        else:
            report = module.demo(output, train=train, progress=show)
    if view is not None:
        _show(module, output, view, privacy)
        return
    if json:
        print_json(report.to_dict())
        return
    _print(report)
    next_step(f"mmedge run {quote(str(output))} --image 0 --audio mic://default   (mmedge devices lists yours)")


def _show(module: Any, output: Path, view: str, privacy: Privacy) -> None:
    """Play the clips on the page until somebody ends it."""
    from mmedge.view.live import LivePage, with_typed

    folder = demo_data("digits/clips")
    with load(output) as bundle, LivePage(view, privacy) as page:
        for turn, clip in enumerate(cycle(module.CLIPS)):
            fed = {seat: Address(str(folder / f"{clip}.mp4")) for seat in module.seats(bundle)}
            sink = page.again()
            with Pipeline(bundle, with_typed(bundle, fed), sinks=[sink]) as pipe:
                page.open(pipe, title=f"{bundle.name}, clip '{clip}'")
                if not turn:
                    tell_links(page.links)
                try:
                    pipe.run()
                except Stopped:
                    return


def _print(report: Any) -> None:
    document = report.to_dict()
    if report.export is not None:
        report.export.print(out)
    table = Table(title="accuracy of 'digit' (triggers whose word has ended)")
    for heading in ("clip", "image only", "audio only", "fused", "says 'agree'", "n"):
        table.add_column(heading, justify="left" if heading == "clip" else "right")
    for row in document["accuracy"]:
        without = row.get("fused_without_text")
        best = max(row["image"], row["audio"], without or 0.0)
        style = "green" if row["fused"] >= best else "yellow"
        agree = "-" if row["agree"] is None else f"{row['agree']:.0%}"
        table.add_row(
            row["clip"],
            f"{row['image']:.1%}",
            f"{row['audio']:.1%}",
            styled((f"{row['fused']:.1%}", style)),
            agree,
            str(row["n"]),
        )
        if without is not None:
            table.caption = f"claim: noise with each digit typed: {row['fused']:.1%}, without: {without:.1%}"
    out.print(table)
    int8 = document["int8"]
    out.print(
        f"INT8: {int8['agreement']:.1%} of {int8['n']} labels as fp32, {int8['bytes'] / 1000:.0f} kB instead of "
        f"{int8['fp32_bytes'] / 1000:.0f} kB (simulated on the CPU)",
        highlight=False,
    )
    out.print(engines_table(document["tensorrt"]["engines"]))
    if document["tensorrt"]["not_run_because"]:
        out.print(f"engines were built, not run: {document['tensorrt']['not_run_because']}", highlight=False)
    latency = Table(
        title=f"live: {document['results']} results of {document['frames']} frames ({document['evidence']})"
    )
    for heading in ("ms", "p50", "p90", "p99", "n"):
        latency.add_column(heading, justify="left" if heading == "ms" else "right")
    figures = {"end to end": document["latency_ms"]["end_to_end"], **document["latency_ms"]["steps"]}
    figures["skew"] = document["skew_ms"]
    for name, p in figures.items():
        latency.add_row(name, *(told(p[key]) for key in ("p50", "p90", "p99")), str(p["n"]))
    drops = ", ".join(f"{cause} {n}" for cause, n in document["drops"].items()) or "none"
    latency.caption = f"dropped: {drops}; audio samples lost: {sum(document['lost_samples'].values())}"
    out.print(latency)
