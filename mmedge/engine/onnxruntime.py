"""ONNX Runtime: on the CPU one thread, no spinning; inputs and outputs bound once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle.onnx_file import pairs_fit
from mmedge.engine.cpu import saturates_pairs
from mmedge.engine.cpu_engine import CpuEngine, input_sizes
from mmedge.errors import EngineError
from mmedge.extras import require
from mmedge.types import AnyArray

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,  # of str; ONNX Runtime binds no texts, so they are copied at each run
}
_CLIP_FUSIONS = "ReluQuantRewrite;ClipQuantRewrite"
_PACKED_BYTES = 1 << 31
_OPTIMISED, _OUTSIDE = "model.onnx", "model.weights"
_INSPECT = "run `mmedge inspect` on it"


class OnnxRuntimeEngine(CpuEngine):
    """One ONNX model on ONNX Runtime's CPU provider, or one for GPUs.

    Small models run best on one thread without spinning: ONNX Runtime's default pool burns 1.5 cores
    at 30 fps for the same latency.

    Args:
        model: The serialised model, or its file (needed where weights lie in files beside it).
        name: For messages.
        threads: Intra-op threads.
        shapes: Input name -> shape, for inputs with open dimensions (``mmedge.engine.shapes`` has the rule for those
            that are not given). Where a network's own size differs, that holds, unless ``exact``: the caller compares.
        exact: Refuse shapes that the network cannot take.
        constants: Input name -> a number that fills it; outputs may depend on it. Its open dimensions are 1.
        as_written: Run Q/DQ pairs in float, one operator after another, as the file says and as TensorRT does: the
            same answer on every CPU. Whatever judges a quantised network does; what serves takes 8-bit kernels.
        weights: Initializer -> its values, [its shape] in its dtype, of those that the model says lie in a file. They
            are not copied, and no file is looked for.
        keep: A folder to write the optimised network into, its weights in a file beside it, which is mapped.
        prepared: Whether ``model`` is such a folder.
        backend: ``onnxruntime``, or one of ``mmedge.engine.ort_providers``.

    Raises:
        EngineError: If the model cannot be loaded, or cannot run on zeros and constants where its outputs are dynamic.
        ConfigError: If an open dimension is not given; names it.
        MissingDependencyError: If onnxruntime is not installed.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        name: str = "model",
        threads: int = 1,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        exact: bool = False,
        constants: Mapping[str, float] | None = None,
        as_written: bool = False,
        weights: Mapping[str, AnyArray] | None = None,
        keep: Path | None = None,
        prepared: bool = False,
        backend: str = "onnxruntime",
    ) -> None:
        super().__init__(backend, name)
        ort = require("onnxruntime", "running networks on the CPU")
        fit = saturates_pairs() and isinstance(model, bytes) and _pairs_fit(model, name)
        options = session_options(threads=threads, as_written=as_written, pairs_fit=fit)
        self._weights = give_weights(options, weights or {}, packed=not as_written)
        if keep is not None:
            options.optimized_model_filepath = str(keep / _OPTIMISED)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _OUTSIDE)
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        if prepared:
            assert isinstance(model, Path)
            model = model / _OPTIMISED
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # that is done
        if not isinstance(model, Path):  # what a bundle was checked for is ONNX, not a format of ONNX Runtime's own
            options.add_session_config_entry("session.load_model_format", "ONNX")
        providers: list[Any] = ["CPUExecutionProvider"]
        if backend != "onnxruntime":
            from mmedge.engine.ort_providers import give_provider

            providers = give_provider(backend, options)
        try:
            self._session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model, options, providers=providers or None
            )
        except Exception as error:  # onnxruntime raises one private class per status code
            beside = "external tensors" in str(error)  # it looks into sizes before it reads weights that lie in files
            fix = "export it with external_data=False, or with small tensors inside" if beside else _INSPECT
            if backend != "onnxruntime":
                fix = "use backend 'onnxruntime', or install what the provider needs: CUDA and cuDNN of its version"
            raise EngineError(f"ONNX Runtime cannot load the model: {error}", where=name, fix=fix) from error
        self._options = ort.RunOptions()
        self._binding = self._session.io_binding()
        # What `run_with_iobinding` of the Python class comes to on a CPU, without its questions about GPU graphs.
        self._run_session, self._bound = self._session._sess.run_with_iobinding, self._binding._iobinding
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        bound = not any(self._dtype(item) is np.object_ for item in (*inputs, *outputs))
        # What is an input and an output at once, ONNX Runtime does not write where the output is bound.
        self._passed = [item.name for item in outputs if item.name in {value.name for value in inputs}]
        self._run_plain = partial(self._run_session, self._bound, self._options)
        self._run_bound: Callable[[], None] = self._run_passed if self._passed else self._run_plain
        if not bound:
            self._run_bound = self._run_copied
        self._values: list[Any] = []
        dims = {item.name: _dims(item.shape) for item in inputs}
        fixed = input_sizes(dims, shapes or {}, constants or {}, exact=exact, where=name)
        for item in inputs:
            value = self._zeros(item.name, fixed[item.name], self._dtype(item))
            if value.dtype != np.object_:
                value.fill((constants or {}).get(item.name, 0))
            if bound:
                ort_value = ort.OrtValue.ortvalue_from_numpy(value)
                self._values.append(ort_value)
                self._binding.bind_ortvalue_input(item.name, ort_value)
            self.inputs[item.name] = value
        shapes_out = [item.shape for item in outputs]
        if not all(isinstance(d, int) for shape in shapes_out for d in shape):
            # Names of dynamic dimensions say nothing about sizes: one run with zeros tells.
            shapes_out = [value.shape for value in self._run_free()]
            if any(len(shape) != len(item.shape) > 0 for item, shape in zip(outputs, shapes_out, strict=True)):
                self._run_bound = self._run_copied  # the file is wrong about it, and ONNX Runtime would not write there
        elif not all(shapes_out):  # of one number, or of a shape that nothing tells: ONNX Runtime says the same of both
            with suppress(EngineError):
                shapes_out = [value.shape for value in self._run_free()]
        for item, shape in zip(outputs, shapes_out, strict=True):
            value = self._zeros(item.name, tuple(shape), self._dtype(item))
            if bound:
                ort_value = ort.OrtValue.ortvalue_from_numpy(value)
                self._values.append(ort_value)
                self._binding.bind_ortvalue_output(item.name, ort_value)
            self.outputs[item.name] = value

    def _dtype(self, item: Any) -> type[np.generic]:
        dtype: type[np.generic] | None = _DTYPES.get(item.type)
        if dtype is None:
            raise EngineError(
                f"'{item.name}' is a {item.type}, which numpy does not have",
                where=self._name,
                fix="cast it inside the network to float32 or another type of numpy; of a sequence or map (ZipMap), "
                "export its tensors",
            )
        return dtype

    def _end_run(self, end: bool) -> None:
        self._options.terminate = end

    def _run_impl(self) -> None:
        try:
            self._watched(self._run_bound)
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises one private class per status code
            self._check_shapes()
            raise EngineError(f"ONNX Runtime failed: {error}", where=self._name, fix="check the inputs") from error

    def _run_passed(self) -> None:
        """Run a network that gives inputs back as they are."""
        self._run_plain()
        for name in self._passed:
            np.copyto(self.outputs[name], self.inputs[name])

    def _run_copied(self) -> None:
        """Run a network with texts, or with an output that has more or fewer axes than its file says."""
        for (name, own), value in zip(
            self.outputs.items(), self._session.run(None, self.inputs, self._options), strict=True
        ):
            if value.shape != own.shape:
                raise self._changed(name, own, value)
            np.copyto(own, value)

    def _run_free(self) -> list[AnyArray]:
        try:
            return self._watched(partial(self._session.run, None, self.inputs, self._options))
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises one private class per status code
            raise EngineError(f"ONNX Runtime failed: {error}", where=self._name, fix="check the inputs") from error

    def _check_shapes(self) -> None:
        """Raise EngineError naming the output whose shape changed, if it is that which failed."""
        for (name, own), value in zip(self.outputs.items(), self._run_free(), strict=True):
            if value.shape != own.shape:
                raise self._changed(name, own, value)

    def _close_impl(self) -> None:
        self._values.clear()
        del self._run_bound, self._run_plain, self._run_session, self._bound, self._binding, self._session
        self._weights.clear()  # after what reads them


def session_options(*, threads: int = 1, as_written: bool = False, pairs_fit: bool = False) -> Any:
    """Return ONNX Runtime's options as every session here has them.

    Args:
        threads: Intra-op threads.
        as_written: Run Q/DQ pairs in float.
        pairs_fit: Take kernels that add products in pairs of 16 bits, since these do not saturate.
    """
    options = require("onnxruntime", "running networks on the CPU").SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a failing run raises; it need not be printed, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # They take a Relu or Clip in front of an FP8 pair for part of the rounding, which it is not (1.32).
        options.add_session_config_entry("optimization.disable_specified_optimizers", _CLIP_FUSIONS)
        options.enable_mem_pattern = False  # a block for a whole run is 2.5 times as large where tensors are watched
    if saturates_pairs() and not pairs_fit:
        # Kernels that cannot saturate. ONNX Runtime's own test is true with AVX512-VNNI, too, where this only costs.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _pairs_fit(model: bytes, name: str) -> bool:
    try:
        return pairs_fit(model)
    except ValueError as error:
        raise EngineError(f"the model is not an ONNX file: {error}", where=name, fix=_INSPECT) from error


def give_weights(options: Any, weights: Mapping[str, AnyArray], *, packed: bool) -> list[Any]:
    """Give a session's options the values of weights that its model says lie in a file.

    Args:
        options: Those of the session.
        weights: Initializer -> its values, [its shape] in its dtype.
        packed: Let it copy them into the order that its kernels like best, which doubles what they take in memory;
            without, it does so to 2 GB of them and less.

    Returns:
        What must live as long as the session does.
    """
    if not packed and sum(value.nbytes for value in weights.values()) > _PACKED_BYTES:
        options.add_session_config_entry("session.disable_prepacking", "1")
    ort = require("onnxruntime", "running networks on the CPU")
    values = [ort.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
        options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")  # or it copies
    return values


def _dims(shape: Sequence[object]) -> list[int | str | None]:
    return [d if isinstance(d, str) or (isinstance(d, int) and d >= 0) else None for d in shape]
