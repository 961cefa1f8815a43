"""Guess the tasks of an ONNX file from its signature: name, classes, and a task for each output."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnx

from mmedge.bundle.manifest import Detection, ImageInput, Input
from mmedge.errors import ConfigError
from mmedge.interpret import recognise
from mmedge.interpret.detection import Layout
from mmedge.types import AnyArray

from ..onnx.network_file import load_network
from ..recipe import RecipeTask
from . import boxes as decoded
from .brought import check_signature, dims, graph_inputs
from .said import Said, said_of

# What the starter's rule calls its own.
_RULE_NAMES = frozenset(("join", "joined", "nothing", "np", "p", "softmax", "state", "sure"))
_EMBEDDING = re.compile(r"(.*_)?(embedding|feature)s?", re.IGNORECASE)
# What is said of outputs that are no answers yet.
_BOXES = "boxes are [1, 4 + C, n], [1, n, 5 + C] or [1, n, 6], in one output"
_CALLABLE = "write a recipe with a callable that makes boxes or classes of the output"
# Operators that give 0..1, those after which it still is 0..1, and those that say nothing.
_PROBABLE = frozenset(("Sigmoid", "HardSigmoid", "Softmax"))
_KEEPING = frozenset(("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Gather"))
_KEEPING |= {"Concat", "Split", "ReduceMean", "ReduceMax", "ReduceMin", "GlobalAveragePool", "GlobalMaxPool"}
_OPAQUE = frozenset(("Clip", "If", "Loop", "Scan"))
# A sigmoid or softmax that was written out ends in these; what lies in 0..1 after them does so on purpose.
_DIVIDING = frozenset(("Div", "Reciprocal"))
# Widths that embeddings have, and sets of classes hardly ever.
_WIDE, _WIDTH = 64, 32


class Guess(msgspec.Struct, frozen=True):
    """One thing that was inferred, and why."""

    network: str
    tensor: str
    meaning: str
    why: str


@dataclass(kw_only=True, slots=True)
class Network:
    """One ONNX file and what is known about it.

    Attributes:
        name: Of its stage, from the file's name.
        sources: Tensor -> what feeds it, as in a recipe.
        every_ms: The sound that is new to it at each run, for a sound network with a state.
        stream: Whether it hears every sample once; else what is newest at each trigger.
        labels: Class names that the user or the file gives, as Ultralytics writes them; distinct.
        said: What the user says of it.
        hints: What its user should know.
        asks: What its file does not tell and was assumed, with what says otherwise.
    """

    name: str
    path: Path
    model: onnx.ModelProto
    sources: dict[str, str] = field(default_factory=dict)
    every_ms: float | None = None
    stream: bool = False
    labels: tuple[str, ...] = ()
    said: Said = field(default_factory=Said)
    hints: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)


def read_network(path: Path, taken: Sequence[str], options: Mapping[str, Sequence[str]] | None = None) -> Network:
    """Open one file and name its stage.

    Args:
        path: The file.
        taken: Names of other stages.
        options: What the user says, as ``said_of`` takes it.

    Raises:
        ConfigError: If it is not a network, or one of Ultralytics' for another task than boxes and classes.
    """
    name = stage_name(path)
    while name in taken:
        name += "_2"
    network = Network(name=name, path=path, model=load_network(path, streamed=True), said=said_of(name, options or {}))
    check_signature(network.model, str(path))
    known = metadata_of(network.model)
    if "names" in known and known.get("task", "detect") not in ("detect", "classify"):
        raise ConfigError(
            f"a network of task '{known['task']}': pose, segmentation and turned boxes are not supported",
            where=str(path),
            fix=f"export one of task 'detect' ({_BOXES}), or {_CALLABLE}",
        )
    given = class_names(known) if network.said.classes is None else network.said.classes
    network.labels = _distinct(given)
    changed = [f"'{label}'" for label, one in zip(network.labels, given, strict=True) if label != one]
    if changed:
        network.hints.append(
            f"network '{name}' names classes twice or in a way no label can be: now {', '.join(changed[:5])}"
            + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        )
    return network


def stage_name(path: Path) -> str:
    """Return what the stage of a network's file is called, where no other one has that name."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_").lower() or "network"
    name = f"n{name}" if name[0].isdigit() else name
    return f"{name}_net" if keyword.iskeyword(name) or name in dir(builtins) or name in _RULE_NAMES else name


def class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the class names of Ultralytics' metadata: a dictionary or list, as Python writes it."""
    text = metadata.get("names", "")
    try:
        named = ast.literal_eval(text) if text else ()
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ()
    if isinstance(named, dict) and named.keys() == set(range(len(named))):
        named = [named[index] for index in range(len(named))]
    return tuple(str(name) for name in named) if isinstance(named, (list, tuple)) else ()


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as a bundle may have them: one line each, none empty, none twice."""
    made: dict[str, None] = {}
    for index, name in enumerate(names):
        label = " ".join(name.encode(errors="replace").decode().split()) or str(index)
        while label in made:
            label += f"_{index}"
        made[label] = None
    return tuple(made)


def detector_of(
    network: Network, inputs: Mapping[str, Input], samples: Mapping[str, Sequence[AnyArray]]
) -> tuple[Detection, int | None] | None:
    """Return how a network's boxes lie and how many classes that shows, if its outputs are a detector's.

    Args:
        network: Its network.
        inputs: The seats.
        samples: Output -> what it gave for some pictures, float32 [...].

    Raises:
        ConfigError: If the file names another number of classes: the other values of a box are then no scores. If the
            shape leaves open what a box's values are, or what was seen contradicts it.
    """
    seats = {source: inputs[source] for source in network.sources.values() if source in inputs}
    spec = next((spec for spec in seats.values() if isinstance(spec, ImageInput)), None)
    said = network.said.boxes
    if spec is None or said == "none" or not samples:
        return None
    name = next(name for name, seat in seats.items() if seat is spec)
    output, seen = next(iter(samples.items()))
    shape, known = list(seen[0].shape), len(network.labels) or None
    found = recognise(spec.tensor_shape, [array[0].shape for array in samples.values()], known)
    if said is not None:
        found = _as_said(network, said, output, shape)
    if found is None:
        return None
    layout, classes = found
    if known and classes not in (None, known):
        raise ConfigError(
            f"the output {shape} has {classes} values per box beside its place, the file names "
            f"{_counted(known)}: pose, segmentation and turned boxes are not supported",
            where=str(network.path),
            fix=f"correct 'names', export a network whose {_BOXES}, or {_CALLABLE}",
        )
    if said is None:
        open_ = decoded.unclear(layout, shape, spec.size, known)
        told = open_ and (
            open_,
            f"say --classes N, or --layout {layout}; or --layout none, to take its numbers as they are",
        )
        told = told or decoded.problem(layout, seen, spec.size, sorted_out=bool(known))
        if told:
            raise ConfigError(
                f"output '{output}' {shape} looks like boxes, but {told[0]}", where=str(network.path), fix=told[1]
            )
    return Detection(layout=layout, input=name), classes


def _as_said(network: Network, layout: Layout, output: str, shape: Sequence[int]) -> tuple[Layout, int | None]:
    """Return the layout that the user names, and how many classes it then has."""
    values = {"yolo": shape[1] - 4, "yolo-objectness": shape[2] - 5}.get(layout) if len(shape) == 3 else 0
    if len(shape) != 3 or shape[0] != 1 or (values is not None and values < 1) or (values is None and shape[2] != 6):
        raise ConfigError(
            f"output '{output}' {list(shape)} is not of the layout '{layout}'",
            where=f"--layout {layout}",
            fix=_BOXES,
        )
    return layout, values


def task_of(
    network: Network, output: str, samples: Sequence[AnyArray], last: str, boxes: tuple[Detection, int | None] | None
) -> tuple[RecipeTask, str] | None:
    """Return the task that an output is for, and why; None where it is left as it is.

    ``samples`` are float32 or another dtype of numbers, [batch, ...], in the network's own unit.

    Args:
        network: Its network.
        output: Its name.
        samples: What it gave for some inputs.
        last: The operator that makes it, by ``last_operator``.
        boxes: What ``detector_of`` says of the network.
    """
    shape, named = samples[0].shape, network.labels
    source, size = f"{network.name}.{output}", list(shape)
    if boxes is not None:
        detection, classes = boxes
        # End-to-end networks do not show how many classes they know.
        labels = named if named and classes in (None, len(named)) else tuple(str(i) for i in range(classes or 80))
        task = RecipeTask(kind="detection", output=source, labels=labels, threshold=0.25, detection=detection)
        return task, f"{size}: boxes of layout '{detection.layout}', {_counted(len(labels))}{_origin(named, labels)}"
    if samples[0].dtype.kind not in "fc" or _is_embedding(network, output, samples, last) or not _is_row(shape):
        return None
    return _classes(source, size, [sample.reshape(1, -1) for sample in samples], named, network.name, last)


def _is_row(shape: Sequence[int]) -> bool:
    """Tell whether a shape is that of one row of numbers: [C], [1, C] or [1, C, 1, 1]."""
    return len(shape) == 1 or (len(shape) in (2, 4) and shape[0] == 1 and all(size == 1 for size in shape[2:]))


def _is_embedding(network: Network, output: str, samples: Sequence[AnyArray], last: str) -> bool:
    """Tell whether an output is an embedding: by its name, its length of 1, or a width that classes hardly have."""
    count = samples[0].size
    if network.said.classes is not None or last in _PROBABLE or count == len(network.labels):
        return network.said.classes == ()
    if _EMBEDDING.fullmatch(output):
        return True
    if count < 8 or not _is_row(samples[0].shape) or _sums_to_one(samples):
        return False
    if all(abs(float(np.linalg.norm(sample)) - 1) < 1e-3 for sample in samples):
        return True
    return not network.labels and count >= _WIDE and count % _WIDTH == 0


def is_assumed(network: Network, task: RecipeTask) -> bool:
    """Tell whether nothing but a shape says that a task's numbers are classes: neither names nor a softmax."""
    return task.kind == "classification" and task.scores == "logits" and task.labels != network.labels


def is_doubtful(network: Network, output: str, found: Mapping[str, tuple[RecipeTask, str] | None]) -> bool:
    """Tell whether numbers that may be classes stand beside an output that surely is a task: they measure something."""
    tasks = {name: answer[0] for name, answer in found.items() if answer is not None}
    return (
        output in tasks
        and is_assumed(network, tasks[output])
        and any(not is_assumed(network, task) for name, task in tasks.items() if name != output)
    )


def boxes_beside(output: str, outputs: Mapping[str, Sequence[AnyArray]]) -> str | None:
    """Return the output that has a box for each number of this one: those are scores of boxes, not of classes.

    Args:
        output: Its name.
        outputs: Output -> what it gave for some inputs, numbers of any dtype and shape [...].
    """
    count = outputs[output][0].size
    shapes = {name: samples[0].shape for name, samples in outputs.items()}
    found = (name for name, shape in shapes.items() if shape[-2:] == (count, 4) and all(d == 1 for d in shape[:-2]))
    return next(found, None) if count > 1 and _is_row(shapes[output]) else None


def why_left(
    network: Network, output: str, samples: Sequence[AnyArray], last: str, boxes: str | None = None
) -> tuple[str, str]:
    """Return why an output is left as it is (nothing where its shape says it), and what makes a task of it.

    Args:
        network: Its network.
        output: Its name.
        samples: What it gave, float32 or another dtype of numbers, [...].
        last: The operator that makes it.
        boxes: The output whose boxes its numbers belong to.
    """
    shape = samples[0].shape
    if boxes is not None:
        return f": a number for each box of '{boxes}'", f"{_BOXES}; else {_CALLABLE}"
    if samples[0].dtype.kind not in "fc":
        told = ", whole numbers: " + (
            "the number of a class" if np.prod(shape) == 1 else "numbers of classes, or a map"
        )
        return told, "say --classes N, or a file of their names, to read one number as that of a class"
    if _is_embedding(network, output, samples, last):
        fix = f"say --classes {samples[0].size} if they are classes"
        fix += "; or write a recipe with a callable that makes classes of the embedding"
        return ": taken as an embedding", fix
    given = {dims(value)[:1] for value in graph_inputs(network.model)}
    if shape and shape[0] > 1 and given == {(shape[0],)}:
        return f": {shape[0]} at once", "export the network with a first dimension of 1, or an open one"
    if len(shape) > 2:
        return "", f"{_BOXES}; else {_CALLABLE}"
    if _is_row(shape) and np.prod(shape) > 1:
        return ": numbers of unknown meaning", f"say --classes {samples[0].size} if they are classes; else {_CALLABLE}"
    told = f", one number that ends in {last}: a logit or a measure" if np.prod(shape) == 1 and last else ""
    return told, "end the network in a Sigmoid or Softmax, or write a recipe with a callable that makes classes of it"


def last_operator(model: onnx.ModelProto, output: str) -> str:
    """Return the operator that gives an output its range; nothing where it is an input.

    What is put together of parts with different ranges has none: 'Concat'.

    Example:
        >>> last_operator(model, "probability")  # doctest: +SKIP
        'Sigmoid'
    """
    made = {name: node for node in model.graph.node for name in node.output}
    waiting, known, ends = [output], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        node = made.get(name)
        if node is None:
            ends.add("")
        elif node.op_type not in _KEEPING:
            ends.add(str(node.op_type))
        elif name not in known:
            known.add(name)
            waiting += node.input if node.op_type == "Concat" else node.input[:1]
    if len(ends) > 1 and not ends <= _PROBABLE:
        return "Concat"
    return min(ends, default="")


def _classes(
    source: str, size: list[int], samples: Sequence[AnyArray], named: tuple[str, ...], name: str, last: str
) -> tuple[RecipeTask, str] | None:
    count = size[-1] if len(size) == 1 else size[1]
    inside = not any(((s < 0) | (s > 1)).any() for s in samples)
    if count == 1:
        if not inside or last not in _PROBABLE | _OPAQUE | _DIVIDING:
            return None
        task = RecipeTask(kind="classification", output=source, labels=(name,), threshold=0.5, scores="probabilities")
        return task, f"{size}, ends in {last}: the probability of one thing"
    labels = named if len(named) == count else tuple(str(index) for index in range(count))
    sums = inside and _sums_to_one(samples)
    sure = sums or (inside and last in _PROBABLE | _DIVIDING)
    task = RecipeTask(
        kind="classification", output=source, labels=labels, scores="probabilities" if sure else "logits", top_k=3
    )
    told = "they add up to 1" if sums else f"ends in {last}" if last else "nothing makes them"
    return task, f"{size}: {_counted(count)}{_origin(named, labels)}, {task.scores}: {told}"


def _sums_to_one(samples: Sequence[AnyArray]) -> bool:
    return all(float(s.min()) >= 0 and abs(float(s.sum()) - 1) < 1e-3 for s in samples)


def _counted(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _origin(named: tuple[str, ...], labels: tuple[str, ...]) -> str:
    return " named in the file" if named == labels else ""


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return what a file says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def check_files(paths: Sequence[Path]) -> None:
    """Raise ConfigError for what is no ONNX file by its name."""
    for path in paths:
        if path.suffix.lower() != ".onnx":
            raise ConfigError(f"'{path.name}' is not an ONNX file", where="--from", fix="export it: torch.onnx.export")
