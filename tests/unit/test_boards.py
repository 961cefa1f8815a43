"""The doctor of boards: every recorded tree is understood, every fault is named with its fix."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmedge.doctor.kernels import Kernels, read_kernels, run_on
from mmedge.doctor.platforms import JETPACKS, KNOWN_BAD, LAST_WHEELS, jetpack_of
from mmedge.doctor.report import Check
from tests.board_trees import NAMES, NOW_S, diagnose, is_right, lay_out, library, put

ROOT = Path(__file__).parents[2]
NANO, NANO_OLD, AGX, THOR = "orin_nano_jp72", "orin_nano_jp62", "agx_orin_jp72", "thor_jp71"


@pytest.mark.parametrize("name", NAMES)
def test_a_board_in_order_has_nothing_to_fix_and_is_told_by_name(name: str, tmp_path: Path) -> None:
    assert is_right(name, tmp_path) == []


def test_every_board_and_jetpack_of_the_plan_has_a_tree() -> None:
    orins = {f"{board}_{jetpack}" for board in ("orin_nano", "orin_nx", "agx_orin") for jetpack in ("jp62", "jp72")}
    assert set(NAMES) == orins | {"thor_jp71", "thor_jp72"}  # 7.1 is not for Orin, 6.2 not for Thor


def board(root: Path, name: str = NANO) -> str:
    return str(lay_out(name, root)["python"])


def fault(check: Check, status: str, *says: str) -> None:
    assert check.status == status
    assert check.fix
    for text in says:
        assert text in f"{check.detail} {check.fix}"


def test_a_board_of_four_gigabytes(tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "proc/meminfo", b"MemTotal:        3456789 kB\n")
    fault(diagnose(tmp_path, python=python)["memory"], "warn", "3.3 GiB", "multi-user.target", "mmedge compile")


def test_cuda_is_missing_from_path_or_altogether(tmp_path: Path) -> None:
    python = board(tmp_path)
    found = diagnose(tmp_path, python=python, path="/usr/bin:/bin")
    fault(found["cuda toolkit"], "warn", "CUDA 13.2, not on PATH", "export PATH=/usr/local/cuda/bin")
    (tmp_path / "usr/local/cuda-13.2/bin/nvcc").unlink()
    for folder in ("usr/local/cuda-13.2/bin", "usr/local/cuda-13.2"):
        (tmp_path / folder).rmdir()
    fault(diagnose(tmp_path, python=python)["cuda toolkit"], "warn", "no toolkit", "nvidia-jetpack")


def test_two_tensorrts(tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "usr/local/lib/python3.12/dist-packages/tensorrt_cu13-10.16.1.11.dist-info/METADATA", b"")
    found = diagnose(tmp_path, python=python)["tensorrt"]
    fault(
        found, "warn", "2 versions", "10.16.1 (Python package tensorrt_cu13)", "10.16.2 (", "pip uninstall -y tensorrt"
    )


@pytest.mark.parametrize(
    ("name", "version", "says"),
    [
        (NANO, "10.13.3", "isaac-ros-cli/issues/22"),
        (AGX, "11.2.1", "tensorrt-10x-to-11x-jetson"),
        (AGX, "11.4.1", "JetPack 7.2.2"),
        (NANO_OLD, "8.6.2", "10.3"),
    ],
)
def test_a_tensorrt_that_is_known_to_be_bad(name: str, version: str, says: str, tmp_path: Path) -> None:
    python = board(tmp_path, name)
    status = tmp_path / "var/lib/dpkg/status"
    text = status.read_text().replace("10.16.2.10", f"{version}.1").replace("10.3.0.30", f"{version}.1")
    status.write_text(text)
    for path in [*tmp_path.rglob("libnvinfer.so.*"), *tmp_path.rglob("tensorrt-*.dist-info/METADATA")]:
        path.unlink()
    for path in tmp_path.rglob("tensorrt-*.dist-info"):
        path.rmdir()
    found = diagnose(tmp_path, python=python)["tensorrt"]
    fault(found, "fail", says, "sudo apt-get install nvidia-jetpack")


def test_a_network_that_was_reported_to_fail_is_told_though_the_version_is_good(tmp_path: Path) -> None:
    found = diagnose(tmp_path, python=board(tmp_path, THOR))["tensorrt"]
    assert found.status == "ok"
    assert "TensorRT/issues/4590" in found.detail


def test_no_row_without_a_report() -> None:
    assert all(row.report.startswith("https://") and row.what for row in KNOWN_BAD)
    assert all(row.tensorrt[0] <= row.tensorrt[1] for row in KNOWN_BAD)


def test_no_tensorrt_and_a_python_that_jetpack_has_none_for(tmp_path: Path) -> None:
    board(tmp_path)
    fault(diagnose(tmp_path, python="3.11.7")["python"], "fail", "for Python 3.12", "python3.12 -m venv --system-site")
    (tmp_path / "var/lib/dpkg/status").unlink()
    for path in [*tmp_path.rglob("libnvinfer.so.*"), *tmp_path.rglob("tensorrt-*.dist-info/METADATA")]:
        path.unlink()
    for path in tmp_path.rglob("tensorrt-*.dist-info"):
        path.rmdir()
    found = diagnose(tmp_path, python="3.12.3")
    fault(found["tensorrt"], "fail", "not installed", jetpack_of("39.2.1").install)  # type: ignore[union-attr]
    fault(found["board"], "warn", "nvidia-jetpack is not installed", "apt-get install -y nvidia-jetpack")


def test_the_last_wheels_of_an_old_python_are_those_that_are_pinned(tmp_path: Path) -> None:
    found = diagnose(tmp_path, python=f"{board(tmp_path, NANO_OLD)}.12")["python"]
    assert found.status == "ok"
    pins = (ROOT / "constraints.txt").read_text()
    for name, version in LAST_WHEELS[(3, 10)].items():
        assert f'{name}=={version}; python_version < "3.11"' in pins
        assert f"{name} {version}" in found.detail


def test_every_jetpack_has_its_install_line() -> None:
    for row in JETPACKS:
        assert f"python{row.python} -m venv --system-site-packages" in row.install
        assert "mmedge[capture,cpu]" in row.install


def test_wheels_for_another_gpu(tmp_path: Path) -> None:
    python = board(tmp_path)
    place = "usr/local/lib/python3.12/dist-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so"
    put(tmp_path, place, library([80, 86, 90, 110]))
    found = diagnose(tmp_path, python=python)["gpu kernels"]
    fault(found, "fail", "none for SM87", "libonnxruntime_providers_cuda.so is for SM80, SM86, SM90, SM110")
    put(tmp_path, place, library([80, 87]))
    assert diagnose(tmp_path, python=python)["gpu kernels"].status == "ok"


@pytest.mark.parametrize(
    ("sms", "ptx", "sm", "integrated", "runs"),
    [
        (["SM86"], [], "SM87", True, False),  # Tegra runs its own machine code only
        (["SM86"], [], "SM89", False, True),
        (["SM89"], [], "SM86", False, False),
        (["SM80"], ["SM80"], "SM87", True, True),
        (["SM90"], ["SM90"], "SM87", True, False),
        (["SM110"], [], "SM110", True, True),
        (["SM90"], ["SM90"], "SM110", True, True),
    ],
)
def test_what_runs_on_what(sms: list[str], ptx: list[str], sm: str, integrated: bool, runs: bool) -> None:
    assert run_on(Kernels(library="x", sms=tuple(sms), ptx=tuple(ptx)), sm, integrated=integrated) is runs


def test_kernels_are_read_and_damage_is_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "x.so"
    file.write_bytes(whole := library([87, 110], [75]))
    assert read_kernels(file, "x.so") == Kernels(library="x.so", sms=("SM87", "SM110"), ptx=("SM75",))
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        read_kernels(file, "x.so")
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        read_kernels(file, "x.so")
    assert read_kernels(tmp_path, "a folder") is None


def test_a_camera_that_is_taken(tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "proc/4242/comm", b"nvargus-daemon\n")
    (tmp_path / "proc/4242/fd").mkdir()
    (tmp_path / "proc/4242/fd/9").symlink_to("/dev/video0")
    found = diagnose(tmp_path, python=python)["cameras"]
    fault(found, "warn", "/dev/video0 by nvargus-daemon (process 4242)", "fuser -v")


def test_this_process_and_others_that_hold_a_camera_are_told_apart(tmp_path: Path) -> None:
    python = board(tmp_path)
    own = tmp_path / f"proc/{os.getpid()}/fd"
    own.mkdir(parents=True)
    (own / "9").symlink_to("/dev/video0")
    assert diagnose(tmp_path, python=python)["cameras"].status == "ok"


def test_a_root_that_is_read_only(tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "proc/mounts", b"none / tmpfs rw 0 0\n/dev/mmcblk0p1 / ext4 ro,relatime 0 0\n")
    name = "root file system"
    fault(diagnose(tmp_path, python=python, cache_writable=False)[name], "fail", "read-only", "MMEDGE_CACHE")
    assert diagnose(tmp_path, python=python)[name].status == "ok"


@pytest.mark.parametrize("unix_s", [0.0, 1.5e9, -5.0, 1e300, float("nan")])
def test_a_clock_that_was_never_set(unix_s: float, tmp_path: Path) -> None:
    found = diagnose(tmp_path, python=board(tmp_path), unix_s=unix_s)["clock"]
    if unix_s == 0:
        fault(found, "fail", "1970-01-01", "timedatectl set-ntp true")
    assert (found.status == "ok") is (unix_s == 1e300) or found.fix


def test_power_modes(tmp_path: Path) -> None:
    python = board(tmp_path, AGX)
    assert diagnose(tmp_path, python=python)["power mode"].fix == (
        "for the best latency: sudo nvpmodel -m 0 && sudo jetson_clocks"
    )
    put(tmp_path, "var/lib/nvpmodel/status", b"pmode:0009")
    fault(diagnose(tmp_path, python=python)["power mode"], "warn", "mode 9 is none of", "sudo nvpmodel -q")
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    fault(diagnose(tmp_path, python=python)["power mode"], "warn", "set no mode", "nvpmodel -m")


def test_a_nano_that_was_flashed_without_its_super_mode(tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "etc/nvpmodel.conf", b"< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n")
    put(tmp_path, "var/lib/nvpmodel/status", b"pmode:0000")
    found = diagnose(tmp_path, python=python)["power mode"]
    assert "not flashed as Super" in found.detail


@pytest.mark.parametrize("text", [b"", b"\xff\xfe garbled", b"# R (release)"])
def test_a_release_file_that_is_garbled_is_made_up_for_by_the_package(text: bytes, tmp_path: Path) -> None:
    python = board(tmp_path)
    put(tmp_path, "etc/nv_tegra_release", text)
    found = diagnose(tmp_path, python=python)
    fault(found["system files"], "warn", "/etc/nv_tegra_release")
    assert "Jetson Linux 39.2.1" in found["board"].detail
    (tmp_path / "var/lib/dpkg/status").unlink()
    fault(diagnose(tmp_path, python=python)["board"], "warn", "release is unknown", "dpkg-query --show nvidia-l4t-core")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    python = board(tmp_path)
    (tmp_path / "proc/meminfo").unlink()
    os.mkfifo(tmp_path / "proc/meminfo")
    fault(diagnose(tmp_path, python=python)["memory"], "warn", "unknown")


def test_a_machine_that_is_no_jetson_has_no_checks_of_boards(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", b"MemTotal: 1 kB\n")
    assert set(diagnose(tmp_path, python="3.12.3")) == {"python", "tensorrt", "cameras", "clock", "root file system"}


FILES = (
    "etc/nv_tegra_release",
    "etc/nvpmodel.conf",
    "var/lib/nvpmodel/status",
    "proc/device-tree/model",
    "proc/device-tree/compatible",
    "proc/meminfo",
    "proc/mounts",
    "var/lib/dpkg/status",
    "sys/class/devfreq/17000000.gpu/min_freq",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FILES), st.none() | st.binary(max_size=200) | st.just(b"9" * 9000), max_size=6))
def test_whatever_the_files_hold_the_doctor_answers(
    tmp_path_factory: pytest.TempPathFactory, damage: dict[str, bytes | None]
) -> None:
    root = tmp_path_factory.mktemp("board")
    board(root)
    for path, data in damage.items():
        (root / path).unlink()
        if data is not None:
            put(root, path, data)
    found = diagnose(root, python="3.12.3", unix_s=NOW_S)
    assert all(check.detail and (check.status == "ok" or check.fix) for check in found.values())
