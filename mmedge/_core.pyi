"""Native core of mmedge."""

from collections.abc import Sequence

import numpy
import numpy.typing

def cpu_features() -> list[str]:
    """Names of the instruction sets that this process may use."""

class ImagePlan:
    """
    Where the pixels of an output come from, for one geometry of a camera.

    An axis of the picture as it is shown: (camera, block, first, count, step, shift, start, length, out).
    ``swap``: rows that are shown are stored columns; ``flip_*``: what is shown last is stored first.
    """

    def __init__(
        self,
        rows: tuple[int, int, int, int, float, float, int, int, int],
        columns: tuple[int, int, int, int, float, float, int, int, int],
        swap: bool,
        flip_rows: bool,
        flip_columns: bool,
    ) -> None: ...

class ImageKernel:
    """Camera frame -> network input, in one pass."""

    def __init__(
        self, frame: tuple[int, int], color: str, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
    ) -> None: ...
    def tensor(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        matrix: str,
        full_range: bool,
        plan: ImagePlan,
        out: numpy.typing.NDArray[numpy.float32],
    ) -> None:
        """Write the normalised float32 tensor [1, channels, height, width]."""

    def raw(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        matrix: str,
        full_range: bool,
        plan: ImagePlan,
        out: numpy.typing.NDArray[numpy.uint8],
    ) -> None:
        """Write the uint8 frame [1, frame height, frame width, channels]."""

def jpeg_unused(data: numpy.typing.NDArray[numpy.uint8]) -> int:
    """
    Bytes in the scans of a JPEG picture [n] that no block uses; -1: it is damaged, -2: of a kind that is not judged.
    """

class LogMel:
    """Log-mel features of one window of sound."""

    def __init__(
        self,
        n_fft: int,
        window_samples: int,
        hop_samples: int,
        filters: numpy.typing.NDArray[numpy.float32],
        floor: float,
        mean: float,
        std: float,
    ) -> None:
        """``filters``: [n_fft // 2 + 1, n_mels]."""

    def compute(self, pcm: numpy.typing.NDArray[numpy.float32], out: numpy.typing.NDArray[numpy.float32]) -> None:
        """
        Write the features of [samples] to [frames, n_mels] or [1, frames, n_mels].
        """

class SampleRing:
    """
    The newest `capacity` mono float32 samples by absolute index, which starts at 0.

    One thread may write while another reads, also in another process; neither waits.
    """

    def __init__(self, capacity: int) -> None: ...
    @staticmethod
    def shared(capacity: int) -> SampleRing:
        """A ring in memory that another process may attach to by its ``fd``."""

    @staticmethod
    def attach(fd: int) -> SampleRing:
        """Map the shared ring of another process; the caller keeps ``fd``."""

    def write(self, samples: numpy.typing.NDArray[numpy.float32]) -> int:
        """Append samples and return the new end."""

    def write_silence(self, n: int) -> int:
        """
        Append n samples of which nothing is known (a gap) and return the new end.
        """

    def read(self, end: int, out: numpy.typing.NDArray[numpy.float32]) -> int:
        """
        Copy samples [end - len(out), end) and return how many are real.

        What was overwritten, is not yet written or is silence reads as zero.
        """

    @property
    def begin(self) -> int:
        """Index of the oldest sample that is kept."""

    @property
    def end(self) -> int:
        """Index after the newest sample."""

    @property
    def capacity(self) -> int:
        """How many samples are kept."""

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory; -1 if the ring is private."""

class SlotRing:
    """
    Byte slots in memory shared with another process; each slot has one owner.

    A writer acquires a slot, fills its data and publishes it with a header; a reader takes it
    and releases it; neither waits. Release a slot once: then it may be another's.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None: ...
    @staticmethod
    def attach(fd: int) -> SlotRing:
        """Map the ring of another process; the caller keeps ``fd``."""

    def acquire(self, steal: bool = False) -> int:
        """
        Own the free slot of oldest data to write it, and return its index; -1 if there is none.

        With ``steal``, if none is free, it is the oldest slot that nobody has taken, which is dropped.
        """

    def data(self, index: int) -> numpy.typing.NDArray[numpy.uint8]:
        """
        A slot's bytes: a writable view, yours while you own the slot; it keeps the memory mapped.
        """

    def publish(self, index: int, header: bytes) -> int:
        """
        Give an acquired slot to the reader, with up to 1024 bytes of header; return its sequence number.
        """

    def take(self) -> tuple[int, int, bytes] | None:
        """
        Own the slot that was published first: its index, sequence number and header.
        """

    def release(self, index: int) -> None:
        """
        Give back a slot that was taken or acquired; nothing happens to one that is free or not taken.
        """

    def copy(self, index: int, seq: int, out: numpy.typing.NDArray[numpy.uint8]) -> bool:
        """
        Copy the first len(out) bytes of a slot, whoever owns it, if they are those of ``seq``.

        False if they were overwritten, also meanwhile; ``out`` is undefined then.
        """

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory, for ``attach`` in another process."""

    @property
    def slots(self) -> int:
        """How many slots there are."""

    @property
    def slot_bytes(self) -> int:
        """Size of each slot's data."""

    @property
    def dropped(self) -> int:
        """Published slots that were overwritten before anybody took them."""

    @property
    def free(self) -> int:
        """Slots that are free now."""

    @property
    def ready(self) -> int:
        """Slots that are published and not taken now."""
