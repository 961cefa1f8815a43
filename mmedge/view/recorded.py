"""A recording on the page: any of its triggers, with what was seen and heard around it, and why."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import AudioInput, Input, Task
from mmedge.errors import CheckError, MmedgeError
from mmedge.pipeline import Statistics
from mmedge.plan.bounds import look_ahead_ns
from mmedge.privacy import Privacy
from mmedge.recording.event_log import HealthEvent, TriggerEvent
from mmedge.recording.reader import Recording
from mmedge.replay.explain import explain
from mmedge.replay.replay import Replay
from mmedge.sound_cut import Sound
from mmedge.types import Block, Frame, Result
from mmedge.view import messages
from mmedge.view.feed import Cursor
from mmedge.view.picture import Jpeg, PictureMaker
from mmedge.view.sound import Column, SoundTrack

log = logging.getLogger("mmedge.view")
_BEFORE_MS, _AFTER_MS = 7_500.0, 3_500.0  # of the log that is told with a trigger
_MOST_SPOOLED = 4 << 30  # bytes of pictures
_PROGRESS = 30  # pictures between two looks of those who wait for one


@dataclass(slots=True)
class _Row:
    """One trigger: its time, its number, what the page draws as JSON (there may be a hundred thousand), its boxes."""

    t_ns: int
    number: int
    line: bytes
    boxes: list[list[Any]]

    @property
    def told(self) -> dict[str, Any]:
        """What the page draws."""
        told: dict[str, Any] = msgspec.json.decode(self.line)
        return told


@dataclass
class _Pictures:
    """The pictures of one input, in a file, by capture time."""

    maker: PictureMaker
    times: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)  # offset, bytes, width, height


class RecordedFeed:
    """Gives each viewer the trigger it asks for.

    The log is read when this is made. Pictures and sound are decoded once, in the background, into a file without a
    name; what lies ahead of that is told without a picture at first.

    Args:
        folder: The recording.
        bundle: What answers it, anew; None shows what the recorded run answered.
        privacy: What of pictures and sound may be shown.
        allow: Modules whose functions the bundle may call.

    Raises:
        ConfigError: If folder and bundle do not fit, or no bundle ran and none is given.
        SourceError: If the recording's header is damaged.
    """

    live = False

    def __init__(
        self, folder: Path, bundle: Bundle | None, privacy: Privacy = "picture", *, allow: Sequence[str] = ()
    ) -> None:
        self._folder, self._bundle, self._privacy = folder, bundle, privacy
        self._header = Recording(folder).header
        self._started_ns = self._header.started_ns
        ran = self._header.bundle
        self._inputs: dict[str, Input] = bundle.inputs if bundle is not None else ran.seats if ran is not None else {}
        self._sync = bundle.manifest.sync if bundle is not None else ran.used.sync if ran is not None else None
        self._statistics = Statistics()
        self._statistics.state = "STOPPED"
        self._said: dict[str, None] = {}  # tasks that were answered
        self._health: list[HealthEvent] = []
        self._rows = self._from_log() if bundle is None else self._from_replay(bundle, allow)
        self._times = [row.t_ns for row in self._rows]
        self._sounds: dict[str, list[Column]] = defaultdict(list)
        self._pictures = {n: _Pictures(PictureMaker(privacy)) for n in self._header.inputs}
        self._spool = TemporaryFile()
        self._spooled = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._decoded_ns = -1 if privacy != "none" else 1 << 62
        self._thread = threading.Thread(target=self._decode, name="mmedge-view", daemon=True)
        self.viewers = 0
        self.on_tick: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to decode pictures and sound."""
        if self._privacy != "none":
            self._thread.start()

    def close(self) -> None:
        """End; idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._spool.close()

    @property
    def decoding(self) -> bool:
        """Whether pictures and sound are still being read."""
        return self._thread.is_alive()

    @property
    def triggers(self) -> int:
        """How many triggers there are to look at."""
        return len(self._rows)

    def _add(self, rows: list[_Row], result: Result | TriggerEvent, number: int) -> None:
        statistics, ms = self._statistics, result.latency_ms
        statistics.results += 1
        if "end_to_end" in ms:
            statistics.end_to_end.add(round(ms["end_to_end"] * 1e6))
        for step in messages.STEPS:
            if step in ms:
                statistics.steps[step].add(round(ms[step] * 1e6))
        told = messages.row(
            len(rows) + 1,
            (result.t_ns - self._started_ns) / 1e6,
            valid=result.status != "unvalidated",
            tasks=result.tasks,
            present=result.present,
            age_ms=result.age_ms,
            skew_ms=result.skew_ms,
            uncertainty_ms=result.uncertainty_ms,
            latency_ms=ms,
            reason=result.reason,
        )
        line = msgspec.json.encode(told | {"at": len(rows)})
        rows.append(_Row(result.t_ns, number, line, messages.boxes(result.tasks)))
        self._said |= dict.fromkeys(result.tasks)

    def _from_log(self) -> list[_Row]:
        rows: list[_Row] = []
        drops: Counter[str] = Counter()
        recording = Recording(self._folder)
        for turn in recording.turns(media=False):
            self._health += [note for note in turn.notes if isinstance(note, HealthEvent)]
            for event in turn.triggers.values():
                self._statistics.triggers += 1
                if event.outcome == "answered":
                    self._add(rows, event, event.seq)
                else:
                    drops[event.outcome] += 1
        self._statistics.drops = dict(drops)
        self._note(recording)
        if not rows and self._header.bundle is None:
            explain(self._folder, None, 1)  # says that a bundle is needed
        return rows

    def _from_replay(self, bundle: Bundle, allow: Sequence[str]) -> list[_Row]:
        rows: list[_Row] = []
        replay = Replay(self._folder, bundle, allow=allow)
        try:
            for result in replay:
                self._add(rows, result, result.t_ns)
        except CheckError as error:  # what was answered is shown all the same
            log.warning("%s", error.message)
        self._note(replay.recording)
        self._statistics.triggers = replay.statistics.triggers
        self._statistics.drops = dict(replay.statistics.drops)
        self._statistics.evidence = replay.statistics.evidence
        return rows

    def _note(self, recording: Recording) -> None:
        if recording.cut is not None:
            self._statistics.notes = [f"the recording ends early: {recording.cut}"]

    def _tasks(self) -> dict[str, Task | None]:
        if self._bundle is not None:
            return dict(self._bundle.tasks)
        return dict.fromkeys(self._said)

    def hello(self) -> dict[str, Any]:
        """Return the first header of a viewer's connection."""
        ran = self._header.bundle
        name = self._bundle.name if self._bundle is not None else ran.name if ran is not None else "recording"
        head = messages.hello(
            f"{name}: {self._folder.resolve().name}",
            self._inputs,
            self._tasks(),
            live=False,
            privacy=self._privacy,
            typed=[],
        )
        return head | {"attached": list(self._header.inputs), "triggers": self.triggers}

    def say(self, text: str, name: str | None) -> str | None:
        """Refuse: what was recorded is as it is."""
        return "nothing can be typed into a recording"

    def message(self, cursor: Cursor) -> bytes | None:
        """Return the trigger that a viewer asked for, why it saw what it saw, or its picture that is there by now."""
        if cursor.at is not None and self._rows:
            row = self._rows[min(max(cursor.at, 0), len(self._rows) - 1)]
            complete = self._decoded_ns >= row.t_ns + _AFTER_MS * 1e6
            if cursor.had != (cursor.at, complete):
                cursor.had = cursor.at, complete
                return self._shown(row)
        if cursor.explain is not None:
            wanted, cursor.explain = cursor.explain, None
            return self._why(wanted)
        return None

    def _shown(self, row: _Row) -> bytes:
        """Return one trigger with what was seen, heard and concluded around it."""
        told = row.told
        header: dict[str, Any] = {"kind": "tick", "replace": True, "at": told["at"], "number": row.number}
        first = bisect_left(self._times, row.t_ns - round(_BEFORE_MS * 1e6))
        last = bisect_right(self._times, row.t_ns + round(_AFTER_MS * 1e6))
        header |= {"now": told["t"], "rows": [msgspec.Raw(each.line) for each in self._rows[first:last]]}
        header |= {"pictures": [], "sound": [], "cut": self._cuts(told)}
        header |= {"figures": messages.figures(self._statistics), "health": self._health_at(row.t_ns)}
        blobs: list[bytes] = []
        with self._lock:
            for name in self._pictures:
                found = self._picture(name, row.t_ns, told)
                if found is not None:
                    t_ms = round((found[0] - self._started_ns) / 1e6, 1)
                    size = len(found[1].data)
                    header["pictures"].append({"input": name, "t": t_ms, "boxes": row.boxes, "bytes": size})
                    blobs.append(found[1].data)
            for name, columns in self._sounds.items():
                begin = bisect_left(columns, row.t_ns - round(_BEFORE_MS * 1e6), key=lambda column: column.end_ns)
                end = bisect_right(columns, row.t_ns + round(_AFTER_MS * 1e6), key=lambda column: column.end_ns)
                heard, data = messages.columns(name, columns[begin:end], self._started_ns)
                header["sound"].append(heard)
                blobs.append(data)
        return messages.packed(header, blobs)

    def _picture(self, name: str, t_ns: int, told: dict[str, Any]) -> tuple[int, Jpeg] | None:
        """Return the picture of an input that a trigger saw; None if it saw none, or it is not decoded yet."""
        age_ms = told["age"].get(name)
        pictures = self._pictures[name]
        if age_ms is None or not told["present"].get(name):
            return None
        seen_ns = t_ns - round(age_ms * 1e6)
        index = bisect_right(pictures.times, seen_ns + 1_000_000) - 1  # ages are told in steps of 1 us
        if index < 0 or seen_ns - pictures.times[index] > 1_000_000:
            return None
        offset, size, width, height = pictures.places[index]
        self._spool.seek(offset)
        return pictures.times[index], Jpeg(self._spool.read(size), width, height)

    def _cuts(self, told: dict[str, Any]) -> dict[str, tuple[float, float]]:
        found = {}
        for name, spec in self._inputs.items():
            if isinstance(spec, AudioInput) and told["present"].get(name):
                age_ms = told["age"].get(name, 0.0)
                ahead_ms = 0.0 if self._sync is None else look_ahead_ns(self._sync, spec) / 1e6
                end_ms = told["t"] + (ahead_ms if age_ms == 0 else -age_ms)
                found[name] = round(end_ms - spec.window_ms, 1), round(end_ms, 1)
        return found

    def _health_at(self, t_ns: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for note in self._health:
            if note.now_ns > t_ns:
                break
            found[note.stream] = {"state": note.state, "reason": note.reason, "counters": {}}
        return found

    def _why(self, index: int) -> bytes:
        row = self._rows[min(max(index, 0), len(self._rows) - 1)] if self._rows else None
        why: dict[str, Any] = {"error": "there is no such trigger"}
        if row is not None:
            try:
                why = explain(self._folder, self._bundle, row.number)
            except MmedgeError as error:
                why = {"error": error.message}
        return messages.packed({"kind": "why", "why": why})

    def _decode(self) -> None:
        """Make pictures and columns of the whole recording."""
        tracks: dict[str, SoundTrack] = {}
        ends: Counter[str] = Counter()
        made = 0
        try:
            recording = Recording(self._folder)
            for turn in recording.turns():
                for packet in turn.packets:
                    if isinstance(packet, Frame) and packet.data.size and self._spooled < _MOST_SPOOLED:
                        self._keep(packet)
                        made += 1
                    elif isinstance(packet, Block):
                        spec = self._header.inputs[packet.stream].spec
                        assert isinstance(spec, AudioInput)
                        track = tracks.setdefault(packet.stream, SoundTrack(spec.sample_rate_hz, self._privacy))
                        ends[packet.stream] += packet.lost
                        self._hear(packet, track, ends, spec.sample_rate_hz)
                self._decoded_ns = turn.now_ns
                if made >= _PROGRESS:
                    made = 0
                    self.on_tick()
                if self._stop.is_set():
                    return
        except Exception:
            log.exception("the recording's media cannot be shown")
        self._decoded_ns = 1 << 62
        self.on_tick()

    def _keep(self, frame: Frame) -> None:
        pictures = self._pictures[frame.stream]
        jpeg = pictures.maker(frame)
        if jpeg is None or (pictures.times and frame.capture_ns <= pictures.times[-1]):
            return
        with self._lock:
            self._spool.seek(self._spooled)
            self._spool.write(jpeg.data)
            pictures.times.append(frame.capture_ns)
            pictures.places.append((self._spooled, len(jpeg.data), jpeg.width, jpeg.height))
            self._spooled += len(jpeg.data)

    def _hear(self, block: Block, track: SoundTrack, ends: Counter[str], rate_hz: int) -> None:
        ends[block.stream] += len(block.samples)
        sound = Sound(
            samples=block.samples,
            real=len(block.samples),
            rate_hz=rate_hz,
            end=ends[block.stream],
            end_ns=block.capture_ns,
            epoch=block.epoch,
        )
        before = track.columns[-1].number if track.columns else 0
        track.take(sound)
        with self._lock:
            columns = self._sounds[block.stream]
            last_ns = columns[-1].end_ns if columns else -1
            columns += [each for each in track.columns if each.number > before and each.end_ns > last_ns]
