"""What a process gives back of the files that it has mapped."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from mmedge.ipc.unmapping import clean_mappings

CODE = """
import numpy, re
from pathlib import Path
from mmedge.ipc.unmapping import unmap_clean

def file_kb():
    told = Path("/proc/self/status").read_text()
    return int(re.search(r"RssFile:\\s+(\\d+)", told)[1])

numpy.linalg.inv(numpy.eye(8))
before = file_kb()
given = unmap_clean()
after = file_kb()
assert numpy.linalg.inv(2 * numpy.eye(8))[0, 0] == 0.5  # what was given back comes again; what the linker wrote stayed
print(before, after, given)
"""


def test_what_is_given_back_comes_again() -> None:
    before, after, given = map(int, subprocess.check_output([sys.executable, "-c", CODE]).split())
    assert after < before / 2
    assert given > 0


@given(
    mode=st.sampled_from(["r-xp", "r--p", "rw-p", "r-xs", "---p", "rwxp"]),
    inode=st.sampled_from([0, 5]),
    anonymous_kb=st.integers(0, 2),
    swapped_kb=st.integers(0, 2),
)
def test_only_what_a_file_has_is_given_back(mode: str, inode: int, anonymous_kb: int, swapped_kb: int) -> None:
    clean = "1000-2000 r-xp 0 08:01 7 /lib/a b.so\nAnonymous: 0 kB\nSwap: 0 kB\nVmFlags: rd\n"
    other = f"3000-4000 {mode} 0 08:01 {inode} /x\nAnonymous: {anonymous_kb} kB\nSwap: {swapped_kb} kB\nVmFlags: rd\n"
    found = list(clean_mappings((clean + other + clean.replace("1000-2000", "5000-6000")).splitlines()))
    kept = mode in ("r-xp", "r--p") and inode and not anonymous_kb and not swapped_kb
    assert found == [(0x1000, 0x2000), *([(0x3000, 0x4000)] if kept else []), (0x5000, 0x6000)]
