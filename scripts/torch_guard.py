"""Stop before pip brings gigabytes of CUDA packages to a machine without a GPU.

Usage: torch_guard.py PIP_INSTALL_ARGUMENT...   Exit code 1 and the line to type instead if that would happen.
"""

import json
import shutil
import subprocess
import sys


def main() -> int:
    """Ask pip what it would install, and look for CUDA packages in it."""
    if shutil.which("nvidia-smi"):
        return 0
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *sys.argv[1:]]
    plan = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    names = [item["metadata"]["name"].lower() for item in plan["install"]]
    cuda = sorted(name for name in names if name.startswith(("nvidia-", "cuda-", "triton")))
    if not cuda:
        return 0
    sys.stderr.write(
        f"torch from this package index brings {len(cuda)} CUDA packages ({', '.join(cuda[:3])}, ...), "
        "and this machine has no GPU.\n"
        "  fix: make demo TORCH_INDEX=URL   with the URL of PyTorch's CPU wheels (pytorch.org, 'Get Started', CPU)\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
