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
        note: Worth knowing although it works.
    """

    name: str
    l4t: tuple[Version, Version]
    sms: tuple[str, ...]
    tensorrt: tuple[tuple[Version, Version], ...]
    fix: str
    note: str = ""


JETPACKS = (
    JetPack(
        name="JetPack 6.0 or older",
        l4t=((0, 0), (36, 3)),
        sms=("SM53", "SM62", "SM72", "SM87"),
        tensorrt=(),
        fix="flash JetPack 6.2 or newer (TensorRT 10.3)",
    ),
    JetPack(
        name="JetPack 6.1-6.2",
        l4t=((36, 4), (36, 99)),
        sms=("SM87",),
        tensorrt=(((10, 3), (10, 3)),),
        fix="install JetPack's own TensorRT 10.3: apt-get install nvidia-jetpack",
        note="10.3 falls back to weakly typed networks where strong typing fails",
    ),
    JetPack(
        name="JetPack 7.0-7.1",
        l4t=((38, 0), (38, 99)),
        sms=("SM110", "SM101"),
        tensorrt=(((10, 13), (10, 13)),),
        fix="install JetPack's own TensorRT 10.13: apt-get install nvidia-jetpack",
    ),
    JetPack(
        name="JetPack 7.2",
        l4t=((39, 0), (39, 99)),
        sms=("SM87", "SM110", "SM101"),
        # 11.0 to 11.3 have no Jetson packages; 10.13 has no kernels for Orin.
        tensorrt=(((10, 16), (10, 99)), ((11, 4), (11, 99))),
        fix="install TensorRT 10.16 (apt-get install nvidia-jetpack) or 11.4.1 or newer",
    ),
)
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


def _jetson_verdict(what: str, numbers: Version, sm: str | None, l4t: str) -> Check:
    release = parse_version(l4t)
    jetpack = next((row for row in JETPACKS if _within(release, row.l4t)), None)
    if jetpack is None:
        return _check("warn", f"{what} on Jetson Linux {l4t}: this release is not in the table", "run `mmedge verify`")
    place = f"{jetpack.name} (Jetson Linux {l4t}{f', {sm}' if sm else ''})"
    if not any(_within(numbers, span) for span in jetpack.tensorrt):
        return _check("fail", f"{what} does not work on {place}", jetpack.fix)
    if sm is not None and sm not in jetpack.sms:
        return _check("warn", f"{what} on {place}: this GPU is not in the table", "run `mmedge verify`")
    return _check("ok", f"{what} on {place}" + (f"; {jetpack.note}" if jetpack.note else ""))
