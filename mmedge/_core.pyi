"""Native core of mmedge."""

from collections.abc import Sequence

import numpy
import numpy.typing

class ImageKernel:
    """
    Camera frame -> network input, in one pass.

    Boxes are (top, left, height, width): ``crop`` in the reduced frame, ``target`` in the output.
    """

    def __init__(
        self,
        frame: tuple[int, int],
        color: str,
        reduce: int,
        crop: tuple[int, int, int, int],
        target: tuple[int, int, int, int],
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None: ...
    def tensor(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        full_range: bool,
        out: numpy.typing.NDArray[numpy.float32],
    ) -> None:
        """Write the normalised float32 tensor [1, channels, height, width]."""

    def raw(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        full_range: bool,
        out: numpy.typing.NDArray[numpy.uint8],
    ) -> None:
        """Write the uint8 frame [1, frame height, frame width, channels]."""

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

    One thread may write while another reads; neither waits.
    """

    def __init__(self, capacity: int) -> None: ...
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
