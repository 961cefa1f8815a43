"""Which TensorRT goes with which platform: NVIDIA's matrix as a table, and the verdict on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmedge.doctor.report import Check, Status

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JetPack:
    """A JetPack and the TensorRT versions that work on it.

    Attributes:
        name: ``"JetPack 6.1-6.2"``.
        l4t: First and last Jetson Linux release, inclusive by major and minor.
        sms: Compute capabilities of its boards.
        tensorrt: Spans of versions that work, inclusive by major and minor.
        fix: What to do with any other.
        python: Version of the system's Python, which its TensorRT is for.
        others: What a newer version is, of which nothing bad is known.
        note: Worth knowing although it works.
    """

    name: str
    l4t: tuple[Version, Version]
    sms: tuple[str, ...]
    tensorrt: tuple[tuple[Version, Version], ...]
    fix: str
    python: str
    others: Status = "fail"
    note: str = ""

    @property
    def install(self) -> str:
        """The line that installs everything a bare board needs."""
        return (
            "sudo apt-get update && sudo apt-get install -y nvidia-jetpack python3-venv libportaudio2 && "
            f"python{self.python} -m venv --system-site-packages .venv && "
            ".venv/bin/pip install 'mmedge[capture,cpu]'"
        )


JETPACKS = (
    JetPack(
        name="JetPack 6.0 or older",
        l4t=((0, 0), (36, 3)),
        sms=("SM53", "SM62", "SM72", "SM87"),
        tensorrt=(),
        fix="flash JetPack 7.2 (TensorRT 10.16) or 6.2 (TensorRT 10.3)",
        python="3.10",
    ),
    JetPack(
        name="JetPack 6.1-6.2",
        l4t=((36, 4), (36, 99)),
        sms=("SM87",),
        tensorrt=(((10, 3), (10, 3)),),
        fix="install JetPack's own TensorRT 10.3: sudo apt-get install nvidia-jetpack",
        python="3.10",
        others="warn",  # containers bring newer ones
        note="10.3 falls back to weakly typed networks where strong typing fails",
    ),
    JetPack(
        name="JetPack 7.0-7.1",
        l4t=((38, 0), (38, 99)),
        sms=("SM110", "SM101"),
        tensorrt=(((10, 13), (10, 13)),),
        fix="install JetPack's own TensorRT 10.13: sudo apt-get install nvidia-jetpack",
        python="3.12",
    ),
    JetPack(
        name="JetPack 7.2",
        l4t=((39, 0), (39, 99)),
        sms=("SM87", "SM110", "SM101"),
        tensorrt=(((10, 16), (10, 99)), ((11, 4), (11, 99))),
        fix="install JetPack's own TensorRT 10.16: sudo apt-get install nvidia-jetpack",
        python="3.12",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownBad:
    """A TensorRT that a public report says is bad on some Jetson.

    Attributes:
        tensorrt: First and last version, inclusive, as far as their numbers go.
        sms: On these GPUs; empty for every Jetson's.
        before: Only on Jetson Linux releases older than this.
        all_networks: Whether nothing runs; else some networks do not.
        what: What happens.
        report: Where it was reported.
    """

    tensorrt: tuple[Version, Version]
    sms: tuple[str, ...] = ()
    before: Version | None = None
    all_networks: bool
    what: str
    report: str


_ISSUES = "https://github.com/NVIDIA/TensorRT/issues"
_MIGRATION = "https://docs.nvidia.com/deeplearning/tensorrt/{}/api/migration/tensorrt-10x-to-11x-jetson.html"
# No report, no row.
KNOWN_BAD = (
    KnownBad(
        tensorrt=((10, 13, 3), (10, 13, 3)),
        sms=("SM87",),
        all_networks=True,
        what="no kernels for Orin: every build ends with 'Target GPU SM 87 is not supported'",
        report="https://github.com/NVIDIA-ISAAC-ROS/isaac-ros-cli/issues/22",
    ),
    KnownBad(
        tensorrt=((11, 0), (11, 3)),
        all_networks=True,
        what="NVIDIA does not support 11.0 to 11.3 on JetPack",
        report=_MIGRATION.format("11.3.0"),
    ),
    KnownBad(
        tensorrt=((11, 4), (11, 99)),
        before=(39, 2, 2),
        all_networks=True,
        what="11.4 needs JetPack 7.2.2 (Jetson Linux 39.2.2) or newer",
        report=_MIGRATION.format("11.4.1"),
    ),
    KnownBad(
        tensorrt=((10, 3), (10, 3)),
        sms=("SM87",),
        all_networks=False,
        what="Depth Anything gave answers that changed from frame to frame",
        report="https://github.com/ika-rwth-aachen/ros2-depth-anything-v3-trt/issues/16",
    ),
    KnownBad(
        tensorrt=((10, 13, 3), (10, 13, 3)),
        sms=("SM110", "SM101"),
        all_networks=False,
        what="the builder's flags FP8 and FP4 gave FP32 engines without a word (mmedge sets types instead)",
        report=f"{_ISSUES}/4590",
    ),
    KnownBad(
        tensorrt=((10, 13), (10, 13)),
        sms=("SM110", "SM101"),
        all_networks=False,
        what="YOLOv10 in FP16 was wrong, in FP32 right",
        report=f"{_ISSUES}/4820",
    ),
    KnownBad(
        tensorrt=((10, 16, 2), (10, 16, 2)),
        sms=("SM87",),
        all_networks=False,
        what="an INT8 network that builds on Thor did not build on Orin (dequantize)",
        report=f"{_ISSUES}/4832",
    ),
)
SOCS = {"tegra210": "SM53", "tegra186": "SM62", "tegra194": "SM72", "tegra234": "SM87", "tegra264": "SM110"}
"""System on a chip -> the compute capability of its GPU."""
# What the index still has for a Python that libraries have left behind; constraints.txt pins them.
LAST_WHEELS: dict[Version, dict[str, str]] = {(3, 10): {"onnxruntime": "1.23.2", "numpy": "2.2.6", "av": "17.1.0"}}
_RTX_SMS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
_OLDEST: Version = (10, 3)


def parse_version(text: str) -> Version:
    """Read the leading numbers of a version.

    Example:
        >>> parse_version("10.3.0.30-1+cuda12.5")
        (10, 3, 0, 30)
    """
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def parse_l4t(text: str) -> str | None:
    """Read the Jetson Linux release from the text of ``/etc/nv_tegra_release``.

    Example:
        >>> parse_l4t("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic")
        '36.4.3'
    """
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None


def _within(version: Version, span: tuple[Version, Version]) -> bool:
    return span[0] <= version[:2] <= span[1]


def _check(status: Status, detail: str, fix: str | None = None) -> Check:
    return Check(name="tensorrt", status=status, detail=detail, fix=fix)


def verdict(*, module: str, version: str, sm: str | None, l4t: str | None) -> Check:
    """Judge a TensorRT on a platform.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: Its version.
        sm: Compute capability of the GPU; None without one.
        l4t: Jetson Linux release; None elsewhere.

    Returns:
        The check, with a fix where it cannot work.

    Example:
        >>> verdict(module="tensorrt", version="10.13.3", sm="SM87", l4t="39.2").status
        'fail'
    """
    what = f"{module} {version}"
    if module == "tensorrt_rtx":
        return _rtx_verdict(what, sm, l4t)
    numbers = parse_version(version)
    if l4t is not None:
        return _jetson_verdict(what, numbers, sm, l4t)
    if numbers[:2] < _OLDEST:
        return _check("fail", f"{what} is older than 10.3", "pip install 'mmedge[tensorrt]' --upgrade")
    if sm is None:
        return _check(
            "warn",
            f"{what} can neither build nor run without a GPU",
            "to build engines here: pip install 'mmedge[tensorrt-rtx]' and set MMEDGE_TENSORRT=tensorrt_rtx",
        )
    return _check("ok", f"{what} on {sm}")


def _rtx_verdict(what: str, sm: str | None, l4t: str | None) -> Check:
    if l4t is not None:
        return _check(
            "fail",
            f"{what} has no kernels for Jetson",
            "use JetPack's TensorRT: apt-get install nvidia-jetpack, and a venv with --system-site-packages",
        )
    if sm is None:
        return _check("ok", f"{what}: engines are built here, not run (no GPU)")
    if sm not in _RTX_SMS:
        return _check("fail", f"{what} has no kernels for {sm}", "pip install 'mmedge[tensorrt]'")
    return _check("ok", f"{what} on {sm}")


def jetpack_of(l4t: str | None) -> JetPack | None:
    """Return the JetPack of a Jetson Linux release; None if it is not in the table.

    Example:
        >>> jetpack_of("39.2.1").python
        '3.12'
    """
    release = parse_version(l4t or "")
    return next((row for row in JETPACKS if release and _within(release, row.l4t)), None)


def known_bad(numbers: Version, sm: str | None, l4t: str) -> list[KnownBad]:
    """Return what was reported of a TensorRT version on a Jetson."""
    return [
        row
        for row in KNOWN_BAD
        if row.tensorrt[0] <= numbers[: len(row.tensorrt[0])] <= row.tensorrt[1]
        and (not row.sms or sm in row.sms)
        and (row.before is None or parse_version(l4t) < row.before)
    ]


def _jetson_verdict(what: str, numbers: Version, sm: str | None, l4t: str) -> Check:
    jetpack = jetpack_of(l4t)
    if jetpack is None:
        return _check("warn", f"{what} on Jetson Linux {l4t}: this release is not in the table", "run `mmedge verify`")
    place = f"{jetpack.name} (Jetson Linux {l4t}{f', {sm}' if sm else ''})"
    reported = known_bad(numbers, sm, l4t)
    for row in reported:
        if row.all_networks:
            return _check("fail", f"{what} does not work on {place}: {row.what}; {row.report}", jetpack.fix)
    if not any(_within(numbers, span) for span in jetpack.tensorrt):
        newer = bool(jetpack.tensorrt) and numbers > jetpack.tensorrt[0][1]
        status = jetpack.others if newer else "fail"
        detail = "does not work on" if status == "fail" else "is not the one that comes with"
        return _check(status, f"{what} {detail} {place}", jetpack.fix)
    if sm is not None and sm not in jetpack.sms:
        return _check("warn", f"{what} on {place}: this GPU is not in the table", "run `mmedge verify`")
    notes = [jetpack.note] if jetpack.note else []
    notes += [f"reported: {row.what}; {row.report}" for row in reported]
    return _check("ok", "; ".join([f"{what} on {place}", *notes]))
