"""How long ``mmedge verify`` takes to refuse hostile bundles, and how much memory all its processes take meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile import corpus

ANSWER_S, PEAK_MB = 10.0, 1000.0
_GIVEN_UP_S = 60.0
_QUICK = ["loop", "nested functions", "two products", "expand", "empty weights", "pipe in a folder"]


def measure(command: list[str], folder: Path, given_up_s: float = _GIVEN_UP_S) -> tuple[int, float, float, str]:
    """Run a command; return its exit code, seconds, the peak of megabytes of it and its children, and its stderr.

    What has not ended after ``given_up_s`` is killed: its exit code is negative.
    """
    begin_s, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=said,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None:
            peak = max(peak, sum(_resident(pid) for pid in _family(process.pid)))
            if time.monotonic() - begin_s > given_up_s:
                for pid in _family(process.pid):
                    os.kill(pid, 9)
            time.sleep(0.02)
        took_s = time.monotonic() - begin_s
        said.seek(0)
        return process.returncode, took_s, peak / 1e6, said.read().decode(errors="replace")


def _family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def rows(quick: bool) -> list[tuple[str, float, float, str]]:
    """Return (name, value, limit, detail) of the worst answer and the worst peak over the corpus.

    A bundle that is taken for good counts as one that is never answered.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        found = []
        for name, path in corpus(folder, _QUICK if quick else None).items():
            code, took_s, peak_mb, said = measure([sys.executable, "-m", "mmedge", "verify", str(path)], folder)
            told = said.strip().splitlines()[:1]
            if code not in (1, 2, 4, 5) or not told:
                took_s, told = _GIVEN_UP_S, [f"exit code {code}"]
            found.append((name, took_s, peak_mb, code, *told))
    slowest, largest = max(found, key=lambda f: f[1]), max(found, key=lambda f: f[2])
    return [
        ("hostile_answer_s", slowest[1], ANSWER_S, f"worst of {len(found)}: {slowest[0]}"),
        ("hostile_peak_mb", largest[2], PEAK_MB, f"worst of {len(found)}: {largest[0]}, all processes together"),
    ]


def main() -> None:
    """Print a line for each bundle, or for those named."""
    with tempfile.TemporaryDirectory() as made:
        for name, path in corpus(Path(made), sys.argv[1:] or None).items():
            code, took_s, peak_mb, said = measure([sys.executable, "-m", "mmedge", "verify", str(path)], Path(made))
            print(
                f"{name:20} {path.stat().st_size:9} B  code {code}  {took_s:5.1f} s  {peak_mb:6.0f} MB  {said[:150]!r}",
                flush=True,
            )


if __name__ == "__main__":
    main()
