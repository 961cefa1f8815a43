"""What an input hears of several channels and tracks: a plain mean, or what it chose."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.capture import open_sources
from mmedge.capture.base import ThreadSource
from mmedge.capture.channels import Choice, Mixer
from mmedge.capture.media import MediaSource
from mmedge.errors import ConfigError
from mmedge.types import Block, EndOfStream, Frame, Packet

av = pytest.importorskip("av")
RATE_HZ = 8000
SAMPLES = 480
EAR = AudioInput(sample_rate_hz=RATE_HZ, window_ms=10)
EYE = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))
KINDS = {"u": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
FORMATS = [  # codec, container, sample format of its decoder, low bits that it does not keep
    ("pcm_u8", "nut", "u8", 0),
    ("pcm_s16le", "wav", "s16", 0),
    ("pcm_s24le", "mkv", "s32", 8),
    ("pcm_s32le", "mkv", "s32", 0),
    ("pcm_s64le", "nut", "s64", 0),
    ("pcm_f32le", "nut", "flt", 0),
    ("pcm_f64le", "mkv", "dbl", 0),
    ("pcm_s16le_planar", "nut", "s16p", 0),
    ("pcm_s32le_planar", "nut", "s32p", 0),
]
LAYOUTS = ["mono", "FL", "LFE", "stereo", "2 channels", "FL+BR", "2.1", "quad", "5.1", "6 channels"]
LAYOUTS += ["7.1", "8 channels", "hexadecagonal", "16 channels", "64 channels"]


def raw_sound(fmt: str, count: int, drop_bits: int = 0) -> tuple[Any, Any]:
    """Return noise of a sample format [samples, channels], and its values as float32."""
    kind = np.dtype(KINDS["u" if fmt == "u8" else fmt.removesuffix("p")])
    rng = np.random.default_rng(count)
    if kind.kind == "f":
        values = rng.uniform(-2, 2, (SAMPLES, count)).astype(kind)  # nothing is clipped
        return values, values.astype(np.float32)
    limits = np.iinfo(kind)
    raw = rng.integers(limits.min, limits.max, (SAMPLES, count), kind, endpoint=True) >> drop_bits << drop_bits
    half = 2.0 ** (8 * kind.itemsize - 1)
    return raw, ((raw.astype(np.float64) - (half if kind.kind == "u" else 0)) / half).astype(np.float32)


def encode(stream: Any, raw: Any, layout: str, start: int = 0) -> list[Any]:
    """Return the packets of packed samples [samples, channels]."""
    fmt = stream.codec_context.format.name
    frame = av.AudioFrame(format=fmt.removesuffix("p"), layout=layout, samples=len(raw))
    frame.planes[0].update(np.ascontiguousarray(raw).tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    frames = av.AudioResampler(format=fmt, layout=layout, rate=RATE_HZ).resample(frame) if fmt[-1] == "p" else [frame]
    return [packet for each in frames for packet in stream.encode(each)]


def write(path: Path, codec: str, fmt: str, raw: Any, *layouts: str, default: int | None = None) -> Path:
    """Write sound, the same in a track for each layout; channels that a layout has not are left out."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"} if path.suffix == ".mkv" else {}) as container:
        streams = []
        for number, layout in enumerate(layouts):
            stream = container.add_stream(codec, rate=RATE_HZ, layout=layout)
            stream.codec_context.format = fmt
            if number == default:
                stream.disposition = av.stream.Disposition.default
            streams.append(stream)
        for stream, layout in zip(streams, layouts, strict=True):
            own = raw[:, : av.AudioLayout(layout).nb_channels] if raw.ndim == 2 else raw[stream.index]
            for packet in encode(stream, own, layout) + stream.encode(None):
                container.mux(packet)
    return path


class Heard:
    """What a file gives to inputs, each with its choice."""

    def __init__(self, path: Path, choices: Mapping[str, Choice], images: tuple[str, ...] = ()) -> None:
        rates_hz = {name: RATE_HZ for name in choices if name not in images}
        self.source = MediaSource(str(path), images=images, sounds=rates_hz, choices=choices, realtime=False)
        self.blocks: dict[str, list[Block]] = {name: [] for name in choices}
        self.means: dict[str, list[float]] = {name: [] for name in images}
        ends: set[str] = set()
        done = threading.Event()

        def emit(packet: Packet) -> None:
            if isinstance(packet, Block):
                self.blocks[packet.stream].append(packet)
            elif isinstance(packet, Frame):
                self.means[packet.stream].append(float(packet.data[: packet.height].mean()))
                assert packet.release is not None
                packet.release()
            elif isinstance(packet, EndOfStream):
                ends.add(packet.stream)
                if ends == set(self.source.streams):
                    done.set()

        self.source.start(emit)
        try:
            assert done.wait(60), self.source.health()
        finally:
            self.source.stop()

    def __getitem__(self, name: str) -> Any:
        return np.concatenate([np.zeros(0, np.float32), *(block.samples for block in self.blocks[name])])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("codec", "container", "fmt", "drop_bits"), FORMATS, ids=[codec for codec, *_ in FORMATS])
def test_every_channel_counts_as_much_and_each_can_be_chosen(
    codec: str, container: str, fmt: str, drop_bits: int, layout: str, tmp_path: Path
) -> None:
    count = av.AudioLayout(layout).nb_channels
    raw, values = raw_sound(fmt, count, drop_bits)
    path = write(tmp_path / f"clip.{container}", codec, fmt, raw, layout)
    ends = tuple(sorted({0, count - 1}))
    choices = {"mean": Choice(), "ends": Choice(channels=ends)}
    choices |= {f"{number}": Choice(channels=(number,)) for number in range(count)}
    heard = Heard(path, choices)
    for number in range(count):
        np.testing.assert_array_equal(heard[f"{number}"], values[:, number])
    exact = values.astype(np.float64)
    np.testing.assert_allclose(heard["mean"], exact.mean(axis=1), rtol=0, atol=2e-7)
    np.testing.assert_allclose(heard["ends"], exact[:, ends].mean(axis=1), rtol=0, atol=2e-7)
    if count == 1:
        np.testing.assert_array_equal(heard["mean"], values[:, 0])


def test_a_tone_in_one_of_six_channels_without_a_loudspeaker_mask(tmp_path: Path) -> None:
    tone = np.round(0.5 * 32768 * np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE_HZ)).astype(np.int16)
    raw = np.zeros((SAMPLES, 6), np.int16)
    raw[:, 3] = tone
    path = write(tmp_path / "c6_3.wav", "pcm_s16le", "s16", raw, "6 channels")
    heard = Heard(path, {"all": Choice(), "third": Choice(channels=(3,)), "others": Choice(channels=(0, 1, 2, 4, 5))})
    np.testing.assert_array_equal(heard["third"], tone / np.float32(32768))
    np.testing.assert_allclose(heard["all"], tone / 32768 / 6, rtol=1e-6)
    assert not heard["others"].any()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 64), st.data())
def test_a_mix_is_the_mean_of_the_chosen_whatever_their_order(count: int, data: Any) -> None:
    rows = np.random.default_rng(count).normal(0, 0.2, (count, 50)).astype(np.float32)
    channels = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    mixed = [Mixer(NoSource(), "a", Choice(channels=tuple(each))).mix(rows, 50) for each in (channels, channels[::-1])]
    order = channels or list(range(count))
    wanted = sum(rows[channel].astype(np.float64) for channel in order) / len(order)
    np.testing.assert_array_equal(mixed[0], np.asarray(wanted, np.float32))  # the same on every CPU
    np.testing.assert_allclose(mixed[1], wanted, rtol=0, atol=1e-7)
    assert mixed[0].dtype == np.float32
    assert not np.shares_memory(mixed[0], rows)


class NoSource(ThreadSource):
    """Reads nothing, and reports."""

    def __init__(self) -> None:
        super().__init__(("a",), name="none", live=False)

    def _read_impl(self, emit: Any, stop: threading.Event) -> None:
        """There is nothing."""


def two_phases(angle: float, gain: float = 1.0, level: float = 0.1) -> Any:
    wave = 2 * np.pi * 300 * np.arange(5 * RATE_HZ) / RATE_HZ
    return level * np.stack([np.sin(wave), gain * np.sin(wave + angle)]).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "channels", "said"),
    [
        (two_phases(np.pi), (), "the mean of 2 channels and 99 dB weaker"),
        (two_phases(np.pi, gain=0.8), (), "20 dB weaker than the loudest"),
        (two_phases(np.pi, gain=0.8), (0,), None),
        (two_phases(0.0), (), None),
        (two_phases(np.pi / 2), (), None),
        (two_phases(0.0, gain=0.0), (), None),  # one of two is silent: 6 dB
        (two_phases(np.pi, level=0.0005), (), None),  # the noise of a quiet room
        (np.zeros((2, 5 * RATE_HZ), np.float32), (), None),
        (two_phases(0.0, gain=0.0), (1,), "silent for 2 s in the chosen channel"),
        (np.eye(8, dtype=np.float32)[:, :1] * two_phases(0.0)[:1], (), "18 dB weaker"),
    ],
)
def test_a_mix_that_loses_its_sound_is_said_once(
    rows: Any, channels: tuple[int, ...], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    source = NoSource()
    mixer = Mixer(source, "a", Choice(channels=channels))
    with caplog.at_level(logging.WARNING, "mmedge.capture"):
        for first in range(0, rows.shape[1], 160):
            mixer.mix(rows[:, first : first + 160], RATE_HZ)
    warnings = [record.message for record in caplog.records]
    reason = str(source.health().reason)
    if said is None:
        assert warnings == []
        assert "channel" not in reason
    else:
        (warning,) = warnings
        assert "input 'a'" in warning
        assert "?channel=0 is the loudest" in warning
        assert said in reason
        assert "?channel=0" in reason


def test_channels_that_cancel_in_a_file_are_in_its_health(tmp_path: Path) -> None:
    raw = (32767 * two_phases(np.pi).T).astype(np.int16)
    heard = Heard(write(tmp_path / "c.wav", "pcm_s16le", "s16", raw, "stereo"), {"a": Choice()})
    assert "they cancel each other" in str(heard.source.health().reason)
    assert heard.source.refused is None


def test_the_layout_may_change_within_a_stream(tmp_path: Path) -> None:
    """Television does: 5.1 in the film, stereo in the spot. A channel that goes away is a hole, and is said."""
    for name, layout, fmt in (("film", "5.1", "fltp"), ("spot", "stereo", "fltp")):
        count = av.AudioLayout(layout).nb_channels
        wave = np.sin(2 * np.pi * np.outer(np.arange(48000) / 48000, 500 * (1 + np.arange(count))))
        with av.open(str(tmp_path / f"{name}.ac3"), "w") as container:
            stream = container.add_stream("ac3", rate=48000, layout=layout)
            frame = av.AudioFrame(format="flt", layout=layout, samples=len(wave))
            frame.planes[0].update((0.2 * wave).astype(np.float32).tobytes())
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            fifo = av.AudioFifo()
            fifo.write(av.AudioResampler(format=fmt, layout=layout, rate=48000).resample(frame)[0])
            while (part := fifo.read(1536)) is not None:
                for packet in stream.encode(part):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
    both = tmp_path / "both.ac3"
    both.write_bytes((tmp_path / "film.ac3").read_bytes() + (tmp_path / "spot.ac3").read_bytes())
    heard = Heard(both, {"all": Choice(), "left": Choice(channels=(0,)), "rear": Choice(channels=(4,))})
    assert len(heard["left"]) == len(heard["all"]) == pytest.approx(2 * RATE_HZ, abs=1000)
    for part in (slice(2000, 6000), slice(-6000, -2000)):
        spectrum = np.abs(np.fft.rfft(heard["left"][part]))
        assert np.argmax(spectrum) * 2 == 500
    tones = np.abs(np.fft.rfft(heard["all"][-6000:-2000])) / 2000
    assert tones[250] == pytest.approx(0.1, rel=0.05)
    assert tones[500] == pytest.approx(0.1, rel=0.05)
    rear = heard.blocks["rear"]
    assert sum(len(block.samples) for block in rear) == pytest.approx(RATE_HZ, abs=500)
    assert sum(len(block.samples) + block.lost for block in rear) == pytest.approx(len(heard["all"]), abs=200)
    refused = heard.source.refused
    assert refused is not None
    assert "there is no channel 4: its sound has 2 channels" in refused.message
    assert "?channel=1" in str(refused.fix)
    assert heard.source.refused_streams == ("rear",)
    assert refused.message in str(heard.source.health().reason)


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_the_default_track_wins_and_each_can_be_chosen(container: str, tmp_path: Path) -> None:
    raw = np.stack([np.full((SAMPLES, 1), 1000 * (1 + track), np.int16) for track in range(3)])
    codec, fmt = ("pcm_s16le", "s16") if container == "mkv" else ("alac", "s16p")
    path = write(tmp_path / f"tracks.{container}", codec, fmt, raw, "mono", "mono", "mono", default=1)
    choices = {"usual": Choice()} | {f"{number}": Choice(track=number) for number in range(3)}
    heard = Heard(path, choices)
    assert {name: round(float(heard[name][100]) * 32768) for name in choices} == {
        "usual": 2000,
        "0": 1000,
        "1": 2000,
        "2": 3000,
    }
    assert {len(heard[name]) for name in choices} == {SAMPLES}
    with pytest.raises(ConfigError, match=r"'a': tracks.* has no audio track 3, but 3") as error:
        MediaSource(str(path), sounds={"a": RATE_HZ}, choices={"a": Choice(track=3)})
    assert error.value.fix == "use ?track=0 to ?track=2"


def test_without_a_default_the_first_track_is_taken(tmp_path: Path) -> None:
    raw = np.stack([np.full((SAMPLES, 1), 1000 * (1 + track), np.int16) for track in range(2)])
    heard = Heard(write(tmp_path / "t.nut", "pcm_s16le", "s16", raw, "mono", "mono"), {"a": Choice()})
    assert round(float(heard["a"][100]) * 32768) == 1000


def test_two_seats_see_two_tracks_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "eyes.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            for stream, grey in zip(streams, (50, 150), strict=True):
                frame = av.VideoFrame(64, 48, "yuv420p")
                for index, plane in enumerate(frame.planes):
                    plane.update(bytes([grey + number if index == 0 else 128]) * plane.buffer_size)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    choices = {"left": Choice(track=0), "right": Choice(track=1), "usual": Choice()}
    heard = Heard(path, choices, images=tuple(choices))
    assert heard.means["left"] == heard.means["usual"] == [50 + number for number in range(10)]
    assert heard.means["right"] == [150 + number for number in range(10)]
    with pytest.raises(ConfigError, match="no video track 2"):
        MediaSource(str(path), images=("image",), choices={"image": Choice(track=2)})


def test_a_channel_that_a_file_has_not(tmp_path: Path) -> None:
    path = write(tmp_path / "two.wav", "pcm_s16le", "s16", raw_sound("s16", 2)[0], "stereo")
    with pytest.raises(ConfigError, match=r"'audio': there is no channel 2: the sound of two\.wav has 2 channels") as e:
        open_sources({"audio": EAR}, {"audio": f"{path}?channels=0,2"})
    assert e.value.fix == "use ?channel=0 to ?channel=1"
    assert e.value.exit_code == 2


def test_inputs_of_one_file_share_a_source_whatever_they_choose(tmp_path: Path) -> None:
    raw, values = raw_sound("s16", 4)
    path = write(tmp_path / "four.wav", "pcm_s16le", "s16", raw, "4.0")
    seats: dict[str, Input] = {"a": EAR, "b": EAR, "c": EAR}
    uris = {"a": f"{path}?channel=1", "b": f"{path}?channels=2,3", "c": str(path)}
    (source,) = open_sources(seats, uris, realtime=False)
    blocks: dict[str, list[Any]] = {name: [] for name in seats}
    ends = threading.Semaphore(0)

    def emit(packet: Packet) -> None:
        if isinstance(packet, Block):
            blocks[packet.stream].append(packet.samples)
        else:
            ends.release()

    source.start(emit)
    try:
        assert all(ends.acquire(timeout=60) for _ in seats)
    finally:
        source.stop()
    for name, chosen in (("a", [1]), ("b", [2, 3]), ("c", [0, 1, 2, 3])):
        heard, wanted = np.concatenate(blocks[name]), values[:, chosen].astype(np.float64).mean(axis=1)
        np.testing.assert_allclose(heard, wanted, rtol=0, atol=1e-7)
