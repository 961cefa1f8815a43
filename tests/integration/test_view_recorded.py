"""A recording on the page: the trigger that was asked for, with what it saw and heard, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import mmedge
from mmedge.errors import ConfigError
from mmedge.replay.explain import explain
from mmedge.types import Result
from mmedge.view.access import parse_place
from mmedge.view.feed import Cursor
from mmedge.view.recorded import RecordedFeed
from mmedge.view.server import ViewServer
from tests.pages import CLIP, DIGITS, chromium, read, viewer
from tests.processes import until

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    with mmedge.Pipeline(
        DIGITS, {"image": str(CLIP), "audio": str(CLIP)}, latency="offline", record=folder, duration_s=5.0
    ) as pipe:
        return folder, list(pipe)


def asked(feed: RecordedFeed, cursor: Cursor, at: int) -> tuple[dict[str, Any], bytes]:
    cursor.at, cursor.had = at, None
    message = feed.message(cursor)
    assert message is not None
    return read(message)


def opened(folder: Path, **options: Any) -> RecordedFeed:
    feed = RecordedFeed(folder, None, **options)
    feed.start()
    assert until(lambda: not feed.decoding, 60)
    return feed


@pytest.fixture
def feed(recorded: tuple[Path, list[Result]]) -> Iterator[RecordedFeed]:
    made = opened(recorded[0])
    yield made
    made.close()


def test_each_trigger_is_told_as_it_was_answered(feed: RecordedFeed, recorded: tuple[Path, list[Result]]) -> None:
    results, cursor = recorded[1], Cursor()
    assert feed.hello()["triggers"] == feed.triggers == len(results)
    for at in (0, 1, 50, len(results) - 1):
        header, _ = asked(feed, cursor, at)
        row = next(row for row in header["rows"] if row["at"] == at)
        result = results[at]
        said = result.tasks["digit"]
        assert row["tasks"]["digit"] == [said.label, said.score, said.label]
        assert row["present"] == result.present
        assert row["age"] == result.age_ms
        assert row["total"] == result.latency_ms["end_to_end"]
        assert header["now"] == row["t"]
    assert asked(feed, cursor, 10_000)[0]["at"] == len(results) - 1
    assert asked(feed, cursor, -5)[0]["at"] == 0
    assert feed.message(cursor) is None  # nothing new was asked for


def test_the_picture_and_the_sound_are_those_of_the_trigger(
    feed: RecordedFeed, recorded: tuple[Path, list[Result]]
) -> None:
    inputs = {"image": str(CLIP), "audio": str(CLIP)}
    with mmedge.Pipeline(DIGITS, inputs, latency="offline", duration_s=5.0) as pipe:
        truth = [result.frame("image").to_rgb()[..., 0] for result in pipe if result.present["image"]]
    at = 60
    header, data = asked(feed, Cursor(), at)
    (told,) = header["pictures"]
    shown = cv2.imdecode(np.frombuffer(data[: told["bytes"]], np.uint8), cv2.IMREAD_GRAYSCALE)
    size = shown.shape[::-1]
    apart = [float(np.abs(shown.astype(int) - cv2.resize(other, size)).mean()) for other in truth]
    assert int(np.argmin(apart)) == at
    assert min(apart) < 3
    (sound,) = header["sound"]
    assert sound["t"] == sorted(sound["t"])
    assert header["now"] - sound["t"][0] > 2000
    assert sound["t"][-1] > header["now"]
    begin, end = header["cut"]["audio"]
    assert end - begin == pytest.approx(1500 if recorded[1][at].present["audio"] else 0, abs=1)
    assert abs(end - header["now"]) < 50


def test_why_is_what_explain_says(feed: RecordedFeed, recorded: tuple[Path, list[Result]]) -> None:
    folder, results = recorded
    cursor = Cursor(explain=30)
    message = feed.message(cursor)
    assert message is not None
    header, _ = read(message)
    with mmedge.load(DIGITS) as bundle:
        why = explain(folder, bundle, results[30].t_ns)
    told = header["why"]
    for key in ("trigger", "t_ns", "made_by", "outcome", "left_because", "waited_for", "tasks", "stages"):
        assert told[key] == why[key], key
    assert told["inputs"]["image"]["newest"] == why["inputs"]["image"]["newest"]


def test_without_a_picture_where_none_may_leave(recorded: tuple[Path, list[Result]]) -> None:
    feed = opened(recorded[0], privacy="none")
    try:
        for at in range(0, feed.triggers, 20):
            header, data = asked(feed, Cursor(), at)
            assert not data
            assert not header["pictures"]
            assert not header["sound"]
    finally:
        feed.close()


def test_a_recording_of_inputs_alone_needs_a_bundle(recorded: tuple[Path, list[Result]], tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "inputs"
    shutil.copytree(recorded[0], folder)
    header = json.loads((folder / "recording.json").read_text())
    (folder / "recording.json").write_text(json.dumps(header | {"bundle": None}))
    events = [line for line in (folder / "events.jsonl").read_text().splitlines() if '"trigger"' not in line]
    (folder / "events.jsonl").write_text("\n".join(events) + "\n")
    with pytest.raises(ConfigError, match="no bundle ran"):
        RecordedFeed(folder, None)
    with mmedge.load(DIGITS) as bundle:
        feed = RecordedFeed(folder, bundle)
        feed.start()
        assert until(lambda: not feed.decoding, 60)
        assert feed.triggers > 50
        told, data = asked(feed, Cursor(), 40)
        assert told["rows"]
        assert data[:2] == b"\xff\xd8"
        feed.close()


def test_two_questions_at_once_are_both_answered(feed: RecordedFeed) -> None:
    server = ViewServer(feed, parse_place("127.0.0.1:0"))
    server.start()
    try:
        with viewer(server.place.port) as socket:
            socket.send('{"at":0}')
            assert [read(socket.recv(timeout=60))[0]["kind"] for _ in range(2)] == ["hello", "tick"]
            for said in ('{"explain":0}', '{"at":49}', '{"explain":49}', '{"ack":true}'):
                socket.send(said)
            assert read(socket.recv(timeout=60))[0]["at"] == 49
            socket.send('{"ack":true}')
            assert read(socket.recv(timeout=60))[0]["why"]["trigger"] == 50
    finally:
        server.close()


# Where the first line of the time axis is drawn, in 0..1 of its length.
FIRST_TICK = """async () => {
  const canvas = document.getElementById('lanes'), context = canvas.getContext('2d'), found = [];
  context.moveTo = (x, y) => y === 4 && found.push(x);
  while (!found.length) await new Promise(requestAnimationFrame);
  delete context.moveTo;
  return (found[0] - 92) / (canvas.clientWidth - 92 - 96);
}"""


def test_scrub_step_and_play_in_a_browser(feed: RecordedFeed) -> None:
    server = ViewServer(feed, parse_place("127.0.0.1:0"))
    server.start()
    try:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(server.links[0])

            def at(place: int) -> None:
                page.wait_for_function(
                    f"() => document.getElementById('where').textContent.includes(' {place} of ')", timeout=60_000
                )

            at(1)
            assert page.evaluate(FIRST_TICK) == pytest.approx(0.7, abs=0.02)  # nothing was before the start
            page.locator("#place").fill("49")
            at(50)
            page.keyboard.press("ArrowRight")
            at(51)
            page.click("#back")
            at(50)
            page.wait_for_function(
                "() => document.getElementById('why-text').textContent.startsWith('trigger 50, ')", timeout=60_000
            )
            label = page.inner_text(".answer .label")
            assert label == page.evaluate("mmedge.rows.find((row) => row.at === 49).tasks.digit[0]")
            page.click("#play")
            began = time.monotonic()
            at(feed.triggers)
            took_s = time.monotonic() - began
            assert took_s > (feed.triggers - 50) / 25 * 0.8
            high = page.evaluate("document.documentElement.scrollHeight")
            assert high <= 720
    finally:
        server.close()
