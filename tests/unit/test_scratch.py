"""Temporary folders and half-written files: of a process that was killed, the next one removes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmedge.export.store import Store
from mmedge.files import replacing, scratch

HOLD = """
import sys, time
from pathlib import Path
from mmedge.files import replacing, scratch
with scratch(Path(sys.argv[1])) as folder, replacing(Path(sys.argv[1], "out.bin")) as file:
    (folder / "large").mkdir()
    (folder / "large" / "file").write_bytes(b"half")
    file.write(b"half")
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path):  # type: ignore[no-untyped-def]
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def use(folder: Path) -> None:
    with scratch(folder) as made:
        assert list(made.iterdir()) == []
    with replacing(folder / "out.bin") as file:
        file.write(b"all")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    held = sorted(tmp_path.iterdir())
    assert len(held) == 2
    use(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*held, tmp_path / "out.bin"])
    other.send_signal(signal.SIGKILL)
    other.wait()
    use(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.bin"]
    assert (tmp_path / "out.bin").read_bytes() == b"all"


def test_a_folder_is_gone_whatever_ends_its_block(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), scratch(tmp_path) as made:
        made.mkdir()
    with scratch(tmp_path) as made:
        made.rename(tmp_path / "published")
    assert list(tmp_path.iterdir()) == [tmp_path / "published"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    (tmp_path / "mmedge-scratch-x").symlink_to(tmp_path / "mine")
    with scratch(tmp_path):
        pass
    assert (tmp_path / "mine" / "file").read_text() == "kept"


def test_the_cache_of_steps_is_swept_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from mmedge.export.store import Store\n"
        "Store(Path(sys.argv[1])).put('s', 'k', lambda f: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    store.put("t", "k", lambda folder: (folder / "one").write_text("1"))
    assert [path.name for path in tmp_path.iterdir()] == ["t-k"]
