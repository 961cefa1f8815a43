"""What devices deliver and how late they are: ``devices --probe`` and ``calibrate``, on simulated and real devices."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.calibration import calibration
from mmedge.calibration.calibration import calibrate
from mmedge.calibration.flash_clip import write_clip
from mmedge.calibration.offsets import Offset, alignment, device_name, lookup, store
from mmedge.capture.pattern import read_time_code
from mmedge.cli import run
from mmedge.doctor.devices_probe import probe_devices
from mmedge.errors import CheckError, ConfigError, DeviceError
from mmedge.recording.reader import Recording
from mmedge.replay.inputs import plain_seats, record
from mmedge.types import Frame

MS = 1_000_000
SMALL = "width=160&height=64"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_calibrate_finds_keeps_and_takes_off_a_hidden_delay(capfd: pytest.CaptureFixture[str]) -> None:
    image, audio = f"test://?fps=240&{SMALL}&hidden_ms=70", "test://?seed=1&hidden_ms=8"
    assert run(["calibrate", "--image", image, "--audio", audio, "--flashes", "5", "--json"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert "Traceback" not in err
    assert document["schema"] == "mmedge.calibrate/1"
    # Half a frame, 4 ms, on a quiet machine: the flashes are in step with the frames.
    assert abs(document["offset_ns"] - 62 * MS) <= max(4 * MS, document["uncertainty_ns"])
    assert document["uncertainty_ns"] < 30 * MS
    assert document["pairs"] == len(document["differences_ns"]) == 5
    assert len(document["remarks"]) == 2
    kept = lookup(image, audio)
    assert kept is not None
    assert kept.offset_ns == document["offset_ns"]
    inputs: Any = {
        "image": ImageInput(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "audio": AudioInput(sample_rate_hz=16_000, window_ms=500),
    }
    shifts, notes = alignment(inputs, {"image": image, "audio": audio})
    assert notes == []
    assert shifts["image"].earlier_ns == kept.offset_ns
    assert shifts["audio"].earlier_ns == 0


def test_calibrate_says_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_NOTHING_S", 2.5)
    monkeypatch.setattr(calibration, "_SETTLE_NS", 500 * MS)
    with pytest.raises(CheckError, match="no flash was seen") as error:  # the picture of every flash is frozen away
        calibrate(f"test://?fps=30&{SMALL}&freeze_at_s=0", "test://?fps=31")
    assert "--write" in str(error.value.fix)
    with pytest.raises(DeviceError, match="'image' has sent no data"):
        calibrate("udp://127.0.0.1:9", "test://?fps=31")


def test_calibrate_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(ConfigError, match="not a live device"):
        calibrate("clip.mp4", "test://?")
    with pytest.raises(DeviceError):
        calibrate("v4l2:///dev/video99", "test://?")


def test_calibrate_writes_the_clip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    assert run(["calibrate", "--write", str(tmp_path / "flash.mp4"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "mmedge.clip/1"
    assert len(document["flashes_s"]) == 25
    assert Path(document["path"]).stat().st_size > 10_000
    assert run(["calibrate"]) == 2
    assert "--write flash.mp4" in capfd.readouterr().err
    assert run(["calibrate", "--write", "x.mp4", "--image", "0"]) == 2


def test_probe_measures_what_a_device_delivers(capfd: pytest.CaptureFixture[str]) -> None:
    uris = [f"test://?fps=100&{SMALL}&xrun=600&jitter_ms=2", "v4l2:///dev/video99"]
    assert run(["devices", "--probe", *uris, "--seconds", "3.5", "--json"]) == 0  # one of them works
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "mmedge.devices/1"
    works, fails = document["probe"]
    assert works["error"] is None
    assert works["lost"]["overflows"] >= 1
    assert works["lost"]["lost_samples"] > 100
    assert 0 < works["first_packet_ms"] < 60_000
    image, audio = works["streams"]
    assert (image["modality"], image["picture"], image["nominal_hz"], image["quality"]) == (
        "image",
        "160x64 yuv420p",
        100.0,
        "B",
    )
    assert image["rate_hz"] == pytest.approx(100, rel=0.1)
    assert image["jitter_p99_ms"] > image["jitter_p50_ms"] > 0.2
    assert image["packets"] >= 100
    assert audio["jitter_p50_ms"] > 0
    # Most vanished; a 99th percentile takes a hundred steps.
    assert (audio["jitter_p99_ms"] is None) == (audio["packets"] <= 100)
    assert (audio["modality"], audio["picture"], audio["nominal_hz"]) == ("audio", None, 48_000)
    assert audio["rate_hz"] == pytest.approx(48_000, rel=0.2)  # 20 to 100 ms vanish ten times a second
    assert audio["uncertainty_ms"] >= 1
    assert not audio["ppm_settled"]
    assert fails["streams"] == []
    assert fails["error"]["fix"]


def test_probe_of_nothing_that_works_ends_with_3(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--probe", "v4l2:///dev/video98", "v4l2:///dev/video99", "--json"]) == 3
    assert len(json.loads(capfd.readouterr().out)["probe"]) == 2
    assert run(["devices", "--probe", "v4l2:///dev/video99"]) == 3
    out, err = capfd.readouterr()
    assert "is not there" in " ".join(out.split())
    assert "fix:" in err
    assert run(["devices", "--probe", "clip.mp4"]) == 2
    assert run(["devices", "0"]) == 2
    assert run(["devices", "--probe", "nonsense://"]) == 2


def test_probe_of_a_device_that_vanishes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        (device,) = probe_devices([f"test://?{SMALL}&unplug_at_s=0.5"], seconds=4)
    assert device.error is None
    assert device.lost["restarts"] >= 1


def test_probe_of_a_device_that_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.doctor.devices_probe._FIRST_S", 1.0)
    (device,) = probe_devices(["test://?hang_at_s=0"])
    assert device.error is not None
    assert "no data arrived within 1 s" in str(device.error["message"])


def test_the_tables_fit_a_terminal() -> None:
    command = [sys.executable, "-m", "mmedge", "devices", "--probe", f"test://?{SMALL}", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for text in ("160x64 yuv420p", "B stream", "first packet after"):
        assert text in done.stdout
    assert "--seconds 30" in done.stderr


@pytest.mark.slow
@pytest.mark.devices
def test_real_devices_are_probed_and_calibrated(microphone: Any, camera: Any, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "flash.mkv")
    camera.send(clip, microphone=microphone)
    picture, sound = probe_devices([camera.uri, microphone.uri], seconds=2)
    found = calibrate(camera.uri, microphone.uri, flashes=8)  # the clip lasts half a minute in all
    print(f"offset {found.offset.offset_ns / MS:.1f} +- {found.offset.uncertainty_ns / MS:.1f} ms")  # noqa: T201
    assert abs(found.offset.offset_ns) < 100 * MS
    assert found.offset.uncertainty_ns < 40 * MS
    assert not found.ambiguous
    assert found.offset.mad_ns < 25 * MS
    assert picture.queue_depth is not None
    assert [stream.picture for stream in picture.streams] == ["320x180 yuv420p"]
    assert picture.streams[0].rate_hz == pytest.approx(60, rel=0.05)
    assert picture.streams[0].uncertainty_ms >= 40
    assert sound.error is None
    assert sound.queue_depth is None
    assert sound.streams[0].rate_hz == pytest.approx(sound.streams[0].nominal_hz, rel=0.02)


def test_recorded_inputs_are_on_calibrated_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    uris = {"image": f"test://?{SMALL}&hidden_ms=80", "audio": "test://?seed=5"}
    names = {kind: device_name(uri) for kind, uri in uris.items()}
    store(Offset(**names, offset_ns=80 * MS, uncertainty_ns=2 * MS, mad_ns=1, pairs=20))
    record(tmp_path / "r", uris, plain_seats(uris, 8000), duration_s=3.0)
    frames = [p for turn in Recording(tmp_path / "r").turns() for p in turn.packets if isinstance(p, Frame)]
    late_ms = [p.capture_ns / 1e6 - (read_time_code(p.data[: p.height]) or 0) for p in frames]
    assert np.median(late_ms) == pytest.approx(0, abs=25)
