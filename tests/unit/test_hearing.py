"""What a stage hears of is found by looking at each stage once, however many ways lead to it."""

from __future__ import annotations

from typing import Any, ClassVar

from mmedge.fusion import hearing
from mmedge.fusion.life import Life


class Layer:
    """A stage behind the two of the layer before; counts how often it is asked what feeds it."""

    asked: ClassVar[int] = 0
    waits, behind, direct = False, True, 0b100

    def __init__(self, *producers: Any) -> None:
        self._producers, self.bits = producers, 0b111

    @property
    def producers(self) -> tuple[Any, ...]:
        Layer.asked += 1
        assert Layer.asked <= 1000
        return self._producers


class Stream:
    waits, behind = True, False

    def __init__(self, bits: int, life: Life) -> None:
        self.bits, self.life = bits, life


def test_each_stage_is_looked_at_once_a_call() -> None:
    layer: tuple[Any, ...] = (Stream(0b01, Life.COLD), Stream(0b10, Life.HIDDEN))
    for _ in range(30):
        layer = (Layer(*layer), Layer(*layer))
    Layer.asked = 0
    assert hearing.reach(layer[0]) == 0b110
    assert Layer.asked == 2 * 30 - 1
    assert hearing.seen(layer[1], 0b011) == 0b010
    assert hearing.unheard(layer[1]) == 0b001
    assert Layer.asked == 3 * (2 * 30 - 1)
