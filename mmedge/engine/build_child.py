"""The child process that parses and builds: ``python -m mmedge.engine.build_child FOLDER FD PARENT``.

It reads ``model.onnx`` and ``options.json`` in FOLDER, writes ``engine.plan`` there and reports on FD
as JSON lines. A parser or builder that crashes takes this process along and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from mmedge.engine.build_messages import BuildOptions, DoneMessage, FailedMessage, Message, Node, ProgressMessage
from mmedge.engine.cuda import gpu_available, gpu_info
from mmedge.engine.dimension_names import without_false_names
from mmedge.engine.layers import boundaries, count_half, half_nodes, parse_layers, quantized_nodes, split_int8
from mmedge.engine.memory import available_bytes
from mmedge.engine.reach import EngineOptions, check_dla
from mmedge.engine.shapes import fix_shapes
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt, make_logger
from mmedge.errors import ConfigError, EngineError, MmedgeError, shortage
from mmedge.learn import learn

_PR_SET_PDEATHSIG = 1
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|bad_alloc|cannot allocate memory", re.IGNORECASE)


_PLACED = re.compile(r"\[(Dla|Gpu)Layer\] (.+)")  # what a builder says of each layer once a DLA is asked for


class BuildLog:
    """TensorRT's messages: all to stderr (the kept log), errors, the layer list and the use of a DLA remembered."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.layers = ""
        self.placed: dict[str, list[str]] = {"Dla": [], "Gpu": []}

    def __call__(self, severity: int, message: str) -> None:
        """Take one message."""
        with suppress(OSError):  # a disk that is full is no reason to crash in a call from C++
            sys.stderr.write(f"[{'EEWIV'[severity]}] {message}\n")
        if severity <= 1:
            self.errors.append(message.strip())
        elif message.startswith("Layers:"):
            self.layers = message
        else:
            for where, name in _PLACED.findall(message):
                self.placed[where].append(name)


class Phases:
    """Nested builder phases as one share done, 0..1, that never falls."""

    def __init__(self, report: Callable[[str, float], None]) -> None:
        self._report = report
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._fraction = 0.0
        self._reported_s = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._phases[name] = (parent or None, max(steps, 1), 0)

    def step(self, name: str, step: int) -> None:
        """Step ``step`` of a phase is done."""
        parent, steps, _ = self._phases[name]
        self._phases[name] = (parent, steps, step + 1)
        share = 0.0
        here: str | None = name
        while here is not None and here in self._phases:
            parent, steps, done = self._phases[here]
            share = min(1.0, (done + share) / steps)
            here = parent
        self._fraction = max(self._fraction, share)
        now = time.monotonic()
        if now - self._reported_s >= 0.05 or self._fraction >= 1.0:
            self._reported_s = now
            self._report(name, self._fraction)

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._phases.pop(name, None)


def _monitor(trt: TensorRT, phases: Phases) -> Any:
    class Monitor(trt.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def _parser_errors(parser: Any) -> list[Node]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [
        Node(index=error.node(), name=error.node_name(), op=error.node_operator(), reason=_reason(error.desc()))
        for error in errors
    ]


def _reason(text: str) -> str:
    if "Plugin not found" in text:
        return "no such operator in TensorRT"
    return "not supported" if text == "false" else text.removeprefix("Assertion failed: ")


def _refused(nodes: list[Node], log: BuildLog) -> FailedMessage:
    if any(node.op for node in nodes):
        return FailedMessage("unsupported operators", nodes=[node for node in nodes if node.op])
    reasons = [node.reason for node in nodes] or log.errors[-3:] or ["no reason given"]
    return FailedMessage(
        f"the ONNX file cannot be read: {'; '.join(reasons)}", fix="export it again; `mmedge inspect FILE` shows it"
    )


def _configure(trt: TensorRT, builder: Any, network: Any, options: BuildOptions, phases: Phases) -> Any:
    module, config = trt.module, builder.create_builder_config()
    # DETAILED makes the builder name the types of every layer, which the INT8 coverage is read from.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.progress_monitor = _monitor(trt, phases)
    if hasattr(module.BuilderFlag, "TF32"):
        # 10-bit mantissas in the spectrum's convolutions would swamp the quiet bins of log-mel.
        config.clear_flag(module.BuilderFlag.TF32)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    workspace = options.workspace_bytes
    if workspace is None and gpu_available() and gpu_info().integrated and (free := available_bytes()) is not None:
        workspace = free // 4  # of the one memory that CPU and GPU share
    if workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    if options.compute_capability is not None:
        config.num_compute_capabilities = 1
        here = gpu_available() and gpu_info().compute_capability == options.compute_capability
        kind = "CURRENT" if here else options.compute_capability
        if not config.set_compute_capability(getattr(module.ComputeCapability, kind), 0):
            raise EngineError(f"{trt.name} cannot build for {options.compute_capability}", fix="choose another GPU")
    if options.engine.newer_versions:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.engine.level is not None:
        config.hardware_compatibility_level = getattr(module.HardwareCompatibilityLevel, options.engine.level)
    if options.engine.dla_core is not None:
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = options.engine.dla_core
        config.set_flag(module.BuilderFlag.GPU_FALLBACK)  # without, one layer that a DLA lacks ends the build
    if options.typing == "weak" and options.precision != "fp32":
        config.set_flag(module.BuilderFlag.FP16)
        if options.precision != "fp16":
            config.set_flag(getattr(module.BuilderFlag, options.precision.upper()))
    _add_profile(builder, network, config, options)
    return config


def _add_profile(builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dims = {tensor.name: _dims(tensor) for tensor in inputs}
    ranges = [
        fix_shapes(dims, {name: shape[part] for name, shape in options.shapes.items()}, where="the network")
        for part in range(3)
    ]
    if all(isinstance(size, int) for sizes in dims.values() for size in sizes):
        return
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        if any(size < 0 for size in tuple(tensor.shape)):
            least, usual, most = (shapes[tensor.name] for shapes in ranges)
            if tensor.is_shape_tensor:
                raise EngineError(
                    f"input '{tensor.name}' is a shape tensor, which is not supported", fix="export with static shapes"
                )
            profile.set_shape(tensor.name, least, usual, most)
    config.add_optimization_profile(profile)


def _dims(tensor: Any) -> list[int | str | None]:
    names = [tensor.get_dimension_name(index) for index in range(len(tensor.shape))]
    return [(name or None) if size < 0 else int(size) for size, name in zip(tuple(tensor.shape), names, strict=True)]


def _set_timings(config: Any, folder: Path) -> None:
    """Let the builder start from what it measured before."""
    old = folder / "timing.old"
    for known in (old.read_bytes(), b"") if old.exists() else (b"",):
        timings = config.create_timing_cache(known)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            return
        if known:  # of another version, driver or device
            sys.stderr.write("[W] what earlier builds have timed is not taken: measuring anew\n")


def _layer_text(trt: TensorRT, log: BuildLog, logger: Any, plan: bytes, engine_options: EngineOptions) -> str:
    if parse_layers(log.layers) or not gpu_available():
        return log.layers
    # Where the builder prints no list that can be read, the engine itself tells; that needs the GPU.
    runtime = trt.module.Runtime(logger)
    runtime.engine_host_code_allowed = engine_options.newer_versions  # it was built just now
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    inspector = engine.create_engine_inspector()
    kind = trt.module.LayerInformationFormat.ONELINE
    return "\n".join(inspector.get_layer_information(index, kind).strip() for index in range(engine.num_layers))


def build(folder: Path, options: BuildOptions, report: Callable[[str, float], None]) -> FailedMessage | DoneMessage:
    """Check, parse and build ``folder/model.onnx``; the plan is written beside it."""
    os.nice(options.nice)
    report("loading TensorRT", 0.0)
    trt = load_tensorrt(options.module)
    log = BuildLog()
    logger = make_logger(trt, log)
    model = without_false_names((folder / "model.onnx").read_bytes(), options.shapes)
    builder = trt.module.Builder(logger)
    if options.engine.dla_core is not None:
        check_dla(options.engine.dla_core, builder.num_DLA_cores, f"{trt.name} {trt.version}")
    strong = options.typing == "strong" and "strongly_typed_flag" in trt.caps
    flags = 1 << int(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strong else 0

    report("checking operators", 0.0)
    # The check names every refused node at once; parsing stops at the first.
    scratch = builder.create_network(flags)  # named: a parser does not keep its network alive
    checker = trt.module.OnnxParser(scratch, logger)
    if not checker.supports_model_v2(model, options.path):
        return _refused(_parser_errors(checker), log)
    report("parsing", 0.0)
    network = builder.create_network(flags)
    parser = trt.module.OnnxParser(network, logger)  # owns weights: must outlive the build
    if not parser.parse(model, options.path):
        return _refused(_parser_errors(parser), log)

    quantized, half = (find(network, trt.module.LayerType) for find in (quantized_nodes, half_nodes))
    config = _configure(trt, builder, network, options, Phases(report))
    if options.timing_cache:
        _set_timings(config, folder)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reasons = "; ".join(dict.fromkeys(log.errors[-3:])) or "no reason given"
        return FailedMessage(
            f"{trt.name} {trt.version} cannot build the network: {reasons}",
            fix="export with opset 20, try another precision, or run this stage on a CPU backend",
            kind="memory" if any(_NO_MEMORY.search(error) for error in log.errors) else "engine",
        )
    if options.engine.dla_core is not None and not log.placed["Dla"]:
        return FailedMessage(
            f"{trt.name} {trt.version} put none of the layers on the DLA that was asked for",
            fix="run this stage on the GPU; the log names what a DLA lacks",
        )
    plan = bytes(serialized)
    (folder / "engine.plan").write_bytes(plan)
    if options.timing_cache and (timings := config.get_timing_cache()) is not None:
        (folder / "timing.new").write_bytes(bytes(timings.serialize()))
    layers = parse_layers(_layer_text(trt, log, logger, plan, options.engine))
    running, waiting = split_int8(layers, quantized)
    return DoneMessage(
        layers=len(layers),
        int8_nodes=running,
        float_nodes=waiting,
        boundaries=boundaries(layers) if quantized else [],
        half_asked=len(half),
        half_layers=count_half(layers, half),
        dla_layers=log.placed["Dla"],
        gpu_layers=log.placed["Gpu"],
    )


def main(folder: Path, status: int, parent: int) -> None:
    """Build and report; die when the parent does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    options = msgspec.json.decode((folder / "options.json").read_bytes(), type=learn(BuildOptions))
    with os.fdopen(status, "wb", buffering=0) as pipe:

        def send(message: Message) -> None:
            pipe.write(msgspec.json.encode(message) + b"\n")

        try:
            send(build(folder, options, lambda phase, fraction: send(ProgressMessage(phase, fraction))))
        except ConfigError as error:
            send(FailedMessage(error.message, fix=error.fix, kind="config"))
        except MmedgeError as error:
            send(FailedMessage(error.message, fix=error.fix))
        except MemoryError:
            send(FailedMessage("memory ran out", fix="close other programs", kind="memory"))
        except OSError as error:
            what, fix = shortage(error) or (str(error), "check the temporary folder (TMPDIR)")
            send(FailedMessage(f"the build cannot write its files: {what}", fix=fix))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
