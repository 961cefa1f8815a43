"""Two bundles on the same recordings, or on golden inputs: how far outputs are apart, and how often answers differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle import AudioInput, Bundle, ImageInput, stage_order
from mmedge.bundle.manifest import TensorInput, TextInput, Variant
from mmedge.engine.difference import Difference, pair_up
from mmedge.errors import CheckError, ConfigError, EngineError
from mmedge.fusion import load_graph
from mmedge.fusion.check import StandIn
from mmedge.fusion.load import candidates, make_network
from mmedge.fusion.make import make_stage
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import Shapes
from mmedge.fusion.trial import Trial
from mmedge.interpret.nms import box_iou
from mmedge.pipeline.inference import Inference, SkippedTrigger
from mmedge.pipeline.statistics import Statistics
from mmedge.recording.event_log import HEADER, read_header
from mmedge.replay.samples import _snapshots
from mmedge.types import AnyArray, Box, TaskResult

_MEDIA = {".mkv", ".mp4", ".mov", ".avi", ".webm", ".wav", ".flac", ".ogg", ".mp3", ".m4a"}
_IOU = 0.5  # from which on two boxes are of one thing
Step = tuple[int, dict[str, TaskResult], dict[str, AnyArray]]  # capture time, answers, outputs of the tasks


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
        ``outputs`` (output -> figures), ``tasks`` (task -> agreement and how it is counted), ``triggers``.

    Raises:
        ConfigError: If the recordings do not fit the bundles, or nothing could be answered by both.
        MmedgeError: As a run raises it.
    """
    fallback = fallen_back(b, precision)
    sessions = recordings(a, b, on)
    common = {name: task.output for name, task in a.tasks.items() if name in b.tasks}
    outputs: dict[str, Difference] = {}
    tasks = {name: _Agreement() for name in common}
    count = Counter[str]()
    with ExitStack() as stack:
        graph_a = load_graph(a, allow=allow)
        stack.callback(graph_a.close)
        graph_b = load_graph(b, allow=allow, precision=precision)
        stack.callback(graph_b.close)
        for index, (name, uris) in enumerate(sessions.items()):
            if progress is not None:
                progress(name, index / len(sessions))
            for left, right in _in_step(_answers(a, graph_a, uris), _answers(b, graph_b, uris), count):
                for task, output in common.items():
                    tasks[task].add(left[1][task], right[1][task])
                    x, y = left[2].get(task), right[2].get(task)
                    if x is not None and y is not None and x.shape == y.shape:
                        outputs.setdefault(output, Difference()).add(x, y)
        served = {"a": graph_a.served, "b": graph_b.served}
    if not count["both"]:
        raise ConfigError(
            f"no trigger of the recordings was answered by both bundles: {dict(count) or 'there was none'}",
            where=str(on),
            fix="give recordings of all inputs that both bundles have",
        )
    return {
        "inputs": f"{count['both']} triggers of {', '.join(sessions)}",
        "triggers": dict(count),
        "served": served,
        "fallback": fallback,
        "outputs": {name: difference.to_dict() for name, difference in outputs.items()},
        "tasks": {name: agreement.to_dict() for name, agreement in tasks.items()},
    }


def _answers(bundle: Bundle, graph: Any, uris: dict[str, str]) -> Iterator[Step]:
    """Yield what a bundle answers, trigger by trigger."""
    inference = Inference(bundle, graph, Statistics(), uris, origin="call")
    for core, snapshot in _snapshots(bundle.inputs, bundle.manifest.sync, uris):
        try:
            result = inference(snapshot, core, busy=())  # which waits for what runs in the background
        except SkippedTrigger:
            continue
        if result.status == "ok":
            tensors = {name: task.output for name, task in bundle.tasks.items()}
            told = {n: graph.output(tensor).copy() for n, tensor in tensors.items() if graph.answered(tensor)}
            yield snapshot.t_ns, result.tasks, told


def _in_step(a: Iterator[Step], b: Iterator[Step], count: Counter[str]) -> Iterator[tuple[Step, Step]]:
    """Yield what both answered for one capture time; count what one of them alone did."""
    left, right = next(a, None), next(b, None)
    first_a, first_b = (left[0] if left else 0), (right[0] if right else 0)
    while left is not None and right is not None:
        # Of files, each bundle counts time from when it opened them.
        gap_ns = (left[0] - first_a) - (right[0] - first_b)
        if abs(gap_ns) <= 1_000_000:
            count["both"] += 1
            yield left, right
            left, right = next(a, None), next(b, None)
        elif gap_ns < 0:
            count["a_alone"] += 1
            left = next(a, None)
        else:
            count["b_alone"] += 1
            right = next(b, None)
    for rest, last, what in ((a, left, "a_alone"), (b, right, "b_alone")):
        count[what] += (last is not None) + sum(1 for _ in rest)
    for what in ("a_alone", "b_alone"):
        if not count[what]:
            del count[what]


class _Agreement:
    """How often two bundles give one answer."""

    def __init__(self) -> None:
        self._n, self._same, self._off, self._worst = 0, 0.0, 0.0, 0.0
        self._kind = "same label"

    def add(self, a: TaskResult, b: TaskResult) -> None:
        self._n += 1
        if a.boxes or b.boxes:
            self._kind = f"boxes of one label that overlap by {_IOU:g} (F1)"
            self._same += _matching(a.boxes, b.boxes)
        else:
            self._same += a.label == b.label and (a.value is None) == (b.value is None)
        if a.value is not None and b.value is not None:
            self._kind = "mean absolute difference"
            self._off += abs(a.value - b.value)
            self._worst = max(self._worst, abs(a.value - b.value))

    def to_dict(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"metric": self._kind, "triggers": self._n}
        if self._kind.startswith("mean"):
            return figures | {"mean_abs": round(self._off / max(self._n, 1), 6), "max_abs": round(self._worst, 6)}
        return figures | {"agreement": round(self._same / self._n, 6) if self._n else None}


def _matching(a: Sequence[Box], b: Sequence[Box]) -> float:
    """Return the F1 of two sets of boxes: each is matched once, the best first."""
    free, hits = list(b), 0
    for box in a:
        alike = (other for other in free if other.label == box.label)
        best = max(alike, key=lambda other: box_iou(box, other), default=None)
        if best is not None and box_iou(box, best) >= _IOU:
            free.remove(best)
            hits += 1
    return 2 * hits / (len(a) + len(b))


def recordings(a: Bundle, b: Bundle, on: Path) -> dict[str, dict[str, str]]:
    """Return recording -> seat -> file, of the seats that both bundles have.

    Raises:
        ConfigError: If there are none, or a seat has no data.
    """
    seats = {name: spec for name, spec in a.inputs.items() if name in b.inputs and type(b.inputs[name]) is type(spec)}
    media = [name for name, spec in seats.items() if isinstance(spec, (ImageInput, AudioInput))]
    paths = [on] if on.is_file() or (on / HEADER).is_file() else sorted(on.glob("*"))
    sessions: dict[str, dict[str, str]] = {}
    for path in paths:
        name, dot, seat = path.stem.rpartition(".")
        if (path / HEADER).is_file():
            sessions[path.name] = {n: str(path) for n in seats if n in read_header(path).inputs}
        elif path.suffix.lower() not in _MEDIA:
            continue
        elif dot and seat in media:
            sessions.setdefault(name, {})[seat] = str(path)
        else:
            sessions[path.stem] = dict.fromkeys(media, str(path))
    needed = [name for name, spec in seats.items() if not isinstance(spec, (TextInput, TensorInput))]
    for name, uris in sessions.items():
        missing = sorted(set(needed) - set(uris))
        if missing or not uris:
            raise ConfigError(
                f"recording '{name}' has no data for input '{(missing or sorted(seats))[0]}'",
                where=str(on),
                fix="record both inputs (mmedge record DIR), or name files NAME.SEAT.EXT",
            )
    if not sessions:
        raise ConfigError("there are no recordings", where=str(on), fix="make one: mmedge record DIR --input ...")
    return sessions


def fallen_back(bundle: Bundle, precision: str | None) -> list[str]:
    """Return the networks of a bundle that have no variant of a precision, and so run in another.

    Raises:
        ConfigError: If that is all of them.
    """
    networks = [name for name, spec in bundle.manifest.stages.items() if spec.callable is None]
    if precision is None or not networks:
        return []
    variants = bundle.manifest.variants
    have = {variant.stage for variant in variants if variant.precision == precision}
    if not have & set(networks):
        raise ConfigError(
            f"no stage has a variant of precision '{precision}'",
            where=str(bundle.path),
            fix=f"it has {', '.join(sorted({variant.precision for variant in variants}))}",
        )
    return [name for name in networks if name not in have]


def compare_on_golden(a: Bundle, b: Bundle, precision: str | None = None) -> dict[str, Any]:
    """Compare stage by stage, on the golden inputs that ``a`` was exported with.

    Args:
        a: What is right; open.
        b: What is compared with it; open.
        precision: Of ``b``, only this precision.

    Returns:
        ``outputs`` (``STAGE.OUTPUT`` -> figures), ``served``, ``inputs``.

    Raises:
        ConfigError: If the bundles have no stage of one signature.
        MmedgeError: If a network breaks its bounds or cannot be loaded.
    """
    fallback = fallen_back(b, precision)
    stages = [name for name in stage_order(a.manifest.stages) if name in b.manifest.stages]
    sides = (_Side(a, None), _Side(b, precision))
    outputs: dict[str, Difference] = {}
    samples = 0
    for name in stages:
        with ExitStack() as stack:
            left, right = (side.open(name, stack) for side in sides)
            if left is None or right is None:
                continue
            golden = a.golden(left[1].golden)
            count = len(next(iter(golden.values())))
            pairs = pair_up(left[0].engine.outputs, right[0].engine.outputs, "outputs", f"stage '{name}'")
            for index in range(count):
                for stage in (left[0], right[0]):
                    stage.reset()
                    try:
                        stage.fill_raw({key: golden[key][index] for key in golden if key.startswith("in.")})
                    except (ValueError, TypeError, KeyError) as error:
                        raise ConfigError(
                            f"the golden inputs of stage '{name}' of {a.path} do not fit {b.path}: {error}",
                            where=f"stage '{name}'",
                            fix="compare on recordings: --on DIR",
                        ) from error
                    stage.engine.run()
                for ours, theirs in pairs.items():
                    difference = outputs.setdefault(f"{name}.{ours}", Difference())
                    difference.add(left[0].engine.outputs[ours], right[0].engine.outputs[theirs])
            samples += count
    if not outputs:
        raise ConfigError("the bundles have no network in common", where=str(b.path), fix="compare ONNX files instead")
    return {
        "inputs": f"golden inputs of {a.path.name}: {samples} samples, stage by stage; tasks need --on DIR",
        "served": {"a": sides[0].served, "b": sides[1].served},
        "fallback": fallback,
        "outputs": {name: difference.to_dict() for name, difference in outputs.items()},
        "tasks": {},
    }


class _Side:
    """Opens the stages of one bundle on ONNX Runtime, one at a time."""

    def __init__(self, bundle: Bundle, precision: str | None) -> None:
        self._bundle, self._precision, self._trial = bundle, precision, Trial(bundle)
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
        found = candidates(bundle, name, "onnxruntime", self._precision)
        found = found or candidates(bundle, name, "onnxruntime", None)
        variants = [variant for _, variant in found] or bundle.variants(name, "tensorrt")
        if not variants:
            raise EngineError(f"stage '{name}' has no variant", where=str(bundle.path), fix="export the bundle again")
        variant = variants[0]
        self._trial.check(variant, self._known)
        engine = make_network(bundle, variant, self._upstream, f"{bundle.path}: {variant.file}")
        stack.callback(engine.close)
        stage = make_stage(bundle, name, engine, self._upstream, raw=variant.target == "tensorrt")
        self._known[name] = {n: (list(array.shape), array.dtype.name) for n, array in engine.outputs.items()}
        self.served[name] = f"onnxruntime {variant.file}"
        return stage, variant


def thresholds(document: dict[str, Any], limits: dict[str, float | None]) -> list[str]:
    """Return what of a comparison is beyond the limits that were asked for, a line each.

    Args:
        document: ``outputs`` and ``tasks`` as above.
        limits: ``max_abs``, ``max_rel``, ``min_cosine``, ``min_sqnr_db``, ``min_agreement``; None is no limit.
    """
    over = []
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
    """Raise ConfigError if there is nothing that a limit was asked for of."""
    for key, limit in limits.items():
        of, fix = ("tasks", "give recordings: --on DIR") if key == "min_agreement" else ("outputs", "compare outputs")
        if limit is not None and not document.get(of):
            option = f"--{key.replace('_', '-')}"
            raise ConfigError(f"no {of} were compared, so nothing was judged by this limit", where=option, fix=fix)


def check_thresholds(document: dict[str, Any], limits: dict[str, float | None], where: str) -> None:
    """Raise CheckError if a comparison is beyond limits that were asked for."""
    over = thresholds(document, limits)
    if over:
        raise CheckError("; ".join(over), where=where, fix="see where it begins: mmedge compare A.onnx B.onnx --bisect")
