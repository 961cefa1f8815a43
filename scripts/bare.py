"""From a bare Debian to a first answer: the steps of docker/Dockerfile in a root that debootstrap makes, timed.

python scripts/bare.py: needs root, debootstrap and dist/*.whl of this machine (make wheels). What it makes stays in
build/bare. The run is another user's, its root is read-only, and it writes where a container of docker/ may.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "bare"
SYSTEM = FOLDER / "root"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates,libportaudio2"
EXTRAS = "capture,cpu,text,demo"
# Mounts of a namespace of its own: nothing of this machine changes. Its certificates and name servers are lent.
_ENTER = r"""
set -e
mount --bind "$SYSTEM" "$SYSTEM"
mount -t proc proc "$SYSTEM/proc"
mount -t tmpfs -o mode=1777 tmpfs "$SYSTEM/tmp"
mount --rbind /dev "$SYSTEM/dev"
for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
  touch "$SYSTEM$file"; mount --bind "$(readlink -f $file)" "$SYSTEM$file"
done
mkdir -p "$SYSTEM/var/lib/mmedge"
mount -t tmpfs -o "uid=$USER_ID,mode=700" tmpfs "$SYSTEM/var/lib/mmedge"
if [ "$USER_ID" != 0 ]; then mount -o remount,bind,ro "$SYSTEM"; fi
exec chroot --userspec="$USER_ID:$USER_ID" "$SYSTEM" /usr/bin/env "PATH=/opt/mmedge/bin:/usr/bin:/bin" "$@"
"""
_ENVIRONMENT = {
    "HOME": "/var/lib/mmedge",
    "MMEDGE_CACHE": "/var/lib/mmedge/engines",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}
_ANSWER = """set -e
digits=$(python -c 'import mmedge.extras; print(mmedge.extras.demo_data("digits"))')
exec mmedge run "$digits/digits.mmedge" --image "$digits/clips/clean.mp4" --audio "$digits/clips/clean.mp4" \
  --latency offline --json
"""


def system() -> float:
    """Make the bare system anew; return the seconds."""
    shutil.rmtree(SYSTEM, ignore_errors=True)
    SYSTEM.mkdir(parents=True)
    start_s = time.monotonic()
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(SYSTEM)]
    with (FOLDER / "debootstrap.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log)
    return time.monotonic() - start_s


def inside(*command: str, user: int = 0) -> tuple[str, float]:
    """Run a command in the system; return what it prints and the seconds."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_CONSTRAINT"}
    environment = {**_ENVIRONMENT, **pip, "PATH": os.environ["PATH"], "SYSTEM": str(SYSTEM), "USER_ID": str(user)}
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh"]
    start_s = time.monotonic()
    done = subprocess.run([*enter, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.monotonic() - start_s


def main() -> int:
    """Do all of it; 1 if there is no answer."""
    wheels = [*(ROOT / "dist").glob(f"mmedge-*{platform.machine()}.whl"), *(ROOT / "dist").glob("mmedge_demo-*.whl")]
    if len(wheels) < 2:
        print("dist has no wheels of this machine: make wheels", file=sys.stderr)
        return 2
    made_s = system()
    lent = SYSTEM / "opt/wheels"
    lent.mkdir(parents=True)
    for wheel in wheels:
        shutil.copy(wheel, lent)
    shutil.copy(ROOT / "constraints.txt", lent)
    _, venv_s = inside("python3", "-m", "venv", "/opt/mmedge")
    install = ["pip", "install", "--quiet", "--no-cache-dir", "--find-links", "/opt/wheels"]
    _, installed_s = inside(*install, "--constraint", "/opt/wheels/constraints.txt", f"mmedge[{EXTRAS}]")
    lines, answered_s = inside("sh", "-c", _ANSWER, user=10001)
    results = [json.loads(line) for line in lines.splitlines()]
    labels = {result["tasks"]["digit"]["label"] for result in results if result["tasks"]} - {None}
    print(f"Debian {SUITE}, Python and PortAudio by debootstrap: {made_s:.0f} s")
    print(f"venv {venv_s:.0f} s, pip install 'mmedge[{EXTRAS}]' {installed_s:.0f} s")
    print(
        f"the clip's {len(results)} results, read-only root, another user: {answered_s:.1f} s, labels {sorted(labels)}"
    )
    return 0 if len(labels) > 5 else 1


if __name__ == "__main__":
    sys.exit(main())
