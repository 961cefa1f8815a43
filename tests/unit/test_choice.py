"""How an address says which track and channels an input takes, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.capture import open_sources, parse
from mmedge.capture.channels import split_choice
from mmedge.errors import ConfigError

EAR = AudioInput(sample_rate_hz=8000, window_ms=10)
EYE = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("text", "target", "params"),
    [
        ("clip.mp4?channel=2", "clip.mp4", {"channel": "2"}),
        ("clip.mp4?track=1&channels=0,2", "clip.mp4", {"track": "1", "channels": "0,2"}),
        ("file:///a%20b.mp4?track=1", "/a b.mp4", {"track": "1"}),
        ("file:///a%3Ftrack=1", "/a?track=1", {}),
        ("who?.wav?channel=0", "who?.wav", {"channel": "0"}),
        ("who?x=1&channel=0", "who?x=1&channel=0", {}),
        ("a?channel=1/b.wav", "a?channel=1/b.wav", {}),
        ("rtsp://cam/live?channel=2", "rtsp://cam/live", {"channel": "2"}),
        ("rtsp://cam/live?token=1&track=1", "rtsp://cam/live?token=1", {"track": "1"}),
        ("rtsp://cam/live?channel=1&subtype=0", "rtsp://cam/live?channel=1&subtype=0", {}),
        ("rtsp://cam/live?channel=1&", "rtsp://cam/live?channel=1&", {}),
        ("rtsp://cam/live&channel=1", "rtsp://cam/live&channel=1", {}),
        ("udp://@:5000?fifo_size=10&channels=1,0", "udp://@:5000?fifo_size=10", {"channels": "1,0"}),
        ("mic://default?channel=5", "default", {"channel": "5"}),
        ("mic://USB Audio?channels=0,1", "USB Audio", {"channels": "0,1"}),
        ("mic://what%3F?channel=1", "what?", {"channel": "1"}),
    ],
)
def test_the_choice_is_taken_off_an_address(text: str, target: str, params: dict[str, str]) -> None:
    uri = parse(text)
    assert (uri.target, dict(uri.params)) == (target, params)
    assert uri.device == parse(text.removesuffix("&").split("?channel")[0]).device or not params or "track" in params
    assert not any(name in uri.name for name in params)  # a calibration is the device's, whatever is heard of it


def test_a_file_with_that_very_name_wins(tmp_path: Path) -> None:
    odd = tmp_path / "a.wav?channel=1"
    assert parse(str(odd)).params == {"channel": "1"}
    odd.touch()
    assert (parse(str(odd)).target, dict(parse(str(odd)).params)) == (str(odd), {})
    assert parse(f"{odd}?channel=0").target == str(odd)
    assert parse(f"file://{odd}").target == str(odd)


@pytest.mark.parametrize("address", ["clip.mp4", "rtsp://cam/live", "udp://127.0.0.1:5000", "mic://default"])
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("channel=left", "'channel' must be a whole number from 0"),
        ("channel=-1", "'channel' must be a whole number from 0"),
        ("channel=1000", "'channel' must be a whole number from 0 to 999"),
        ("channels=0,,1", "'channels' must be different whole numbers"),
        ("channels=1,1", "'channels' must be different whole numbers"),
        ("channels=", "'channels' must be different whole numbers"),
        ("channel=0&channels=1", "given at once"),
        ("channel=0&channel=1", "twice"),
    ],
)
def test_a_choice_that_is_none(address: str, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(f"{address}?{query}")
    if "twice" not in message:
        assert "?channels=N,M" in str(error.value.fix)


def test_parameters_that_a_microphone_has_not() -> None:
    for query in ("track=1", "rate=8000"):
        with pytest.raises(ConfigError, match=r"unknown parameter.*microphone takes channel, channels"):
            parse(f"mic://default?{query}")


def test_pictures_have_no_channels(tmp_path: Path) -> None:
    seats: dict[str, Input] = {"image": EYE, "audio": EAR}
    address = "rtsp://127.0.0.1:1/live?channel=1"
    with pytest.raises(ConfigError, match="'image' takes pictures, which have no channels of sound") as error:
        open_sources(seats, {"image": address, "audio": "udp://127.0.0.1:5000?channel=1"})
    assert "channel=1&" in str(error.value.fix)
    (source,) = open_sources(seats, {"image": address, "audio": address})  # as one who tries a device out gives it
    source.stop()
    assert source.streams == ("image", "audio")


@given(st.text(max_size=30), st.booleans())
def test_taking_off_a_choice_loses_nothing(text: str, query: bool) -> None:
    rest, choice = split_choice(text, query=query)
    assert text == (rest if not choice else f"{rest}{text[len(rest)]}{choice}")
