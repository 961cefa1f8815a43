"""The GPU as engines see it: what it is, and memory on both of its sides. Importing this needs no GPU and no driver."""

from __future__ import annotations

import math
import threading
from typing import ClassVar
from weakref import WeakValueDictionary

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import DeviceError
from mmedge.types import AnyArray


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a GPU for the engines built on it; no serial number.

    Attributes:
        name: As the driver calls it, ``"Orin"``.
        compute_capability: ``"SM87"``.
        memory_bytes: Memory the device can use; shared with the CPU when ``integrated``.
        integrated: True on Jetson: CPU and GPU share one memory.
        cuda: Newest CUDA version the driver supports, ``"12.6"``.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    integrated: bool
    cuda: str


def gpu_problem() -> str | None:
    """Say why no GPU can be used; None when one can.

    Example:
        >>> gpu_problem() is None or len(gpu_problem()) > 0
        True
    """
    return core.cuda_problem()


def gpu_available() -> bool:
    """Whether a CUDA device can be used; never raises."""
    return gpu_problem() is None


def gpu_info() -> Gpu:
    """Describe device 0.

    Raises:
        DeviceError: If there is none; the message says why.
    """
    problem = gpu_problem()
    if problem is not None:
        raise DeviceError(f"no usable GPU: {problem}", fix="run `mmedge doctor`")
    facts = core.cuda_facts()
    return Gpu(
        name=facts.name,
        compute_capability=f"SM{facts.major}{facts.minor}",
        memory_bytes=facts.memory_bytes,
        integrated=facts.integrated,
        cuda=f"{facts.cuda_version // 1000}.{facts.cuda_version % 1000 // 10}",
    )


class SmShare:
    """A part of the GPU's multiprocessors that is reserved, and the rest of them; one for all who ask for it.

    Args:
        wanted: How many to reserve; the driver rounds up.

    Attributes:
        native: What a run is given.

    Raises:
        EngineError: If the driver has no green contexts, or the GPU cannot be split so.
    """

    _there: ClassVar[WeakValueDictionary[int, SmShare]] = WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, wanted: int) -> None:
        self.native = core.SmShare(core.CudaDevice(), wanted)

    @classmethod
    def of(cls, wanted: int) -> SmShare:
        """Return the share that others already have, or a new one; it goes with the last of them."""
        with cls._lock:
            share = cls._there.get(wanted)
            if share is None:
                share = cls._there[wanted] = cls(wanted)
            return share

    def describe(self, *, reserved: bool) -> str:
        """Say what one of the parts is."""
        part = self.native.reserved if reserved else self.native.rest
        return f"{part} of {self.native.reserved + self.native.rest} multiprocessors"


class Buffer:
    """One tensor's memory on both sides: pinned on the host, and where the GPU reads or writes it.

    On an integrated GPU both are the same memory, so nothing is copied.

    Args:
        device: The GPU.
        shape: Of the tensor.
        dtype: Of the tensor.
        mapped: Make both sides one memory.

    Attributes:
        array: The host side, [shape] of ``dtype``, zeros. Its memory is freed when ``close`` was called *and* the last
            view is gone: whoever still holds an output after ``close`` reads old values, never freed memory.
        address: Where it lies for the GPU.

    Raises:
        EngineError: If there is not enough memory.
    """

    def __init__(
        self, device: core.CudaDevice, shape: tuple[int, ...], dtype: np.dtype[np.generic], *, mapped: bool
    ) -> None:
        self._memory = core.CudaBuffer(device, math.prod(shape) * dtype.itemsize, mapped=mapped)
        self.array: AnyArray = self._memory.host().view(dtype).reshape(shape)
        self.address: int = self._memory.address

    def upload(self, run: core.CudaRun) -> None:
        """Put the copy to the GPU into the run's stream; where both sides are one, nothing."""
        self._memory.upload(run)

    def download(self, run: core.CudaRun) -> None:
        """Put the copy to the host into the run's stream; where both sides are one, nothing."""
        self._memory.download(run)

    def close(self) -> None:
        """Free the GPU side; the host side follows its last view."""
        del self.array
        self._memory.close()
