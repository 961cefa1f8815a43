"""Makes a clip of impacts with known truth: for a screen and a loudspeaker, or to be played as a file.

::

    python -m mmedge.export.datasets.impacts_clip impacts.mp4 --seconds 60 --seed 7
    python -m mmedge.export.datasets.impacts_clip --shipped mmedge/assets/impacts
    python -m mmedge.export.datasets.impacts_clip --picture docs/impacts/event.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.types import ByteArray, FloatArray

from .impacts import FPS, OBJECTS, USABLE_S, Look, World, choose_hit, make_look, make_sound, make_world, render
from .media import HEIGHT, SOUND_HZ, WIDTH, write_clip

BEGIN_S = 1.0
# From one window to the next: clicks are so far apart that no two are ever heard at once.
PERIOD_S = 1.9
SHIPPED_SEED = 58
_CHUNK = 60


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """A world with its clicks: one in each window of ``USABLE_S``, the k-th of which begins at 1.0 + 1.9 k seconds.

    Attributes:
        world: The flights.
        clicks: Object 0..3 and time in seconds.
        look: How it is seen.
        seed: Of the noise in picture and sound.
    """

    world: World
    clicks: tuple[tuple[int, float], ...]
    look: Look
    seed: int

    @property
    def duration_s(self) -> float:
        """Length of a clip of it."""
        return BEGIN_S + PERIOD_S * len(self.clicks)

    def frames(self, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Iterator[ByteArray]:
        """Yield uint8 [rows, columns], one a thirtieth of a second."""
        rng = np.random.default_rng((self.seed, 1))
        t_s = np.arange(round(self.duration_s * FPS)) / FPS
        for first in range(0, len(t_s), _CHUNK):
            yield from render(self.world, self.look, t_s[first : first + _CHUNK], size, rng)

    def sound(self, *, late_s: float = 0.0, snr_db: float = 45.0) -> FloatArray:
        """Return the sound at 16 kHz, its clicks ``late_s`` later than the hits. It is float32 [samples]."""
        rng = np.random.default_rng((self.seed, 2))
        times = [when_s + late_s for _, when_s in self.clicks]
        return make_sound(times, 0.0, round(self.duration_s * SOUND_HZ), SOUND_HZ, rng, snr_db=snr_db)

    def truth(self) -> dict[str, Any]:
        """Return what ``truth.json`` says."""
        impacts = [{"t_s": round(when_s, 4), "object": str(who + 1)} for who, when_s in self.clicks]
        return {"begin_s": BEGIN_S, "period_s": PERIOD_S, "usable_s": USABLE_S, "impacts": impacts}


def make_scene(seed: int, impacts: int, *, plain: bool = True) -> Scene:
    """Return a scene with so many impacts; a ``plain`` one is for a screen, others look as in training."""
    rng = np.random.default_rng((seed, 0))
    world = make_world(rng, -0.1, BEGIN_S + PERIOD_S * impacts + 0.1)
    windows = (BEGIN_S + PERIOD_S * number for number in range(impacts))
    clicks = tuple(choose_hit(world, rng, begin_s, begin_s + USABLE_S) for begin_s in windows)
    return Scene(world=world, clicks=clicks, look=make_look(rng, plain=plain), seed=seed)


def write(path: Path, scene: Scene, *, qp: int = 24) -> None:
    """Write the clip and beside it ``STEM.json``, its truth."""
    write_clip(path, scene.frames(), scene.sound(), qp=qp, fps=FPS)
    path.with_suffix(".json").write_text(json.dumps(scene.truth()) + "\n")


def draw(path: Path, seed: int = 3) -> None:
    """Draw one event: four heights over time and the moment of the click."""
    import matplotlib.pyplot as plt  # pip install 'mmedge[docs]'

    plt.switch_backend("Agg")
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 110})
    scene = make_scene(seed, 1)
    ((who, when_s),) = scene.clicks
    t_s = np.linspace(BEGIN_S - 0.1, BEGIN_S + USABLE_S + 0.1, 800)
    heights = scene.world.heights(t_s)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7.6, 3.6), sharex=True, height_ratios=(4, 1), layout="constrained"
    )
    for one, colour in zip(range(OBJECTS), ("#5b76b8", "#d9772b", "#0b6e4f", "#a05195"), strict=True):
        ours = one == who
        top.plot(1000 * (t_s - when_s), heights[:, one], color=colour, linewidth=2.2 if ours else 1.2)
        hit = scene.world.hits_s[one]
        for hit_s in hit[(hit > t_s[0]) & (hit < t_s[-1])]:
            top.plot(1000 * (hit_s - when_s), 0, "o", color=colour, clip_on=False)
            text = f"{one + 1}"
            top.annotate(
                text, (1000 * (hit_s - when_s), 0), (0, 7), textcoords="offset points", ha="center", color=colour
            )
    sound = scene.sound()
    bottom.plot(1000 * (np.arange(len(sound)) / SOUND_HZ - when_s), sound, color="#333333", linewidth=0.6)
    for axes in (top, bottom):
        axes.axvline(0, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_yticks([])
    top.set(ylim=(0, 1.05), ylabel="height", xlim=(1000 * (t_s[0] - when_s), 1000 * (t_s[-1] - when_s)))
    bottom.set(ylabel="sound", xlabel="ms from the click")
    top.set_title(f"Every object hits the ground; the click is object {who + 1}'s", loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description="Write a clip of impacts and its truth.")
    parser.add_argument("clip", nargs="?", type=Path, help="OUT.mp4 or OUT.mkv; the truth goes to OUT.json")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shipped", type=Path, metavar="DIR", help="write the clip that ships")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw one event (needs matplotlib)")
    options = parser.parse_args()
    if options.clip is not None:
        impacts = max(1, int((options.seconds - BEGIN_S) / PERIOD_S))
        write(options.clip, make_scene(options.seed, impacts))
    if options.shipped is not None:
        write(options.shipped / "clip.mp4", make_scene(SHIPPED_SEED, 6), qp=32)
    if options.picture is not None:
        draw(options.picture)


if __name__ == "__main__":
    main()
