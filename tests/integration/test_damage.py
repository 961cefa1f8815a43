"""Damaged pictures: noticed, counted, treated as absent, also in a recording of the run; undamaged ones never."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from benchmarks import media_clips as clips
from benchmarks.media_damage import IN_PACKETS, LOST
from mmedge.bundle.manifest import ImageInput
from mmedge.capture import open_sources
from mmedge.capture.h264 import FrameNumbers
from mmedge.errors import SourceError
from mmedge.recording.reader import Recording
from mmedge.replay.replay import Replay
from mmedge.types import Frame
from tests import tiny
from tests.lines import replayed_line
from tests.processes import until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give each clip and what it gives, made once."""
    folder, made = tmp_path_factory.mktemp("clips"), dict[tuple[str, str], tuple[Path, clips.Played]]()

    def get(codec: str, suffix: str) -> tuple[Path, clips.Played]:
        if (codec, suffix) not in made:
            path = clips.moving(folder / f"{codec}{suffix}", codec)
            made[codec, suffix] = path, clips.play(path)
        return made[codec, suffix]

    return get


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
@pytest.mark.parametrize("codec", ["mjpeg", "h264", "h264 intra refresh", "hevc", "mpeg2", "mpeg4", "vp8", "vp9"])
def test_no_picture_of_an_undamaged_stream_is_refused(wholes: Any, codec: str, suffix: str) -> None:
    if suffix == ".ts" and codec in ("mjpeg", "vp8", "vp9"):
        pytest.skip("MPEG-TS does not carry it")
    _, played = wholes(codec, suffix)
    assert len(played.pictures) == 100
    assert not any(damaged for _, _, damaged in played.pictures)
    assert not played.counters.get("damaged_frames")


@pytest.mark.parametrize("codec", LOST)
def test_nor_of_one_that_is_joined_between_two_key_frames(wholes: Any, codec: str, tmp_path: Path) -> None:
    path, whole = wholes(codec, ".ts")
    data = path.read_bytes()
    joined = tmp_path / "joined.ts"
    # The tables of the programme, then the stream from somewhere in its first group of pictures on.
    joined.write_bytes(data[: 188 * 3] + data[188 * (len(data) // 188 * 12 // 100) :])
    played = clips.play(joined)
    assert len(played.pictures) > 40
    assert not any(damaged for _, _, damaged in played.pictures)
    shift = len(whole.pictures) - len(played.pictures)
    for (_, want, _), (_, got, _) in zip(whole.pictures[shift:], played.pictures, strict=True):
        assert np.abs(want - got).mean() < 0.5


@pytest.mark.parametrize("codec", LOST)
def test_pictures_that_lack_packets_of_a_transport_stream_are_noticed(wholes: Any, codec: str, tmp_path: Path) -> None:
    path, whole = wholes(codec, ".ts")
    damaged = unnoticed = 0
    for seed in range(1, 5):
        lossy = clips.without_packets(path, tmp_path / "lossy.ts", 0.004, seed)
        played = clips.play(lossy)
        score = clips.score(whole, played)
        damaged, unnoticed = damaged + score.damaged, unnoticed + score.unnoticed
        assert played.counters["damaged_frames"] == sum(said for _, _, said in played.pictures)
    assert damaged > 50
    assert unnoticed <= 0.1 * damaged


@pytest.mark.parametrize("kind", clips.KINDS)
@pytest.mark.parametrize("codec", IN_PACKETS)
def test_pictures_with_damaged_bytes_are_noticed(wholes: Any, codec: str, kind: str, tmp_path: Path) -> None:
    path, whole = wholes(codec, ".mkv")
    damaged = unnoticed = intact = 0
    for seed in range(3):
        share = 0.1 if codec == "mjpeg" else 0.03
        played = clips.play(clips.with_hurt_packets(path, tmp_path / "hurt.mkv", kind, share, seed))
        score = clips.score(whole, played)
        damaged, unnoticed = damaged + score.damaged, unnoticed + score.unnoticed
        intact += sum(not said for _, _, said in played.pictures)
    assert unnoticed <= max(0.1 * damaged, 1)
    assert intact > 100  # the others are still used


def test_a_picture_of_h264_that_is_missing_is_noticed_by_the_numbers(wholes: Any, tmp_path: Path) -> None:
    path, whole = wholes("h264", ".mkv")
    damaged = unnoticed = 0
    for seed in range(4):
        score = clips.score(whole, clips.play(clips.with_hurt_packets(path, tmp_path / "l.mkv", "lost", 0.03, seed)))
        damaged, unnoticed = damaged + score.damaged, unnoticed + score.unnoticed
    assert damaged > 20
    assert unnoticed == 0


def test_a_sender_that_breaks_the_rules_in_every_key_frame_is_read_all_the_same(wholes: Any, tmp_path: Path) -> None:
    """A message of no meaning behind each picture parameter set: a strict decoder refuses the key frame."""
    path, _ = wholes("h264", ".h264")
    odd = tmp_path / "odd.h264"
    message = bytes.fromhex("00000001060609 0180")
    odd.write_bytes(re.sub(b"(\0\0\1\x68[^\0]+)(\0\0\0?\1)", lambda m: m[1] + message + m[2], path.read_bytes()))
    played = clips.play(odd)
    assert len(played.pictures) > 30  # all from the fourth group of pictures on
    assert not any(damaged for _, _, damaged in played.pictures)
    assert "breaks its codec's rules" in str(played.reason)


@given(st.binary(max_size=80), st.lists(st.binary(max_size=200), max_size=4))
def test_no_packet_breaks_who_follows_the_numbers(extradata: bytes, packets: list[bytes]) -> None:
    for start in (b"", b"\1", bytes.fromhex("000001674d4028"), bytes.fromhex("0000016764001f")):
        numbers = FrameNumbers(start + extradata)
        for packet in packets:
            numbers.gap(b"\0\0\1\x41" + packet)
            numbers.gap(packet)


@pytest.mark.timeout(200)
def test_a_parameter_set_without_end_is_not_read_to_its_end() -> None:
    """It announces four billion numbers, and has eight million: reading them took longer the further one came."""
    fields = [f"{66:08b}", "01" * 8, "1", "1", "010", "1", "1", "1", "0" * 31 + "1" + "1" * 31]
    bits = "".join(fields)
    data = int(bits + "1" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8, "big")
    FrameNumbers(None).gap(b"\0\0\1\x67" + re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", data) + b"\xff" * 1_000_000)


def bundle(folder: Path, policy: str) -> Path:
    hold = {"policy": policy} | ({"max_age_ms": 300} if policy == "hold" else {})
    missing = {"missing": {"image": hold, "audio": {"policy": "zero"}}}
    masks = {"validated_masks": [*tiny.MANIFEST["validated_masks"], {"present": [], "metric": "top1", "value": 0.5}]}
    return tiny_bundle(folder / f"{policy}.mmedge", **missing, **masks)


@pytest.fixture
def hurt_clip(wholes: Any, tmp_path: Path) -> tuple[Path, list[bool]]:
    """Give an MJPEG clip and which of its pictures are damaged."""
    path, _ = wholes("mjpeg", ".mkv")
    hurt = clips.with_hurt_packets(path, tmp_path / "hurt.mkv", "burst", 0.1, 3)
    said = [damaged for _, _, damaged in clips.play(hurt).pictures]
    assert sum(said) >= 3
    return hurt, said


def test_a_damaged_picture_is_an_absent_one(hurt_clip: tuple[Path, list[bool]], tmp_path: Path) -> None:
    clip, said = hurt_clip
    with mmedge.Pipeline(bundle(tmp_path, "zero"), {"image": str(clip)}, latency="offline") as pipe:
        results = list(pipe)
    assert [not result.present["image"] for result in results] == said
    reasons = {result.reason for result in results if not result.present["image"]}
    assert reasons == {"image: damaged"}
    assert pipe.health()["image"]["counters"]["damaged_frames"] == sum(said)  # type: ignore[index]


def test_where_pictures_are_held_the_last_good_one_stands_for_it(
    hurt_clip: tuple[Path, list[bool]], tmp_path: Path
) -> None:
    clip, said = hurt_clip
    with mmedge.Pipeline(bundle(tmp_path, "hold"), {"image": str(clip)}, latency="offline") as pipe:
        results = list(pipe)
    assert len(results) == len(said)
    for result, damaged in zip(results, said, strict=True):
        assert result.present["image"]
        assert (result.age_ms["image"] > 0) == damaged


def test_where_such_triggers_are_skipped_there_is_no_answer(hurt_clip: tuple[Path, list[bool]], tmp_path: Path) -> None:
    clip, said = hurt_clip
    with mmedge.Pipeline(bundle(tmp_path, "skip"), {"image": str(clip)}, latency="offline") as pipe:
        results = list(pipe)
    assert len(results) == said.count(False)
    assert pipe.statistics.drops["skip_image"] == sum(said)


def test_where_an_input_may_not_fail_a_damaged_picture_ends_the_run(
    hurt_clip: tuple[Path, list[bool]], tmp_path: Path
) -> None:
    path, clip = bundle(tmp_path, "fail"), str(hurt_clip[0])
    with (
        pytest.raises(SourceError, match="'image' is missing") as error,
        mmedge.Pipeline(path, {"image": clip}, latency="offline") as pipe,
    ):
        list(pipe)
    assert error.value.where == "image: damaged"


@pytest.mark.parametrize("policy", ["zero", "hold"])
def test_a_recording_of_damaged_pictures_replays_to_the_same_bytes(
    hurt_clip: tuple[Path, list[bool]], tmp_path: Path, policy: str
) -> None:
    clip, said = hurt_clip
    path, folder = bundle(tmp_path, policy), tmp_path / "recording"
    with mmedge.Pipeline(path, {"image": str(clip)}, latency="offline", record=folder) as pipe:
        live = [replayed_line(result) for result in pipe]
    with mmedge.load(path) as opened:
        again = [replayed_line(result) for result in Replay(folder, opened)]
    assert again == live
    frames = [p for turn in Recording(folder).turns() for p in turn.packets if isinstance(p, Frame)]
    assert [frame.damaged for frame in frames] == said
    assert all((frame.data.size == 0) == frame.damaged for frame in frames)


def test_a_camera_whose_pictures_are_damaged_is_alive_but_not_well(wholes: Any, tmp_path: Path, camera: Any) -> None:
    """A sender whose packets get lost: health says it, nothing is opened again."""
    path, _ = wholes("h264", ".ts")
    lossy = clips.without_packets(path, tmp_path / "lossy.ts", 0.01, 2).read_bytes()
    seat = ImageInput(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    (source,) = open_sources({"image": seat}, {"image": camera.uri}, workers=True)
    frames: list[bool] = []

    def emit(packet: Any) -> None:
        if isinstance(packet, Frame):
            frames.append(packet.damaged)
            if packet.release is not None:
                packet.release()

    source.start(emit)
    states = set()
    try:
        target = urlsplit(camera.uri)
        assert until(lambda: f":{target.port:04X} " in Path("/proc/net/udp").read_text(), 60), "nobody receives"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            step = 7 * 188
            began, total = time.monotonic(), len(lossy)
            for at in range(0, total, step):
                sender.sendto(lossy[at : at + step], (target.hostname, target.port))
                health = source.health()
                states.add((health.state, health.reason))
                time.sleep(max(0.0, began + 4.0 * at / total - time.monotonic()))
        assert until(lambda: source.health().counters.get("damaged_frames", 0) == sum(frames), 60)
        health = source.health()
    finally:
        source.stop()
    assert any(frames)
    assert ("STALE", f"{camera.uri}: its pictures are damaged") in states
    assert not health.counters.get("restarts")
    assert not health.counters.get("reconnects")
