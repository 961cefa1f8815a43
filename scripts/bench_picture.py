"""Make docs/pictures/bench.png and sweep.png, the pages of real runs: python scripts/bench_picture.py [FOLDER]."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import mmedge
from mmedge.bench.sweep import sweep

BUNDLE = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
LARGEST = 200_000  # bytes of a picture
LOW_HZ, HIGH_HZ, EACH_S = 30.0, 900.0, 3.0


def main() -> None:
    """Measure the demo's bundle for ten seconds, then at rising rates, and take a picture of each page."""
    own = Path(__file__).parents[1] / "docs" / "pictures"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = mmedge.bench(BUNDLE, 10).save(Path(folder) / "bench.html")
        keep(photograph(page, chromium), target / "bench.png")
        found = sweep(LOW_HZ, HIGH_HZ, lambda rate_hz: mmedge.bench(BUNDLE, EACH_S, fps=rate_hz))
        keep(photograph(found.save(Path(folder) / "sweep.html"), chromium), target / "sweep.png")


def keep(pixels: bytes, target: Path) -> None:
    """Write a picture in few colours."""
    picture = Image.open(io.BytesIO(pixels)).convert("RGB").quantize(128, kmeans=3, dither=Image.Dither.NONE)
    picture.save(target, optimize=True)
    if target.stat().st_size > LARGEST:
        raise SystemExit(f"{target} has {target.stat().st_size} bytes, more than {LARGEST}")
    print(target)


def photograph(page: Path, chromium: str) -> bytes:
    """Return a picture of a page as PNG; it may ask for nothing but itself."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        pixels = tab.screenshot(full_page=True)
        browser.close()
        if asked != [page.as_uri()]:
            raise SystemExit(f"the page asked for {asked}")
        return pixels


if __name__ == "__main__":
    main()
