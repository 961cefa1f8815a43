"""The page in a real browser: what it shows is what the run says."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.errors import ConfigError
from mmedge.export.demo import Truth
from mmedge.pipeline import Pipeline
from mmedge.types import Description
from tests.conftest import WriteClip
from tests.integration.test_detection_run import make_bundle
from tests.pages import ASSETS, CLIP, DESKTOP, DIGITS, PHONE, SIMULATED, TICKED, Shown, shown_run
from tests.processes import free_port, until
from tests.tiny import manifest, members, tiny_bundle

pytestmark = pytest.mark.parallel
# What is on the screen, and what the row says that was drawn.
SAID_AND_TOLD = """() => mmedge.row && [
  document.querySelector('.answer .label').textContent, mmedge.row.tasks.digit]"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("page") / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED, "audio": SIMULATED}, isolation="thread") as shown:
        yield shown


def test_the_picture_moves_and_nothing_is_asked_elsewhere(run: Shown, look: Any) -> None:
    seen = look(run.url)
    seen.wait(TICKED)
    pictures = set()
    for _ in range(40):  # one that has come may not be drawn yet: then the one before is seen again
        before = seen.page.evaluate("mmedge.scenes.image.shown")
        seen.wait(f"() => mmedge.scenes.image.shown > {before}")
        pictures.add(seen.page.evaluate("document.querySelector('.scene canvas').toDataURL()"))
        if len(pictures) == 4:
            break
    assert len(pictures) == 4
    assert {url.partition("://")[2].partition("/")[0] for url in seen.asked} == {f"127.0.0.1:{run.port}"}
    assert seen.problems == []
    seen.wait("() => parseFloat(document.querySelector('.scene .age').textContent) < 1000")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(run: Shown, look: Any, size: dict[str, int], scheme: str) -> None:
    seen = look(run.url, size, color_scheme=scheme)
    seen.wait(TICKED)
    wide, high = seen.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert wide <= size["width"]
    if size is DESKTOP:
        assert high <= size["height"]
    for part in ("#lanes", "#histogram", "#answers", "#steps", "#drops", "#health"):
        box = seen.page.locator(part).bounding_box()
        assert box["width"] > 80, part
        assert box["height"] > 20, part
        assert box["x"] + box["width"] <= size["width"] + 1, part


def test_the_time_line_follows_the_truth_of_the_clip(look: Any) -> None:
    truth = Truth(json.loads((ASSETS / "clips" / "truth.json").read_text()))
    with shown_run(DIGITS, {"image": str(CLIP), "audio": str(CLIP)}, duration_s=7.0) as shown:
        seen = look(shown.url)
        for _ in range(15):
            number = seen.page.evaluate("mmedge.row?.n ?? 0")
            ended = "mmedge.figures?.state === 'STOPPED'"  # where the browser is slow
            found = seen.wait(f"() => (mmedge.row?.n ?? 0) > {number} && ({SAID_AND_TOLD})() || {ended}")
            if found is True:
                break
            label, (said, score, _) = found
            assert label == (said or ("undefined" if score is None else "abstains"))
        seen.wait("() => mmedge.figures?.state === 'STOPPED'")
        rows = seen.page.evaluate("mmedge.rows.map((row) => [row.t / 1000, row.tasks.digit[0]])")
    owed = [(label, digit) for t_s, label in rows if (digit := truth.at(t_s)) is not None]
    assert len(owed) > 10
    assert sum(label == digit for label, digit in owed) / len(owed) > 0.7


def test_it_comes_back_after_the_server_was_started_again(look: Any, tmp_path: Path) -> None:
    bundle, port = tiny_bundle(tmp_path / "tiny.mmedge"), free_port()
    inputs = {"image": SIMULATED}
    with shown_run(bundle, inputs, isolation="thread", place=f"127.0.0.1:{port}") as shown:
        seen = look(shown.url)
        seen.wait(TICKED)
    seen.wait("() => document.getElementById('state').textContent.startsWith('no connection')")
    with shown_run(bundle, inputs, isolation="thread", place=f"127.0.0.1:{port}"):
        before = seen.page.evaluate("mmedge.ticks")
        seen.wait(f"() => mmedge.ticks > {before + 5}")
        seen.wait("() => ['READY', 'DEGRADED'].includes(document.getElementById('state').textContent)")


def test_the_clock_of_a_run_is_followed(run: Shown, look: Any) -> None:
    """Two clocks drift apart in hours; what the page takes for the run's time goes with it."""
    seen = look(run.url)
    seen.wait(TICKED)
    before = seen.page.evaluate("mmedge.offset -= 50")
    seen.wait(f"() => mmedge.offset > {before + 0.3}")


def test_two_viewers(run: Shown, look: Any) -> None:
    one, two = look(run.url), look(run.url, PHONE)
    for seen in (one, two):
        seen.wait(TICKED)
    before = [seen.page.evaluate("mmedge.scenes.image.shown") for seen in (one, two)]
    for seen, count in zip((one, two), before, strict=True):
        seen.wait(f"() => mmedge.scenes.image.shown > {count + 5}")
        assert seen.problems == []


def test_labels_with_markup_stay_text(look: Any, tmp_path: Path, write_clip: WriteClip) -> None:
    evil = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    files = members() | {"labels/scene.txt": f"dark{evil}\nbright{evil}\n".encode()}
    bundle = write_archive(tmp_path / "tiny.mmedge", msgspec.convert(manifest(files), Manifest), files)
    clip = write_clip(picture=lambda t: 250 - round(25 * t) % 2)  # one that never changes is that of a frozen camera
    with shown_run(bundle, {"image": str(clip)}) as shown:
        assert until(lambda: shown.pipe.statistics.state == "STOPPED", 60)
        seen = look(shown.url)  # who comes when all is over sees how it ended
        seen.wait("() => document.getElementById('state').textContent === 'STOPPED'")
        said = seen.wait("() => document.querySelector('.answer .label').textContent.includes('<img')"
                         " && document.querySelector('.answer .label').textContent")  # fmt: skip
    assert "<script>" in said
    assert seen.page.evaluate(
        "[window.hit ?? 0, document.querySelectorAll('#answers img, #answers script').length]"
    ) == [0, 0]
    assert seen.problems == []


@contextmanager
def pushing(pipe: Pipeline, seat: str, pictures: Iterator[np.ndarray], **options: Any) -> Iterator[None]:
    """Push pictures, 25 a second, as long as somebody looks."""
    stop = threading.Event()

    def push() -> None:
        while not stop.wait(0.04):
            with suppress(ConfigError):
                pipe.push(seat, next(pictures), time.monotonic_ns(), **options)

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        yield
    finally:
        stop.set()
        pusher.join()


AT_BOXES = """() => {
  const scene = mmedge.scenes.camera, {width, height} = scene.bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.drawImage(scene.bitmap, 0, 0);
  const level = (x, y) => context.getImageData(x * width, y * height, 1, 1).data[0];
  const middles = scene.boxes.map(([, , , x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2]);
  return middles.map(([x, y]) => [level(x, y), x, y]);
}"""


@pytest.mark.parametrize("rotation", [0, 90])
def test_boxes_lie_on_what_they_mean(look: Any, tmp_path: Path, rotation: Any) -> None:
    """Boxes are where the picture that the page shows is bright, also when the camera lies on its side."""
    picture = np.full((480, 640), 20, np.uint8)
    picture[:240, 320:] = 255

    def pictures() -> Iterator[np.ndarray]:
        while True:
            picture[-1, -1] ^= 1  # a camera is never frozen
            yield picture

    turned, bundle = Description(rotation=rotation), make_bundle(tmp_path)
    with (
        shown_run(bundle, {"camera": "push://"}) as shown,
        pushing(shown.pipe, "camera", pictures(), description=turned),
    ):
        seen = look(shown.url)
        seen.wait("() => mmedge.scenes.camera?.boxes.length > 0")
        found = seen.page.evaluate(AT_BOXES)
    assert len(found) >= 2
    for level, x, y in found:
        assert level > 200
        assert (x > 0.5, y < 0.5) == ((True, True) if rotation == 0 else (True, False))
    assert seen.problems == []


def brighter() -> Iterator[np.ndarray]:
    """Yield pictures of which each is brighter than the one before, and then again from dark on."""
    for step in itertools.cycle(range(100)):
        yield np.full((48, 64), 40 + 2 * step, np.uint8)


def test_a_number_is_shown_with_its_unit_and_a_line(look: Any, tmp_path: Path) -> None:
    level = {"kind": "regression", "output": "eye.y", "regression": {"unit": "lm"}}
    bundle = tiny_bundle(tmp_path / "tiny.mmedge", tasks={"level": level})
    with shown_run(bundle, {"image": "push://"}) as shown, pushing(shown.pipe, "image", brighter()):
        seen = look(shown.url)
        first = seen.wait("() => mmedge.rows.length > 2 && document.querySelector('.answer .label').textContent")
        seen.wait(f"() => document.querySelector('.answer .label').textContent !== '{first}'")
        # Its line is in the upper half of the lanes, where nothing else is blue.
        line = seen.page.evaluate(
            """() => {
              const canvas = document.getElementById('lanes'), context = canvas.getContext('2d');
              const data = context.getImageData(0, 0, canvas.width, canvas.height >> 1).data;
              let found = 0;
              for (let at = 0; at < data.length; at += 4) {
                if (data[at + 2] - data[at] > 60 && data[at + 3] > 60) found += 1;
              }
              return found;
            }"""
        )
    assert first.endswith(" lm")
    assert line > 5
    assert seen.problems == []


def test_text_is_typed_and_answered(look: Any) -> None:
    with shown_run(DIGITS, {"image": str(CLIP), "audio": str(CLIP)}, typed=True) as shown:
        seen = look(shown.url)
        seen.wait(TICKED)
        seen.page.fill("#say-text", "it is a seven")
        seen.page.press("#say-text", "Enter")
        seen.wait("() => document.getElementById('notice').textContent === 'taken'")
        seen.wait("() => mmedge.rows.some((row) => row.present.text)")


def test_the_token_s_link_opens_once_and_hides_the_token(
    look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMEDGE_VIEW_TOKEN", "the-token-of-this-test")
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED}, isolation="thread") as shown:
        seen = look(shown.url)
        seen.wait(TICKED)
        assert seen.page.evaluate("location.href") == f"http://127.0.0.1:{shown.port}/"
        seen.page.reload()
        seen.wait(TICKED)
        assert not any("token" in url.partition("#")[0] for url in seen.asked)
        wrong = look(shown.url.replace("this-test", "another-one"))
        wrong.wait("() => document.getElementById('state').textContent.startsWith('the link is not valid')")
        assert wrong.page.evaluate("mmedge.ticks") == 0


@pytest.mark.parametrize("privacy", ["none", "blur"])
def test_the_page_says_what_may_not_be_shown(look: Any, tmp_path: Path, privacy: Any) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED, "audio": SIMULATED}, isolation="thread", privacy=privacy) as shown:
        seen = look(shown.url)
        seen.wait(TICKED)
        if privacy == "none":
            assert seen.page.evaluate("mmedge.scenes.image.shown ?? 0") == 0
        else:
            seen.wait("() => mmedge.scenes.image.shown > 2")
            assert "blurred" in seen.page.inner_text(".scene .title")


@pytest.mark.long
def test_a_minute_without_growth(run: Shown, look: Any) -> None:
    seen = look(run.url)
    seen.wait(TICKED)
    session = seen.page.context.new_cdp_session(seen.page)

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        return float(session.send("Runtime.getHeapUsage")["usedSize"])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    time.sleep(20)
    before, own = heap(), resident()
    time.sleep(60)
    assert heap() < before + 3e6
    assert resident() < own + 20e6
    assert seen.page.evaluate("mmedge.rows.length") <= 1500
