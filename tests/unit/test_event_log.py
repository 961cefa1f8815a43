"""What a recording writes comes back bit by bit; cut off anywhere, it is a prefix."""

from __future__ import annotations

import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, TensorInput, TextInput
from mmedge.capture.description import turning
from mmedge.capture.picture import even_sides
from mmedge.errors import ConfigError, MmedgeError, SourceError
from mmedge.recording import writer as writer_module
from mmedge.recording.event_log import check_folder, file_stems, read_header
from mmedge.recording.frames import without_unused
from mmedge.recording.reader import Recording
from mmedge.recording.writer import Recorder, make_header
from mmedge.types import Block, Description, EndOfStream, Frame, Packet, Tensor, Text

SEATS: dict[str, Any] = {
    "image": ImageInput(size=(4, 4), color="gray", mean=(0.0,), std=(1.0,)),
    "audio": AudioInput(sample_rate_hz=44_100, window_ms=100),
    "imu": TensorInput(shape=(2, 3), dtype="float16"),
    "words": TextInput(max_tokens=4),
}
SHAPES = {
    "gray8": (1, 1), "yuv420p": (1.5, 1), "nv12": (1.5, 1), "yuv422p": (2, 1), "yuv444p": (3, 1),
    "rgb24": (1, 1, 3), "bgr24": (1, 1, 3), "yuyv422": (1, 1, 2), "p010le": (1.5, 2), "yuv420p10le": (1.5, 2),
}  # fmt: skip


def record(folder: Path, turns: list[list[Packet]], **options: Any) -> Recorder:
    live = dict.fromkeys(SEATS, True)
    uris = dict.fromkeys(SEATS, "rtsp://me:secret@camera/1")
    recorder = Recorder(folder, make_header(uris, live, SEATS, started_ns=1, **options))
    for number, packets in enumerate(turns):
        recorder.turn(packets, number * 1000, [])
    recorder.close()
    return recorder


def frame(seq: int, kind: str, width: int, height: int, **changes: Any) -> Frame:
    rows, columns, *rest = SHAPES[kind]
    rng = np.random.default_rng(seq)
    data = rng.integers(0, 256, (int(height * rows), width * columns, *rest), np.uint8)
    data = without_unused(data, kind)  # type: ignore[arg-type]
    stamp = {"stream": "image", "seq": seq, "capture_ns": seq * 33_000_000, "arrive_ns": seq * 33_000_000 + 5}
    return Frame(**{**stamp, **changes}, data=data, format=kind, width=width, height=height)  # type: ignore[arg-type]


def same(a: Packet, b: Packet) -> bool:
    if type(a) is not type(b):
        return False
    for name in a.__struct_fields__:
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, np.ndarray):
            if one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes():
                return False
        elif name != "release" and one != other:
            return False
    return True


def read(folder: Path) -> tuple[list[Packet], str | None]:
    recording = Recording(folder)
    return [packet for turn in recording.turns() for packet in turn.packets], recording.cut


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("size", [(64, 48), (66, 50), (2, 2), (7, 5)])
def test_pictures_of_every_format_come_back_bit_by_bit(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    if even_sides(kind, *size[::-1]) != size[::-1]:  # type: ignore[arg-type]
        pytest.skip("these formats have even sides")
    frames = [frame(seq, kind, *size, description=Description(full_range=bool(seq % 2))) for seq in range(5)]
    record(tmp_path / "r", [[f] for f in frames])
    got, cut = read(tmp_path / "r")
    assert cut is None
    assert len(got) == 5
    assert all(same(a, b) for a, b in zip(frames, got, strict=True))


def test_what_a_stream_says_of_its_pictures_comes_back_and_is_in_the_file(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    said = [
        Description(full_range=False),
        Description(matrix="bt709", full_range=False, pixel_aspect=(64, 45)),
        Description(matrix="bt2020", transfer="pq", rotation=90, mirrored=True, fields="top"),
    ]
    frames = [frame(seq, "yuv420p", 64, 48, description=text) for seq, text in enumerate(said)]
    record(tmp_path / "r", [[f] for f in frames])
    got, cut = read(tmp_path / "r")
    assert cut is None
    assert all(same(a, b) for a, b in zip(frames, got, strict=True))
    lines = (tmp_path / "r" / "events.jsonl").read_text().splitlines()
    assert "description" not in lines[0]  # as recordings were written before there was one
    with av.open(str(tmp_path / "r" / "image.1.mkv")) as container:
        stream = container.streams.video[0]
        picture = next(container.decode(stream))
        assert (stream.sample_aspect_ratio, picture.colorspace, picture.color_range) == (Fraction(64, 45), 1, 1)
    with av.open(str(tmp_path / "r" / "image.2.mkv")) as container:
        picture = next(container.decode(video=0))
        assert turning(bytes(picture.side_data.get("DISPLAYMATRIX"))) == (90, True)
        assert (picture.colorspace, picture.color_trc) == (9, 16)


def test_every_kind_of_packet_comes_back(tmp_path: Path) -> None:
    stamp = {"epoch": 2, "uncertainty_ns": 7, "quality": "C"}
    sound = np.array([0.0, -0.0, np.nan, np.inf, 1e-42], np.float32)
    packets: list[Packet] = [
        Block(stream="audio", seq=0, capture_ns=10**7, arrive_ns=11, samples=sound, **stamp),  # type: ignore[arg-type]
        Block(stream="audio", seq=1, capture_ns=2, arrive_ns=12, samples=sound[:0], lost=441),
        Block(stream="audio", seq=2, capture_ns=-5, arrive_ns=13, samples=np.ones(1, np.float32)),
        Tensor(stream="imu", seq=0, capture_ns=4, arrive_ns=14, data=np.arange(6, dtype=np.float16).reshape(2, 3)),
        Tensor(stream="imu", seq=1, capture_ns=5, arrive_ns=15, data=np.array(3, np.int64)),
        Text(stream="words", seq=0, capture_ns=6, arrive_ns=16, text='a "b"\n\u2028\0'),
        EndOfStream(stream="audio", seq=3, capture_ns=7, arrive_ns=17, reason="unplugged"),
        frame(0, "gray8", 8, 6, unchanged_ns=9),
        frame(1, "gray8", 4, 4),  # another geometry in mid-run
        frame(2, "rgb24", 4, 4),
        frame(3, "gray8", 8, 6, capture_ns=3_600_000_000_000),
        frame(4, "gray8", 8, 6, capture_ns=-1),
    ]
    record(tmp_path / "r", [packets[:3], [], packets[3:]])
    got, cut = read(tmp_path / "r")
    assert cut is None
    assert len(got) == len(packets)
    assert [i for i, (a, b) in enumerate(zip(packets, got, strict=True)) if not same(a, b)] == []
    assert sorted(path.name for path in (tmp_path / "r").glob("image.*")) == [f"image.{n}.mkv" for n in range(4)]


def test_visually_lossless_pictures_are_close_and_small(tmp_path: Path) -> None:
    y, x = np.mgrid[0:96, 0:128]
    frames = []
    for seq in range(10):
        picture = frame(seq, "gray8", 128, 96)
        picture.data[...] = 128 + 60 * np.sin((x + seq) / 9) * np.cos(y / 7) + picture.data % 5  # a sensor's noise
        frames.append(picture)
    for video in ("lossless", "visual"):
        record(tmp_path / video, [[f] for f in frames], video=video)
    got, _ = read(tmp_path / "visual")
    assert max(np.abs(a.data - b.data.astype(int)).mean() for a, b in zip(frames, got, strict=True)) < 2  # type: ignore[attr-defined]
    sizes = {v: (tmp_path / v / "image.0.mkv").stat().st_size for v in ("lossless", "visual")}
    assert sizes["visual"] < sizes["lossless"] / 2


def test_a_password_is_not_recorded(tmp_path: Path) -> None:
    record(tmp_path / "r", [])
    assert b"secret" not in (tmp_path / "r" / "recording.json").read_bytes()
    assert read_header(tmp_path / "r").inputs["image"].uri == "rtsp://***@camera/1"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    turns: list[list[Packet]] = []
    for seq in range(12):
        sound = np.random.default_rng(seq).normal(size=441).astype(np.float32)
        array = np.full((2, 3), seq, np.float16)
        turns.append(
            [
                Block(stream="audio", seq=seq, capture_ns=seq * 10_000_000, arrive_ns=seq, samples=sound),
                frame(seq, "yuv420p", 32, 32),
                Tensor(stream="imu", seq=seq, capture_ns=seq, arrive_ns=seq, data=array),
            ]
        )
    folder = tmp_path_factory.mktemp("recorded") / "r"
    record(folder, turns)
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_or_damaged_anywhere_it_is_a_prefix_or_an_error(recorded: Path, tmp_path: Path, data: Any) -> None:
    whole, _ = read(recorded)
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(recorded, copy)
    path = data.draw(st.sampled_from(sorted(copy.iterdir())))
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[place] ^= data.draw(st.integers(1, 255))
    else:
        del raw[place:]
    path.write_bytes(raw)
    if path.name == "recording.json":
        with suppress(MmedgeError):
            read(copy)
        return
    got, cut = read(copy)
    if path.name.startswith(("audio", "image", "imu")):
        assert all(same(a, b) for a, b in zip(whole, got, strict=False))
        assert len(got) == len(whole) or cut


def test_a_folder_that_is_gone_or_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a recording"):
        Recording(tmp_path)
    (tmp_path / "x").touch()
    for folder in (tmp_path, tmp_path / "x", tmp_path / "no" / "such"):
        with pytest.raises(ConfigError):
            check_folder(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [("{}", "damaged"), ("[", "damaged"), ('{"schema": "mmedge.recording/2"}', "newer"), ("\xff", "damaged")],
)
def test_a_header_that_is_wrong(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "recording.json").write_text(header)
    with pytest.raises(SourceError, match=message):
        Recording(tmp_path)


def test_file_names_are_safe_and_distinct() -> None:
    names = ["image", "../../etc", "", "a/b", "a b", "input1", ".x", "é"]
    stems = file_stems(names)
    assert list(stems) == names
    assert len(set(stems.values())) == len(names)
    assert all("/" not in stem and not stem.startswith(".") for stem in stems.values())


def test_a_disk_that_is_too_slow_leaves_holes_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BUDGET_BYTES", 3 * 32 * 48)
    recorder = record(tmp_path / "r", [[frame(seq, "yuv420p", 32, 32) for seq in range(9)]])
    assert recorder.lost["image"] > 0
    assert recorder.report()["state"] == "LATE"
    got, cut = read(tmp_path / "r")
    assert cut is None
    assert [packet.seq for packet in got] == list(range(9))
    assert sum(packet.data.size == 0 for packet in got) == recorder.lost["image"]  # type: ignore[attr-defined]


def test_a_lossless_run_waits_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BUDGET_BYTES", 3 * 32 * 48)
    recorder = record(tmp_path / "r", [[frame(seq, "yuv420p", 32, 32)] for seq in range(30)], lossless=True)
    assert not recorder.lost
    assert len(read(tmp_path / "r")[0]) == 30
