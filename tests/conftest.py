"""Fixtures for every test: small clips written by PyAV."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

import mmedge  # noqa: F401  telemetry of dependencies is off before any of them is imported

Array = npt.NDArray[Any]

# A job in the background ignores Ctrl-C, and what it starts inherits that: a test that ends something so would wait.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, so that what lands does not hang on luck; MMEDGE_EXPLORE=1 draws others.
# A machine that is busy is no failure.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("default" if os.environ.get("MMEDGE_EXPLORE") else "same")

# On a device without torch (a Jetson runs the shipped bundle) the toolchain's tests have nothing to test.
collect_ignore_glob = [] if find_spec("torch") else ["unit/test_export_*", "unit/test_datasets*", "unit/test_training*"]


def pytest_report_header() -> str:
    """Say which instruction sets the figures of this run come from."""
    from mmedge.engine.cpu import instruction_sets

    return f"instruction sets: {', '.join(instruction_sets()) or 'none that kernels choose by'}"


@pytest.fixture(autouse=True, scope="session")
def _settings_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's settings out of the tests; bundles in their temporary folders may call the tests' own rules."""
    from mmedge.fusion.consent import PROJECT_FILE, project_text, remember

    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    here = Path(__file__).parent
    modules = [".".join(path.relative_to(here.parent).with_suffix("").parts) for path in here.glob("**/*.py")]
    (tmp_path_factory.getbasetemp() / PROJECT_FILE).write_text(project_text(sorted(modules)))
    remember(tmp_path_factory.getbasetemp())


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep to a cache of the test's own; return its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread: the networks of tests are too small for more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def new(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what `mmedge new` says of one network with some options, or its error."""
    from tests.networks import new_project

    return lambda model, *options: new_project(tmp_path, {"net": model}, *options)


class WriteClip(Protocol):
    """What the ``write_clip`` fixture gives."""

    def __call__(
        self,
        name: str = ...,
        *,
        times_s: Sequence[float] | None = ...,
        picture: Callable[[float], int] = ...,
        size: tuple[int, int] = ...,
        video_codec: str = ...,
        pix_fmt: str = ...,
        full_range: bool = ...,
        sound: Array | None = ...,
        rate_hz: int = ...,
        layout: str = ...,
        audio_codec: str = ...,
        audio_start_s: float = ...,
        audio_first: bool = ...,
        drop_audio_s: tuple[float, float] | None = ...,
        interleave: bool = ...,
        options: dict[str, str] | None = ...,
    ) -> Path:
        """Write a clip and return its path."""


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Write clips: flat pictures of grey ``picture(t)`` at ``times_s``, and ``sound`` (channels, samples)."""
    av = pytest.importorskip("av")

    def write(
        name: str = "clip.nut",
        *,
        times_s: Sequence[float] | None = tuple(k / 25 for k in range(25)),
        picture: Callable[[float], int] = lambda t: 16 + round(100 * t) % 200,
        size: tuple[int, int] = (64, 48),
        video_codec: str = "ffv1",
        pix_fmt: str = "yuv420p",
        full_range: bool = False,
        sound: Array | None = None,
        rate_hz: int = 8000,
        layout: str = "mono",
        audio_codec: str = "pcm_f32le",
        audio_start_s: float = 0.0,
        audio_first: bool = False,
        drop_audio_s: tuple[float, float] | None = None,
        interleave: bool = True,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=options or {}) as container:
            video: Any = None
            audio: Any = None

            def add_video() -> Any:
                stream = container.add_stream(video_codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
                stream.codec_context.time_base = stream.time_base = Fraction(1, 90000)
                if full_range:
                    stream.codec_context.color_range = 2
                return stream

            def add_audio() -> Any:
                return container.add_stream(audio_codec, rate=rate_hz, layout=layout)

            if audio_first and sound is not None:
                audio = add_audio()
            if times_s is not None:
                video = add_video()
            if not audio_first and sound is not None:
                audio = add_audio()
            packets: list[Any] = []
            for time_s in times_s or ():
                frame = av.VideoFrame(*size, pix_fmt)
                for index, plane in enumerate(frame.planes):
                    plane.update(bytes([picture(time_s) if index == 0 else 128]) * plane.buffer_size)
                frame.pts, frame.time_base = round(time_s * 90000), Fraction(1, 90000)
                frame.color_range = 2 if full_range else 1
                packets += video.encode(frame)
            packets += video.encode(None) if video is not None else []
            if audio is not None and sound is not None:
                hop = audio.codec_context.frame_size or rate_hz // 50
                fmt = audio.codec_context.format.name
                for first in range(0, sound.shape[1], hop):
                    if drop_audio_s and drop_audio_s[0] <= first / rate_hz < drop_audio_s[1]:
                        continue
                    chunk = np.ascontiguousarray(sound[:, first : first + hop].astype(np.float32))
                    if fmt == "s16":
                        chunk = np.round(chunk.T.reshape(1, -1) * 32767).astype(np.int16)
                    elif fmt == "flt":
                        chunk = np.ascontiguousarray(chunk.T.reshape(1, -1))
                    frame = av.AudioFrame.from_ndarray(chunk, format=fmt, layout=layout)
                    frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
                    frame.pts = first + round(audio_start_s * rate_hz)
                    packets += audio.encode(frame)
                packets += audio.encode(None)
            if interleave:
                packets.sort(key=lambda p: float((p.dts if p.dts is not None else p.pts) * p.time_base))
            for packet in packets:
                container.mux(packet)
        return path

    return write
