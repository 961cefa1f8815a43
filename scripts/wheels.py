"""Build the wheels of a release, for x86-64 and 64-bit ARM and that of the demo's data; check them.

Checked are name, tags, size, symbol versions, machine, and that the demo's data are in that wheel alone.

python scripts/wheels.py dist [x86_64] [aarch64]: what is not this machine's is cross-compiled by Debian's g++.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TAGS = "cp310-abi3-manylinux_2_28"
MOST_MB = 3.0  # of a wheel but for the demo's
DATA = "mmedge/assets/"
# EM_X86_64 and EM_AARCH64, bytes 18 and 19 of an ELF file.
MACHINES = {"x86_64": 62, "aarch64": 183}


def build(machine: str, folder: Path) -> Path:
    """Build the wheel of a machine and give it its tag; return its path."""
    options = ["-DMMEDGE_OLD_LIBRARIES=ON"]
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": "2", **os.environ}
    if machine != platform.machine():
        options.append(f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/cmake/{machine}-linux-gnu.cmake")
        # Python's headers of this machine serve: the stable ABI's types have one size on both.
        environment["_PYTHON_HOST_PLATFORM"] = f"linux-{machine}"
    environment["CMAKE_ARGS"] = " ".join(options)
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        # A folder of its own: an editable build of the checkout has other options.
        command += [f"--config-settings=build-dir=build/wheel-{machine}", "--wheel-dir", made, str(ROOT)]
        subprocess.run(command, check=True, env=environment)
        (wheel,) = Path(made).glob("*.whl")
        subprocess.run(
            [sys.executable, "-m", "wheel", "tags", "--remove", f"--platform-tag=manylinux_2_28_{machine}", str(wheel)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = Path(made).glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / wheel.name).write_bytes(wheel.read_bytes())
    return folder / wheel.name


def build_demo(folder: Path) -> Path:
    """Build the wheel of the demo's data; return its path.

    Raises:
        SystemExit: If it holds not exactly the data of the checkout.
    """
    with tempfile.TemporaryDirectory() as made:
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            made,
            str(ROOT / "demo"),
        ]
        subprocess.run(command, check=True)
        (wheel,) = Path(made).glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, folder)
    with zipfile.ZipFile(folder / wheel.name) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / DATA).rglob("*") if path.is_file()}
    if packed != wanted or not packed:
        raise SystemExit(f"{wheel.name} has other files than {DATA}: {sorted(packed ^ wanted)}")
    return folder / wheel.name


def problems(wheel: Path, machine: str) -> list[str]:
    """Return what is wrong with a wheel."""
    found = []
    if not re.fullmatch(rf"mmedge-[\d.]+-{TAGS}_{machine}\.whl", wheel.name):
        found.append(f"its name is not that of {TAGS}_{machine}")
    if wheel.stat().st_size > MOST_MB * 1e6:
        found.append(f"it is larger than {MOST_MB:g} MB")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if re.search(r"\.so(\.\d+)*$", name)]
        if any(name.startswith(DATA) for name in archive.namelist()):
            found.append(f"it holds the demo's data, {DATA}")
        if "mmedge/_core.abi3.so" not in libraries:
            found.append("it has no mmedge/_core.abi3.so")
        for name in libraries:
            with archive.open(name) as file:
                data = file.read()
            if int.from_bytes(data[18:20], "little") != MACHINES[machine]:
                found.append(f"{name} is of another machine")
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=True
    ).stdout
    words = " ".join(shown.split())
    judged = re.search(r'consistent with the following platform tag: "manylinux_2_(\d+)_(\w+)"', words)
    if judged is None or int(judged[1]) > 28 or judged[2] != machine:
        found.append(f"auditwheel says: {words}")
    return found


def main() -> int:
    """Build and check; 1 if a wheel is not as it should be."""
    folder, *machines = sys.argv[1:] or ["dist"]
    bad, largest_mb = 0, 0.0
    for machine in machines or list(MACHINES):
        wheel = build(machine, Path(folder))
        core = zipfile.ZipFile(wheel).getinfo("mmedge/_core.abi3.so")
        sizes = f"{wheel.stat().st_size / 1e6:.2f} MB, its core {core.compress_size / 1e6:.2f} MB"
        largest_mb = max(largest_mb, wheel.stat().st_size / 1e6)
        wrong = problems(wheel, machine)
        bad += bool(wrong)
        print(f"{wheel}: {sizes}{''.join(f'{chr(10)}  {problem}' for problem in wrong)}")
    demo = build_demo(Path(folder))
    print(f"{demo}: {demo.stat().st_size / 1e6:.2f} MB")
    print(f"wheel_mb = {largest_mb:.2f} (target <= {MOST_MB:g})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
