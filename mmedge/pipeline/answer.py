"""The answer to one trigger: what native code wrote of it, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mmedge.learn import learn
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, Frame, Result, Snapshot

if TYPE_CHECKING:
    from mmedge.sound_cut import SoundCut


class Answer(msgspec.Struct, eq=False):
    """A result as it leaves the runtime's process, and the ``Origin`` of the one that is read from it.

    Attributes:
        message: The result in MessagePack.
        from_ns: From when its latency counts.
        snapshot: What it answers.
        sync: Where that was polled, for its sound.
        outputs: Outputs that are told as they are, [...] in the network's dtype; its own.
        spans: As those of a ``Result``.
        kept: Instead of its frames, what copies the pictures that were kept of them.
    """

    message: bytes
    from_ns: int
    snapshot: Snapshot
    sync: Synchronizer
    outputs: Mapping[str, AnyArray]
    spans: bytes
    kept: dict[str, Callable[[], Frame]] | None = None

    def result(self) -> Result:
        """Return the result, another one each time."""
        return msgspec.msgpack.decode(self.message, type=learn(Result)).made_from(self)

    @property
    def frames(self) -> dict[str, Callable[[], Frame]]:
        """Input -> what copies its picture."""
        if self.kept is not None:
            return self.kept
        return {name: frame.copy for name, frame in self.snapshot.frames.items()}

    @property
    def sounds(self) -> dict[str, SoundCut]:
        """Input -> what copies its sound."""
        return self.sync.sounds(self.snapshot)
