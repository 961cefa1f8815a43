"""Two bundles on the same recordings, or on golden inputs: how far outputs are apart, and how often answers differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle import Bundle, stage_order
from mmedge.bundle.manifest import TensorInput, TextInput, Variant
from mmedge.capture import StartTime
from mmedge.engine.difference import Difference, pair_names
from mmedge.errors import CheckError, ConfigError, EngineError
from mmedge.fusion import StageGraph, load_graph
from mmedge.fusion.check import StandIn
from mmedge.fusion.choice import fallen_back, serving
from mmedge.fusion.evidence import evidence_of
from mmedge.fusion.golden import sample_count
from mmedge.fusion.load import make_network
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import Shapes
from mmedge.fusion.trial import Trial
from mmedge.pipeline.inference import Inference, SkippedTrigger
from mmedge.pipeline.statistics import Statistics
from mmedge.replay.agreement import Agreement
from mmedge.replay.samples import snapshots
from mmedge.replay.sessions import session_paths, sessions
from mmedge.types import AnyArray, TaskResult

_PATIENCE = 20.0  # a slow machine changes no answer; a run that does not end is ended all the same
Step = tuple[int, dict[str, TaskResult], dict[str, AnyArray]]  # capture time, answers, outputs by their names in A


def compare_on_recordings(
    a: Bundle,
    b: Bundle,
    on: Path,
    *,
    allow: Sequence[str] = (),
    precision: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Answer each trigger of some recordings with both bundles.

    Args:
        a: What is right; open.
        b: What is compared with it; open.
        on: A recording, a media file, or a folder of them; ``NAME.SEAT.EXT`` feeds one seat.
        allow: Modules whose functions the bundles may call.
        precision: Of ``b``, only this precision.
        progress: Called with a message and a share.

    Returns:
        ``outputs`` (output -> figures), ``unequal_shapes`` (output -> the first two shapes that differ, and how often
        some did), ``tasks`` (task -> agreement and how it is counted), ``triggers``.

    Raises:
        ConfigError: If the recordings do not fit the bundles, or nothing could be answered by both.
        MmedgeError: As a run raises it.
    """
    fallback = fallen_back(b, precision)
    chosen = recordings(a, b, on)
    common = [name for name in a.tasks if name in b.tasks]
    tensors = {a.tasks[name].output: b.tasks[name].output for name in common}
    tensors |= {name: name for name in a.manifest.outputs if name in b.manifest.outputs}
    if not tensors:
        raise ConfigError("the bundles have no task in common", where=str(b.path), fix="compare ONNX files instead")
    outputs: dict[str, Difference] = {}
    unequal: dict[str, dict[str, Any]] = {}
    tasks = {name: Agreement(a.tasks[name]) for name in common}
    count = Counter[str]()
    with ExitStack() as stack:
        graph_a = load_graph(a, allow=allow, patience=_PATIENCE)
        stack.callback(graph_a.close)
        graph_b = load_graph(b, allow=allow, precision=precision, patience=_PATIENCE)
        stack.callback(graph_b.close)
        for index, (name, uris) in enumerate(chosen.items()):
            if progress is not None:
                progress(name, index / len(chosen))
            base = StartTime()  # of one file both read the same capture times
            steps_a = _answers(a, graph_a, uris, {tensor: tensor for tensor in tensors}, base)
            steps_b = _answers(b, graph_b, uris, tensors, base)
            for (_, told_a, arrays_a), (_, told_b, arrays_b) in _in_step(steps_a, steps_b, count):
                for task in common:
                    output = a.tasks[task].output
                    tasks[task].add(told_a[task], told_b[task], told=(output in arrays_a, output in arrays_b))
                for output in arrays_a.keys() & arrays_b.keys():
                    _add(output, arrays_a[output], arrays_b[output], outputs, unequal)
        served = {"a": graph_a.served, "b": graph_b.served}
        backends = [*graph_a.describe().values(), *graph_b.describe().values()]
    if not count["both"]:
        raise ConfigError(
            f"no trigger of the recordings was answered by both bundles: {dict(count) or 'there was none'}",
            where=str(on),
            fix="give recordings of all inputs that both bundles have",
        )
    return {
        "inputs": f"{count['both']} triggers of {', '.join(chosen)}"
        + "".join(
            f", {count[f'{side}_alone']} answered by {side.upper()} alone" for side in "ab" if count[f"{side}_alone"]
        ),
        "triggers": dict(count),
        "served": served,
        "evidence": evidence_of(backends),
        "fallback": fallback,
        "outputs": {name: difference.to_dict() for name, difference in outputs.items()},
        "unequal_shapes": unequal,
        "tasks": {name: agreement.to_dict() for name, agreement in tasks.items()},
    }


def _add(
    name: str, a: AnyArray, b: AnyArray, outputs: dict[str, Difference], unequal: dict[str, dict[str, Any]]
) -> None:
    """Take up one sample of an output, [...] of any dtype; of other shapes, note which."""
    if a.shape == b.shape:
        outputs.setdefault(name, Difference()).add(a, b)
    else:
        unequal.setdefault(name, {"a": list(a.shape), "b": list(b.shape), "samples": 0})["samples"] += 1


def _answers(
    bundle: Bundle, graph: StageGraph, uris: dict[str, str], tensors: Mapping[str, str], base: StartTime
) -> Iterator[Step]:
    """Yield what a bundle answers, trigger by trigger; ``tensors`` are its outputs by their names in A."""
    inference = Inference(bundle, graph, Statistics(), uris, origin="call")
    manifest = bundle.manifest
    for core, snapshot in snapshots(bundle.inputs, manifest.sync, uris, manifest.missing, base):
        try:
            result = inference(snapshot, core, busy=())  # which waits for what runs in the background
        except SkippedTrigger:
            continue
        if result.status == "ok":
            told = {name: graph.output(own).copy() for name, own in tensors.items() if graph.answered(own)}
            yield snapshot.t_ns, result.tasks, told


def _in_step(a: Iterator[Step], b: Iterator[Step], count: Counter[str]) -> Iterator[tuple[Step, Step]]:
    """Yield what both answered for one capture time; count what one of them alone did."""
    left, right = next(a, None), next(b, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            count["a_alone"] += 1
            left = next(a, None)
        elif left is None or left[0] > right[0]:
            count["b_alone"] += 1
            right = next(b, None)
        else:
            count["both"] += 1
            yield left, right
            left, right = next(a, None), next(b, None)


def recordings(a: Bundle, b: Bundle, on: Path) -> dict[str, dict[str, str]]:
    """Return recording -> seat -> file, of the seats that both bundles have.

    Raises:
        ConfigError: If there are none, or a seat has no data.
    """
    seats = {name: spec for name, spec in a.inputs.items() if name in b.inputs and type(b.inputs[name]) is type(spec)}
    found = sessions(session_paths(on), seats)
    needed = [name for name, spec in seats.items() if not isinstance(spec, (TextInput, TensorInput))]
    for name, uris in found.items():
        missing = sorted(set(needed) - set(uris))
        if missing or not uris:
            raise ConfigError(
                f"recording '{name}' has no data for input '{(missing or sorted(seats))[0]}'",
                where=str(on),
                fix="record both inputs (mmedge record DIR), or name files NAME.SEAT.EXT",
            )
    if not found:
        raise ConfigError("there are no recordings", where=str(on), fix="make one: mmedge record DIR --input ...")
    return found


def compare_on_golden(a: Bundle, b: Bundle, precision: str | None = None) -> dict[str, Any]:
    """Compare stage by stage, on the golden inputs that ``a`` was exported with.

    Args:
        a: What is right; open.
        b: What is compared with it; open.
        precision: Of ``b``, only this precision.

    Returns:
        ``outputs`` (``STAGE.OUTPUT`` -> figures), ``unequal_shapes``, ``served``, ``inputs``.

    Raises:
        ConfigError: If the bundles have no stage of one signature.
        MmedgeError: If a network breaks its bounds or cannot be loaded.
    """
    fallback = fallen_back(b, precision)
    stages = [name for name in stage_order(a.manifest.stages) if name in b.manifest.stages]
    sides = (_Side(a, None), _Side(b, precision))
    outputs: dict[str, Difference] = {}
    unequal: dict[str, dict[str, Any]] = {}
    backends: set[str] = set()
    samples = 0
    for name in stages:
        with ExitStack() as stack:
            left, right = (side.open(name, stack) for side in sides)
            if left is None or right is None:
                continue
            backends |= {left[0].engine.backend, right[0].engine.backend}
            golden = a.golden(left[1].golden)
            names = [f"in.{tensor}" for tensor in left[0].engine.inputs]
            count = sample_count(golden, names, f"{a.path}: {left[1].golden}")
            own, others = list(left[0].engine.outputs), list(right[0].engine.outputs)
            pairs = pair_names(own, others, "outputs", f"stage '{name}'")
            for index in range(count):
                for stage in (left[0], right[0]):
                    stage.reset()
                    try:
                        stage.fill_raw({key: golden[key][index] for key in names})
                    except (ValueError, TypeError, KeyError) as error:
                        raise ConfigError(
                            f"the golden inputs of stage '{name}' of {a.path} do not fit {b.path}: {error}",
                            where=f"stage '{name}'",
                            fix="compare on recordings: --on DIR",
                        ) from error
                    stage.engine.run()
                for ours, theirs in pairs.items():
                    arrays = left[0].engine.outputs[ours], right[0].engine.outputs[theirs]
                    _add(f"{name}.{ours}", *arrays, outputs, unequal)
            samples += count
    if not outputs and not unequal:
        raise ConfigError("the bundles have no network in common", where=str(b.path), fix="compare ONNX files instead")
    return {
        "inputs": f"golden inputs of {a.path.name}: {samples} samples, stage by stage; tasks need --on DIR",
        "served": {"a": sides[0].served, "b": sides[1].served},
        "evidence": evidence_of(backends),
        "fallback": fallback,
        "outputs": {name: difference.to_dict() for name, difference in outputs.items()},
        "unequal_shapes": unequal,
        "tasks": {},
    }


class _Side:
    """Opens the stages of one bundle on ONNX Runtime, one at a time."""

    def __init__(self, bundle: Bundle, precision: str | None) -> None:
        self._bundle, self._trial = bundle, Trial(bundle)
        self._serving = serving(bundle, "onnxruntime", precision, simulated=True)
        self._upstream: dict[str, StageRunner] = {}
        self._known: Shapes = {}
        self.served: dict[str, str] = {}

    def open(self, name: str, stack: ExitStack) -> tuple[StageRunner, Variant] | None:
        """Return a stage and its variant; None of a callable."""
        bundle = self._bundle
        for other in stage_order(bundle.manifest.stages):
            if other == name:
                break
            if other not in self._upstream:
                stand_in = StandIn(bundle, other, self._upstream, self._known)
                self._upstream[other] = make_stage(bundle, other, stand_in, self._upstream)
        if bundle.manifest.stages[name].callable is not None:
            return None
        if not self._serving[name]:
            raise EngineError(f"stage '{name}' has no variant", where=str(bundle.path), fix="export the bundle again")
        _, variant = self._serving[name][0]
        self._trial.check("onnxruntime", variant, self._known)
        engine = make_network(bundle, variant, self._upstream, f"{bundle.path}: {variant.file}")
        stack.callback(engine.close)
        stage = make_stage(bundle, name, engine, self._upstream, raw=variant.target == "tensorrt")
        engine.limit(_PATIENCE * stage.plan.timeout_ms)  # it was tried on the golden inputs of its own bundle alone
        self._known[name] = {n: (list(array.shape), array.dtype.name) for n, array in engine.outputs.items()}
        self.served[name] = f"onnxruntime {variant.file}"
        return stage, variant


def thresholds(document: dict[str, Any], limits: dict[str, float | None]) -> list[str]:
    """Return what of a comparison is beyond the limits that were asked for, a line each; unequal shapes always are.

    Args:
        document: ``outputs`` and ``tasks`` as above.
        limits: ``max_abs``, ``max_rel``, ``min_cosine``, ``min_sqnr_db``, ``min_agreement``; None is no limit.
    """
    over = [
        f"{name}: {shapes['a']} in A, {shapes['b']} in B, {shapes['samples']} times: they cannot be compared"
        for name, shapes in document.get("unequal_shapes", {}).items()
    ]
    for name, figures in document["outputs"].items():
        asked = any(limits.get(key) is not None for key in ("max_abs", "max_rel", "min_cosine", "min_sqnr_db"))
        if asked and figures["unequal"]:
            over.append(f"{name}: {figures['unequal']} values are not finite, or differ, in one of them alone")
        for key, sign in (("max_abs", 1), ("max_rel", 1), ("min_cosine", -1), ("min_sqnr_db", -1)):
            limit, value = limits.get(key), figures[key.removeprefix("min_")]
            if limit is None:
                continue
            if value is None:  # of equal outputs there is no SQNR, and of zeros no cosine
                value = np.inf * sign if figures["max_abs"] else -np.inf * sign
            if sign * (value - limit) > 0:
                over.append(f"{name}: {key.removeprefix('min_')} {value:.6g}, allowed {limit:g}")
    least = limits.get("min_agreement")
    for name, figures in document.get("tasks", {}).items():
        if least is not None and (figures.get("agreement") is None or figures["agreement"] < least):
            over.append(f"{name}: agreement {figures.get('agreement')}, asked for {least:g}")
    return over


def check_judged(document: dict[str, Any], limits: dict[str, float | None]) -> None:
    """Raise ConfigError if there is nothing that a limit was asked for of, or a task has no such figure."""
    values = [name for name, figures in document.get("tasks", {}).items() if "agreement" not in figures]
    if values and limits.get("min_agreement") is not None:
        raise ConfigError(
            f"task '{values[0]}' tells a number, which has no agreement",
            where="--min-agreement",
            fix="judge the outputs: --max-abs, --max-rel, --min-cosine or --min-sqnr-db",
        )
    for key, limit in limits.items():
        of, fix = ("tasks", "give recordings: --on DIR") if key == "min_agreement" else ("outputs", "compare outputs")
        if limit is not None and not document.get(of) and not document.get("unequal_shapes"):
            option = f"--{key.replace('_', '-')}"
            raise ConfigError(f"no {of} were compared, so nothing was judged by this limit", where=option, fix=fix)


def check_thresholds(document: dict[str, Any], limits: dict[str, float | None], where: str) -> None:
    """Raise CheckError if a comparison is beyond limits that were asked for."""
    over = thresholds(document, limits)
    if over:
        fix = "see where it begins: mmedge compare A.onnx B.onnx --bisect"
        if document.get("unequal_shapes"):
            fix = "compare bundles whose outputs have the same shapes"
        raise CheckError("; ".join(over), where=where, fix=fix)
