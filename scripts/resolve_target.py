"""Check that the runtime's packages exist as wheels for the real target: aarch64, Python 3.10 (JetPack 6)."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("capture", "cpu", "text", "mqtt", "metrics", "web")
# pip matches the number exactly, so every glibc up to 2.28 is named.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 29)] + ["manylinux2014_aarch64"]
TARGET = {"python_version": "3.10", "python_full_version": "3.10.12", "platform_machine": "aarch64"}


def holds(requirement: Requirement, extra: str = "") -> bool:
    """Tell whether a requirement's marker holds on the target; pip would ask the running Python instead."""
    return requirement.marker is None or requirement.marker.evaluate({**TARGET, "extra": extra})


def main() -> int:
    """Resolve, binary wheels only, with the project's constraints, and print what the target would get."""
    ours = [Requirement(line) for line in requires("mmedge") or []]
    wanted = {f"{r.name}{r.specifier}" for r in ours for extra in ("", *EXTRAS) if holds(r, extra)}
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
    kept = [pin.partition(";")[0] for pin in pins if pin and pin[0] != "#" and holds(Requirement(pin))]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
        command += ["--target", folder, "--only-binary=:all:", "--python-version", "3.10"]
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(kept))
        command += ["--constraint", str(constraints)]
        command += [flag for platform in PLATFORMS for flag in ("--platform", platform)]
        done = subprocess.run([*command, *sorted(wanted)], stdout=subprocess.PIPE, env=environment, check=True)
    names = [f"{i['metadata']['name']} {i['metadata']['version']}" for i in json.loads(done.stdout)["install"]]
    print(f"aarch64, Python 3.10: {len(names)} wheels: {', '.join(sorted(names, key=str.lower))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
