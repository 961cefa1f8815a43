"""Results on the console: a live table, or lines."""

from __future__ import annotations

from rich.live import Live
from rich.table import Table

from mmedge.console import PlainConsole
from mmedge.errors import ConfigError
from mmedge.sinks.base import Event
from mmedge.types import AnyArray, Result

_FEW = 4  # values of an output that are shown
_MAX_ROWS = 8  # boxes of one task in the live table


class ConsoleSink:
    """A live table on a terminal, otherwise one line a changed answer.

    Attributes:
        essential: When the reader of standard output has left, there is nothing to run for.
    """

    essential = True

    def __init__(self) -> None:
        self._console = PlainConsole()
        self._live: Live | None = None
        self._last: dict[str, tuple[str, ...]] = {}
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=12)
            self._live.start()

    def write(self, result: Result | Event) -> None:
        """Show one result, or one event as a line.

        Raises:
            BrokenPipeError: If the reader of standard output has left.
        """
        try:
            self._show(result)
        except SystemExit:  # rich's way to say so
            raise BrokenPipeError from None

    def _show(self, result: Result | Event) -> None:
        if isinstance(result, Event):
            lasted_ms = result.before_ms
            before = "" if lasted_ms is None else f"  ({result.before or '-'} for {lasted_ms / 1e3:.1f} s)"
            self._line(result.t_ns, f"{result.task} {result.tasks[result.task]}{before}")
            return
        if self._live is not None:
            self._live.update(_table(result))
            return
        answers = {name: task.gist for name, task in result.tasks.items()}
        outputs = {name: _output(array) for name, array in result.outputs.items()}
        answers |= {name: (text,) for name, text in outputs.items()}
        if answers != self._last:
            self._last = answers
            tasks = "  ".join(f"{name} {task}" for name, task in [*result.tasks.items(), *outputs.items()])
            self._line(result.t_ns, f"{tasks}  {_latency(result, '({:.1f} ms)')}")

    def _line(self, t_ns: int, text: str) -> None:
        self._console.print(f"{t_ns / 1e9:12.3f} s  {text}", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _latency(result: Result, form: str) -> str:
    """Say how long it took; a replay of another run's inputs took no time that means anything."""
    return form.format(result.latency_ms["end_to_end"]) if "end_to_end" in result.latency_ms else ""


def _output(array: AnyArray) -> str:
    """Return an output that is told as it is, in short."""
    shape = f"{array.dtype} {list(array.shape)}"
    return shape if array.size > _FEW else f"{shape} {', '.join(f'{value:.4g}' for value in array.reshape(-1))}"


def _table(result: Result) -> Table:
    table = Table(show_header=True, header_style="bold")
    for heading in ("task", "answer", "score"):
        table.add_column(heading)
    for name, task in result.tasks.items():
        rows = task.rows
        for answer, score in rows[:_MAX_ROWS]:
            table.add_row(name, answer, _bar(score))
        if len(rows) > _MAX_ROWS:
            table.add_row(name, f"and {len(rows) - _MAX_ROWS} more", "")
    for name, array in result.outputs.items():
        table.add_row(name, _output(array), "")
    seen = "  ".join(f"{'●' if on else '○'} {name}" for name, on in result.present.items())
    table.caption = (
        f"{seen}   {_latency(result, '{:.1f} ms')}   "
        f"skew {result.skew_ms:.1f} ± {result.uncertainty_ms:.1f} ms   {result.status}"
    )
    return table


def _bar(score: float | None) -> str:
    return "" if score is None else f"{score:.2f} {'█' * round(20 * score):<20}"


def make(target: str) -> ConsoleSink:
    """Return the sink of ``console``.

    Raises:
        ConfigError: If there is a target: there is one console.
    """
    if target:
        raise ConfigError(f"the sink 'console' takes no target, got '{target}'", where="sinks", fix="use 'console'")
    return ConsoleSink()
