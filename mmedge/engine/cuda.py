"""The CUDA calls the engine layer needs, each checked; importing it needs no GPU and no package."""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import Any

import msgspec
import numpy as np

from mmedge.errors import DeviceError, EngineError, MissingDependencyError
from mmedge.extras import require
from mmedge.types import AnyArray

_NO_DRIVER = "no NVIDIA driver is loaded"


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


def cuda_runtime() -> Any:
    """Return ``cuda.bindings.runtime``.

    Raises:
        MissingDependencyError: If cuda-bindings is not installed.
    """
    return require("cuda.bindings.runtime", "running TensorRT engines")


def check(result: tuple[Any, ...], what: str) -> Any:
    """Unpack what a cuda-bindings call returned.

    Args:
        result: ``(error, value...)`` as every call returns it.
        what: The call, for the message.

    Returns:
        None, the value, or the tuple of values.

    Raises:
        EngineError: If the call did not succeed.
    """
    error, *values = result
    if int(error) != 0:
        _, text = cuda_runtime().cudaGetErrorString(error)
        fix = "free GPU memory: close other engines, or use smaller inputs" if int(error) == 2 else None
        raise EngineError(f"{what} failed: {text.decode()} (CUDA error {int(error)})", fix=fix)
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def gpu_problem() -> str | None:
    """Say why no GPU can be used; None when one can.

    Example:
        >>> gpu_problem() is None or len(gpu_problem()) > 0
        True
    """
    try:
        ctypes.CDLL("libcuda.so.1")  # as the CUDA runtime does: where there is none, 50 ms of imports say no more
    except OSError:
        return _NO_DRIVER
    try:
        cuda = cuda_runtime()
    except MissingDependencyError as error:
        return error.message
    status, count = cuda.cudaGetDeviceCount()
    if int(status) == 0 and count:
        return None
    _, driver = cuda.cudaDriverGetVersion()
    if not driver:
        return _NO_DRIVER
    _, needed = cuda.cudaRuntimeGetVersion()
    if int(status) == 35:
        return f"the driver supports CUDA {_version(driver)}, cuda-bindings needs {_version(needed)}"
    if int(status) == 0:
        return "the driver reports no device"
    return str(cuda.cudaGetErrorString(status)[1].decode())


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
    cuda = cuda_runtime()
    device = check(cuda.cudaGetDeviceProperties(0), "cudaGetDeviceProperties")
    return Gpu(
        name=device.name.decode().rstrip("\0"),
        compute_capability=f"SM{device.major}{device.minor}",
        memory_bytes=int(device.totalGlobalMem),
        integrated=bool(device.integrated),
        cuda=_version(check(cuda.cudaDriverGetVersion(), "cudaDriverGetVersion")),
    )


class Buffer:
    """One tensor's memory on both sides: pinned on the host, and where the GPU reads or writes it.

    On an integrated GPU both are the same memory, so nothing is copied.

    Attributes:
        array: The host side. Its memory is freed when ``close`` was called *and* the last view is gone.
        host: Address of the host side.
        device: Address for the GPU.
        mapped: True when both sides are one memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], *, mapped: bool) -> None:
        cuda = cuda_runtime()
        count = math.prod(shape)
        self.nbytes = count * dtype.itemsize
        size = max(self.nbytes, 1)
        self.mapped = mapped
        flags = cuda.cudaHostAllocMapped if mapped else cuda.cudaHostAllocDefault
        self.host = int(check(cuda.cudaHostAlloc(size, flags), f"pinning {size} bytes"))
        owner = (ctypes.c_byte * size).from_address(self.host)
        # Every view keeps `owner` alive: whoever still holds an output after close() reads old
        # values, never freed memory.
        weakref.finalize(owner, cuda.cudaFreeHost, self.host)
        self.array: AnyArray = np.frombuffer(memoryview(owner), dtype, count=count).reshape(shape)
        self.array.fill(0)
        self.device = int(
            check(cuda.cudaHostGetDevicePointer(self.host, 0), "mapping pinned memory")
            if mapped
            else check(cuda.cudaMalloc(size), f"allocating {size} bytes on the GPU")
        )

    def upload(self, stream: Any) -> None:
        """Queue the copy to the GPU."""
        self._copy(self.device, self.host, "cudaMemcpyHostToDevice", stream)

    def download(self, stream: Any) -> None:
        """Queue the copy to the host."""
        self._copy(self.host, self.device, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, kind: str, stream: Any) -> None:
        if self.nbytes and not self.mapped:
            cuda = cuda_runtime()
            check(cuda.cudaMemcpyAsync(target, source, self.nbytes, getattr(cuda.cudaMemcpyKind, kind), stream), kind)

    def close(self) -> None:
        """Free the GPU side; the host side follows its last view."""
        del self.array
        if not self.mapped:
            check(cuda_runtime().cudaFree(self.device), "cudaFree")
