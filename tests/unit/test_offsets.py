"""Offsets of devices: kept, found again, refused when damaged, applied without counting anything twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.calibration.offsets import Offset, Shift, alignment, device_name, lookup, offsets_path, store
from mmedge.errors import ConfigError
from mmedge.types import Block, EndOfStream

MS = 1_000_000
IMAGE = ImageInput(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
AUDIO = AudioInput(sample_rate_hz=16_000, window_ms=500)
INPUTS: dict[str, Any] = {"image": IMAGE, "front": IMAGE, "audio": AUDIO, "room": AUDIO}


def known(image: str, audio: str, offset_ms: float, uncertainty_ms: float = 4) -> Offset:
    return Offset(
        image=device_name(image),
        audio=device_name(audio),
        offset_ns=round(offset_ms * MS),
        uncertainty_ns=round(uncertainty_ms * MS),
        mad_ns=MS,
        pairs=20,
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_an_offset_comes_back_for_its_pair_alone() -> None:
    assert lookup("0", "mic://default") is None
    path = store(known("0", "mic://default", 31.4))
    assert path == offsets_path()
    store(known("0", "mic://usb", -5))
    assert lookup("v4l2:///dev/video0", "mic://default") == known("0", "mic://default", 31.4)
    assert lookup("v4l2:///dev/video0?width=1280", "mic://default") is None
    store(known("0", "mic://default", 7))
    assert lookup("0", "mic://default") == known("0", "mic://default", 7)
    assert lookup("0", "mic://usb") == known("0", "mic://usb", -5)
    assert [file.name for file in path.parent.iterdir()] == ["offsets.json"]


def test_a_password_is_not_kept() -> None:
    store(known("rtsp://me:secret@camera/1", "mic://default", 200))
    assert "secret" not in offsets_path().read_text()
    assert lookup("rtsp://me:secret@camera/1", "mic://default") is not None


def test_offsets_that_were_kept_with_a_token_are_found_and_lose_it() -> None:
    """Files of mmedge 0.1 masked passwords alone."""
    camera, pipeline = "rtsp://me:secret@camera/1?key=tok-en-tok", "gst:rtspsrc user-pw=tok-en-tok ! x?fps=5&height=48"
    new = _plain(known("0", "mic://default", 7))
    old = [new | {"image": name.replace("me:secret", "***")} for name in (camera, pipeline)]
    offsets_path().parent.mkdir()
    offsets_path().write_text(json.dumps({"schema": "mmedge.offsets/1", "offsets": old}))
    for uri in (camera, camera.replace("secret", "new"), "gst:rtspsrc user-pw=tok-en-tok ! x?height=48&fps=5"):
        assert lookup(uri, "mic://default") is not None
    assert lookup(camera.replace("tok-en", "tok-on"), "mic://default") is None
    store(known("1", "mic://default", 1))
    assert "tok-en" not in offsets_path().read_text()
    assert lookup(camera, "mic://default") is not None


def test_at_most_256_pairs_are_kept() -> None:
    document = [json.loads(json.dumps(_plain(known("0", f"mic://{k}", k)))) for k in range(256)]
    offsets_path().parent.mkdir()
    offsets_path().write_text(json.dumps({"schema": "mmedge.offsets/1", "offsets": document}))
    store(known("1", "mic://new", 1))
    assert lookup("0", "mic://0") is None
    assert lookup("0", "mic://1") is not None
    assert lookup("1", "mic://new") is not None


def _plain(offset: Offset) -> dict[str, Any]:
    return {name: getattr(offset, name) for name in offset.__struct_fields__}


def test_a_damaged_file_is_an_error_and_stays_as_it_is() -> None:
    good = {"schema": "mmedge.offsets/1", "offsets": [_plain(known("0", "mic://default", 3))]}
    offsets_path().parent.mkdir()
    for text in (
        "",
        "[]",
        "{",
        "\xff",
        json.dumps(good)[:-3],
        json.dumps(good | {"schema": "mmedge.offsets/2"}),
        json.dumps(good | {"more": 1}),
        json.dumps({"schema": "mmedge.offsets/1", "offsets": [_plain(known("0", "mic://a", 3)) | {"pairs": "20"}]}),
        json.dumps(
            {"schema": "mmedge.offsets/1", "offsets": [_plain(known("0", "mic://a", 3)) | {"offset_ns": 1e300}]}
        ),
        " " * (1 << 20) + json.dumps(good),
    ):
        offsets_path().write_bytes(text.encode("latin-1"))
        for use in (lambda: lookup("0", "mic://default"), lambda: store(known("0", "mic://a", 1))):
            with pytest.raises(ConfigError, match="damaged") as error:
                use()
            assert "delete the file" in str(error.value.fix)
        assert offsets_path().read_bytes() == text.encode("latin-1")


def test_a_folder_that_cannot_be_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mmedge").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be saved") as error:
        store(known("0", "mic://default", 1))
    assert "XDG_CONFIG_HOME" in str(error.value.fix)
    with pytest.raises(ConfigError, match="cannot be read"):
        lookup("0", "mic://default")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(home / "me"))
    assert offsets_path() == home / "me" / ".config" / "mmedge" / "offsets.json"


def test_only_live_devices_have_offsets() -> None:
    for uri in ("clip.mp4", "text://stdin"):
        with pytest.raises(ConfigError, match="not a live device"):
            device_name(uri)


def test_nothing_is_counted_twice() -> None:
    """The half of each stream in the pair's uncertainty takes the place of what its source assumes."""
    uris = {"image": "udp://127.0.0.1:5000", "audio": "mic://default"}
    store(known(uris["image"], uris["audio"], 80, uncertainty_ms=6))
    shifts, notes = alignment(INPUTS, uris)
    assert notes == []
    frame = Block(
        stream="image",
        seq=0,
        capture_ns=1000 * MS,
        arrive_ns=1200 * MS,
        uncertainty_ns=42 * MS,
        samples=None,  # type: ignore[arg-type]
    )
    moved = shifts["image"](frame)
    assert (moved.capture_ns, moved.arrive_ns, moved.uncertainty_ns) == (920 * MS, 1200 * MS, (2 + 3) * MS)
    block = Block(
        stream="audio",
        seq=0,
        capture_ns=1000 * MS,
        arrive_ns=0,
        uncertainty_ns=12 * MS,
        quality="C",
        samples=None,  # type: ignore[arg-type]
    )
    assert shifts["audio"](block).capture_ns == 1000 * MS
    assert shifts["audio"](block).uncertainty_ns == (2 + 3) * MS
    end = EndOfStream(stream="image", seq=1, capture_ns=1000 * MS, arrive_ns=0, reason="gone")
    assert shifts["image"](end).reason == "gone"
    assert shifts["image"](end).capture_ns == 920 * MS


def test_what_was_never_calibrated_is_said_and_changes_nothing() -> None:
    uris = {"image": "0", "audio": "mic://default"}
    shifts, (note,) = alignment(INPUTS, uris)
    assert shifts == {}
    assert "mmedge calibrate --image v4l2:///dev/video0 --audio mic://default" in note
    assert alignment(INPUTS, {"image": "test://?fps=30", "audio": "test://?fps=30"}) == ({}, [])  # one device
    assert alignment(INPUTS, {"image": "clip.mp4", "audio": "mic://default"}) == ({}, [])
    store(known("0", "mic://default", 10))
    shifts, notes = alignment(INPUTS, {**uris, "front": "1"})
    assert len(notes) == 1
    assert shifts == {"image": Shift(earlier_ns=10 * MS)}  # its uncertainty still counts against 'front'


@settings(max_examples=100, deadline=None)
@given(late=st.lists(st.integers(-500, 500), min_size=4, max_size=4), missing=st.sampled_from([None, 0, 1, 2, 3]))
def test_devices_come_onto_one_time(late: list[int], missing: int | None) -> None:
    """However late each device is, and through whichever pairs that is known: no difference is left."""
    uris = {"image": "0", "front": "1", "audio": "mic://a", "room": "mic://b"}
    true = dict(zip(uris, late, strict=True))
    offsets_path().unlink(missing_ok=True)
    pairs = [(i, a) for i in ("image", "front") for a in ("audio", "room")]
    for number, (image, audio) in enumerate(pairs):
        if number != missing:
            store(known(uris[image], uris[audio], true[image] - true[audio], uncertainty_ms=2 + number))
    shifts, notes = alignment(INPUTS, uris)
    assert len(notes) == (missing is not None)
    left = {true[name] * MS - shifts[name].earlier_ns for name in uris}
    assert left == {min(late) * MS}
    assert min(shift.earlier_ns for shift in shifts.values()) == 0  # nothing comes from the future
    for image, audio in pairs:
        assert shifts[image].uncertainty_ns + shifts[audio].uncertainty_ns >= 2 * MS
