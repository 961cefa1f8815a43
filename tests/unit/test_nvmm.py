"""Pipelines through a Jetson's hardware, against recorded ones: nobody has run them on a board."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from mmedge.capture import parse
from mmedge.capture.gstreamer import pipeline
from mmedge.capture.nvmm import chain, elements
from mmedge.capture.v4l2 import hardware_reads
from mmedge.errors import ConfigError, DeviceError

TAIL = (
    " ! nvvidconv ! video/x-raw,format=NV12,width=1280,height=720 ! videoconvert"
    " ! video/x-raw,format=NV12,width=1280,height=720,pixel-aspect-ratio=1/1,colorimetry=bt601"
    " ! fdsink name=mmedge-out fd=1 sync=false"
)
CAMERA = "v4l2:///dev/video0?decode=hardware"


# As the pages "Accelerated GStreamer" and "Camera Development" of NVIDIA's Jetson Linux Developer Guide write them.
@pytest.mark.parametrize(
    ("uri", "without", "head", "by"),
    [
        (
            "csi://1?fps=60",
            (),
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1,format=NV12",
            "nvarguscamerasrc, nvvidconv",
        ),
        (
            CAMERA,
            (),
            "v4l2src device=/dev/video0 ! image/jpeg,width=1280,height=720,framerate=30/1 ! nvv4l2decoder mjpeg=1",
            "nvv4l2decoder, nvvidconv",
        ),
        (
            CAMERA + "&fourcc=MJPG",
            ("nvv4l2decoder",),
            "v4l2src device=/dev/video0 ! image/jpeg,width=1280,height=720,framerate=30/1 ! nvjpegdec",
            "nvjpegdec, nvvidconv",
        ),
        (
            CAMERA + "&fourcc=YUYV&fps=15",
            ("nvv4l2decoder", "nvjpegdec"),
            "v4l2src device=/dev/video0 ! video/x-raw,format=YUY2,width=1280,height=720,framerate=15/1",
            "nvvidconv",
        ),
        (
            CAMERA + "&fourcc=H264",
            (),
            (
                "v4l2src device=/dev/video0 ! video/x-h264,width=1280,height=720,framerate=30/1 ! h264parse"
                " ! nvv4l2decoder"
            ),
            "nvv4l2decoder, nvvidconv",
        ),
        (
            CAMERA + "&fourcc=HEVC",
            (),
            (
                "v4l2src device=/dev/video0 ! video/x-h265,width=1280,height=720,framerate=30/1 ! h265parse"
                " ! nvv4l2decoder"
            ),
            "nvv4l2decoder, nvvidconv",
        ),
    ],
)
def test_a_pipeline_is_made_of_the_elements_that_are_there(
    uri: str, without: tuple[str, ...], head: str, by: str
) -> None:
    found = pipeline(parse(uri), lambda name: name not in without)
    assert (found.text, found.width, found.height, found.by) == (head + TAIL, 1280, 720, by)


@pytest.mark.parametrize("lacking", ["nvarguscamerasrc", "nvvidconv"])
def test_an_element_that_is_missing_is_named_with_its_fix(lacking: str) -> None:
    with pytest.raises(DeviceError, match=f"no element '{lacking}'") as error:
        chain(parse("csi://0"), lambda name: name != lacking)
    assert "nvidia-l4t-gstreamer" in str(error.value.fix)


def test_pictures_that_the_hardware_does_not_decode_are_refused() -> None:
    with pytest.raises(ConfigError, match="decodes no pictures of 'VP80'") as error:
        chain(parse(CAMERA + "&fourcc=VP80"), lambda name: True)
    assert "MJPG" in str(error.value.fix)
    with pytest.raises(ConfigError, match="cpu, hardware or auto"):
        parse("v4l2:///dev/video0?decode=gpu")


def test_a_device_is_one_word_of_the_pipeline_whatever_its_name() -> None:
    found = chain(parse("v4l2:///dev/x ! filesink location=y?decode=hardware&fourcc=YUYV"), lambda name: True)
    words = shlex.split(found.text)
    assert words[:3] == ["v4l2src", "device=/dev/x ! filesink location=y", "!"]


def test_auto_takes_the_cpu_where_elements_are_missing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    device = next(path for path in map(Path, ("/dev/null", "/dev/zero")) if path.is_char_device())
    with caplog.at_level(logging.INFO):
        assert hardware_reads(parse(f"v4l2://{device}")) is False
        assert hardware_reads(parse(f"v4l2://{device}?decode=auto")) is False
    assert "decoded by OpenCV on the CPU" in caplog.text
    assert "no element" in caplog.text
    assert hardware_reads(parse(f"v4l2://{device}?decode=hardware")) is True
    with pytest.raises(DeviceError, match="is not there"):
        hardware_reads(parse("v4l2:///dev/nowhere?decode=auto"))


def test_what_decodes_is_shown_of_an_address() -> None:
    assert str(parse(CAMERA).address) == CAMERA


def test_elements_are_told_from_caps() -> None:
    assert elements("a x=1 ! video/x-raw(memory:NVMM),width=1 ! b ! image/jpeg") == ["a", "b"]
