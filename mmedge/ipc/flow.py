"""How much of what waits a busy reader takes of a stream, and which packets are so many that they wake nobody."""

from __future__ import annotations

from mmedge.types import Block, Packet, Tensor

SMALL = 4096  # bytes of a tensor that travels in its record
# Of a stream's pictures and tensors that wait when a busy reader comes back. Of pictures few: their slots are lent, and
# held for a whole slow stage they would leave none for what the camera sees now. Of tensors half a second at 1 kHz.
FRAMES, TENSORS = 3, 512


def flows(packet: Packet) -> bool:
    """Tell whether a packet is one of so many that they wake nobody but who waits for them: sound, small tensors."""
    return isinstance(packet, Block) or (isinstance(packet, Tensor) and packet.data.nbytes <= SMALL)
