"""Install the aarch64 wheel in an emulated 64-bit ARM system, run unit tests and the shipped clip there, and compare.

python scripts/aarch64.py [--json] [TEST_FILE...]: needs root, debootstrap, qemu-user-static and dist/*aarch64.whl (make
wheels). What it makes stays in build/aarch64. Emulation shows what is computed, neither speed nor how memory is
ordered: qemu on an x86 machine orders it more strictly than ARM.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.goals import limits, missed
from benchmarks.harness import BenchmarkReport, Row, host, show

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "aarch64"
SYSTEM = FOLDER / "root"
SUITE = "bookworm"
PYTHON = "3.11"  # of the suite
SYSTEM_PACKAGES = "python3,python3-pip,libportaudio2,ca-certificates"
EXTRAS = "capture,cpu,text"
TEST_PACKAGES = ("onnx", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
TESTS = [
    "test_clock.py", "test_tensors.py", "test_source.py", "test_bundle.py", "test_bundle_networks.py", "test_image*.py",
    "test_log_mel.py", "test_sliding_log_mel.py", "test_slot_ring.py", "test_sample_ring.py", "test_sync*.py",
    "test_graph*.py", "test_native*.py",
]  # fmt: skip
_COMMAND_S = 1800  # of one command there but for the tests
_TESTS_S = 9000  # then pytest is interrupted, and what has run counts
# A private binfmt_misc (Linux 6.7) starts ARM programs by qemu; nothing of this machine changes. The processor list is
# ARM's: libraries that find an x86 one where they expect ARM (cpuinfo, in onnxruntime) crash.
_ENTER = r"""
set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' ':arm:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:'"$MASK:$QEMU:F" \
  > /proc/sys/fs/binfmt_misc/register
for folder in dev proc sys; do mount --rbind "/$folder" "$SYSTEM/$folder"; done
mount --bind "$SYSTEM/opt/cpuinfo" "$SYSTEM/proc/cpuinfo"
exec chroot "$SYSTEM" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 ORT_DISABLE_TELEMETRY=1 \
  sh -c 'cd /opt/repo && exec "$@"' sh "$@"
"""
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_CORE = """processor\t: {}
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""
BUNDLE = "assets/digits/digits.mmedge"
_CLIP = """import json, mmedge, pathlib
folder = pathlib.Path(mmedge.__file__).parent / "assets" / "digits"
clip = str(folder / "clips" / "clean.mp4")
with mmedge.Pipeline(folder / "digits.mmedge", inputs={"image": clip, "audio": clip}, latency="offline") as pipe:
    print(json.dumps([{name: task.label for name, task in result.tasks.items()} for result in pipe]))
"""


def system() -> None:
    """Make the emulated system, unless it is there: packages unpacked, nothing configured (that takes minutes)."""
    if (FOLDER / "made").exists():
        return
    shutil.rmtree(SYSTEM, ignore_errors=True)
    SYSTEM.mkdir(parents=True)
    command = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", f"--include={SYSTEM_PACKAGES}"]
    subprocess.run([*command, SUITE, str(SYSTEM)], check=True, stdout=subprocess.DEVNULL)
    for package in sorted((SYSTEM / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(SYSTEM)], check=True)
    (SYSTEM / "opt/repo").mkdir(parents=True)
    (SYSTEM / "opt/cpuinfo").write_text("".join(_CORE.format(core) for core in range(os.cpu_count() or 1)))
    (FOLDER / "made").touch()


def emulated(*command: str, limit_s: int = _COMMAND_S) -> subprocess.CompletedProcess[str]:
    """Run a command in the emulated system, in the folder with the tests; after ``limit_s`` it is interrupted."""
    environment = {
        **os.environ,
        "SYSTEM": str(SYSTEM),
        "QEMU": shutil.which("qemu-aarch64-static") or "",
        "MASK": _MASK,
    }
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ENTER, "sh"]
    bounded = [*enter, "timeout", "--signal=INT", "--kill-after=300", str(limit_s), *command]
    return subprocess.run(bounded, env=environment, stdout=subprocess.PIPE, text=True, check=False)


def install(wheel: Path, demo: Path) -> float:
    """Install the wheel, what it needs and the demo's data, by the emulated system's own pip; return the seconds."""
    wheels = SYSTEM / "opt/wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    for each in (wheel, demo):
        shutil.copy(each, wheels)
    named = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 29)]
    pins = os.environ.get("PIP_CONSTRAINT", str(ROOT / "constraints.txt"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={PYTHON}"]
    command += [*named, "--platform=manylinux2014_aarch64", "--constraint", pins, "--dest", str(wheels)]
    subprocess.run([*command, f"mmedge[{EXTRAS}] @ {wheel.resolve().as_uri()}", *TEST_PACKAGES], check=True)
    start_s = time.monotonic()
    pip = ["python3", "-m", "pip", "install", "--quiet", "--break-system-packages", "--no-index", "--no-compile"]
    pip += ["--force-reinstall", "--root-user-action=ignore", "--find-links", "/opt/wheels", f"mmedge[{EXTRAS},demo]"]
    emulated(*pip, *TEST_PACKAGES).check_returncode()
    return time.monotonic() - start_s


def lay_tests() -> None:
    """Put the tests into the emulated system, beside the installed package in place of the sources."""
    repo = SYSTEM / "opt/repo"
    shutil.rmtree(repo)
    repo.mkdir()
    for name in ("tests", "recipes", "native"):
        shutil.copytree(ROOT / name, repo / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", repo)
    (repo / "mmedge").symlink_to(f"/usr/local/lib/python{PYTHON}/dist-packages/mmedge")


def outcomes(report: Path) -> dict[str, str]:
    """Return what came of each test that has run: ``passed``, or why not."""
    found: dict[str, str] = {}
    if not report.exists():
        return found
    for case in ElementTree.parse(report).iter("testcase"):
        reasons = [child for child in case if child.tag in ("failure", "error", "skipped")]
        text = f"{reasons[0].tag}: {(reasons[0].get('message') or '').splitlines()[0][:160]}" if reasons else "passed"
        found[f"{case.get('classname')}::{case.get('name')}"] = text
    return found


def counterpart(name: str) -> str:
    """Return the test that stands there for one of x86's own instructions.

    Example:
        >>> counterpart("test_image::test_each[avx2-nv12]")
        'test_image::test_each[neon-nv12]'
    """
    return re.sub(r"(?<=[\[-])(avx512|avx2|sse41)(?=[\]-])", "neon", name)


def run_tests() -> tuple[dict[str, str], dict[str, str]]:
    """Run the unit tests here and there; return what came of them."""
    names = [name for name in sys.argv[1:] if name != "--json"] or TESTS
    files = sorted({str(path.relative_to(ROOT)) for name in names for path in (ROOT / "tests/unit").glob(name)})
    common = ["-q", "-n", str(os.cpu_count() or 1), "-p", "no:cacheprovider"]
    here, there = FOLDER / "here.xml", SYSTEM / "opt/there.xml"
    for report in (here, there):  # of an earlier run
        report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *common, f"--junitxml={here}", *files]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
    pytest = ["python3", "-m", "pytest", *common, "--timeout=1200", "--junitxml=/opt/there.xml", *files]
    sys.stderr.write(emulated(*pytest, limit_s=_TESTS_S).stdout)
    return outcomes(here), outcomes(there)


def labels() -> tuple[list[str], float, float]:
    """Answer the shipped clip here and there; return which differ, the share of equal ones, and the seconds there."""
    here = subprocess.run([sys.executable, "-c", _CLIP], capture_output=True, text=True, check=True).stdout
    # An emulated processor is many times slower than the slowest that a bundle's self-test is bounded for.
    bundle = f"/opt/repo/mmedge/{BUNDLE}"
    emulated("python3", "-m", "mmedge", "verify", bundle, "--cpu-s", "600", "--memory-mb", "8000").check_returncode()
    start_s = time.monotonic()
    done = emulated("python3", "-c", _CLIP)
    done.check_returncode()
    ours, theirs = json.loads(done.stdout), json.loads(here)
    pairs = list(itertools.zip_longest(ours, theirs))
    differ = [
        f"answer {k} of {len(pairs)}: {ours} there, {theirs} here"
        for k, (ours, theirs) in enumerate(pairs)
        if ours != theirs
    ]
    return differ, 1 - len(differ) / len(pairs), time.monotonic() - start_s


def main() -> int:
    """Do all of it; 1 if a figure misses its limit."""
    wheel, demo = (
        max((ROOT / "dist").glob(pattern), key=lambda path: path.stat().st_mtime)
        for pattern in ("mmedge-*aarch64.whl", "mmedge_demo-*.whl")
    )
    system()
    installed_s = install(wheel, demo)
    lay_tests()
    differ, agreement, answered_s = labels()
    here, there = run_tests()
    wanted = {counterpart(name) for name, came in here.items() if came == "passed"}
    lost = {name: there.get(name, "not run") for name in wanted if there.get(name) != "passed"}
    targets = {
        "aarch64_tests_passed_ratio": 1 - len(lost) / len(wanted),
        "aarch64_label_agreement": agreement,
    }
    rows = [
        Row(f"unit tests that pass here and there ({len(wanted)} here)", "of 1", 1 - len(lost) / len(wanted), {}, None),
        Row("answers of the shipped clip with the same labels", "of 1", agreement, {}, None),
        Row("pip install of the wheel and what it needs, emulated", "s", installed_s, {}, None),
        Row("start, and all answers of the clip, emulated", "s", answered_s, {}, None),
        *(Row(what, "not equal", 0.0, {}, None) for what in differ),
        *(Row(f"{name}: {why}", "not passed", 0.0, {}, None) for name, why in sorted(lost.items())),
    ]
    report = BenchmarkReport(
        name="aarch64",
        title="The aarch64 wheel in an emulated 64-bit ARM system (qemu-user); speed says nothing here",
        host=host(),
        conditions={"wheel": wheel.name, "system": f"Debian {SUITE}, Python {PYTHON}"},
        evidence="simulated",
        rows=rows,
        targets=targets,
        missed=missed(targets),
        limits=limits(targets),
    )
    if "--json" in sys.argv:
        import msgspec

        print(msgspec.json.encode(report).decode())
    else:
        show(report)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
