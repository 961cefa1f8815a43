"""Make the pictures of docs/pictures from a real run: python scripts/screenshots.py [FOLDER]."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import mmedge
from mmedge.address import Address
from mmedge.pipeline import Pipeline
from mmedge.view.live import LivePage, with_typed

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
LARGEST = 200_000  # bytes of a picture
# Name -> clip, size, colours, seconds of the clip at which it is taken.
PICTURES = {
    "view": ("clean", {"width": 1280, "height": 720}, "light", 12.6),
    "view-dark": ("noise", {"width": 1280, "height": 720}, "dark", 12.6),
    "view-phone": ("clean", {"width": 390, "height": 844}, "dark", 12.6),
    "view-phone-light": ("black", {"width": 390, "height": 844}, "light", 6.0),
}
KEPT = ("view", "view-phone")  # those that are kept without a folder's name


def take(name: str, folder: Path) -> Path:
    """Play a clip and take one picture of its page."""
    clip, size, scheme, at_s = PICTURES[name]
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    path = str(ASSETS / "clips" / f"{clip}.mp4")
    with (
        mmedge.load(ASSETS / "digits.mmedge") as bundle,
        LivePage("127.0.0.1:0") as page,
        sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        inputs = with_typed(bundle, {"image": Address(path), "audio": Address(path)})
        with Pipeline(bundle, inputs, sinks=[page.sink]) as pipe:
            page.open(pipe)
            runner = threading.Thread(target=pipe.run)
            runner.start()
            tab.goto(page.links[0])
            tab.wait_for_function(f"() => mmedge.now > {1000 * at_s}", timeout=60_000, polling=20)
            pixels = tab.screenshot(full_page=size["width"] < 900 and name not in KEPT)
            pipe.close()
            runner.join()
        browser.close()
    picture = Image.open(io.BytesIO(pixels)).convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
    target = folder / f"{name}.png"
    picture.save(target, optimize=True)
    if target.stat().st_size > LARGEST:
        raise SystemExit(f"{target} has {target.stat().st_size} bytes, more than {LARGEST}")
    return target


def main() -> None:
    """Take the pictures of the documentation, or all of them into a folder."""
    own = Path(__file__).parents[1] / "docs" / "pictures"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT if folder == own else PICTURES:
        print(take(name, folder))


if __name__ == "__main__":
    main()
