"""The doctor: facts, verdicts, fixes, and nothing that tells whose machine it is."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from mmedge import extras
from mmedge.doctor import Check, DoctorReport, collect, print_report
from mmedge.doctor.checks import run_checks
from mmedge.doctor.machine import read_cameras
from mmedge.doctor.platforms import parse_l4t, parse_version, verdict
from mmedge.doctor.probe import PACKAGES
from mmedge.doctor.report import Board, Camera, Gpu, TensorRT

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def report() -> DoctorReport:
    return collect()


def named(report: DoctorReport, name: str) -> Check:
    return next(check for check in run_checks(report).checks if check.name == name)


def test_the_report_is_one_strict_json_document(report: DoctorReport) -> None:
    assert report.schema == "mmedge.doctor/1"
    assert msgspec.json.decode(report.to_json(), type=DoctorReport) == report
    assert report.platform.cores >= 1
    assert len({check.name for check in report.checks}) == len(report.checks) >= 14


def test_whatever_is_not_ok_has_a_reason_and_what_failed_has_a_fix(report: DoctorReport) -> None:
    for check in report.checks:
        assert check.detail
        assert check.status != "fail" or check.fix


def test_nothing_tells_whose_machine_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "wilhelmina"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MMEDGE_CACHE", raising=False)
    text = collect().to_json().decode()
    assert "wilhelmina" not in text
    assert "~/.cache/mmedge/engines" in text
    assert f'"{socket.gethostname()}"' not in text


def test_every_optional_package_is_looked_for() -> None:
    assert {name: (spec[0][0], spec[1]) for name, spec in PACKAGES.items()} == {
        name: (distribution, extra) for name, (distribution, extra) in extras._EXTRA.items()
    }


def test_a_missing_package_comes_with_its_install_line(report: DoctorReport) -> None:
    for name, package in report.packages.items():
        assert package.install == f"pip install 'mmedge[{PACKAGES[name][1]}]'"


@pytest.mark.parametrize(
    ("module", "version", "sm", "l4t", "status", "says"),
    [
        ("tensorrt", "8.6.2", "SM87", "36.3.0", "fail", "flash JetPack 7.2"),
        ("tensorrt", "10.3.0.30", "SM87", "36.4.3", "ok", "weakly typed"),
        ("tensorrt", "10.7.0", "SM87", "36.4.3", "warn", "10.3"),  # in containers
        ("tensorrt", "10.13.3.9", "SM110", "38.2", "ok", "JetPack 7.0"),
        ("tensorrt", "10.13.3.9", "SM87", "39.2", "fail", "10.16"),  # no kernels for Orin
        ("tensorrt", "10.16.2.10", "SM87", "39.2", "ok", "JetPack 7.2"),
        ("tensorrt", "11.1.0", "SM87", "39.2", "fail", "does not support 11.0 to 11.3"),
        ("tensorrt", "11.4.1", "SM110", "39.2.1", "fail", "JetPack 7.2.2"),
        ("tensorrt", "11.4.1", "SM110", "39.2.2", "ok", "JetPack 7.2"),
        ("tensorrt", "10.16.2", "SM99", "39.2", "warn", "not in the table"),
        ("tensorrt", "12.0.0", "SM110", "45.1", "warn", "not in the table"),
        ("tensorrt_rtx", "1.7.1", "SM87", "36.4.3", "fail", "no kernels for Jetson"),
        ("tensorrt_rtx", "1.7.1", None, None, "ok", "built here, not run"),
        ("tensorrt_rtx", "1.7.1", "SM89", None, "ok", "SM89"),
        ("tensorrt_rtx", "1.7.1", "SM90", None, "fail", "mmedge[tensorrt]"),
        ("tensorrt", "10.16.1", "SM90", None, "ok", "SM90"),
        ("tensorrt", "8.6.1", "SM89", None, "fail", "older than 10.3"),
        ("tensorrt", "10.16.1", None, None, "warn", "tensorrt_rtx"),
    ],
)
def test_verdict_from_the_platform_table(
    module: str, version: str, sm: str | None, l4t: str | None, status: str, says: str
) -> None:
    check = verdict(module=module, version=version, sm=sm, l4t=l4t)
    assert check.status == status
    assert says in f"{check.detail} {check.fix}"
    assert check.status == "ok" or check.fix


def test_versions_and_releases_are_read() -> None:
    assert parse_l4t("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64") == "36.4.3"
    assert parse_l4t("") is None
    assert parse_version("10.3.0.30-1+cuda12.5") == (10, 3, 0, 30)
    assert parse_version("unknown") == ()


def test_cameras_are_listed_with_their_names(tmp_path: Path) -> None:
    for number in (10, 2):
        folder = tmp_path / f"sys/class/video4linux/video{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"Camera {number}\n")
    assert read_cameras(tmp_path) == (
        Camera(device="/dev/video2", name="Camera 2"),
        Camera(device="/dev/video10", name="Camera 10"),
    )
    assert read_cameras(tmp_path / "none") == ()


def test_an_unwritable_cache_fails_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "file" / "engines"))
    found = collect()
    check = named(found, "engine cache")
    assert check.status == "fail"
    assert "MMEDGE_CACHE" in str(check.fix)
    assert not found.ok


def test_a_machine_that_can_run_nothing_fails(report: DoctorReport) -> None:
    ort = replace(report.packages["onnxruntime"], installed=False, version=None)
    without = replace(report, packages={**report.packages, "onnxruntime": ort}, gpu=Gpu(usable=False, problem="none"))
    check = named(without, "cpu backend")
    assert (check.status, check.fix) == ("fail", "pip install 'mmedge[cpu]'")
    gpu = Gpu(usable=True, name="Orin", compute_capability="SM87", memory_bytes=16 << 30, integrated=True, cuda="12.6")
    with_gpu = replace(without, gpu=gpu, tensorrt=TensorRT(module="tensorrt", version="10.3.0"))
    assert named(with_gpu, "cpu backend").status == "warn"
    assert "16 GiB shared" in named(with_gpu, "gpu").detail


def test_a_driver_without_a_way_to_it_fails(report: DoctorReport) -> None:
    problem = "cuInit failed: system has unsupported display driver / cuda driver combination (CUDA_ERROR, 803)"
    check = named(replace(report, gpu=Gpu(usable=False, problem=problem, driver="540.4.0")), "gpu")
    assert (check.status, check.detail) == ("fail", problem)
    assert "reboot" in str(check.fix)


def test_a_jetson_without_tensorrt_fails(report: DoctorReport) -> None:
    board = Board(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        module=None,
        soc="tegra234",
        compute_capability="SM87",
        l4t="36.4.3",
        jetpack=None,
        memory_bytes=64 << 30,
        power_mode=None,
        power_modes={},
        clocks_locked=None,
        python="3.10",
    )
    machine = replace(report.machine, board=board)
    jetson = replace(report, machine=machine, tensorrt=TensorRT(problem="missing"))
    check = named(jetson, "tensorrt")
    assert check.status == "fail"
    assert "--system-site-packages" in str(check.fix)


def test_a_broken_core_fails(report: DoctorReport) -> None:
    assert named(replace(report, native_problem="not built"), "native core").status == "fail"


def test_the_table_shows_checks_and_fixes(report: DoctorReport) -> None:
    broken = run_checks(replace(report, native_problem="[core] is not built"))
    out = io.StringIO()
    print_report(Console(file=out, width=200), broken)
    text = out.getvalue()
    assert "[core] is not built" in text  # not taken for markup
    assert "fix: pip install -e ." in text
    assert all(check.name in text for check in broken.checks)
    assert all(name in text for name in broken.packages)
    assert f"evidence '{report.evidence}'" in text
