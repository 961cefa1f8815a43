"""What imports cost: the collector is spared, and modules are brought by a thread beside other work."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mmedge.lazy import collector_paused, imported_beside


@pytest.fixture
def passes() -> Iterator[list[int]]:
    """The generations of the collector's passes."""
    seen: list[int] = []

    def note(phase: str, information: dict[str, int]) -> None:
        if phase == "start":
            seen.append(information["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_what_was_made_while_it_paused_is_not_looked_through(passes: list[int]) -> None:
    gc.collect()
    passes.clear()
    with collector_paused():
        assert not gc.isenabled()
        kept = [[number] for number in range(100_000)]
    assert gc.isenabled()
    assert not passes
    young = gc.get_objects(generation=0) + gc.get_objects(generation=1)
    assert len(young) < 1000
    assert len(kept) == 100_000
    assert gc.get_freeze_count() == 0


def test_what_the_user_has_frozen_stays_frozen() -> None:
    code = """
import gc
from mmedge.lazy import collector_paused
gc.freeze()
before = gc.get_freeze_count()
with collector_paused():
    pass
assert gc.get_freeze_count() >= before > 1000
gc.disable()
with collector_paused():
    pass
assert not gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_modules_are_there_after_the_block() -> None:
    sys.modules.pop("colorsys", None)
    with imported_beside(["mmedge.no_such_module", "colorsys"]):
        pass
    assert "colorsys" in sys.modules
    assert "mmedge-import" not in [thread.name for thread in threading.enumerate()]
    with imported_beside(["colorsys"]):  # nothing to do: no thread
        assert "mmedge-import" not in [thread.name for thread in threading.enumerate()]


def test_an_error_in_the_block_waits_for_the_thread() -> None:
    with pytest.raises(ValueError, match="mine"), imported_beside(["mmedge.no_such_module"]):
        raise ValueError("mine")
    assert "mmedge-import" not in [thread.name for thread in threading.enumerate()]
