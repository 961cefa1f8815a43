"""``mmedge replay``: a recorded run again, bit by bit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from mmedge.bundle import load
from mmedge.cli.output import Json, err, out, print_json
from mmedge.pipeline.explain import explain as explain_trigger
from mmedge.pipeline.replay import Replay
from mmedge.sinks import make_sink


def command(
    folder: Annotated[Path, typer.Argument(help="The recording: a folder made by `record` or `run --record`.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    speed: Annotated[float | None, typer.Option(help="1 for the recorded pace; as fast as possible without.")] = None,
    sink: Annotated[list[str], typer.Option(help="console or jsonl:PATH; may be repeated.")] = [],
    backend: Annotated[Literal["auto", "onnxruntime", "tensorrt"], typer.Option()] = "auto",
    precision: Annotated[Literal["fp32", "fp16", "int8"] | None, typer.Option()] = None,
    explain: Annotated[
        int | None, typer.Option(metavar="N", help="Say why trigger N (or the result with t_ns N) saw what it saw.")
    ] = None,
    json: Json = False,
) -> None:
    """Replay a recording. With --json: one result a line on stdout (JSON Lines), equal in every replay."""
    with load(bundle) as opened:
        if explain is not None:
            document = explain_trigger(folder, opened, explain)
            if json:
                print_json(document)
            else:
                _print_explanation(document)
            return
        replay = Replay(folder, opened, backend=backend, precision=precision, speed=speed)
        sinks = [make_sink(text) for text in [*(["jsonl:-"] if json else []), *sink] or ["console"]]
        try:
            for result in replay:
                for each in sinks:
                    each.write(result)
        except BrokenPipeError:
            # The reader of our stdout has left (`mmedge replay --json | head`): that is the end of the replay.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            for each in sinks:
                each.close()
            _print_summary(replay)


def _print_summary(replay: Replay) -> None:
    statistics = replay.statistics
    err.print(f"{statistics.results} results of {statistics.triggers} triggers", highlight=False)
    if replay.answers:
        equal, total = replay.answers["equal"], replay.answers.total()
        err.print(f"answers equal to the recorded run: {equal} of {total}", highlight=False)
    if replay.cut is not None:
        err.print(f"warning: the recording ends early: {replay.cut}", highlight=False, markup=False)


def _print_explanation(document: dict[str, Any]) -> None:
    out.print(
        f"trigger {document['trigger']} at t_ns {document['t_ns']}: {document['outcome']}, made by {document['made_by']}\n"
        f"  delivered {document['delivered_ms']:.1f} ms after its capture, then waited {document['waited_ms']:.1f} ms"
        f"{' for ' + ', '.join(document['waited_for']) if document['waited_for'] else ''}\n"
        f"  left because {document['left_because']}\n"
        f"  skew {document['skew_ms']:g} ± {document['uncertainty_ms']:g} ms",
        highlight=False,
        markup=False,
    )
    table = Table(title="times in ms from the trigger's capture time")
    for heading in ("input", "used", "age", "complete up to", "waited", "newest packet", "next packet"):
        table.add_column(heading)
    for name, entry in document["inputs"].items():
        table.add_row(*(escape(cell) for cell in (name, *_cells(entry))))
    out.print(table)
    for name, stage in document["stages"].items():
        state = ", its next run was still going on" if stage["still_running"] else ""
        out.print(f"  stage {name}: output of {stage['age_ms']:.1f} ms before{state}", highlight=False, markup=False)
    for note in document["nearby"]:
        text = ", ".join(f"{key} {value}" for key, value in note.items())
        out.print(f"  within 2 s: {text}", highlight=False, markup=False)
    for name, task in document["tasks"].items():
        out.print(f"  {name}: {task['label']} {task['score']}", highlight=False, markup=False)


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    used = "absent: " + (entry["why"] or "") if not entry["present"] else "epoch {}, number {}".format(*entry["used"])
    marks, newest, after = entry.get("watermark_ms"), entry.get("newest"), entry.get("next")
    complete = f"{_number(marks['delivered'])} at delivery, {_number(marks['left'])} when it left" if marks else ""
    told = f"{newest['capture_ms']:.1f} (arrived {newest['arrive_ms']:.1f}, {newest['quality']})" if newest else "none"
    follows = f"{after['capture_ms']:.1f} (arrived {after['arrive_ms']:.1f})" if after else entry.get("ended") or "none"
    return used, _number(entry.get("age_ms")), complete, _number(entry.get("waited_ms")), told, follows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
