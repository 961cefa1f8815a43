"""The command line: ``mmedge COMMAND``. One file per command, imported when it is called."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mmedge.address import scrub
from mmedge.cli import signals
from mmedge.errors import InternalError, MmedgeError, internal, trace
from mmedge.extras import missing_package
from mmedge.lazy import collector_paused

# Command -> one line for the overview; the command itself lives in mmedge.cli.NAME.
COMMANDS = {
    "demo": "The whole path on this machine, with tables at the end.",
    "doctor": "What this machine has, what is wrong, how to fix it.",
    "devices": "Cameras and microphones, with the URI of each; --probe tries them.",
    "new": "A starter project; with --from a.onnx a runnable bundle, no training.",
    "inspect": "A bundle as a text graph; an ONNX file, an engine.",
    "verify": "Check a bundle: schema, hashes, golden self-test.",
    "compile": "Build the engines of a bundle for this device into the cache.",
    "run": "Live fused inference.",
    "record": "Record inputs, for replays, calibration and bug reports.",
    "view": "The live page over a recording: scrub, play, step by trigger.",
    "replay": "A recorded run again, bit by bit; or why a trigger saw what it saw.",
    "calibrate": "How late a camera is against a microphone, by flash and beep.",
    "service": "A systemd unit that runs a bundle: printed, or installed.",
    "health": "Does a run that goes on still answer? For health checks.",
    "bench": "Latency report of a bundle, or of one network.",
    "attest": "What this machine measures with a bundle, as one document to send.",
    "train": "Train the model of a recipe.",
    "export": "Train or load, then ONNX, INT8, bundle: all steps of a recipe.",
    "compare": "How far two bundles, networks or engines are apart; where two recipes differ.",
}
INTERRUPTED = 130
_GLOBAL = ("-v", "--verbose")
_UNTIL_STOPPED = ("run", "record", "view")  # a service manager's stop is their orderly end, however early it comes


class _Command(TyperCommand):
    """Asks what sinks are installed when its help is shown, and not before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--view" in args:  # its value may be left out
            from mmedge.view.access import is_place

            at = args.index("--view")
            if not (args[at + 1 :] and is_place(args[at + 1])):
                args = [*args[:at], "--view=", *args[at + 1 :]]
        rest = list(super().parse_args(ctx, args))
        for name, value in ctx.params.items():
            if isinstance(value, float) and math.isnan(value):  # no limit of an option refuses it
                ctx.fail(f"Invalid value for '--{name.replace('_', '-')}': nan is not a number.")
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.params:
            if "{sinks}" in (text := getattr(option, "help", None) or ""):
                from mmedge.sinks import sink_names

                option.help = text.replace("{sinks}", ", ".join(sink_names()))  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def app_command(name: str) -> Any:
    """Return a command, loaded: a ``click.Command``."""
    with collector_paused():
        module = import_module(f"mmedge.cli.{name}")
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=_Command)(module.command)
    command = typer.main.get_command(single)
    command.name = name
    return command


class _LazyGroup(TyperGroup):
    """Loads a command's module when it is called, so that ``--help`` and ``run`` stay light."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in COMMANDS and ctx.resilient_parsing:  # a shell completes a command line: it asks for the options
            return name, app_command(name), args[1:]
        if name not in COMMANDS and not name.startswith("-") and (near := get_close_matches(name, COMMANDS)):
            ctx.fail(f"No such command '{name}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if ctx.resilient_parsing or (ctx.invoked_subcommand is None and "--help" in sys.argv[1:2]):
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name], callback=lambda: None)
        command = app_command(cmd_name)
        signals.begin()
        return command


app = typer.Typer(
    cls=_LazyGroup,
    help="Live fused inference (image + audio + text) on the edge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        from mmedge.version import __version__

        typer.echo(f"mmedge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log to stderr."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    from mmedge.cli.output import PrintableFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command line and exit with the code of the design: 0, 1, 2, 3, 4, 5, 70 or 130."""
    code: int | None = None
    try:
        signals.listen()
        _reserve(sys.argv[1:])  # before ``run`` does, who would give it back
        code = run(sys.argv[1:])
        signals.finish()
    except signals.Stopped:  # before the command, or behind it
        signals.finish()
        code = _interrupted(sys.argv[1:]) if code is None else code
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):  # nobody reads it any more, or nobody ever did
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code."""
    from mmedge.cli.addresses import notice

    notice(arguments)
    undo = _reserve(arguments)
    try:
        return _run(arguments, as_json="--json" in arguments)
    finally:
        undo()


def _global_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``-v`` before the command, wherever it stands; behind ``--`` it is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    said = [argument for argument in arguments[:end] if argument in _GLOBAL]
    return said[:1] + [argument for argument in arguments[:end] if argument not in _GLOBAL] + arguments[end:]


def _interrupted(arguments: list[str]) -> int:
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    return 0 if signals.stops and command in _UNTIL_STOPPED else INTERRUPTED


def _reserve(arguments: list[str]) -> Callable[[], None]:
    if "--json" not in arguments or not {"--help", "--version"}.isdisjoint(arguments):
        return lambda: None
    from mmedge.cli.output import reserve_stdout

    return reserve_stdout()


def _run(arguments: list[str], *, as_json: bool) -> int:
    for size in ("COLUMNS", "LINES"):  # some terminals say 0 where they do not know, and nothing fits into that
        if os.environ.get(size, "").strip("0 ") == "":
            os.environ.pop(size, None)
    try:
        code = app(args=_global_first(arguments), prog_name="mmedge", standalone_mode=False)
        return _interrupted(arguments) if code == INTERRUPTED else code if isinstance(code, int) else 0
    except MmedgeError as error:
        _report(error.to_dict() if as_json else str(error), as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except typer.Exit as stop:
        return stop.exit_code
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            return _report_bug(error, as_json=as_json)
        _report(missing.to_dict() if as_json else str(missing), as_json=as_json)
        return missing.exit_code
    except BrokenPipeError:
        return 0  # the reader of our stdout has left: it had what it wanted
    except OSError as error:
        where = str(error.filename or "the output")
        problem = internal(error, where=where)
        if isinstance(problem, InternalError):
            problem = MmedgeError(f"{error.strerror or error}", where=where, fix="free space, or check the path")
        _report(problem.to_dict() if as_json else str(problem), as_json=as_json)
        return problem.exit_code
    except Exception as error:
        from mmedge.plain import printable

        # Click's usage errors have an exit code and know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            return _report_bug(error, as_json=as_json)
        if as_json:
            message = scrub(getattr(error, "format_message", error.__str__)())
            document = MmedgeError(message, where="command line", fix="mmedge --help").to_dict()
            _report(document | {"error": "UsageError", "exit_code": 2}, as_json=True)
        else:
            if isinstance(quoting := getattr(error, "message", None), str):  # it may quote a name of a file
                error.message = printable(quoting)  # type: ignore[attr-defined]
            said = io.StringIO()
            show(file=said)
            print(scrub(said.getvalue()), end="", file=sys.stderr)
        return 2


def _report(text: str | dict[str, object], *, as_json: bool) -> None:
    from mmedge.cli.output import documents
    from mmedge.plain import json_text, printable

    if as_json:
        line = json_text(json.dumps(text)) + "\n"
        try:
            documents().write(line.encode())
            documents().flush()
        except (OSError, MmedgeError):
            print(line, end="", file=sys.stderr)
    else:
        print(f"error: {printable(str(text))}", file=sys.stderr)


def _report_bug(error: Exception, *, as_json: bool) -> int:
    from mmedge.cli.output import printable

    problem = internal(error)
    if isinstance(problem, InternalError):
        print(printable(trace(error)), file=sys.stderr)
    _report(problem.to_dict() if as_json else str(problem), as_json=as_json)
    return problem.exit_code


class _Package(ModuleType):
    # Importing the command `run` would bind its module over the function.
    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "run" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
