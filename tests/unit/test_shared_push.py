"""Blocks that are pushed to one input are not given to another of a different sample rate."""

from __future__ import annotations

import pytest

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, Input
from mmedge.errors import ConfigError
from mmedge.pipeline.arguments import share_sources
from mmedge.pipeline.spec import PUSH


def seats(rate_hz: int) -> dict[str, Input]:
    return {
        "a": AudioInput(sample_rate_hz=8000, window_ms=10),
        "b": AudioInput(sample_rate_hz=rate_hz, window_ms=10, shares="a"),
    }


def test_pushed_sound_is_shared_at_one_rate_alone() -> None:
    pushed = {"a": Address(PUSH)}
    with pytest.raises(ConfigError, match=r"'b' takes 16000 Hz, but shares what is pushed to 'a' at 8000 Hz"):
        share_sources(pushed, seats(16_000))
    assert share_sources(pushed, seats(8000)) == {"a": PUSH, "b": PUSH}
    assert sorted(share_sources({"a": Address("clip.wav")}, seats(16_000))) == ["a", "b"]
    assert sorted(share_sources({**pushed, "b": Address(PUSH)}, seats(16_000))) == ["a", "b"]  # has its own
