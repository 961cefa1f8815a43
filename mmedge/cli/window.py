"""A window with what a run sees and says: for a desk, where a display and an OpenCV with windows are there."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mmedge.cli.signals import Stopped
from mmedge.errors import ConfigError, DeviceError, FrameExpiredError, MissingDependencyError
from mmedge.extras import require
from mmedge.plain import printable
from mmedge.types import ByteArray, Result

_QUIT = (27, ord("q"))


class Window:
    """Shows the newest picture with the answers drawn on it; q, Escape or closing the window ends the run.

    Windows belong to the main thread, so it is called there (``on_result``) and is no sink.

    Args:
        title: Of the window.
        image: The image input whose pictures are shown.

    Raises:
        DeviceError: If there is no display.
        MissingDependencyError: If OpenCV is missing, or is one without windows.
    """

    def __init__(self, title: str, image: str) -> None:
        self._cv2: Any = require("cv2", "a window")
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise DeviceError(
                "there is no display", where="--window", fix="use --view, a page for any browser, or a desktop session"
            )
        if not _has_windows(self._cv2):
            raise MissingDependencyError(
                "the installed OpenCV cannot open windows",
                where="--window",
                fix="pip uninstall opencv-python-headless, then pip install opencv-python; or use --view",
            )
        self._title, self._image = printable(title), image
        self._picture: ByteArray = np.zeros((480, 640, 3), np.uint8)
        self._open = False

    def __call__(self, result: Result) -> None:
        """Show one result.

        Raises:
            Stopped: If the window was closed.
        """
        if result.present.get(self._image):
            try:
                self._picture = result.frame(self._image).to_rgb()
            except FrameExpiredError:  # the run is faster than the screen: the next one is newer
                return
        if not self._open:
            height, width = self._picture.shape[:2]
            self._cv2.namedWindow(self._title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_GUI_NORMAL)
            self._cv2.resizeWindow(self._title, width, height)
            self._open = True
        self._cv2.imshow(self._title, np.ascontiguousarray(result.draw(self._picture)[..., ::-1]))
        key = self._cv2.waitKey(1) & 0xFF
        if key in _QUIT or self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1:
            raise Stopped

    def close(self) -> None:
        """Close the window; idempotent."""
        if self._open:
            self._cv2.destroyAllWindows()
            self._open = False


def window_of(images: list[str], title: str) -> Window:
    """Return a window for the only image input that has a source.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    if len(images) != 1:
        raise ConfigError(
            f"a window shows one camera, the run has {len(images)} image inputs", where="--window", fix="use --view"
        )
    return Window(title, images[0])


def _has_windows(cv2: Any) -> bool:
    gui = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "NONE")
    return "NONE" not in gui
