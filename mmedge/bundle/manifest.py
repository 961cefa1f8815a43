"""The manifest of a bundle: strict types, strict decoding.

Decoding checks the schema version first, then refuses an unknown key, a wrong type or a dangling
reference and names the key path.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import msgspec

from mmedge.errors import BundleError

SCHEMA = "mmedge.bundle/1"
Positive: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=1 << 20)]
PositiveFloat: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
# A bundle is input from outside: sizes and times are bounded so that it can neither fill memory nor spin.
Side: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=16_384)]
Milliseconds: TypeAlias = Annotated[float, msgspec.Meta(ge=1, le=600_000)]
Tolerance: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class ImageInput(_Strict, frozen=True, kw_only=True, tag_field="modality", tag="image"):
    """An image seat: raw frame -> float32 [1, channels, height, width].

    Attributes:
        size: Height and width of the network's input.
        color: What the channels mean; ``gray`` has one.
        fit: ``stretch`` to size, centre ``crop`` to its aspect, or ``letterbox`` with the mean colour.
        mean: Per channel, in units of 0..1, subtracted before the division by ``std``.
        std: Per channel, in units of 0..1.
        frame: Height and width of the raw frame that enters a TensorRT engine.
        reduce: Integer-factor area reduction of the frame before the bilinear resize.
    """

    size: tuple[Side, Side]
    color: Literal["gray", "rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    frame: tuple[Side, Side] = (480, 640)
    reduce: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1

    @property
    def channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the uint8 frame that enters a TensorRT variant: [1, h, w, c]."""
        return (1, *self.frame, self.channels)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the float32 tensor that enters a CPU variant: [1, c, h, w]."""
        return (1, self.channels, *self.size)


class LogMel(_Strict, frozen=True, kw_only=True, tag_field="kind", tag="log_mel"):
    """Log-mel features: periodic Hann window, no padding, power, HTK mel, ``ln(max(p, floor))``."""

    n_fft: Annotated[int, msgspec.Meta(gt=1, le=65_536)]
    window_samples: Positive
    hop_samples: Positive
    n_mels: Annotated[int, msgspec.Meta(gt=0, le=1024)]
    f_min_hz: Annotated[float, msgspec.Meta(ge=0)]
    f_max_hz: PositiveFloat
    floor: PositiveFloat = 1e-6
    mean: float = 0.0
    std: PositiveFloat = 1.0


class AudioInput(_Strict, frozen=True, kw_only=True, tag_field="modality", tag="audio"):
    """An audio seat: the last ``window_ms`` of mono sound -> float32 [1, frames, n_mels] (or [1, samples])."""

    sample_rate_hz: Annotated[int, msgspec.Meta(ge=1000, le=384_000)]
    window_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)]
    features: LogMel | None = None

    @property
    def samples(self) -> int:
        """Samples in one window."""
        return round(self.window_ms * self.sample_rate_hz / 1000)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the float32 PCM that enters a TensorRT variant: [1, samples]."""
        return (1, self.samples)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the float32 tensor that enters a CPU variant: [1, frames, n_mels]."""
        if self.features is None:
            return self.raw_shape
        frames = (self.samples - self.features.window_samples) // self.features.hop_samples + 1
        return (1, frames, self.features.n_mels)


class TextInput(_Strict, frozen=True, kw_only=True, tag_field="modality", tag="text"):
    """A text seat: token numbers int64 [1, max_tokens]."""

    max_tokens: Positive
    tokenizer: str | None = None
    ttl_ms: Milliseconds | None = None


class TensorInput(_Strict, frozen=True, kw_only=True, tag_field="modality", tag="tensor"):
    """Any array with a rate, pushed by the user."""

    shape: tuple[Positive, ...]
    dtype: Literal["float32", "float16", "int32", "int64", "uint8"] = "float32"
    rate_hz: PositiveFloat | None = None


Input: TypeAlias = ImageInput | AudioInput | TextInput | TensorInput


class Stage(_Strict, frozen=True, kw_only=True):
    """One network (or rule) of the fused graph.

    ``inputs`` maps the network's input names to a seat, ``STAGE.OUTPUT``, ``@present``, ``@age_ms`` or
    ``@state:OUTPUT``; ``outputs`` gives each output's shape.
    """

    inputs: dict[str, str]
    outputs: dict[str, tuple[str | Positive, ...]]
    on: str | None = None
    every_ms: Milliseconds | None = None
    mode: Literal["sync", "async"] = "sync"
    callable: str | None = None


class Quantization(_Strict, frozen=True, kw_only=True):
    """How an INT8 variant came to its ranges."""

    rule: str
    frames: int
    float_nodes: tuple[str, ...] = ()
    sqnr_db: float | None = None
    dropped: tuple[str, ...] = ()


class Variant(_Strict, frozen=True, kw_only=True):
    """One ONNX file of a stage. ``tensorrt`` files take raw frames and PCM, ``cpu`` files tensors."""

    stage: str
    target: Literal["tensorrt", "cpu"]
    precision: Literal["fp32", "fp16", "int8"]
    file: str
    golden: str
    tolerance: dict[str, Tolerance]
    quantization: Quantization | None = None


class Smoothing(_Strict, frozen=True, kw_only=True):
    """Exponential smoothing of a task's scores over time."""

    kind: Literal["ema"]
    tau_ms: Milliseconds


class Task(_Strict, frozen=True, kw_only=True):
    """What an output means.

    ``verification`` compares the inputs that are present, so it is undefined with fewer than two;
    its score is the sigmoid of one logit and its labels are (no, yes).
    """

    kind: Literal["classification", "verification"]
    output: str
    labels: str
    temperature: PositiveFloat = 1.0
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    smoothing: Smoothing | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0


class Missing(_Strict, frozen=True, kw_only=True):
    """What happens when an input is absent at a trigger."""

    policy: Literal["hold", "zero", "skip", "fail"]
    max_age_ms: Milliseconds | None = None


class Mask(_Strict, frozen=True, kw_only=True):
    """A presence mask the exporter measured, with the value it reached."""

    present: tuple[str, ...]
    metric: str
    value: float


class Sync(_Strict, frozen=True, kw_only=True):
    """When a fused inference is made, and how its inputs are cut.

    ``trigger`` names an input or ``timer``; ``every_ms`` is the hop of audio and timer triggers.
    """

    trigger: str
    policy: Literal["sliced", "latest"] = "sliced"
    align: Literal["end", "centre", "start"] = "end"
    deadline_ms: Milliseconds = 50.0
    every_ms: Milliseconds = 40.0


class File(_Strict, frozen=True, kw_only=True):
    """Hash and size of one member of the bundle."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class Manifest(_Strict, frozen=True, kw_only=True):
    """The normative description of a bundle. Order of ``inputs`` is the order of ``@present``."""

    schema: Literal["mmedge.bundle/1"]
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    licence: str
    inputs: dict[str, Input]
    stages: dict[str, Stage]
    variants: tuple[Variant, ...]
    tasks: dict[str, Task]
    missing: dict[str, Missing] = {}
    validated_masks: tuple[Mask, ...] = ()
    sync: Sync
    provenance: dict[str, str | int | float | None] = {}
    files: dict[str, File]


class _Version(msgspec.Struct):
    schema: str


def decode_manifest(raw: bytes) -> Manifest:
    """Decode ``manifest.json`` strictly.

    Args:
        raw: The UTF-8 bytes of the file.

    Returns:
        The manifest, internally consistent.

    Raises:
        BundleError: Names the key path of the first thing that is wrong.

    Example:
        >>> decode_manifest(b'{"schema": "mmedge.bundle/9"}')
        Traceback (most recent call last):
        ...
        mmedge.errors.BundleError: bundle schema 'mmedge.bundle/9' needs mmedge >= 9
          where: manifest.json: $.schema
          fix: pip install -U mmedge
    """
    where = "manifest.json"
    try:
        schema = msgspec.json.decode(raw, type=_Version).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"not a manifest: {error}", where=where, fix="export the bundle again") from error
    if schema != SCHEMA:
        match = re.fullmatch(r"mmedge\.bundle/(\d{1,9})", schema)
        if match and int(match[1]) > 1:
            raise BundleError(
                f"bundle schema '{schema}' needs mmedge >= {match[1]}",
                where=f"{where}: $.schema",
                fix="pip install -U mmedge",
            )
        raise BundleError(
            f"unknown bundle schema '{schema}', expected '{SCHEMA}'",
            where=f"{where}: $.schema",
            fix="export the bundle again",
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text, _, path = str(error).partition(" - at ")
        raise BundleError(
            text, where=f"{where}: {path.strip('`') or '$'}", fix="export the bundle again or correct the key"
        ) from error
    check_references(manifest)
    return manifest


def check_references(manifest: Manifest) -> None:
    """Raise BundleError at the first name in ``manifest`` that points nowhere."""
    stages, files, inputs = manifest.stages, manifest.files, manifest.inputs

    def fail(message: str, path: str) -> None:
        raise BundleError(message, where=f"manifest.json: $.{path}", fix="correct the name or add what it refers to")

    def need_file(name: str, path: str) -> None:
        if name not in files:
            fail(f"file '{name}' is not listed in $.files", path)

    def need_tensor(source: str, path: str) -> None:
        stage, dot, output = source.partition(".")
        if not dot or stage not in stages or output not in stages[stage].outputs:
            fail(f"unknown tensor '{source}'", path)

    for name, spec in inputs.items():
        if isinstance(spec, ImageInput) and not len(spec.mean) == len(spec.std) == spec.channels:
            fail(f"color '{spec.color}' needs {spec.channels} values of mean and std", f"inputs.{name}.mean")
        if isinstance(spec, AudioInput) and spec.tensor_shape[1] < 1:
            fail("the window is shorter than one feature window", f"inputs.{name}.window_ms")
        if isinstance(spec, ImageInput) and spec.reduce > min(spec.frame):
            fail("the frame is smaller than its area reduction", f"inputs.{name}.reduce")
        if isinstance(spec, AudioInput) and spec.features is not None:
            if spec.features.window_samples > spec.features.n_fft:
                fail("window_samples is larger than n_fft", f"inputs.{name}.features.window_samples")
            if spec.features.n_mels > spec.features.n_fft // 2 + 1:
                fail("more mel bands than spectrum lines", f"inputs.{name}.features.n_mels")
            if not spec.features.f_min_hz < spec.features.f_max_hz <= spec.sample_rate_hz / 2:
                fail("the mel range is empty or above half the sample rate", f"inputs.{name}.features.f_max_hz")
    for name, stage in stages.items():
        for tensor, source in stage.inputs.items():
            path = f"stages.{name}.inputs.{tensor}"
            if source in inputs or source in ("@present", "@age_ms"):
                continue
            if source.startswith("@state:"):
                if source[7:] not in stage.outputs:
                    fail(f"state '{source}' is not an output of this stage", path)
                continue
            need_tensor(source, path)
        if stage.on is not None and stage.on != "change" and stage.on not in inputs:
            fail(f"unknown input '{stage.on}'", f"stages.{name}.on")
        if stage.callable is None and not any(v.stage == name for v in manifest.variants):
            fail(f"stage '{name}' has neither a variant nor a callable", f"stages.{name}")
    for index, variant in enumerate(manifest.variants):
        if variant.stage not in stages:
            fail(f"unknown stage '{variant.stage}'", f"variants[{index}].stage")
        need_file(variant.file, f"variants[{index}].file")
        need_file(variant.golden, f"variants[{index}].golden")
    for name, task in manifest.tasks.items():
        need_tensor(task.output, f"tasks.{name}.output")
        need_file(task.labels, f"tasks.{name}.labels")
    for name, missing in manifest.missing.items():
        if name not in inputs:
            fail(f"unknown input '{name}'", f"missing.{name}")
        if missing.policy == "hold" and missing.max_age_ms is None:
            fail("policy 'hold' needs max_age_ms", f"missing.{name}.max_age_ms")
    for index, mask in enumerate(manifest.validated_masks):
        for name in mask.present:
            if name not in inputs:
                fail(f"unknown input '{name}'", f"validated_masks[{index}].present")
    if manifest.sync.trigger != "timer" and manifest.sync.trigger not in inputs:
        fail(f"unknown trigger '{manifest.sync.trigger}'", "sync.trigger")
