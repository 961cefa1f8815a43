"""An engine of our own CUDA kernels: a camera's picture becomes the network's input, then goes through dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from mmedge._native import core
from mmedge.engine.base import EngineBase
from mmedge.engine.cuda import Buffer, gpu_info
from mmedge.errors import ConfigError
from mmedge.types import FloatArray

Layer = tuple[FloatArray, FloatArray]


class CudaNet(EngineBase):
    """Preprocessing and a multilayer perceptron on the GPU, one CUDA graph: it needs no TensorRT.

    The tensor has the bits that the native kernel writes on the CPU. A product of n terms is off from the exact one by
    at most n * 6e-8 of the sum of its terms' magnitudes; the same inputs give the same bits.

    Args:
        table: Of the pictures, from ``ImagePreprocessor.gpu_table``.
        shape: Of ``x``, as many bytes as a picture has: its own, or [1, height, width, channels] for a stage.
        tensor_shape: [1, channels, height, width] that the pictures become.
        layers: Weights float32 [outputs, inputs] and bias float32 [outputs] of each; negative numbers become 0 between
            two of them.
        name: For messages.

    Attributes:
        inputs: ``x``, uint8 [shape], pinned; mapped on an integrated GPU.
        outputs: ``y``, float32 [1, outputs of the last layer]; without layers ``tensor``, float32 [tensor_shape].

    Raises:
        ConfigError: If the layers do not follow each other.
        DeviceError: If there is no GPU.
        EngineError: If mmedge was built without its CUDA kernels, or CUDA fails.

    Example:
        >>> with CudaNet(table, (480, 640, 3), (1, 3, 96, 96), layers) as engine:  # doctest: +SKIP
        ...     engine.inputs["x"][...] = frame.data
        ...     engine.run()
        ...     print(engine.outputs["y"])
    """

    def __init__(
        self,
        table: tuple[bytes, bytes, bytes],
        shape: tuple[int, ...],
        tensor_shape: tuple[int, ...],
        layers: Sequence[Layer] = (),
        *,
        name: str = "engine",
    ) -> None:
        _check(layers, math.prod(tensor_shape), name)
        mapped = gpu_info().integrated
        super().__init__("cuda")
        self._picture, rows, columns = table
        self._layers = [(len(bias), weights.shape[1]) for weights, bias in layers]
        self._closing: list[Buffer] = []
        self._memory: list[core.CudaMemory] = []
        self._run: core.CudaRun | None = None
        try:
            self._device = core.CudaDevice()
            self._kernels: core.CudaKernels | None = core.CudaKernels(self._device)
            run = self._run = core.CudaRun(self._device, name)
            self._x = self._buffer(shape, np.uint8, mapped)
            self._y = self._buffer((1, self._layers[-1][0]) if layers else tensor_shape, np.float32, mapped)
            self._taps = self._given(np.frombuffer(rows, np.uint8)), self._given(np.frombuffer(columns, np.uint8))
            self._weights = [(self._given(weights), self._given(bias)) for weights, bias in layers]
            between = [math.prod(tensor_shape), *(outputs for outputs, _ in self._layers)][:-1]
            self._between = [self._made(4 * numbers) for numbers in between]
            run.capture(partial(self._enqueue, run, self._kernels))
            run.run()
        except BaseException:
            self.close()
            raise
        self.native = run
        self.inputs = {"x": self._x.array}
        self.outputs = {"y" if layers else "tensor": self._y.array}

    def _buffer(self, shape: tuple[int, ...], dtype: type[np.generic], mapped: bool) -> Buffer:
        made = Buffer(self._device, shape, np.dtype(dtype), mapped=mapped)
        self._closing.append(made)
        return made

    def _made(self, size: int) -> int:
        self._memory.append(core.CudaMemory(self._device, size))
        return self._memory[-1].address

    def _given(self, array: FloatArray | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
        address = self._made(array.nbytes)
        self._memory[-1].write(np.ascontiguousarray(array))
        return address

    def _enqueue(self, run: core.CudaRun, kernels: core.CudaKernels) -> None:
        self._x.upload(run)
        stops = [*self._between, self._y.address]  # what each kernel writes
        kernels.picture(run, self._picture, self._x.address, *self._taps, stops[0])
        for at, ((outputs, inputs), (weights, bias)) in enumerate(zip(self._layers, self._weights, strict=True)):
            relu = at + 1 < len(self._layers)
            kernels.dense(run, stops[at], weights, bias, inputs, outputs, relu, stops[at + 1])
        self._y.download(run)

    def _run_impl(self) -> None:
        assert self.native is not None
        self.native.run()

    def _close_impl(self) -> None:
        self.inputs, self.outputs, self.native = {}, {}, None
        try:
            if self._run is not None:
                self._run.close()
        finally:
            self._memory.clear()
            for buffer in self._closing:
                buffer.close()
            self._kernels = None


def kernels_problem() -> str | None:
    """Say why engines of our own kernels cannot run here; None when they can."""
    if not core.CudaKernels.built():
        return "mmedge was built without CUDA kernels"
    return core.cuda_problem()


def _check(layers: Sequence[Layer], inputs: int, name: str) -> None:
    for at, (weights, bias) in enumerate(layers):
        good = weights.dtype == np.float32 == bias.dtype and weights.ndim == 2 and weights.shape[0] > 0
        if not good or weights.shape[1] != inputs or bias.shape != weights.shape[:1]:
            raise ConfigError(
                f"layer {at} is {weights.dtype} {list(weights.shape)} and {bias.dtype} {list(bias.shape)}",
                where=name,
                fix=f"give float32 [outputs, {inputs}] and [outputs]",
            )
        inputs = weights.shape[0]
