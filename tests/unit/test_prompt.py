"""How often Python's threads take turns while a result is waited for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from mmedge.pipeline.prompt import PROMPT_S, PromptTurns


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before_s)


def test_the_default_is_back_after_the_last_of_several_waits() -> None:
    turns, inside, go = PromptTurns(), threading.Event(), threading.Event()

    def wait() -> None:
        with turns:
            inside.set()
            go.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait()
    with turns:
        assert sys.getswitchinterval() == pytest.approx(PROMPT_S)
    assert sys.getswitchinterval() == pytest.approx(PROMPT_S)
    go.set()
    thread.join()
    assert sys.getswitchinterval() == 0.005


def test_it_is_back_also_after_an_error() -> None:
    turns = PromptTurns()
    with pytest.raises(KeyboardInterrupt), turns:
        raise KeyboardInterrupt
    assert sys.getswitchinterval() == 0.005


@pytest.mark.parametrize("own_s", [0.001, 0.02])
def test_what_a_program_has_set_itself_stays(own_s: float) -> None:
    turns = PromptTurns()
    sys.setswitchinterval(own_s)
    with turns:
        assert sys.getswitchinterval() == own_s
    assert sys.getswitchinterval() == own_s


def test_what_a_program_sets_during_a_wait_stays() -> None:
    turns = PromptTurns()
    with turns:
        sys.setswitchinterval(0.002)
    assert sys.getswitchinterval() == 0.002
