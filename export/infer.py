"""What an ONNX file is made for, read off its signature: seats for its inputs, tasks for its outputs."""

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

from mmedge.bundle.manifest import AudioInput, Detection, ImageInput, Input, TensorInput, TextInput
from mmedge.errors import BundleError, ConfigError
from mmedge.fusion.stream import check_stream, is_stream
from mmedge.types import AnyArray

from .brought import Dims, dims, dtype, graph_inputs, set_shape
from .lint import load_network
from .recipe import RecipeStage, RecipeTask
from .token_inputs import IDS, MASKS, TYPES, make_mask

RATE_HZ = 16_000
# What is heard at once where the file does not say: a second; with a state, 32 ms and the 4 ms before them.
_WINDOW, _STREAM_WINDOW, _STREAM_STEP = RATE_HZ, 576, 512
_SHORTEST_SOUND = 256
_TOKENS = 32
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SOUND = re.compile(r"audio|pcm|wav|waveform|speech|sound|samples|input", re.IGNORECASE)
_RATE = re.compile(r"sr|rate|sample_?rate|sampling_?rate", re.IGNORECASE)
# What the starter's rule calls its own.
_RULE_NAMES = frozenset(("join", "joined", "itertools", "np", "on", "p", "softmax", "state", "sure", "switches"))
_TENSORS = ("float32", "float16", "int32", "int64", "uint8")
# Operators that give 0..1, those after which it still is 0..1, and those that say nothing.
_PROBABLE = frozenset(("Sigmoid", "HardSigmoid", "Softmax"))
_KEEPING = frozenset(("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Gather"))
_KEEPING |= {"Concat", "Split", "ReduceMean", "ReduceMax", "ReduceMin", "GlobalAveragePool", "GlobalMaxPool"}
_OPAQUE = frozenset(("Clip", "If", "Loop", "Scan"))


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
    """

    name: str
    path: Path
    model: onnx.ModelProto
    sources: dict[str, str] = field(default_factory=dict)
    every_ms: float | None = None
    stream: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names that the file carries, as Ultralytics writes them."""
        text = _metadata(self.model).get("names", "")
        try:
            named = ast.literal_eval(text) if text else ()
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
        if isinstance(named, dict) and sorted(named) == list(range(len(named))):
            named = [named[index] for index in range(len(named))]
        return tuple(str(name) for name in named) if isinstance(named, (list, tuple)) else ()


def read_network(path: Path, taken: Sequence[str]) -> Network:
    """Open one file and name its stage."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_").lower() or "network"
    name = f"n{name}" if name[0].isdigit() else name
    if keyword.iskeyword(name) or name in dir(builtins) or name in _RULE_NAMES:
        name += "_net"
    while name in taken:
        name += "_2"
    return Network(name=name, path=path, model=load_network(path))


class Seats:
    """Infers the inputs of networks; two that want the same share a seat.

    Args:
        tokenizer: Path for the recipe, where a text may feed ``input_ids``.
        pad: Its padding token.

    Attributes:
        inputs: Name -> seat, in the order they were found.
        guesses: What was inferred.
        hints: What would have been inferred with more to go by.
    """

    def __init__(self, tokenizer: str | None = None, pad: int = 0) -> None:
        self._tokenizer, self._pad = tokenizer, pad
        self.hints: list[str] = []
        self.inputs: dict[str, Input] = {}
        self.guesses: list[Guess] = []

    def add(self, network: Network) -> None:
        """Infer what feeds each input of ``network``."""
        outputs = {value.name: dims(value) for value in network.model.graph.output}
        values = {value.name: value for value in graph_inputs(network.model)}
        states = _states({name: dims(value) for name, value in values.items()}, outputs)
        text = self._text(network, values.get(IDS))
        for name, value in values.items():
            if text is not None and name in (IDS, *MASKS, *TYPES):
                self._tokens(network, name, value, text)
            elif name in states:
                self._say(network, name, f"@state:{states[name]}", f"as output '{states[name]}', fed back")
            elif not dims(value) and dtype(value).kind in "iuf":
                self._scalar(network, name)
            else:
                self._seat(network, name, value, stateful=bool(states))
        self._stream(network)

    def _stream(self, network: Network) -> None:
        """Let a network hear a stream if it can, and say why not."""
        stage = RecipeStage(inputs=network.sources, every_ms=network.every_ms)
        network.stream = is_stream(stage, self.inputs)
        if network.stream:
            try:
                check_stream(stage, self.inputs, network.name)
            except BundleError as error:
                network.stream = False
                self.hints.append(
                    f"network '{network.name}' has a state and cannot be a stream: {error.message}; it hears the "
                    "newest sound at each trigger, and may miss some or hear it twice"
                )

    def _say(self, network: Network, tensor: str, source: str, why: str, meaning: str | None = None) -> None:
        network.sources[tensor] = source
        self.guesses.append(Guess(network.name, tensor, meaning or source, why))

    def _text(self, network: Network, value: onnx.ValueInfoProto | None) -> TextInput | None:
        """Return the text that a network reads, if it reads one and there is a tokenizer."""
        if value is None or dtype(value) not in (np.int64, np.int32) or len(dims(value)) != 2:
            return None
        if self._tokenizer is None:
            self.hints.append(
                f"network '{network.name}' reads token numbers ('{IDS}'): "
                "with --tokenizer tokenizer.json, the file of its tokenizer, it takes text"
            )
            return None
        return TextInput(max_tokens=dims(value)[1] or _TOKENS, tokenizer=self._tokenizer, pad=self._pad)

    def _tokens(self, network: Network, name: str, value: onnx.ValueInfoProto, text: TextInput) -> None:
        kind = dtype(value)
        if name == IDS:
            why = f"{kind}, and a tokenizer"
            if dims(value)[1] is None:
                why += f"; {_TOKENS} tokens, since the length is open"
            self._say(network, name, self._share("text", text, network), why, _told(text))
        elif name in MASKS:
            make_mask(network.model, name, text)
            why = f"1 for a token, 0 for padding (token {text.pad}): a node of the network's file makes it"
            self.guesses.append(Guess(network.name, name, f"made of '{IDS}'", why))
        else:
            set_shape(value, text.tensor_shape)
            self._say(network, name, "@const:0", "which of two texts a token is of: there is one")

    def _scalar(self, network: Network, name: str) -> None:
        if _RATE.fullmatch(name):
            self._say(network, name, f"@const:{RATE_HZ}", "a scalar named as a sample rate")
        else:
            self._say(network, name, "@const:0", "a scalar nobody knows: set its value in the recipe")

    def _seat(self, network: Network, name: str, value: onnx.ValueInfoProto, *, stateful: bool) -> None:
        shape, kind = dims(value), dtype(value)
        size = "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
        first = shape[0] in (1, None) if shape else False
        image = _image_axes(shape) if first and (kind == np.uint8 or kind.kind == "f") else None
        if image is not None:
            spec, why = _image(network, shape, image, kind)
            self._say(network, name, self._share("image", spec, network), f"{kind} {size}: {why}", _told(spec))
        elif kind.kind == "f" and first and len(shape) in (1, 2, 3) and _is_sound(name, shape, stateful=stateful):
            samples = shape[-1] or (_STREAM_WINDOW if stateful else _WINDOW)
            sound = AudioInput(sample_rate_hz=RATE_HZ, window_ms=samples * 1000 / RATE_HZ)
            why = f"{kind} {size}: sound, taken as {RATE_HZ} Hz"
            if stateful:
                step = _STREAM_STEP if samples == _STREAM_WINDOW else samples
                network.every_ms = step * 1000 / RATE_HZ
                why += f", with a state, in steps of {step} samples"
            self._say(network, name, self._share("audio", sound, network), why, _told(sound))
        else:
            reads = name in (IDS, *MASKS, *TYPES)
            sizes = tuple(dim or (_TOKENS if reads and axis else 1) for axis, dim in enumerate(shape))
            tensor = TensorInput(shape=sizes, dtype=kind.name if kind.name in _TENSORS else "float32")
            source = self._share(re.sub(r"\W+", "_", name), tensor, network)
            self._say(network, name, source, f"{kind} {size}: pushed from your own code", _told(tensor))

    def _share(self, name: str, spec: Input, network: Network) -> str:
        """Return the seat for ``spec``: one that is there already, or a new one."""
        same = next(
            (n for n, other in self.inputs.items() if other == spec and not isinstance(spec, TensorInput)), None
        )
        if same is not None:
            return same
        name = f"{name}_{network.name}" if name in self.inputs else name
        self.inputs[name] = spec
        return name


def task_of(
    network: Network, output: str, samples: Sequence[AnyArray], image: str | None, last: str
) -> tuple[RecipeTask, str] | None:
    """Return the task that an output is for, and why; None where it is left as it is.

    Args:
        network: Its network.
        output: Its name.
        samples: What it gave for some inputs.
        image: The image input of the network, if it has one.
        last: The operator that makes it, by ``last_operator``.
    """
    shape, named = samples[0].shape, network.labels
    source, size = f"{network.name}.{output}", list(samples[0].shape)
    if len(shape) == 2 and shape[0] == 1:
        return _classes(source, size, samples, named, network.name, last)
    if len(shape) != 3 or shape[0] != 1 or image is None:
        return None
    layouts = {"boxes": (shape[2] == 6, 0), "yolo": (4 < shape[1] < shape[2], shape[1] - 4)}
    layouts["yolo-objectness"] = (5 < shape[2] < shape[1], shape[2] - 5)
    layout, count = next(((name, n) for name, (fits, n) in layouts.items() if fits), ("", 0))
    if not layout:
        return None
    # End-to-end networks do not show how many classes they know.
    labels = named if named and count in (0, len(named)) else tuple(str(i) for i in range(count or 80))
    detection = Detection(layout=layout, input=image)  # type: ignore[arg-type]
    task = RecipeTask(kind="detection", output=source, labels=labels, threshold=0.25, detection=detection)
    return task, f"{size}: boxes of layout '{layout}', {len(labels)} classes{_origin(named, labels)}"


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
    count = size[1]
    inside = not any(((s < 0) | (s > 1)).any() for s in samples)
    if count == 1:
        if not inside or last not in _PROBABLE | _OPAQUE:
            return None
        task = RecipeTask(kind="classification", output=source, labels=(name,), threshold=0.5, scores="probabilities")
        return task, f"{size}, ends in {last}: the probability of one thing"
    labels = named if len(named) == count else tuple(str(index) for index in range(count))
    sums = inside and all(abs(float(s.sum()) - 1) < 1e-3 for s in samples)
    sure = sums or (inside and last in _PROBABLE)
    task = RecipeTask(
        kind="classification", output=source, labels=labels, scores="probabilities" if sure else "logits", top_k=3
    )
    told = "they add up to 1" if sums else f"ends in {last}" if last else "nothing makes them"
    return task, f"{size}: {count} classes{_origin(named, labels)}, {task.scores}: {told}"


def _origin(named: tuple[str, ...], labels: tuple[str, ...]) -> str:
    return " named in the file" if named == labels else ""


def _image_axes(shape: Dims) -> tuple[int, int, int] | None:
    """Return the axes of channels, height and width of a picture."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3) and shape[3] not in (1, 3):
        return 1, 2, 3
    return (3, 1, 2) if shape[3] in (1, 3) and shape[1] not in (1, 3) else None


def _image(
    network: Network, shape: Dims, axes: tuple[int, int, int], kind: np.dtype[np.generic]
) -> tuple[ImageInput, str]:
    channels, height, width = (shape[axis] for axis in axes)
    ranks = {len(dims(value)) for value in network.model.graph.output}
    detects = 3 in ranks or ("names" in _metadata(network.model) and 2 not in ranks)
    why = f"a picture, {'channels first' if axes[0] == 1 else 'channels last'}"
    if height is None or width is None:
        said = _image_size(network.model)
        default = said or ((640, 640) if detects else (224, 224))
        height, width = height or default[0], width or default[1]
        why += f"; {width}x{height}, {'as the file says' if said else 'since its size is open'}"
    color = "gray" if channels == 1 else "rgb"
    mean, std = ((0.0,) * (channels or 1), (1.0,) * (channels or 1))
    fit = "letterbox" if detects else "stretch"
    classes = {dims(value)[-1] for value in network.model.graph.output if len(dims(value)) == 2}
    if kind == np.uint8:
        std = (1 / 255,) * (channels or 1)
        why += ", 0..255"
    elif channels == 3 and not detects and ((height, width) == (224, 224) or 1000 in classes):
        (mean, std), fit = _IMAGENET, "crop"
        why += ", normalised as ImageNet"
    else:
        why += ", 0..1"
    return ImageInput(size=(height, width), color=color, fit=fit, mean=mean, std=std), why  # type: ignore[arg-type]


def _image_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    numbers = [int(number) for number in re.findall(r"\d{1,5}", _metadata(model).get("imgsz", ""))]
    if not numbers or not 0 < max(numbers) <= 16_384 or min(numbers) == 0:
        return None
    return (numbers[0], numbers[-1])


def _is_sound(name: str, shape: Dims, *, stateful: bool) -> bool:
    if any(dim not in (1, None) for dim in shape[:-1]):
        return False
    samples = shape[-1]
    return samples >= _SHORTEST_SOUND if samples is not None else stateful or bool(_SOUND.search(name))


def _states(inputs: Mapping[str, Dims], outputs: Mapping[str, Dims]) -> dict[str, str]:
    """Return input -> output for what is fed back: names that go together, and shapes that can be the same."""
    found: dict[str, str] = {}
    for name, shape in inputs.items():
        stem = re.sub(r"(_?in|_?prev|_?old)$|^(in|prev|old)_", "", name) or name
        wanted = {f"{stem}{end}" for end in ("N", "n", "_n", "_out", "out", "_new", "_next", "Out")}
        wanted |= {f"{start}_{stem}" for start in ("new", "out", "next", "output")}
        for output, other in outputs.items():
            alike = len(shape) == len(other) and all(
                None in (a, b) or a == b for a, b in zip(shape, other, strict=True)
            )
            if output in wanted and alike and len(shape) > 0:
                found[name] = output
    return found


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _told(spec: Input) -> str:
    if isinstance(spec, ImageInput):
        return f"image {spec.color} {spec.size[1]}x{spec.size[0]}, {spec.fit}"
    if isinstance(spec, AudioInput):
        return f"audio {spec.sample_rate_hz} Hz, {spec.window_ms:g} ms"
    if isinstance(spec, TextInput):
        return f"text, {spec.max_tokens} tokens, padded with token {spec.pad}"
    return f"tensor {spec.dtype} {list(spec.shape)}"


def check_files(paths: Sequence[Path]) -> None:
    """Raise ConfigError for what is no ONNX file by its name."""
    for path in paths:
        if path.suffix.lower() != ".onnx":
            raise ConfigError(f"'{path.name}' is not an ONNX file", where="--from", fix="export it: torch.onnx.export")
