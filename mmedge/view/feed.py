"""What a live run tells the page: a sink that keeps the newest, and makes pictures while somebody looks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.errors import ConfigError, FrameExpiredError, MmedgeError
from mmedge.pipeline import Pipeline
from mmedge.pipeline.spec import PUSH
from mmedge.privacy import Privacy
from mmedge.sound_cut import Sound
from mmedge.types import Result
from mmedge.view import messages
from mmedge.view.picture import Jpeg, PictureMaker
from mmedge.view.sound import SoundTrack

log = logging.getLogger("mmedge.view")
PICTURES_HZ = 12.0
NICE = 10  # of the page's threads, where the run has a process of its own
ROWS = 512  # results that a new viewer gets: 17 s at 30 a second
_FIGURES_S = 0.25  # between two looks at counts and health
MOST_TEXT = 2000  # characters that can be typed at once
_TEXTS, _TEXTS_S = 10, 5.0  # typed texts that are taken in that time


def step_back() -> None:
    """Let this thread wait for a core behind others, and never interrupt one when it wakes."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, NICE)
    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


@dataclass
class Cursor:
    """What one viewer has had: numbers of the newest row, pictures, columns and figures; what it asked for."""

    row: int = 0
    figures: int = 0
    at: int | None = None
    explain: int | None = None
    had: tuple[int, bool] | None = None
    pictures: dict[str, int] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)


class _Shown(NamedTuple):
    """The newest picture of an input, and what was said of it."""

    number: int
    t_ms: float
    jpeg: Jpeg
    boxes: list[list[Any]]


class LiveFeed:
    """Takes the results of a run and gives each viewer what it has not had; nothing waits for a viewer.

    ``write`` appends to a bounded queue and returns. A thread of its own copies the newest picture and the sound since
    the last look, 12 times a second, and only while somebody looks.

    Args:
        privacy: What of pictures and sound may be shown.
        pictures_hz: How often, at most.
    """

    live = True

    def __init__(self, privacy: Privacy = "picture", *, pictures_hz: float = PICTURES_HZ) -> None:
        self.privacy: Privacy = privacy
        self._period_s = 1.0 / pictures_hz
        self._pipe: Pipeline | None = None
        self._title = ""
        self._new: deque[Result] = deque(maxlen=ROWS)
        self._rows: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._numbers = count(1)
        self._newest: Result | None = None
        self._shown: dict[str, _Shown] = {}
        self._makers: dict[str, PictureMaker] = {}
        self._tracks: dict[str, SoundTrack] = {}
        self._windows_ms: dict[str, float] = {}
        self._cut: dict[str, tuple[float, float]] = {}
        self._figures: tuple[int, dict[str, Any], dict[str, Any]] = 0, {}, {}
        self._looked_s = 0.0
        self._started_ns = 0
        self._typed: deque[float] = deque(maxlen=_TEXTS)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mmedge-view", daemon=True)
        self.viewers = 0
        self.on_tick: Callable[[], None] = lambda: None

    def attach(self, pipe: Pipeline, title: str | None = None) -> None:
        """Begin: ``pipe`` has started, and this is one of its sinks; the page has a title, by default its bundle's."""
        self._title = title or pipe.bundle.name
        self._pipe = pipe
        self._started_ns = pipe.statistics.started_ns or time.monotonic_ns()
        for name, spec in pipe.bundle.inputs.items():
            if isinstance(spec, ImageInput):
                self._makers[name] = PictureMaker(self.privacy)
            elif isinstance(spec, AudioInput):
                self._tracks[name] = SoundTrack(spec.sample_rate_hz, self.privacy)
                self._windows_ms[name] = spec.window_ms
        self._thread.start()

    def write(self, result: Result) -> None:
        """Take one result."""
        self._new.append(result)

    def close(self) -> None:
        """End; what was told stays."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def hello(self) -> dict[str, Any]:
        """Return the first header of a viewer's connection."""
        assert self._pipe is not None, "attach comes first"
        bundle, inputs = self._pipe.bundle, self._pipe.inputs
        typed = [n for n, spec in bundle.inputs.items() if isinstance(spec, TextInput) and inputs.get(n) == PUSH]
        head = messages.hello(self._title, bundle.inputs, bundle.tasks, live=True, privacy=self.privacy, typed=typed)
        return head | {"attached": list(inputs)}

    def message(self, cursor: Cursor) -> bytes:
        """Return what a viewer has not had, and move its cursor."""
        with self._lock:
            rows = [row for row in self._rows if row["n"] > cursor.row]
            header: dict[str, Any] = {
                "kind": "tick",
                "now": round((time.monotonic_ns() - self._started_ns) / 1e6, 1),
                "rows": rows,
                "pictures": [],
                "sound": [],
                "cut": self._cut,
            }
            blobs: list[bytes] = []
            for name, shown in self._shown.items():
                if shown.number != cursor.pictures.get(name):
                    cursor.pictures[name] = shown.number
                    told = {"input": name, "t": shown.t_ms, "boxes": shown.boxes, "bytes": len(shown.jpeg.data)}
                    header["pictures"].append(told)
                    blobs.append(shown.jpeg.data)
            for name, track in self._tracks.items():
                had = cursor.columns.get(name, 0)
                found = [column for column in track.columns if column.number > had]
                if found:
                    cursor.columns[name] = found[-1].number
                    told, data = messages.columns(name, found, self._started_ns)
                    header["sound"].append(told)
                    blobs.append(data)
            number, figures, health = self._figures
            if number != cursor.figures:
                cursor.figures = number
                header |= {"figures": figures, "health": health}
            if rows:
                cursor.row = rows[-1]["n"]
        return messages.packed(header, blobs)

    def say(self, text: str, name: str | None) -> str | None:
        """Take a typed text; return why not, or None.

        Bounded: 2,000 characters, ten texts in five seconds from all viewers together.
        """
        now_s = time.monotonic()
        if self._pipe is None or len(text) > MOST_TEXT:
            return f"the text is longer than {MOST_TEXT} characters"
        if len(self._typed) == _TEXTS and now_s - self._typed[0] < _TEXTS_S:
            return f"more than {_TEXTS} texts in {_TEXTS_S:g} s"
        self._typed.append(now_s)
        try:
            self._pipe.text(text, name)
        except MmedgeError as error:  # no such input, or the run has ended
            return error.message
        return None

    def _work(self) -> None:
        if self._pipe is not None and self._pipe.isolation == "process":
            # Pictures come after the run. Where both are in one process they share the interpreter's lock: there, who
            # holds it must not be kept from a core.
            step_back()
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._period_s)
            try:
                self._look()
            except Exception:  # the page must not end the run, nor itself over one picture
                log.exception("the page's state could not be made")

    def _look(self) -> None:
        results = [self._new.popleft() for _ in range(len(self._new))]
        rows = [self._row(result) for result in results]
        newest = results[-1] if results else None
        shown: dict[str, _Shown] = {}
        sounds: dict[str, Sound] = {}
        if newest is not None and self.viewers and self.privacy != "none":
            shown = self._pictures(newest)
            sounds = self._sounds(newest)
        figures = self._count()
        with self._lock:
            self._rows.extend(rows)
            self._shown |= shown
            for name, sound in sounds.items():
                self._tracks[name].take(sound)
            if sounds:
                self._cut = self._cuts(sounds)
            if figures is not None:
                self._figures = figures
        self.on_tick()

    def _row(self, result: Result) -> dict[str, Any]:
        return messages.row(
            next(self._numbers),
            (result.t_ns - self._started_ns) / 1e6,
            valid=result.status == "ok",
            tasks=result.tasks,
            present=result.present,
            age_ms=result.age_ms,
            skew_ms=result.skew_ms,
            uncertainty_ms=result.uncertainty_ms,
            latency_ms=result.latency_ms,
            reason=result.reason,
        )

    def _pictures(self, result: Result) -> dict[str, _Shown]:
        found = {}
        for name, make in self._makers.items():
            if not result.present.get(name):
                continue
            try:
                frame = result.frame(name)
            except (FrameExpiredError, ConfigError):  # too late, or of no picture
                continue
            jpeg = make(frame)
            if jpeg is not None:
                before = self._shown.get(name)
                number = 1 if before is None else before.number + 1
                t_ms = round((frame.capture_ns - self._started_ns) / 1e6, 1)
                found[name] = _Shown(number, t_ms, jpeg, messages.boxes(result.tasks))
        return found

    def _sounds(self, result: Result) -> dict[str, Sound]:
        found = {}
        for name, track in self._tracks.items():
            if result.present.get(name):
                try:
                    found[name] = result.sound(name, track.end)
                except (FrameExpiredError, ConfigError):
                    continue
        return found

    def _cuts(self, sounds: dict[str, Sound]) -> dict[str, tuple[float, float]]:
        """Return from when to when the window of each sound was cut, in ms of the run."""
        found = {}
        for name, sound in sounds.items():
            end_ms = (sound.end_ns - self._started_ns) / 1e6
            found[name] = round(end_ms - self._windows_ms[name], 1), round(end_ms, 1)
        return found

    def _count(self) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        now_s = time.monotonic()
        if self._pipe is None or (now_s - self._looked_s < _FIGURES_S and not self._stop.is_set()):
            return None
        self._looked_s = now_s
        try:
            health = {name: _health(report) for name, report in self._pipe.health().items()}
        except MmedgeError:  # it is being closed
            health = self._figures[2]
        return self._figures[0] + 1, messages.figures(self._pipe.statistics), health


def _health(report: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a source."""
    told = {key: report[key] for key in ("state", "reason") if report.get(key) is not None}
    clock = report.get("clock")
    if clock:
        told["clock"] = {
            "quality": clock["quality"],
            "ppm": messages.finite(clock["ppm"]),
            "jitter_ms": round(clock["jitter_ns"] / 1e6, 2),
            "uncertainty_ms": round(clock["uncertainty_ns"] / 1e6, 2),
        }
    counters = report.get("counters") or {}
    told["counters"] = {name: n for name, n in counters.items() if n}
    return told
