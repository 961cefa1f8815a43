"""A camera that dies is shown as absent within a second, in a real browser."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.pages import SIMULATED, TICKED, shown_run
from tests.processes import family
from tests.tiny import tiny_bundle


def test_a_killed_camera_is_shown_within_a_second(look: Any, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    inputs = {"image": SIMULATED, "audio": f"{SIMULATED}&seed=5"}
    with shown_run(bundle, inputs, isolation="process") as shown:
        seen = look(shown.url)
        seen.wait(TICKED)
        seen.wait("() => !document.querySelector('.scene.absent') && mmedge.rows.at(-1).present.audio")
        took_ms = []
        for _ in range(3):  # the fastest counts: this machine may stand still for longer than a second
            _, workers = family(shown.pipe)
            camera = max(workers)  # that of the trigger's input is opened last
            os.kill(camera, signal.SIGSTOP)
            try:
                # By the run's clock, from the last result with a picture: it came before the camera was stopped, or
                # just as it was.
                took_ms.append(
                    seen.wait(
                        "() => document.querySelector('.scene.absent')"
                        " && mmedge.now - mmedge.rows.findLast((row) => row.present.image).t"
                    )
                )
            finally:
                os.kill(camera, signal.SIGKILL)
            label = seen.page.get_attribute(".scene canvas", "aria-label")
            assert label.startswith("image, absent: ")
            seen.wait("() => !document.querySelector('.scene.absent')")
        assert min(took_ms) < 1000
