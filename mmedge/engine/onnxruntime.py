"""ONNX Runtime on the CPU: one thread, no spinning, inputs and outputs bound once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmedge.bundle.onnx_file import pairs_fit
from mmedge.engine.base import EngineBase
from mmedge.engine.cpu import saturates_pairs
from mmedge.engine.shapes import fix_shapes
from mmedge.engine.watch import PERIOD_S, WATCH
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
_IDLE = -1
_PACKED_BYTES = 1 << 31
_INSPECT = "run `mmedge inspect` on it"
_T = TypeVar("_T")


class OnnxRuntimeEngine(EngineBase):
    """One ONNX model on ONNX Runtime's CPU provider.

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
    ) -> None:
        super().__init__("onnxruntime")
        ort = require("onnxruntime", "running networks on the CPU")
        fit = saturates_pairs() and isinstance(model, bytes) and _pairs_fit(model, name)
        options = session_options(threads=threads, as_written=as_written, pairs_fit=fit)
        self._weights = give_weights(options, weights or {}, packed=not as_written)
        if not isinstance(model, Path):  # what a bundle was checked for is ONNX, not a format of ONNX Runtime's own
            options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises one private class per status code
            beside = "external tensors" in str(error)  # it looks into sizes before it reads weights that lie in files
            fix = "export it with external_data=False, or with small tensors inside" if beside else _INSPECT
            raise EngineError(f"ONNX Runtime cannot load the model: {error}", where=name, fix=fix) from error
        self._name = name
        self._options = ort.RunOptions()
        self._turn = threading.Lock()
        self._looks = _IDLE  # at the run that is under way
        self._limit_ms = math.inf
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
        if exact:
            fixed = fix_shapes(dims, shapes or {}, where=name)
        else:
            given: dict[str, tuple[int, ...] | None] = {**dict.fromkeys(constants or {}), **(shapes or {})}
            known = {n: _static(dims[n], wanted) for n, wanted in given.items() if n in dims}
            fixed = fix_shapes(dims, known, where=name)
        for item in inputs:
            value = self._zeros(item, fixed[item.name])
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
            value = self._zeros(item, tuple(shape))
            if bound:
                ort_value = ort.OrtValue.ortvalue_from_numpy(value)
                self._values.append(ort_value)
                self._binding.bind_ortvalue_output(item.name, ort_value)
            self.outputs[item.name] = value

    def _zeros(self, item: Any, shape: tuple[int, ...]) -> AnyArray:
        try:
            dtype = self._dtype(item)
            return np.full(shape, "", object) if dtype is np.object_ else np.zeros(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise EngineError(
                f"tensor '{item.name}' of shape {list(shape)} does not fit into memory: {error}",
                where=self._name,
                fix="export a smaller shape",
            ) from error

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

    def limit(self, limit_ms: float) -> None:
        """From now on, end a run that takes longer: it fails. One operator of a network is not interrupted."""
        self._limit_ms = limit_ms
        WATCH.add(self)

    def look(self) -> None:
        """Count a look at the run that is under way, and end it after too many: called every ``PERIOD_S``.

        Looks are counted, not time: while this process was stopped, no run took longer.
        """
        with self._turn:
            if self._looks != _IDLE:
                self._looks += 1
                if self._looks * PERIOD_S * 1000 > self._limit_ms:
                    self._options.terminate = True

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
                raise _changed(name, own, value, self._name)
            np.copyto(own, value)

    def _watched(self, run: Callable[[], _T]) -> _T:
        """Return what a run gives, unless it was ended."""
        with self._turn:
            self._looks = 0
        try:
            return run()
        finally:
            with self._turn:
                self._looks, ended = _IDLE, self._options.terminate
                self._options.terminate = False
            if ended:  # whatever the run itself has raised
                raise EngineError(
                    f"the network did not finish within {self._limit_ms:.0f} ms and was ended",
                    where=self._name,
                    fix="raise the stage's timeout_ms, or use a faster network",
                )

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
                raise _changed(name, own, value, self._name)

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


def _changed(name: str, own: AnyArray, value: AnyArray, where: str) -> EngineError:
    return EngineError(
        f"output '{name}' changed its shape from {list(own.shape)} to {list(value.shape)}",
        where=f"{where}: tensor '{name}'",
        fix="export a network with constant output shapes",
    )


def _dims(shape: Sequence[object]) -> list[int | str | None]:
    return [d if isinstance(d, str) or (isinstance(d, int) and d >= 0) else None for d in shape]


def _static(dims: Sequence[int | str | None], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of an input: as wanted, where the network leaves it open."""
    own = tuple(d if isinstance(d, int) else None for d in dims)
    if wanted is not None and len(wanted) == len(own) and all(o in (None, w) for o, w in zip(own, wanted, strict=True)):
        return wanted
    return tuple(1 if o is None else o for o in own)
