"""Choose the bundle's inputs from the signatures of networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import numpy as np
import onnx

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.bundle.references import TAKEN
from mmedge.bundle.source import Constant, State
from mmedge.errors import BundleError, ConfigError
from mmedge.plan.stream import check_stream, is_stream

from ..onnx.graphs import set_shape
from ..recipe import RecipeStage
from .brought import dims, dtype, graph_inputs
from .infer import Guess, Network
from .layouts import Dims
from .picture import picture_axes, picture_seat
from .scale import gain_of, takes_features
from .token_inputs import IDS, MASKS, TYPES, make_mask

RATE_HZ = 16_000
# What is heard at once where the file does not say: a second; with a state, 32 ms and the 4 ms before them.
_WINDOW, _STREAM_WINDOW, _STREAM_STEP = RATE_HZ, 576, 512
_SILERO_5 = 128
_SHORTEST_SOUND = 256
_TOKENS = 32
_SOUND = re.compile(r"audio|pcm|wav|waveform|speech|sound|samples", re.IGNORECASE)
_SPECTRUM = re.compile(r"(log_?)?mels?|((log_?)?mel_?)?(spectrogram|spec)|input_features|fbanks?", re.IGNORECASE)
_LENGTH = re.compile(r"(.*_)?len(gth)?s?", re.IGNORECASE)
_RATE = re.compile(r"sr|rate|sample_?rate|sampling_?rate", re.IGNORECASE)
_TENSORS = ("float32", "float16", "int32", "int64", "uint8")


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
        outputs = {value.name: value for value in network.model.graph.output}
        values = {value.name: value for value in graph_inputs(network.model)}
        states = _states(values, outputs)
        text = self._text(network, values.get(IDS))
        # The length of a sound is known once the sound has its seat.
        for name, value in sorted(values.items(), key=lambda item: _is_length(*item)):
            sound = self._sound_of(network)
            if sound is not None and _is_length(name, value):
                self._say(network, name, str(Constant(sound.samples)), "the length of the sound, in samples")
            elif text is not None and name in (IDS, *MASKS, *TYPES):
                self._tokens(network, name, value, text)
            elif name in states:
                self._say(network, name, str(State(states[name])), f"as output '{states[name]}', fed back")
            elif not dims(value) and dtype(value).kind in "iuf":
                self._scalar(network, name)
            else:
                self._seat(network, name, value, {state: values[state] for state in states})
        self._may_be_states(network, values, {n: v for n, v in outputs.items() if n not in states.values()})
        self._stream(network)

    def _sound_of(self, network: Network) -> AudioInput | None:
        seats = (self.inputs.get(source) for source in network.sources.values())
        return next((seat for seat in seats if isinstance(seat, AudioInput)), None)

    def _may_be_states(
        self, network: Network, inputs: Mapping[str, onnx.ValueInfoProto], unused: dict[str, onnx.ValueInfoProto]
    ) -> None:
        """Hint at inputs that are pushed, and might be fed back."""
        sound = self._sound_of(network)
        every = (
            ""
            if sound is None
            else f" and every_ms = {sound.window_ms:g} (to hear each sample once) in [stages.{network.name}]"
        )
        for name, value in inputs.items():
            seat = network.sources.get(name, "")
            output = next((other for other in unused if _alike(value, unused[other])), None)
            if output is None or not isinstance(self.inputs.get(seat), TensorInput):
                continue
            del unused[output]
            self.hints.append(
                f"input '{name}' of network '{network.name}' has the shape and type of its output '{output}': if it "
                f'is a state, write "{name}" = "{State(output)}" in its stage\'s inputs{every}, and remove '
                f"'{seat}' from the rest of the recipe"
            )

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
        return TextInput(
            max_tokens=dims(value)[1] or network.said.samples or _TOKENS, tokenizer=self._tokenizer, pad=self._pad
        )

    def _tokens(self, network: Network, name: str, value: onnx.ValueInfoProto, text: TextInput) -> None:
        kind = dtype(value)
        if name == IDS:
            why = f"{kind}, and a tokenizer"
            if dims(value)[1] is None:
                why += f"; {_TOKENS} tokens, since the length is open"
            self._say(network, name, self._share("text", text, network, name), why, _told(text))
        elif name in MASKS:
            make_mask(network.model, name, text)
            why = f"1 for a token, 0 for padding (token {text.pad}): a node of the network's file makes it"
            self.guesses.append(Guess(network.name, name, f"made of '{IDS}'", why))
        else:
            set_shape(value, text.tensor_shape)
            self._say(network, name, str(Constant(0)), "which of two texts a token is of: there is one")

    def _scalar(self, network: Network, name: str) -> None:
        if _RATE.fullmatch(name):
            self._say(network, name, str(Constant(RATE_HZ)), "a scalar named as a sample rate")
        else:
            self._say(network, name, str(Constant(0)), "a scalar of unknown meaning: set its value in the recipe")

    def _seat(
        self, network: Network, name: str, value: onnx.ValueInfoProto, states: Mapping[str, onnx.ValueInfoProto]
    ) -> None:
        shape, kind = dims(value), dtype(value)
        size = _size(shape)
        image = picture_axes(network, value)
        heard = kind.kind == "f" or kind == np.int16
        if kind.kind == "f" and _is_spectrum(name, shape):
            self._tensor(network, name, value, f"{kind} {size}: a spectrum, pushed from your own code")
            self.hints.append(
                f"input '{name}' of network '{network.name}' looks like a spectrum: an audio seat with a table "
                f"[inputs.NAME.features] of kind 'log_mel' can make it of sound, as [1, frames, n_mels] with frames = "
                f"(samples - window_samples) // hop_samples + 1; its numbers must be those of the training"
            )
        elif image is not None:
            spec, why = picture_seat(network, value, *image)
            self._say(network, name, self._share("image", spec, network, name), f"{kind} {size}: {why}", _told(spec))
        elif heard and _is_sound(name, shape, states):
            if _SOUND.search(name) or states or shape[-1] is None or not takes_features(network.model, value):
                self._hear(network, name, value, states)
                return
            self._tensor(network, name, value, f"{kind} {size}: numbers that its first layer takes all at once")
            self.hints.append(
                f"input '{name}' of network '{network.name}' is taken as features: if it is sound, name an audio seat "
                f'in its place, [inputs.audio] with modality = "audio", sample_rate_hz and window_ms'
            )
        else:
            self._tensor(network, name, value, f"{kind} {size}: pushed from your own code")

    def _hear(
        self, network: Network, name: str, value: onnx.ValueInfoProto, states: Mapping[str, onnx.ValueInfoProto]
    ) -> None:
        shape, kind = dims(value), dtype(value)
        window, step = _steps(states)
        samples = network.said.samples or shape[-1] or window
        gain = network.said.gain or gain_of(network.model, value)
        sound = AudioInput(sample_rate_hz=RATE_HZ, window_ms=samples * 1000 / RATE_HZ, gain=gain)
        why = f"{kind} {_size(shape)}: sound, taken as {RATE_HZ} Hz"
        if not states and _SOUND.search(name) is None:  # as any signal is, such as an EEG
            network.asks.append(
                f"the file of network '{network.name}' does not tell, of '{name}', that it is sound, nor its rate "
                f"(taken as {RATE_HZ} Hz: set sample_rate_hz of its seat in the recipe; of another signal "
                f'modality = "tensor" and shape = {[1 if dim is None else dim for dim in shape[:-1]] + [samples]})'
            )
        if gain != 1:
            why += f", times {gain:g}"
        if states:
            step = step if samples == window else samples
            network.every_ms = step * 1000 / RATE_HZ
            why += f", with a state, in steps of {step} samples"
            if shape[-1] is None and network.said.samples is None and window == step:
                network.asks.append(
                    f"the file of network '{network.name}' does not tell, of '{name}', how many samples it hears at "
                    f"once (taken as {samples}: --size SAMPLES)"
                )
        self._say(network, name, self._share("audio", sound, network, name), why, _told(sound))

    def _tensor(self, network: Network, name: str, value: onnx.ValueInfoProto, why: str) -> None:
        kind, sizes = dtype(value), _sizes(network, name, value)
        tensor = TensorInput(shape=sizes, dtype=kind.name if kind.name in _TENSORS else "float32")
        self._say(network, name, self._share(re.sub(r"\W+", "_", name), tensor, network, name), why, _told(tensor))

    def _share(self, name: str, spec: Input, network: Network, tensor: str) -> str:
        """Return the seat for ``spec``: one that another network's input has already, or a new one."""
        own = [source for source in network.sources.values() if type(self.inputs.get(source)) is type(spec)]
        same = (n for n, other in self.inputs.items() if _alone(other) == spec and n not in own)
        seat = None if isinstance(spec, TensorInput) else next(same, None)
        several = own and not isinstance(spec, TensorInput)
        if seat is None:
            ending = re.sub(r"\W+", "_", tensor) if several else network.name
            seat = f"{name}_{ending}" if name in self.inputs or name in TAKEN else name
            while seat in self.inputs:
                seat += "_2"
            first = next((n for n, other in self.inputs.items() if type(other) is type(spec)), None)
            if first is not None and not own and isinstance(spec, (ImageInput, AudioInput)):
                spec = msgspec.structs.replace(spec, shares=first)  # one device feeds both
            self.inputs[seat] = spec
        if several:
            what = "sounds" if isinstance(spec, AudioInput) else "pictures"
            self.hints.append(
                f"network '{network.name}' takes several {what}: '{tensor}' has a seat, '{seat}', and a device of its "
                "own; give one address to both where one device feeds them"
            )
        return seat


def _alone(spec: Input) -> Input:
    return msgspec.structs.replace(spec, shares=None) if isinstance(spec, (ImageInput, AudioInput)) else spec


def _sizes(network: Network, name: str, value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the size of each dimension of a tensor: a batch is 1, an open one is as long as the user says."""
    shape = dims(value)
    length = network.said.samples or (_TOKENS if name in (IDS, *MASKS, *TYPES) else None)
    batches = {_batch_name(other) for other in graph_inputs(network.model)} - {""}
    sizes = [
        1 if dim is None and (axis == 0 < len(shape) - 1 or named.dim_param in batches) else dim
        for axis, (dim, named) in enumerate(zip(shape, value.type.tensor_type.shape.dim, strict=True))
    ]
    left = [axis for axis, dim in enumerate(sizes) if dim is None]
    if left and (length is None or len(left) > 1):
        axes = f"axis {left[0]}" if len(left) == 1 else f"axes {', '.join(map(str, left))}"
        option = f"say how long it is: --size {network.name}=N"
        raise ConfigError(
            f"input '{name}' {_size(shape)} of network '{network.name}' is open in {axes}, and nothing tells its size",
            where=str(network.path),
            fix=option if len(left) == 1 else "export the network with at most one open dimension beside the batch",
        )
    return tuple(length if dim is None else dim for dim in sizes)  # type: ignore[misc]


def _batch_name(value: onnx.ValueInfoProto) -> str:
    """Return what the first dimension is called where it is open and others follow; else nothing."""
    named = value.type.tensor_type.shape.dim
    return named[0].dim_param if len(named) > 1 else ""


def _size(shape: Dims) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _steps(states: Mapping[str, onnx.ValueInfoProto]) -> tuple[int, int]:
    """Return how many samples a network with an open length hears, and how many of them are new.

    Silero VAD 5 and 6 have one state, 128 wide, and hear 64 samples again; 3 and 4 have two of 64, and hear none again.
    """
    if not states:
        return _WINDOW, _WINDOW
    if [dims(value)[-1:] for value in states.values()] == [(_SILERO_5,)]:
        return _STREAM_WINDOW, _STREAM_STEP
    return _STREAM_STEP, _STREAM_STEP


def _is_sound(name: str, shape: Dims, states: Mapping[str, onnx.ValueInfoProto]) -> bool:
    named = _SOUND.search(name) is not None
    if len(shape) == 1 and shape[0] is not None:  # so many samples, or so many features
        return named and shape[0] >= _SHORTEST_SOUND
    if len(shape) not in (1, 2, 3) or any(dim not in (1, None) for dim in shape[:-1]):
        return False
    samples = shape[-1]
    return samples >= _SHORTEST_SOUND if samples is not None else bool(states) or named or "input" in name.lower()


def _is_spectrum(name: str, shape: Dims) -> bool:
    return _SPECTRUM.fullmatch(name) is not None and (
        len(shape) == 3 or (len(shape) == 4 and 1 in (shape[1], shape[3]))
    )


def _is_length(name: str, value: onnx.ValueInfoProto) -> bool:
    counts = dtype(value).kind == "i" and dims(value) in ((), (1,), (None,))
    return counts and _LENGTH.fullmatch(name) is not None


def _alike(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    """Tell whether two tensors have a type, and shapes that can be the same."""
    if one.type.tensor_type.elem_type != other.type.tensor_type.elem_type or not len(dims(one)) == len(dims(other)) > 0:
        return False
    return all(None in (a, b) or a == b for a, b in zip(dims(one), dims(other), strict=True))


def _states(inputs: Mapping[str, onnx.ValueInfoProto], outputs: Mapping[str, onnx.ValueInfoProto]) -> dict[str, str]:
    """Return input -> output for what is fed back: names that go together, and shapes that can be the same."""
    found: dict[str, str] = {}
    for name, value in inputs.items():
        stem = re.sub(r"(_?in|_?prev|_?old|_?(?<!\d)0)$|^(in|prev|old|past)_", "", name) or name
        wanted = {f"{stem}{end}" for end in ("N", "n", "_n", "_out", "out", "_new", "_next", "Out")}
        wanted |= {f"{start}_{stem}" for start in ("new", "out", "next", "output", "present")}
        if re.search(r"(?<!\d)0$", name):
            wanted.add(f"{name[:-1]}1")
        for output, other in outputs.items():
            if output in wanted and output not in found.values() and _alike(value, other):
                found[name] = output
                break
    return found


def _told(spec: Input) -> str:
    if isinstance(spec, ImageInput):
        return f"image {spec.color} {spec.size[1]}x{spec.size[0]}, {spec.fit}"
    if isinstance(spec, AudioInput):
        return f"audio {spec.sample_rate_hz} Hz, {spec.window_ms:g} ms"
    if isinstance(spec, TextInput):
        return f"text, {spec.max_tokens} tokens, padded with token {spec.pad}"
    return f"tensor {spec.dtype} {list(spec.shape)}"
