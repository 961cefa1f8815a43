"""Secrets of source addresses against the product itself: commands, their children, recordings, GStreamer, Python."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.cli import run
from mmedge.cli.addresses import typed
from mmedge.cli.run import parse_inputs
from mmedge.errors import ConfigError, MmedgeError
from mmedge.replay.inputs import plain_seats, record
from tests.processes import children, free_port, run_until, until
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel

TOKEN = "kW7zQpLmX3vRt9bY"  # in every place of a secret
SMALL = "width=160&height=120&fps=30"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def family(pid: int) -> list[int]:
    return [pid, *(each for child in children(pid) for each in family(child))]


def visible(pid: int) -> str:
    """Return what others can see of a process: its arguments, name and environment."""
    found = ""
    for name in ("cmdline", "comm", "environ"):
        try:
            found += Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
        except OSError:
            continue
    return found


BAD = [
    f"rtsp://me:{TOKEN}@camera:port/x",
    f"rtsp://me:{TOKEN}/@camera/x",
    f"ftp://me:{TOKEN}@camera/x",
    f"http://?password={TOKEN}",
    f"me:{TOKEN}@camera/x",
    f"csi://0?password={TOKEN}",
    f"test://?password={TOKEN}",
    f"gst:rtspsrc user-pw='{TOKEN} ! x?width=64&height=48",
]


@pytest.mark.parametrize("bad", BAD)
def test_no_command_shows_the_secret_of_an_address_it_refuses(
    bad: str, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in (
        ["run", str(bundle), "--image", bad],
        ["run", str(bundle), "--input", f"image={bad}"],
        ["run", str(bundle), "--input", bad],
        ["run", str(bundle), "--input", f"{bad}=image"],
        ["run", bad, "--image", "0"],
        ["run", str(bundle), bad],
        ["run", str(bundle), f"--images={bad}"],
        ["run", str(bundle), "--image", "test://", "--latency", bad],
        ["record", bad, "--image", "0"],
        ["record", str(tmp_path / "r"), "--image", bad],
        ["record", str(tmp_path / "r"), "--input", f"front={bad}"],
        ["calibrate", "--image", bad, "--audio", bad],
        ["bench", str(bundle), "--duration", "1", "--input", f"image={bad}"],
        ["devices", bad],
        ["devices", "--probe", bad],
        ["verify", bad],
        ["replay", bad, str(bundle)],
        [bad],
    ):
        for end in ([], ["--json"]):
            assert run([*line, *end]) not in (0, 70), line
            out, err = capfd.readouterr()
            assert TOKEN not in out + err, line
            assert out + err


@pytest.mark.long
def test_a_camera_that_does_not_answer_is_waited_for_without_a_word_of_its_secret(bundle: Path, tmp_path: Path) -> None:
    address = f"rtsp://me:{TOKEN}@127.0.0.1:{free_port()}/live?token={TOKEN}"
    file = tmp_path / "address"
    file.write_text(address + "\n")
    file.chmod(0o600)
    said, seen = "", ""
    for name, *more in (
        ("run", bundle, "--record", tmp_path / "recorded"),
        ("record", tmp_path / "alone"),
        ("devices", "--probe", "--seconds", "1"),
    ):
        given = [f"@{file}"] if name == "devices" else ["--image", f"@{file}", "--duration", "5"]
        line = [sys.executable, "-m", "mmedge", "-v", name, *map(str, more), *given, "--json"]
        ran = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while ran.poll() is None:
            time.sleep(0.2)
            seen += "".join(map(visible, family(ran.pid)))
        out, err = ran.communicate(timeout=60)
        assert ran.returncode == 3
        said += out + err
    assert "rtsp://***@127.0.0.1" in said
    assert "refused" in said
    assert "mmedge.ipc.worker" in seen
    written = "".join(p.read_text() for p in tmp_path.rglob("*.json*"))
    assert "rtsp://***@127.0.0.1" in written
    for text in (said, seen, written):
        assert TOKEN not in text


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_python_shows_no_secret_of_a_run(
    bundle: Path, isolation: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    address = f"http://me:{TOKEN}@127.0.0.1:{free_port()}/{TOKEN}/video.mjpg?key={TOKEN}"
    pipe = mmedge.Pipeline(bundle, {"image": address}, isolation=isolation, record=tmp_path / "r", duration_s=5.0)
    with pipe:
        assert until(lambda: "refused" in str(pipe.health()["image"]["reason"]), 60), pipe.health()
        said = repr(pipe.health()) + repr(pipe.statistics) + repr(pipe._runtime.spec)
        try:
            pipe.run()
        except MmedgeError as error:
            said += str(error) + repr(error) + json.dumps(error.to_dict())
    said += caplog.text + "".join(p.read_text() for p in (tmp_path / "r").glob("*.json*"))
    assert "http://***@127.0.0.1" in said
    assert TOKEN not in said


def test_a_pipeline_is_not_among_the_arguments_of_its_process(bundle: Path, gstreamer: None) -> None:
    uri = f"gst:videotestsrc is-live=true ! identity name={TOKEN} ! video/x-raw,width=64,height=48,framerate=20/1"
    with mmedge.Pipeline(bundle, {"image": uri}, isolation="process") as pipe:
        assert run_until(pipe, 60, lambda results: len(results) > 5)
        everybody = [visible(pid) for pid in family(os.getpid())]
        assert any("gst_launch" in text for text in everybody)
        assert not any(TOKEN in text for text in everybody)
        assert TOKEN not in repr(pipe.health())


@pytest.mark.parametrize(
    "pipeline",
    [
        f"rtspsrc location=rtsp://me:{TOKEN}@127.0.0.1:9/x user-pw={TOKEN} ! decodebin",
        f"filesrc location=/{TOKEN}",
        f"nosuchelement key={TOKEN}",
    ],
)
def test_what_gstreamer_says_is_shown_without_a_secret(bundle: Path, pipeline: str, gstreamer: None) -> None:
    uri = f"gst:{pipeline} ! video/x-raw,width=64,height=48"
    with pytest.raises(MmedgeError) as caught, mmedge.Pipeline(bundle, {"image": uri}, duration_s=5) as pipe:
        pipe.run()
    assert TOKEN not in str(caught.value) + repr(caught.value.to_dict())


def test_recordings_are_their_owners_alone(tmp_path: Path) -> None:
    uris = {"image": f"test://?{SMALL}", "audio": f"test://?{SMALL}"}
    (tmp_path / "before").mkdir(mode=0o777)
    for name, mask in (("open", 0), ("before", 0), ("closed", 0o777)):
        before = os.umask(mask)
        try:
            record(tmp_path / name, uris, plain_seats(uris), duration_s=2.0)
        finally:
            os.umask(before)
        files = list((tmp_path / name).iterdir())
        assert {"recording.json", "events.jsonl"} < {file.name for file in files}
        assert len(files) >= 4
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


# Addresses that are not on the command line.


def test_an_address_comes_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "camera"
    for end in ("", "\n", "\r\n"):
        file.write_bytes(f"rtsp://me:{TOKEN}@camera/".encode() + end.encode())
        file.chmod(0o600)
        assert typed(f"@{file}", "--image").reveal() == f"rtsp://me:{TOKEN}@camera/"
    assert not caplog.records
    file.chmod(0o644)
    assert parse_inputs(None, [f"front=@{file}"], {})["front"].reveal() == f"rtsp://me:{TOKEN}@camera/"
    assert "others may read this file" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"  \n", f"{TOKEN}\nrtsp://x\n".encode(), b"\xff" + TOKEN.encode(), b"0" * 70_000]
)
def test_a_file_that_holds_no_address_is_refused_unseen(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "camera"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        typed(f"@{file}", "--image")
    assert str(file) in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_variables_are_put_in_and_escaped_where_a_password_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_USER", "me")
    monkeypatch.setenv("CAM_PASSWORD", "p@s/s:w?o#r d%21")
    monkeypatch.setenv("CAMERA", "rtsp://a:b@c/")
    text = "rtsp://${CAM_USER}:${CAM_PASSWORD}@camera/live?token=${CAM_USER}"
    assert typed(text, "--image").reveal() == "rtsp://me:p%40s%2Fs:w%3Fo%23r%20d%21@camera/live?token=me"
    assert typed("${CAMERA}", "--image").reveal() == "rtsp://a:b@c/"
    assert typed("gst:rtspsrc user-pw=${CAM_USER} ! x", "--image").reveal() == "gst:rtspsrc user-pw=me ! x"
    assert typed("clip.mp4", "--image").reveal() == "clip.mp4"


@pytest.mark.parametrize("name", ["NO_SUCH_VARIABLE", "", "a b"])
def test_a_variable_that_is_not_there_is_named_and_its_neighbours_are_not(
    name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAM_PASSWORD", TOKEN)
    for end in ([], ["--json"]):
        assert run(["run", str(bundle), "--image", f"rtsp://{TOKEN}:${{CAM_PASSWORD}}@${{{name}}}/", *end]) == 2
        out, err = capfd.readouterr()
        assert TOKEN not in out + err
        assert re.search("NO_SUCH_VARIABLE" if name == "NO_SUCH_VARIABLE" else "no name of a variable", out + err)
