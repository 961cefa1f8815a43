"""``mmedge replay``: a recorded run again, bit by bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from mmedge.bundle import load
from mmedge.cli.output import Allow, JsonLines, Sinks, abandon_stdout, err, out, print_json
from mmedge.cli.sinks import make_sinks
from mmedge.replay.replay import Replay
from mmedge.sinks import open_sink
from mmedge.types import Backend, Precision


def command(
    folder: Annotated[Path, typer.Argument(help="The recording: a folder made by `record` or `run --record`.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    speed: Annotated[
        float | None, typer.Option(help="1 plays at the recorded speed; default: as fast as possible.")
    ] = None,
    sink: Sinks = [],
    backend: Annotated[Backend, typer.Option()] = "auto",
    precision: Annotated[Precision | None, typer.Option()] = None,
    explain: Annotated[
        int | None,
        typer.Option(metavar="N", help="Explain which data trigger N (or the result with t_ns N) used, and why."),
    ] = None,
    allow: Allow = [],
    json: JsonLines = False,
) -> None:
    """Replay a recording. With --json: one result a line on stdout (JSON Lines), equal in every replay."""
    with load(bundle) as opened:
        if explain is not None:
            from mmedge.replay.explain import explain as explain_trigger  # a replay explains nothing

            document = explain_trigger(folder, opened, explain)
            if json:
                print_json(document)
            else:
                _print_explanation(document)
            return
        replay = Replay(folder, opened, backend=backend, precision=precision, speed=speed, allow=allow)
        sinks = [open_sink(each, tasks=opened.manifest.tasks, lossless=True) for each in make_sinks(sink, json=json)]
        replay.keeps_media = any(each.wants_pictures for each in sinks)
        try:
            for each in sinks:
                each.begin(SimpleNamespace(bundle=opened, statistics=replay.statistics, health=dict))
            for result in replay:
                for each in sinks:
                    each.write(result)
            for each in sinks:
                each.settle()
        except BrokenPipeError:
            # The reader of our stdout has left (`mmedge replay --json | head`): that is the end of the replay.
            abandon_stdout()
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
    delivered, waited = document["delivered_ms"], document["waited_ms"]
    late = " for " + ", ".join(document["waited_for"]) if document["waited_for"] else ""
    lines = [
        f"trigger {document['trigger']}, t_ns {document['t_ns']}, made by {document['made_by']}: {document['outcome']}",
        f"  delivered {delivered:.1f} ms after its capture, then waited {waited:.1f} ms{late}",
        f"  left because {document['left_because']}",
        f"  skew {document['skew_ms']:g} ± {document['uncertainty_ms']:g} ms; below, times from the trigger's capture",
    ]
    for name, entry in document["inputs"].items():
        lines += _input_lines(name, entry)
    for name, stage in document["stages"].items():
        state = "; its next run was still going on" if stage["still_running"] else ""
        lines.append(f"stage {name}: output of {stage['age_ms']:.1f} ms before{state}")
    lines += [f"task {name}: {task['label']} {task['score']}" for name, task in document["tasks"].items()]
    for note in document["nearby"]:
        lines.append("within 2 s: " + ", ".join(f"{key} {value}" for key, value in note.items()))
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _input_lines(name: str, entry: dict[str, Any]) -> list[str]:
    if entry["present"]:
        epoch, number = entry["used"]
        lines = [f"input {name}: present, number {number} of epoch {epoch}, {entry['age_ms']:.1f} ms old"]
    else:
        lines = [f"input {name}: absent, {entry['why']}"]
    if "watermark_ms" in entry:
        at, left = (_ms(entry["watermark_ms"][key]) for key in ("delivered", "left"))
        line = f"  complete up to {at} when the trigger came, {left} when it left"
        if "needed_ms" in entry:
            line += f"; needed up to {_ms(entry['needed_ms'])}, waited {entry['waited_ms']:.1f} ms"
        lines.append(line)
    for which in ("newest", "next"):
        if which in entry:
            packet = entry[which]
            line = f"  {which} packet: captured {_ms(packet['capture_ms'])}, arrived {_ms(packet['arrive_ms'])}"
            if "quality" in packet:
                line += f", time stamp of class {packet['quality']} ± {packet['uncertainty_ms']:g} ms"
            if "unchanged_ms" in packet:
                line += f", the same picture for {packet['unchanged_ms']:.0f} ms"
            lines.append(line)
    if entry.get("ended"):
        lines.append(f"  ended: {entry['ended']}")
    return lines


def _ms(value: float | None) -> str:
    return "nothing" if value is None else f"{value:+.1f} ms"
