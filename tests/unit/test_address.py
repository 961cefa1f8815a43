"""Secrets of source addresses: wherever one stands in an address, no text that this package writes shows it."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmedge.address import Address, scrub
from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.calibration.offsets import alignment, device_name
from mmedge.capture import open_sources, parse
from mmedge.capture.supervisor import Order
from mmedge.doctor.devices_probe import DeviceProbe, probe_devices
from mmedge.errors import MmedgeError, SourceError, trace
from mmedge.ipc.control import pack, unpack
from mmedge.pipeline.arguments import check_sources
from mmedge.pipeline.spec import RunSpec
from mmedge.recording.writer import make_header
from mmedge.replay.inputs import plain_seats

SEATS: dict[str, Input] = {
    "image": ImageInput(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=100),
}
NETWORK = ("rtsp", "rtsps", "udp", "http", "https", "rtmp", "rtmps", "srt", "tcp", "rtp", "ftp", "RTSP", "x")
PLACES = [
    *(
        f"{scheme}://{rest}"
        for scheme in NETWORK
        for rest in (
            "{}@camera:554/live",
            "me:{}@camera:554/live",
            "me:{}@camera:port/live",
            "me:{}@camera:99999/live",
            "me:{}@[::1/live",
            "me:{}@",
            "me:{}",
            "camera:554/live?password={}",
            "camera:554/live?width={}",
            "camera:554/live?a=1&{}",
            "me@camera:554/live?{}=1#x",
            "camera:554/live#{}",
            "camera:554/live?key={}&track=1&channel=0",
            "camera:554/live?channel={}",
        )
    ),
    "rtmp://host:1935/live/{}",
    "rtmps://host/{}",
    "rtsp://host:554/user=admin_password={}_channel=1_stream=0.sdp?real_stream",
    "https://host:7441/hls/{}/index.m3u8",
    *(f"gst:rtspsrc {what} ! decodebin ! video/x-raw,width=64,height=48" for what in (
        "location=rtsp://me:{}@camera/live",
        "location=rtsp://camera/live?key={}",
        "location = 'rtsp://me:{}@camera/live'",
        "user-id={} latency=100",
        'user-pw="{}"',
        "proxy-pw={}",
        "anything={}",
        "latency={}",
        'user-pw="not closed {}',
    )),
    "gst:souphttpsrc location=http://h/ extra-headers=h,Authorization={} ! jpegdec?width=64&height=48",
    "gst:a user-pw={}?width=66&height=48",
    "rtsp:/me:{}@camera/live",
    "rtsp:me:{}@camera/live",
    "me:{}@camera/live",
    "//me:{}@camera/live",
    "camera/live?password={}",
    "image=rtsp://me:{}@camera/live",
    " rtsp://me:{}@camera/live",
    "test://?password={}",
    "test://?fps={}",
    "csi://0?key={}",
    "v4l2:///dev/video0?fourcc={}",
    "csi://me:{}@0",
    "test://me:{}@x",
    "file://me:{}@share/clip.mp4",
]  # fmt: skip
WORD = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789", min_size=13, max_size=20)
TOKEN = st.tuples(WORD, st.sampled_from(["", "@", "/", ":", "?", "#", "%40", "%2F", "@@", ":/", "&"]), WORD)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is masked at its source must not need the second net."""
    monkeypatch.setattr("mmedge.address._known", {})


def outlets(text: str) -> Iterator[str]:
    """Yield everything that is written about an address, short of opening a device."""

    def attempt(call: Any) -> Any:
        try:
            return call()
        except MmedgeError as error:
            said.extend([str(error), repr(error), json.dumps(error.to_dict()), trace(error)])
            return None

    said: list[str] = []
    address = Address(text)
    said += [
        str(address),
        repr(address),
        f"{address:>100}",
        "{} {!r}".format(address, address),  # noqa: UP032
        json.dumps([address], default=str),
    ]
    uri = attempt(lambda: parse(text))
    if uri is not None:
        said += [str(uri), repr(uri), uri.name, uri.target, repr(uri.device), repr(uri.params)]
    spec = RunSpec(bundle="b", inputs=check_sources({"image": text}))
    order = Order(inputs=SEATS, uris={"image": address}, hold_ns=0, epoch=0)
    said += [repr(spec), repr(order), repr(DeviceProbe(uri=str(address)))]
    header = attempt(lambda: make_header({"image": text}, {"image": True}, SEATS, started_ns=0))
    said.append(msgspec.json.encode(header).decode())
    said.append(repr(attempt(lambda: device_name(text))))
    said.append(repr(attempt(lambda: alignment(SEATS, {"image": text, "audio": "mic://default"}))))
    attempt(lambda: check_sources({"image": text.encode()}))
    attempt(lambda: check_sources({text: 1}))
    attempt(lambda: probe_devices([text, "clip.mp4"]))
    for name in ("image", "front", text):
        attempt(lambda name=name: plain_seats({name: text}))
        for source in attempt(lambda name=name: open_sources(SEATS, {name: text})) or ():
            said += [source.name, repr(source.health())]
            source.stop()
    attempt(lambda: open_sources(SEATS, {"image": text}, speed=2.0))
    attempt(lambda: open_sources(SEATS, {"image": text, "audio": "clip.mp4"}))
    yield from said


def shows(said: str, secret: str) -> bool:
    """Tell whether a text holds a secret, as it is or in another spelling."""
    spellings = (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("="))
    return any(spelling in said for spelling in spellings)


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(token=TOKEN)
def test_no_text_shows_a_secret(place: str, token: tuple[str, str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first, odd, second = token
    if place.endswith("me:{}"):  # a host may follow "@"
        odd = odd.replace("@", ":")
    if place.startswith("gst:") and odd in ("?", "&"):
        odd = "%3F"  # of a pipeline they begin our own parameters
    for said in outlets(place.replace("{}", first + odd + second)):
        assert not shows(said, first), said
        assert not shows(said, second), said
    for record in caplog.records:
        assert not shows(record.getMessage(), first)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@cam:554/live", "rtsp://***@cam:554/live"),
        ("rtsp://me:se@cre:t%40@cam:554/live", "rtsp://***@cam:554/live"),
        ("rtsp://me:sec/re:t@cam:554/live", "rtsp://***@cam:554/live"),
        ("rtsp://me:se@c/re:t@cam:554/live", "rtsp://***"),  # or a path with "@" on the host "c"
        (
            "rtsp://cam/Streaming/Channels/101?width=640&token=a",
            "rtsp://cam/Streaming/Channels/101?width=640&token=***",
        ),
        ("rtsp://cam/h264Preview_01_main", "rtsp://cam/h264Preview_01_main"),
        ("http://[::1]:80/axis-cgi/mjpg/video.cgi?channel=2", "http://[::1]:80/axis-cgi/mjpg/video.cgi?channel=2"),
        ("rtmp://h/live/key", "rtmp://h/live/***"),
        ("udp://@:5000?fifo_size=10", "udp://@:5000?fifo_size=10"),
        ("srt://h:9000?mode=caller&passphrase=x&latency=200", "srt://h:9000?mode=caller&passphrase=***&latency=200"),
        ("dir/what? a: name.mkv", "dir/what? a: name.mkv"),
        ("./me:you@here.mp4", "./me:you@here.mp4"),
        ("mic://USB Audio (hw:0,0)", "mic://USB Audio (hw:0,0)"),
        ("test://?drift_ppm=-60&jitter_ms=1.5", "test://?drift_ppm=-60&jitter_ms=1.5"),
        (
            "gst:rtspsrc location=rtsp://u:p@h/x user-pw=z latency=100 ! video/x-raw,width=64,height=(int)48",
            "gst:rtspsrc location=rtsp://***@h/x user-pw=*** latency=100 ! video/x-raw,width=64,height=(int)48",
        ),
        (
            'gst:udpsrc port=5000 caps="application/x-rtp,media=video,clock-rate=90000" ! rtph264depay name=d d. ! x',
            'gst:udpsrc port=5000 caps="application/x-rtp,media=video,clock-rate=90000" ! rtph264depay name=*** d. ! x',
        ),
    ],
)
def test_what_is_harmless_is_shown(text: str, shown: str) -> None:
    address = Address(text)
    assert str(address) == shown
    assert address.reveal() == text


def test_an_address_is_a_value_that_keeps_its_secret() -> None:
    one, other = Address("rtsp://me:one-secret@h/"), Address("rtsp://me:two-secret@h/")
    assert str(one) == str(other)
    assert one != other
    assert one == "rtsp://me:one-secret@h/"
    assert "rtsp://me:two-secret@h/" in {one: 1, other: 2}
    assert len({one, other, Address(one), copy.deepcopy(one)}) == 2
    for encode in (pickle.dumps, msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, json.dumps):
        with pytest.raises(TypeError) as error:
            encode(one)  # type: ignore[operator]
        assert "one-secret" not in str(error.value)
    assert not hasattr(one, "__dict__")


def test_it_goes_to_a_child_by_the_control_line_alone() -> None:
    order = Order(inputs={}, uris={"image": Address("rtsp://me:secret@h/")}, hold_ns=1, epoch=2)
    assert unpack(pack(order), Order) == order
    assert b"secret" in pack(order)


def test_cameras_that_look_the_same_are_told_apart_and_a_new_password_changes_nothing(home: Path) -> None:
    first, second = (device_name(f"rtsps://cam:7441/{token}") for token in ("AbCdEf1234567890", "ZyXwVu0987654321"))
    assert first != second
    assert first.startswith("rtsps://cam:7441/*** (")
    assert device_name("rtsps://me:new@cam:7441/AbCdEf1234567890").replace("***@", "") == first
    assert device_name("rtsp://me:one@cam/1") == device_name("rtsp://me:two@cam/1") == "rtsp://***@cam/1"
    pipelines = [device_name(f"gst:rtspsrc location=rtsp://h/{n} key={n}?fps=5") for n in ("aaa", "bbb")]
    assert pipelines[0] != pipelines[1]
    key = home / "mmedge" / "address.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.write_bytes(bytes(32))
    assert device_name("rtsps://cam:7441/AbCdEf1234567890") != first, "the digits follow from the key"


def test_the_second_net_takes_secrets_out_of_what_others_write() -> None:
    address = Address("rtsp://me:correct-horse@h/live?token=battery-staple")
    basic = base64.b64encode(b"me:correct-horse").decode()
    said = f"GET {address.reveal()} with Authorization: Basic {basic}; 'correct-horse' battery-staple, me and h"
    assert scrub(said) == f"GET {address} with Authorization: Basic ***; '***' ***, me and h"
    error = SourceError("401 for correct-horse", where=address.reveal())
    error.__cause__ = ValueError("battery-staple")
    for text in (str(error), repr(error), trace(error), json.dumps(error.to_dict())):
        assert "correct-horse" not in text
        assert "battery-staple" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://h/t?spool=/home/somebody/recordings/a.db", "mqtt://h/t?spool=/home/somebody/recordings/a.db"),
        ("mqtts://h/t?ca=recordings/somebody.pem&key=1", "mqtts://h/t?ca=recordings/somebody.pem&key=***"),
        ("gst:filesrc location=/home/somebody/recordings/a.mp4 ! x", "gst:filesrc location=*** ! x"),
        ("gst:filesrc location='/home/somebody/recordings/a.mp4' ! x", "gst:filesrc location=*** ! x"),
        ("http://h/?where=/home/somebody/recordings/a", "http://h/?where=***"),
    ],
)
def test_the_folders_of_a_path_are_no_secrets(text: str, shown: str) -> None:
    assert str(Address(text)) == shown
    said = "/home/somebody/recordings/clip.mp4"
    assert scrub(said) == said


def test_what_stands_in_quotes_is_known_without_them() -> None:
    Address('gst:rtspsrc user-pw="correct-horse" ! x')
    assert scrub("401 for correct-horse") == "401 for ***"


def test_what_ffmpeg_logs_shows_no_secret() -> None:
    av = pytest.importorskip("av")
    from mmedge.capture.network import open_network

    address = "rtsp://me:correct-horse@127.0.0.1:9/live?token=battery-staple"
    stream, before = io.StringIO(), av.logging.get_level()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("libav")
    logger.addHandler(handler)
    av.logging.set_level(av.logging.TRACE)
    try:
        import threading

        with pytest.raises(av.error.ConnectionRefusedError) as caught:
            open_network(av, parse(address), 0.5, threading.Event())
        logging.getLogger("libav.rtsp").error("Opening %s", address)
    finally:
        av.logging.set_level(before)
        logger.removeHandler(handler)
    said = stream.getvalue() + repr(caught.value) + str(caught.value) + repr(vars(caught.value))
    assert "Opening rtsp://***@127.0.0.1:9/live?token=***" in said
    assert "horse" not in said
    assert "staple" not in said


@pytest.mark.parametrize("password", ["p@ss/w:rd?x=1#y", "p//ss?q", "a/./b#@c", "pw/.@x"])
@pytest.mark.parametrize("address", ["rtsp://u:{}@h/", "foo://u:{}@h//x/", "rtsp://h/?password={}/", "http://u:{}@h/."])
def test_an_address_that_was_taken_for_a_path_shows_no_secret(address: str, password: str) -> None:
    text = address.format(password)
    Address(text)
    assert Path(password).name not in scrub(f"there is no file '{Path(text)}'").replace("x/", "").replace("/x", "")
