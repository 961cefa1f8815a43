"""OpenVINO on the CPU: one thread, the precision that was asked for and no other, inputs and outputs bound once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.engine.cpu_engine import CpuEngine, input_sizes
from mmedge.engine.dimension_names import input_names
from mmedge.errors import EngineError
from mmedge.types import AnyArray

# It computes 64-bit floats and unsigned numbers above 16 bits in 32 bits, signed: these would come out wrong, unsaid.
_DTYPES: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f16": np.float16,
    "u8": np.uint8,
    "u16": np.uint16,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "boolean": np.bool_,
}
_ENDLESS = ("Loop", "TensorIterator")
_INSPECT = "run `mmedge inspect` on it"
_ELSEWHERE = "use backend 'onnxruntime'"


class OpenVINOEngine(CpuEngine):
    """One ONNX model on OpenVINO's CPU plugin.

    Args:
        model: The serialised ONNX model with all weights inside, its file where they lie beside it, or what ``export``
            made of one, uint8 [bytes] (``prepared``).
        name: For messages.
        threads: Threads of a run.
        shapes: Input name -> shape, for inputs with open dimensions, as ``OnnxRuntimeEngine`` takes them.
        exact: Refuse shapes that the network cannot take.
        constants: Input name -> a number that fills it; outputs may depend on it. Its open dimensions are 1.
        prepared: Whether ``model`` is compiled already; what it was compiled for holds.

    Raises:
        EngineError: If it cannot be loaded, has a loop (a run of it cannot be ended), or tensors of a type that it
            would compute in another one.
        ConfigError: If an open dimension is not given; names it.
        MissingDependencyError: If openvino is not installed.

    Example:
        >>> with OpenVINOEngine(Path("model.onnx").read_bytes()) as engine:  # doctest: +SKIP
        ...     engine.run()
    """

    def __init__(
        self,
        model: bytes | Path | AnyArray,
        *,
        name: str = "model",
        threads: int = 1,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        exact: bool = False,
        constants: Mapping[str, float] | None = None,
        prepared: bool = False,
    ) -> None:
        super().__init__("openvino", name)
        self._weights: Any = None
        from mmedge.engine.openvino_library import core
        from mmedge.engine.openvino_library import openvino as ov

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # On a CPU with bf16 instructions its default is bf16, for networks in float32, too.
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        with self._told("cannot load the model", _INSPECT):
            if prepared:
                self._weights = ov.Tensor(model, shared_memory=True)  # they are read there, and not held by the model
                self._model = core().import_model(self._weights, "CPU", settings)
            else:
                assert isinstance(model, (bytes, Path))
                graph = self._read(model, shapes or {}, constants or {}, exact)
                self._model = core().compile_model(graph, "CPU", settings)
            self._request = self._model.create_infer_request()
        # What `infer` of the Python class comes to, without its copies of what nobody reads.
        self._run_once: Callable[[], Any] = partial(ov._pyopenvino.InferRequest.infer, self._request, {}, True, False)
        for port in self._model.inputs:
            tensor = _name(port)
            value = self._zeros(tensor, tuple(port.shape), self._dtype(port))
            value.fill((constants or {}).get(tensor, 0))
            with self._told(f"cannot take input '{tensor}'", _ELSEWHERE):
                self._request.set_tensor(port, ov.Tensor(value, shared_memory=True))
            self.inputs[tensor] = value
        self._copied: dict[str, Any] = {}  # outputs that OpenVINO does not write where ours are
        for port in self._model.outputs:
            self._add_output(ov, port)
        self._passed = [tensor for tensor in self.outputs if tensor in self.inputs]

    def _read(
        self, model: bytes | Path, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, float], exact: bool
    ) -> Any:
        """Return OpenVINO's graph of an ONNX file, with the shapes of its inputs."""
        from mmedge.engine.openvino_library import openvino

        frontend = openvino.frontend.FrontEndManager().load_by_framework("onnx")  # what was checked is no other format
        graph = frontend.convert(frontend.load(str(model) if isinstance(model, Path) else io.BytesIO(model)))
        try:
            names = input_names(model.read_bytes() if isinstance(model, Path) else model)
        except ValueError as error:
            raise EngineError(f"the model is not an ONNX file: {error}", where=self._name, fix=_INSPECT) from error
        dims: dict[str, list[int | str | None]] = {
            _name(port): [
                dim.get_length() if dim.is_static else names.get((_name(port), axis))
                for axis, dim in enumerate(port.partial_shape)
            ]
            for port in graph.inputs
        }
        graph.reshape(
            {n: list(s) for n, s in input_sizes(dims, shapes, constants, exact=exact, where=self._name).items()}
        )
        if not graph.outputs:
            raise EngineError("the network has no outputs", where=self._name, fix=_INSPECT)
        if endless := next((op for op in graph.get_ordered_ops() if op.get_type_name() in _ENDLESS), None):
            raise EngineError(
                f"the network has a loop, '{endless.get_friendly_name()}': OpenVINO cannot end a run of it in time",
                where=self._name,
                fix=_ELSEWHERE,
            )
        return graph

    def _add_output(self, ov: Any, port: Any) -> None:
        tensor = _name(port)
        if port.partial_shape.is_static:
            value = self._zeros(tensor, tuple(port.shape), self._dtype(port))
            with self._told(f"cannot write output '{tensor}'", _ELSEWHERE):
                self._request.set_tensor(port, ov.Tensor(value, shared_memory=True))
        else:  # one run with zeros and constants tells its size
            if not self._copied:
                with self._told("failed", "check the inputs"):
                    self._run_once()
            value = self._zeros(tensor, tuple(self._request.get_tensor(port).shape), self._dtype(port))
            self._copied[tensor] = port
        self.outputs[tensor] = value

    def _dtype(self, port: Any) -> type[np.generic]:
        dtype = _DTYPES.get(port.element_type.get_type_name())
        if dtype is None:
            raise EngineError(
                f"OpenVINO does not compute '{_name(port)}' in its own type, {port.element_type.get_type_name()}",
                where=self._name,
                fix=f"{_ELSEWHERE}, or cast it inside the network to float32 or int32",
            )
        return dtype

    @contextmanager
    def _told(self, what: str, fix: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, TypeError, ValueError) as error:  # what openvino raises
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"OpenVINO {what}: {text[-1]}", where=self._name, fix=fix) from error

    def export(self) -> bytes:
        """Return what this process compiled, for ``prepared``: of this version on this kind of CPU alone."""
        with self._told("cannot save the model", _ELSEWHERE):
            content: bytes = self._model.export_model().getvalue()
            return content

    def limit(self, limit_ms: float) -> None:
        """From now on, end a run that takes longer: it fails. One operator of a network is not interrupted."""
        super().limit(limit_ms)
        self._run_once = self._run_beside  # one that runs in the caller's thread cannot be ended

    def _run_beside(self) -> None:
        self._request.start_async()
        self._request.wait()

    def _end_run(self, end: bool) -> None:
        if end:
            self._request.cancel()

    def _run_impl(self) -> None:
        with self._told("failed", "check the inputs"):
            self._watched(self._run_once)
        for tensor, port in self._copied.items():
            value = self._request.get_tensor(port).data
            if value.shape != self.outputs[tensor].shape:
                raise self._changed(tensor, self.outputs[tensor], value)
            np.copyto(self.outputs[tensor], value)
        for tensor in self._passed:  # inputs that come back as they are, it does not write
            np.copyto(self.outputs[tensor], self.inputs[tensor])

    def _close_impl(self) -> None:
        self._copied.clear()
        del self._run_once, self._request, self._model
        self._weights = None  # after what reads them


def _name(port: Any) -> str:
    name: str = port.get_any_name()
    return name
