"""The grammar of source addresses."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.capture.gstreamer import pipeline
from mmedge.capture.uri import FORMS, Uri, parse
from mmedge.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "target", "params"),
    [
        ("0", "v4l2", "/dev/video0", {}),
        ("12", "v4l2", "/dev/video12", {}),
        ("/dev/video1", "v4l2", "/dev/video1", {}),
        ("v4l2:///dev/video0", "v4l2", "/dev/video0", {}),
        (
            "v4l2:///dev/v4l/by-id/cam?width=640&height=480&fourcc=MJPG",
            "v4l2",
            "/dev/v4l/by-id/cam",
            {"width": "640", "height": "480", "fourcc": "MJPG"},
        ),
        ("csi://0", "csi", "0", {}),
        ("csi://1?width=1280&fps=30", "csi", "1", {"width": "1280", "fps": "30"}),
        ("rtsp://cam/live?token=1", "network", "rtsp://cam/live?token=1", {}),
        ("udp://127.0.0.1:5000", "network", "udp://127.0.0.1:5000", {}),
        ("udp://@:5000?fifo_size=10", "network", "udp://@:5000?fifo_size=10", {}),
        ("clip.mp4", "file", "clip.mp4", {}),
        ("dir/what? a: name.mkv", "file", "dir/what? a: name.mkv", {}),
        ("file:///a%20b.mp4", "file", "/a b.mp4", {}),
        ("mic://default", "microphone", "default", {}),
        ("mic://USB Audio", "microphone", "USB Audio", {}),
        ("text://stdin", "text", "stdin", {}),
        ("text://a/b.txt", "text", "a/b.txt", {}),
        ("test://", "test", "test://?", {}),
        ("test://?stale=1&drift_ppm=-60", "test", "test://?drift_ppm=-60&stale=1", {"stale": "1", "drift_ppm": "-60"}),
        ("gst:videotestsrc ! x?width=64&height=48", "gst", "videotestsrc ! x", {"width": "64", "height": "48"}),
        ("gst:souphttpsrc location=http://h/?a=1 ! y", "gst", "souphttpsrc location=http://h/?a=1 ! y", {}),
    ],
)
def test_forms(text: str, kind: str, target: str, params: dict[str, str]) -> None:
    uri = parse(text)
    assert (uri.kind, uri.reveal(), dict(uri.params)) == (kind, target, params)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("gst:", "needs a pipeline"),
        ("v4l2://video0", "device path"),
        ("csi://left", "sensor number"),
        ("csi://0?width=wide", "whole number"),
        ("csi://0?width=0", "whole number"),
        ("csi://0?zoom=2", "unknown parameter 'zoom'"),
        ("csi://0?fps=30&fps=60", "twice"),
        ("v4l2:///dev/video0?fourcc=MJPEG", "four characters"),
        ("udp://127.0.0.1", "port"),
        ("udp://127.0.0.1:99999", "network address"),
        ("rtsp:///live", "host"),
        ("mic://", "not a source address"),
        ("text://", "not a source address"),
        ("file://relative.mp4", "not a source address"),
        ("ftp://host/a.mp4", "not a source address"),
        ("test://flash", "takes parameters only"),
        ("test://?fsp=30", "unknown parameter 'fsp', test takes width, height, fps"),
        ("test://?fps=30&fps=30", "twice"),
        ("test://?fps", "whole number"),
        ("test://?fps=1000", "'fps' is '1000': Expected `int` <= 240"),
        ("test://?width=642", "'width' is '642'.*multiple of 4"),
        ("test://?jitter_ms=nan", "'jitter_ms' is 'nan'"),
        ("test://?stall_ms=5&stall_rate=2", "'stall_rate' is '2'"),
        ("test://?drift_ppm=fast", "'drift_ppm' is 'fast': Expected `float`"),
        ("test://?time_jump_ms=1e12", "'time_jump_ms'"),
        ("test://?gap_at_s=3", "'gap_at_s' has no effect without 'gap_ms'"),
    ],
)
def test_refusals_say_what_is_possible(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(text)
    assert error.value.fix is not None
    assert FORMS in error.value.fix
    assert error.value.exit_code == 2


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text), Uri)


def test_passwords_are_not_shown() -> None:
    uri = parse("rtsp://user:secret@cam:554/live")
    assert str(uri) == uri.target == "rtsp://***@cam:554/live"
    assert "secret" in uri.reveal()
    assert "secret" not in repr(uri)


def test_gst_pipeline_takes_its_size_from_the_caps() -> None:
    found = pipeline(parse("gst:a ! video/x-raw,width=320,height=(int)240 ! b"))
    assert (found.width, found.height) == (320, 240)
    assert found.text.endswith(
        "b ! videoconvert ! videoscale"
        " ! video/x-raw,format=NV12,width=320,height=240,pixel-aspect-ratio=1/1,colorimetry=bt601"
        " ! fdsink name=mmedge-out fd=1 sync=false"
    )
    assert "videorate ! video/x-raw,framerate=15/1" in pipeline(parse("gst:a?width=64&height=48&fps=15")).text


@pytest.mark.parametrize("text", ["gst:videotestsrc", "gst:videotestsrc?width=64", "gst:a?width=66&height=48"])
def test_gst_pipeline_needs_a_size_it_can_hand_over(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        pipeline(parse(text))
    assert error.value.fix is not None
