"""The child process that parses and builds: ``python -m mmedge.engine.build_child FOLDER FD PARENT``.

It reads ``model.onnx`` and ``options.json`` in FOLDER, writes ``engine.plan`` there and reports on FD
as JSON lines. A parser or builder that crashes takes this process along and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mmedge.engine.build_parent import BuildOptions, DoneMessage, FailedMessage, Message, Node, ProgressMessage
from mmedge.engine.cuda import gpu_available, gpu_info
from mmedge.engine.layers import count_int8, parse_layers, quantized_nodes
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt, make_logger
from mmedge.errors import EngineError, MmedgeError

_PR_SET_PDEATHSIG = 1


class BuildLog:
    """TensorRT's messages: all to stderr (the kept log), errors and the layer list remembered."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.layers = ""

    def __call__(self, severity: int, message: str) -> None:
        """Take one message."""
        sys.stderr.write(f"[{'EEWIV'[severity]}] {message}\n")
        if severity <= 1:
            self.errors.append(message.strip())
        elif message.startswith("Layers:"):
            self.layers = message


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
    workspace = options.workspace_bytes
    if workspace is None and gpu_available() and gpu_info().integrated:
        workspace = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    if workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    if options.compute_capability is not None:
        config.num_compute_capabilities = 1
        here = gpu_available() and gpu_info().compute_capability == options.compute_capability
        kind = "CURRENT" if here else options.compute_capability
        if not config.set_compute_capability(getattr(module.ComputeCapability, kind), 0):
            raise EngineError(f"{trt.name} cannot build for {options.compute_capability}", fix="choose another GPU")
    if options.typing == "weak" and options.precision != "fp32":
        config.set_flag(module.BuilderFlag.FP16)
        if options.precision == "int8":
            config.set_flag(module.BuilderFlag.INT8)
    _add_profile(builder, network, config, options)
    return config


def _add_profile(builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if any(size < 0 for size in tuple(tensor.shape))]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        shape = options.shapes.get(tensor.name) or tuple(max(size, 1) for size in tuple(tensor.shape))
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)


def _layer_text(trt: TensorRT, log: BuildLog, logger: Any, plan: bytes) -> str:
    if log.layers or not gpu_available():
        return log.layers
    # Where the builder prints no list, the engine itself tells; that needs the GPU.
    engine = trt.module.Runtime(logger).deserialize_cuda_engine(plan)
    inspector = engine.create_engine_inspector()
    kind = trt.module.LayerInformationFormat.ONELINE
    return "\n".join(inspector.get_layer_information(index, kind).strip() for index in range(engine.num_layers))


def build(folder: Path, options: BuildOptions, report: Callable[[str, float], None]) -> FailedMessage | DoneMessage:
    """Check, parse and build ``folder/model.onnx``; the plan is written beside it."""
    report("loading TensorRT", 0.0)
    trt = load_tensorrt(options.module)
    log = BuildLog()
    logger = make_logger(trt, log)
    model = (folder / "model.onnx").read_bytes()
    builder = trt.module.Builder(logger)
    strong = options.typing == "strong" and "strongly_typed_flag" in trt.caps
    flags = 1 << int(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strong else 0

    report("checking operators", 0.0)
    # The check names every refused node at once; parsing stops at the first.
    scratch = builder.create_network(flags)  # named: a parser does not keep its network alive
    checker = trt.module.OnnxParser(scratch, logger)
    if not checker.supports_model_v2(model):
        return _refused(_parser_errors(checker), log)
    report("parsing", 0.0)
    network = builder.create_network(flags)
    parser = trt.module.OnnxParser(network, logger)  # owns weights: must outlive the build
    if not parser.parse(model):
        return _refused(_parser_errors(parser), log)

    quantized = quantized_nodes(network, trt.module.LayerType)
    config = _configure(trt, builder, network, options, Phases(report))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reasons = "; ".join(dict.fromkeys(log.errors[-3:])) or "no reason given"
        return FailedMessage(
            f"{trt.name} {trt.version} cannot build the network: {reasons}",
            fix="export with opset 20, try another precision, or run this stage on a CPU backend",
        )
    plan = bytes(serialized)
    (folder / "engine.plan").write_bytes(plan)
    layers = parse_layers(_layer_text(trt, log, logger, plan))
    return DoneMessage(layers=len(layers), int8_layers=count_int8(layers, quantized), quantized_layers=len(quantized))


def main(folder: Path, status: int, parent: int) -> None:
    """Build and report; die when the parent does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    options = msgspec.json.decode((folder / "options.json").read_bytes(), type=BuildOptions)
    with os.fdopen(status, "wb", buffering=0) as pipe:

        def send(message: Message) -> None:
            pipe.write(msgspec.json.encode(message) + b"\n")

        try:
            send(build(folder, options, lambda phase, fraction: send(ProgressMessage(phase, fraction))))
        except MmedgeError as error:
            send(FailedMessage(error.message, fix=error.fix))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
