"""Verdicts on what the files of a system say: its board, power, memory, clock, libraries and devices."""

from __future__ import annotations

from datetime import datetime, timezone

from mmedge.doctor.kernels import run_on
from mmedge.doctor.platforms import LAST_WHEELS, jetpack_of, parse_version, verdict
from mmedge.doctor.report import Board, Check, Gpu, Machine, TensorRT

_SMALL_BYTES = 6 << 30  # a board of 8 GB reports 7.3 GiB, one of 4 GB 3.3 GiB
_FASTEST = ("MAXN_SUPER", "MAXN")
# No mmedge is older, so a clock that says otherwise was never set.
_FIRST_S = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()


def machine_checks(machine: Machine, *, gpu: Gpu, cache_writable: bool) -> list[Check]:
    """Judge what the files say.

    Args:
        machine: What they say.
        gpu: The GPU in use; where it cannot be used, that of the board's model stands in.
        cache_writable: Whether engines can be saved.

    Returns:
        One check for each thing that the machine has.
    """
    board = machine.board
    checks = [_clock(machine), _root(machine, cache_writable)]
    if board is not None:
        checks += [_board(board), _memory(board), _power(board), _dla(board), _cuda(machine)]
    sm = gpu.compute_capability or (board.compute_capability if board else None)
    if sm is not None and machine.kernels:
        checks.append(_kernels(machine, sm))
    if machine.unreadable:
        checks.append(
            Check(
                name="system files",
                status="warn",
                detail=f"not understood: {', '.join(machine.unreadable)}",
                fix="compare with another board of this kind; flash it again if they are damaged",
            )
        )
    return checks


def python_check(python: str, board: Board | None) -> Check:
    """Judge the Python: old, of another version than JetPack's TensorRT is for, or left behind by libraries."""
    numbers = parse_version(python)[:2]
    if numbers < (3, 10):
        return Check(name="python", status="fail", detail=f"{python} is too old", fix="use Python 3.10 or newer")
    jetpack = jetpack_of(board.l4t) if board else None
    if jetpack is not None and numbers != parse_version(jetpack.python):
        return Check(
            name="python",
            status="fail",
            detail=f"this is {python}; the TensorRT of {jetpack.name} is for Python {jetpack.python}",
            fix=jetpack.install,
        )
    last = LAST_WHEELS.get(numbers)
    note = f"; its last wheels: {', '.join(f'{name} {pin}' for name, pin in last.items())}" if last else ""
    return Check(name="python", status="ok", detail=python + note)


def tensorrt_check(machine: Machine, trt: TensorRT, gpu: Gpu) -> Check:
    """Judge the TensorRT in use, or the lack of one, on what is installed beside it."""
    board = machine.board
    l4t = board.l4t if board else None
    jetpack = jetpack_of(l4t)
    if trt.module is None or trt.version is None:
        detail = trt.problem or "not installed"
        if board is not None:
            if machine.tensorrt:
                detail = f"{' and '.join(machine.tensorrt)} is installed, but not for this Python: {detail}"
            fix = jetpack.install if jetpack else "sudo apt-get install nvidia-jetpack, and a venv that sees it"
            return Check(name="tensorrt", status="fail", detail=detail, fix=fix)
        extra = "tensorrt" if gpu.usable else "tensorrt-rtx"
        return Check(name="tensorrt", status="warn", detail=detail, fix=f"pip install 'mmedge[{extra}]'")
    sm = gpu.compute_capability or (board.compute_capability if board else None)
    check = verdict(module=trt.module, version=trt.version, sm=sm, l4t=l4t)
    if check.status == "fail" or len(machine.tensorrt) < 2:
        return check
    found = ", ".join(f"{version} ({', '.join(owners)})" for version, owners in machine.tensorrt.items())
    fix = "keep one: pip uninstall -y tensorrt tensorrt-cu12 tensorrt-cu13 (leaves that of the system)"
    detail = f"{len(machine.tensorrt)} versions are installed: {found}; which one loads depends on the paths"
    return Check(name="tensorrt", status="warn", detail=detail, fix=fix)


def cameras_check(machine: Machine) -> Check:
    """Judge the cameras: none is no fault, one that another program holds is."""
    taken = [f"{camera.device} by {', '.join(camera.held_by)}" for camera in machine.cameras if camera.held_by]
    found = ", ".join(f"{camera.device} {camera.name}" for camera in machine.cameras)
    if taken:
        fix = "end that program, or take its stream instead; `fuser -v /dev/video*` (as root) shows who holds one"
        return Check(name="cameras", status="warn", detail=f"{found}; taken: {'; '.join(taken)}", fix=fix)
    return Check(name="cameras", status="ok", detail=found or "no V4L2 device; network and file inputs work")


def _clock(machine: Machine) -> Check:
    try:
        now = datetime.fromtimestamp(machine.unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        now = "no date"
    if not machine.unix_s >= _FIRST_S:
        detail = f"it says {now}: results get wrong times, and certificates of servers are refused"
        fix = "sudo timedatectl set-ntp true; without a network: sudo date -s '2026-11-30 12:00', and a battery"
        return Check(name="clock", status="fail", detail=detail, fix=fix)
    return Check(name="clock", status="ok", detail=now)


def _root(machine: Machine, cache_writable: bool) -> Check:
    if machine.read_only and not cache_writable:
        fix = "export MMEDGE_CACHE=/a/folder/on/another/disk, or: sudo mount -o remount,rw /"
        detail = "mounted read-only: engines, logs and recordings cannot be saved"
        return Check(name="root file system", status="fail", detail=detail, fix=fix)
    detail = "read-only; the engine cache lies elsewhere" if machine.read_only else "writable"
    return Check(name="root file system", status="ok", detail=detail)


def _board(board: Board) -> Check:
    name = board.model.removeprefix("NVIDIA ") + (f" ({board.module})" if board.module else "")
    jetpack = jetpack_of(board.l4t)
    if board.l4t is None:
        detail = f"{name}: its Jetson Linux release is unknown"
        fix = "dpkg-query --show nvidia-l4t-core; flash JetPack 7.2 if it says nothing"
        return Check(name="board", status="warn", detail=detail, fix=fix)
    shown = f"JetPack {_dotted(board.jetpack)}" if board.jetpack else jetpack.name if jetpack else "JetPack ?"
    detail = f"{name}, {shown}, Jetson Linux {board.l4t}, {board.compute_capability or 'unknown GPU'}"
    if board.jetpack is None:
        fix = jetpack.install if jetpack else "sudo apt-get install nvidia-jetpack"
        return Check(name="board", status="warn", detail=f"{detail}; nvidia-jetpack is not installed", fix=fix)
    return Check(name="board", status="ok", detail=detail)


def _dotted(version: str) -> str:
    return ".".join(map(str, parse_version(version)))


def _memory(board: Board) -> Check:
    if board.memory_bytes is None:
        return Check(name="memory", status="warn", detail="its size is unknown", fix="look at /proc/meminfo")
    detail = f"{board.memory_bytes / 2**30:.1f} GiB, shared by CPU and GPU"
    if board.memory_bytes < _SMALL_BYTES:
        fix = (
            "sudo systemctl set-default multi-user.target (no desktop: frees about 0.8 GiB), swap on an NVMe disk, "
            "and `mmedge compile` before the first run: building an engine needs more than running it"
        )
        return Check(name="memory", status="warn", detail=f"{detail}: little for building engines", fix=fix)
    return Check(name="memory", status="ok", detail=detail)


def _power(board: Board) -> Check:
    modes = board.power_modes
    if board.power_mode is None:
        detail, fix = "nvpmodel has set no mode", "sudo nvpmodel -q; set one: sudo nvpmodel -m NUMBER"
        return Check(name="power mode", status="warn", detail=detail, fix=fix)
    number = str(board.power_mode)
    if number not in modes:
        fix = "sudo nvpmodel -q; set one that it lists: sudo nvpmodel -m NUMBER"
        detail = f"mode {number} is none of /etc/nvpmodel.conf's ({', '.join(modes.values()) or 'none'})"
        return Check(name="power mode", status="warn", detail=detail, fix=fix)
    locked = {True: ", clocks held by jetson_clocks", False: ", clocks follow the load", None: ""}[board.clocks_locked]
    detail = f"{modes[number]} (mode {number}){locked}"
    fastest = next((key for name in _FASTEST for key, known in modes.items() if known == name), None)
    if fastest is None:
        detail += "; no MAXN mode" + (": not flashed as Super" if board.module in _SUPER else "")
        return Check(name="power mode", status="ok", detail=detail, fix=None)
    steps = [] if fastest == number else [f"sudo nvpmodel -m {fastest}"]
    steps += [] if board.clocks_locked else ["sudo jetson_clocks"]
    faster = f"for the best latency: {' && '.join(steps)}" if steps else None
    return Check(name="power mode", status="ok", detail=detail, fix=faster)


# Modules with a Super mode; an image that was flashed without it has no MAXN_SUPER
# (https://forums.developer.nvidia.com/t/25w-and-maxn-super-not-seen-in-jetpack-7-2/372627).
_SUPER = ("p3767-0000", "p3767-0001", "p3767-0003", "p3767-0004", "p3767-0005")


# Module -> its DLA cores, by the public data sheets of Jetson AGX Orin and Orin NX; no other module that is supported
# has any.
_DLA_CORES = {"p3701": 2, "p3767-0000": 2, "p3767-0001": 1}
_DLA_AGAIN = (39, 2, 2)  # Jetson Linux from which on TensorRT 11.4.1 knows AGX Orin's again; JetPack 7 knew none before


def _dla(board: Board) -> Check:
    module = board.module or ""
    cores = next((cores for part, cores in _DLA_CORES.items() if module.startswith(part)), 0)
    there = f"{cores} core{'' if cores == 1 else 's'}"
    release = parse_version(board.l4t or "")
    if not cores:
        detail = "none: Orin Nano and Thor have none" if module else "unknown: the module has no part number"
    elif release[:1] == (36,) or (module.startswith("p3701") and release >= _DLA_AGAIN):
        needs = "" if release[:1] == (36,) else " with TensorRT 11.4.1 or later"
        detail = f"{there}{needs}; --place STAGE=dla:0 runs there what it can"
    else:
        detail = f"{there}, which the TensorRT of this Jetson Linux does not use"
    return Check(name="dla", status="ok", detail=detail)


def _cuda(machine: Machine) -> Check:
    if not machine.cuda:
        fix = "sudo apt-get install nvidia-jetpack"
        return Check(name="cuda toolkit", status="warn", detail="no toolkit below /usr/local", fix=fix)
    detail = f"CUDA {', '.join(machine.cuda)}"
    if not machine.cuda_on_path:
        fix = "export PATH=/usr/local/cuda/bin:$PATH (in ~/.bashrc)"
        return Check(name="cuda toolkit", status="warn", detail=f"{detail}, not on PATH", fix=fix)
    return Check(name="cuda toolkit", status="ok", detail=detail)


def _kernels(machine: Machine, sm: str) -> Check:
    integrated = machine.board is not None
    strange = [known for known in machine.kernels if not run_on(known, sm, integrated=integrated)]
    if strange:
        detail = "; ".join(f"{known.library} is for {', '.join(known.sms)}" for known in strange)
        fix = "install the build for this board: JetPack's own packages, or a wheel that lists this GPU"
        return Check(name="gpu kernels", status="fail", detail=f"none for {sm}: {detail}", fix=fix)
    names = ", ".join(known.library for known in machine.kernels)
    return Check(name="gpu kernels", status="ok", detail=f"{sm}: {names}")
