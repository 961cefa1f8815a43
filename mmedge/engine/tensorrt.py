"""Run a TensorRT engine: pinned buffers, one stream, one CUDA graph after warm-up."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np

from mmedge._native import core
from mmedge.engine.base import EngineBase
from mmedge.engine.cuda import Buffer, SmShare, gpu_info
from mmedge.engine.reach import PLAIN, EngineOptions, check_plan
from mmedge.engine.tensorrt_loader import PlanError, load_tensorrt, run_logger
from mmedge.errors import EngineError, MmedgeError

_log = logging.getLogger(__name__)
_WARM_UP_RUNS = 3  # before a CUDA graph is captured: TensorRT allocates in the first ones


class TensorRTEngine(EngineBase):
    """One plan on the GPU; ``inputs`` and ``outputs`` are pinned arrays, mapped on an integrated GPU.

    The views stay readable after ``close``; their memory is freed with the last of them.

    Args:
        plan: The serialised engine, built by the same module and version for this GPU.
        name: For messages.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        cuda_graph: Replay one captured graph per run; where it cannot be captured, ``graph`` says why.
        version: What is known to have built the plan; None asks the plan. One of another version is refused unless it
            was built for newer ones.
        options: What it was built as. Give them only for a plan that you trust: one for newer versions holds code.

    Attributes:
        graph: ``"captured"``, ``"by TensorRT"`` or the reason why there is none.
        share: The multiprocessors that it runs on, or the reason why it has none of its own.

    Raises:
        EngineError: If the plan does not belong to this TensorRT or GPU, or CUDA fails.
        DeviceError: If there is no GPU.

    Example:
        >>> with TensorRTEngine(plan) as engine:  # doctest: +SKIP
        ...     engine.inputs["x"][...] = frame
        ...     engine.run()
        ...     print(engine.outputs["digit"])
    """

    def __init__(
        self,
        plan: bytes,
        *,
        name: str = "engine",
        module: str | None = None,
        cuda_graph: bool = True,
        version: str | None = None,
        options: EngineOptions = PLAIN,
    ) -> None:
        gpu = gpu_info()
        trt = load_tensorrt(module)
        super().__init__(trt.name)
        self._name = name
        self._trt = trt
        self._logger, self._errors = run_logger(trt.name)
        self._run: core.CudaRun | None = None
        self._share: SmShare | None = None
        self._context: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        self._in: dict[str, Buffer] = {}
        self._out: dict[str, Buffer] = {}
        self.graph = self.share = "not asked for"
        try:
            self._device = core.CudaDevice()
            self._share = self._reserve(options)
            share = None if self._share is None else self._share.native
            self._run = core.CudaRun(self._device, name, share, options.reserved)
            check_plan(plan, trt, version, options)
            self._load(plan, cuda_graph, options)
            self._bind(mapped=gpu.integrated)
            self._warm_up(self._run, cuda_graph)
        except MmedgeError as error:
            error.where = error.where or name
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def _reserve(self, options: EngineOptions) -> SmShare | None:
        if options.sms is None:
            return None
        try:
            share = SmShare.of(options.sms)
        except EngineError as error:  # the stage runs as without, and says so
            self.share = f"none: {error.message}"
            _log.warning("%s: no multiprocessors are reserved: %s; fix: %s", self._name, error.message, error.fix)
            return None
        self.share = share.describe(reserved=options.reserved)
        _log.info("%s runs on %s", self._name, self.share)
        return share

    def _load(self, plan: bytes, cuda_graph: bool, options: EngineOptions) -> None:
        trt, module = self._trt, self._trt.module
        try:
            self._runtime = module.Runtime(self._logger)
        except TypeError as error:  # what its binding raises where there is none; its log says why
            fix = f"install a driver of the CUDA version that {trt.name} {trt.version} needs; `mmedge doctor`"
            raise EngineError(f"{trt.name} cannot start on this GPU: {self._errors.take()}", fix=fix) from error
        if options.newer_versions:  # its own runtime is code in the plan
            self._runtime.engine_host_code_allowed = True
        if options.dla_core is not None:
            self._runtime.DLA_core = options.dla_core
        fix = "build it on this device: `mmedge compile BUNDLE`"
        if "engine_validity" in trt.caps:
            validity, diagnostics = self._runtime.get_engine_validity(plan)
            if validity == module.EngineValidity.INVALID:
                raise PlanError(
                    f"the plan is not valid for {trt.name} {trt.version} on this GPU (diagnostics {diagnostics})",
                    fix=fix,
                )
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanError(f"{trt.name} {trt.version} cannot load the plan: {self._errors.take()}", fix=fix)
        if cuda_graph and "cuda_graph_strategy" in trt.caps:
            config = self._engine.create_runtime_config()
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._context = self._engine.create_execution_context(config)
            self.graph = "by TensorRT"
        else:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"no execution context: {self._errors.take()}", fix="free GPU memory: close other engines"
            )

    def _bind(self, *, mapped: bool) -> None:
        module = self._trt.module
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        for name in inputs:
            shape = tuple(self._engine.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                shape = tuple(self._engine.get_tensor_profile_shape(name, 0)[1])
                self._require(self._context.set_input_shape(name, shape), f"shape {list(shape)} of input '{name}'")
            self._in[name] = self._buffer(name, shape, mapped)
        if unknown := self._context.infer_shapes():
            raise EngineError(f"output shapes are unknown before the run: {unknown}", fix="export with static shapes")
        for name in names:
            if name not in self._in:
                shape = tuple(self._context.get_tensor_shape(name))
                if any(size < 0 for size in shape):
                    raise EngineError(f"output '{name}' has no fixed shape", fix="export with static shapes")
                self._out[name] = self._buffer(name, shape, mapped)
        for name, buffer in {**self._in, **self._out}.items():
            self._require(self._context.set_tensor_address(name, buffer.address), f"address of '{name}'")
        self.inputs = {name: buffer.array for name, buffer in self._in.items()}
        self.outputs = {name: buffer.array for name, buffer in self._out.items()}

    def _buffer(self, name: str, shape: tuple[int, ...], mapped: bool) -> Buffer:
        module = self._trt.module
        if self._engine.get_tensor_location(name) == module.TensorLocation.HOST:
            raise EngineError(f"'{name}' is a shape tensor, which is not supported", fix="export with static shapes")
        kind = self._engine.get_tensor_dtype(name)
        try:
            dtype = np.dtype(module.nptype(kind))
        except TypeError as error:
            raise EngineError(
                f"'{name}' has type {kind}, which numpy does not have", fix="use float32 or float16"
            ) from error
        return Buffer(self._device, shape, dtype, mapped=mapped)

    def _require(self, ok: bool, what: str) -> None:
        if not ok:
            raise EngineError(
                f"TensorRT refused {what}: {self._errors.take()}",
                where=self._name,
                fix="rebuild the engine: mmedge compile",
            )

    def _enqueue(self, run: core.CudaRun) -> None:
        for buffer in self._in.values():
            buffer.upload(run)
        self._require(self._context.execute_async_v3(run.stream), "to run")
        for buffer in self._out.values():
            buffer.download(run)

    def _warm_up(self, run: core.CudaRun, cuda_graph: bool) -> None:
        # TensorRT allocates and tunes in its first runs, which must not happen inside a capture.
        for _ in range(_WARM_UP_RUNS):
            self._enqueue(run)
            run.wait()
        if not cuda_graph or self.graph == "by TensorRT":
            return
        try:
            if "stream_capturable" in self._trt.caps and not self._context.is_stream_capturable(run.stream):
                raise EngineError(
                    "TensorRT cannot capture this network as a CUDA graph", fix="none is needed: it runs without one"
                )
            run.capture(partial(self._enqueue, run))
        except EngineError as error:
            # Networks with loops or branches decided on the CPU cannot be captured; they run without.
            self.graph = f"none: {error.message}"
            _log.warning("%s: no CUDA graph, launching kernels one by one: %s", self._name, error.message)
        else:
            self.graph, self.native = "captured", run
        self._run_impl()

    def _run_impl(self) -> None:
        assert self._run is not None
        if self.native is not None:
            self.native.run()
        else:
            self._enqueue(self._run)
            self._run.wait()

    def _close_impl(self) -> None:
        self.inputs, self.outputs, self.native = {}, {}, None
        buffers = [*self._in.values(), *self._out.values()]
        self._in, self._out = {}, {}
        try:
            if self._run is not None:
                self._run.drop()
        finally:
            # The graph before what it launches, the context before its engine, the engine before its runtime.
            self._context = None
            self._engine = None
            self._runtime = None
            for buffer in buffers:
                buffer.close()
            if self._run is not None:
                self._run.close()
            self._run = self._share = None
