"""The whole path on one machine: weights -> ONNX -> INT8 -> bundle -> TensorRT -> live fused run -> tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmedge.bundle import Bundle, load
from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.errors import CheckError
from mmedge.extras import demo_data
from mmedge.files import scratch
from mmedge.fusion import tensorrt_problem
from mmedge.fusion.compile import compile_bundle
from mmedge.pipeline import Pipeline, Statistics
from mmedge.types import Result

from .judge import tensorrt_alone

STEPS = {
    "train": "weights",
    "onnx": "ONNX, parity with torch",
    "recordings": "raw recordings",
    "quantize": "INT8: ranges and Q/DQ",
    "compare": "fp32 against INT8",
    "pack": "bundle with golden vectors",
}
CLIPS = ("clean", "noise", "frozen", "black", "wrong")
# The word of a segment has ended by then; before that nothing is owed.
SETTLED_S = 1.0
# The clip that is played again while somebody types, and when and what they type.
TYPED_CLIP, TYPED_S, TYPED = "noise", 0.4, "it is {}"
Progress = Callable[[str, float | None], None]


@dataclass(kw_only=True)
class DemoReport:
    """What the demo measured; ``to_dict`` is its ``--json`` document."""

    bundle: Path
    export: Any
    evidence: str
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    int8: dict[str, Any] = field(default_factory=dict)
    tensorrt: dict[str, Any] = field(default_factory=dict)
    live: Statistics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the document of schema ``mmedge.demo/1``."""
        assert self.live is not None
        run = self.live.to_dict()
        latency = run["latency_ms"]
        assert isinstance(latency, dict)
        return {
            "schema": "mmedge.demo/1",
            "evidence": self.evidence,
            "bundle": str(self.bundle),
            "export": None if self.export is None else self.export.to_dict(),
            "accuracy": self.accuracy,
            "int8": self.int8,
            "tensorrt": self.tensorrt,
            "latency_ms": {
                "end_to_end": latency["end_to_end"],
                "overhead": latency["overhead"],
                "steps": latency["steps"],
            },
            "frames": self.live.triggers,
            "results": self.live.results,
            "drops": self.live.drops,
            "lost_samples": self.live.lost_samples,
            "skew_ms": run["skew_ms"],
            "uncertainty_ms": run["uncertainty_ms"],
        }


class Truth:
    """What is said and shown when: one digit a segment.

    Args:
        document: ``{"segment_s": seconds, "digits": [...]}``.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.segment_s = float(document["segment_s"])
        self.digits = [str(digit) for digit in document["digits"]]

    def at(self, t_s: float, since_s: float = SETTLED_S) -> str | None:
        """Return the digit that is owed at ``t_s``, None while its word may still be going on.

        Args:
            t_s: Time in the clip.
            since_s: The digit is owed from so many seconds after the beginning of its segment on.
        """
        segment, within = divmod(t_s, self.segment_s)
        if not 0 <= segment < len(self.digits) or within < since_s:
            return None
        return self.digits[int(segment)]


def make_bundle(output: Path, *, train: bool, progress: Progress) -> Any:
    """Export the bundle here and return the report, or copy the shipped one where there is no torch (None)."""
    if find_spec("torch") is None:
        progress("torch is not installed: the shipped bundle is used", None)
        shutil.copyfile(demo_data("digits/digits.mmedge"), output)
        return None
    from .run import run_steps  # needs torch
    from .shipped import shipped_recipe

    def show(step: str, share: float | None) -> None:
        if step != "done":
            progress("training (minutes)" if train and step == "train" else STEPS.get(step, step), share)

    # The data set needs packages and programs that a machine may not have, and minutes.
    return run_steps(
        shipped_recipe("av_digits"), output=output, retrain=train, measure=False, smoke=False, progress=show
    )


def play(
    bundle: Bundle, clip: Path, fed: tuple[str, ...], *, live: bool = False, precision: Any = None
) -> tuple[list[tuple[float, Result]], Statistics]:
    """Play a clip through the real path; return the results with their time in the clip, and the statistics."""
    with Pipeline(
        bundle,
        dict.fromkeys(fed, str(clip)),
        latency="balanced" if live else "offline",
        backend="onnxruntime" if precision else "auto",
        precision=precision,
    ) as pipe:
        results = list(pipe)
    start_ns = pipe.statistics.started_ns
    return [((r.t_ns - start_ns) / 1e9, r) for r in results], pipe.statistics


def play_typed(bundle: Bundle, clip: Path, truth: Truth) -> tuple[list[tuple[float, Result]], Statistics]:
    """Play a clip at its own speed while each of its digits is typed, 0.4 s after it comes; return as ``play`` does."""
    (text,) = (name for name, spec in bundle.inputs.items() if isinstance(spec, TextInput))
    results: list[tuple[float, Result]] = []
    typed = -1
    with Pipeline(bundle, {**dict.fromkeys(seats(bundle), str(clip)), text: "push://"}) as pipe:
        start_ns = pipe.statistics.started_ns
        for result in pipe:
            t_s = (result.t_ns - start_ns) / 1e9
            results.append((t_s, result))
            digit, segment = truth.at(t_s, TYPED_S), int(t_s // truth.segment_s)
            if digit is not None and segment != typed:
                pipe.text(TYPED.format(digit))
                typed = segment
    return results, pipe.statistics


def seats(bundle: Bundle) -> tuple[str, ...]:
    """Return the inputs that a clip feeds; nobody types in one."""
    return tuple(name for name, spec in bundle.inputs.items() if isinstance(spec, (ImageInput, AudioInput)))


def accuracy(results: list[tuple[float, Result]], truth: Truth) -> tuple[float, int]:
    """Return the share of settled triggers whose digit is right, and how many there were."""
    right = [r.tasks["digit"].label == digit for t, r in results if (digit := truth.at(t)) is not None]
    return (sum(right) / len(right) if right else 0.0), len(right)


def agreeing(results: list[tuple[float, Result]], truth: Truth) -> float | None:
    """Return the share of settled triggers whose modalities are said to agree, None where it was undefined."""
    labels = [r.tasks["agreement"].label for t, r in results if truth.at(t) is not None]
    defined = [label for label in labels if label is not None]
    return round(sum(label == "agree" for label in defined) / len(defined), 4) if defined else None


def demo(output: Path, *, train: bool = False, progress: Progress) -> DemoReport:
    """Run the whole path.

    Args:
        output: Where the bundle is written.
        train: Train the weights from scratch first.
        progress: Called with a message and a share 0..1 (None: unknown).

    Returns:
        The report.

    Raises:
        CheckError: If the run contradicts itself: frames that are neither answered nor counted as dropped.
        MmedgeError: Whatever else stops the path.
    """
    exported = make_bundle(output, train=train, progress=progress)
    with load(output) as bundle:
        report = DemoReport(bundle=output, export=exported, evidence="cpu")
        report.tensorrt = compile_all(bundle, progress)
        folder = demo_data("digits/clips")
        truth = Truth(json.loads((folder / "truth.json").read_text()))
        progress("live: the clean clip at its own speed", 0.0)
        live, report.live = play(bundle, folder / "clean.mp4", seats(bundle), live=True)
        report.evidence = report.live.evidence
        if report.evidence != "cpu":
            # The engines that were built have passed their self-test and served the live run.
            report.tensorrt["evidence"] = report.evidence
        check_conservation(report.live)
        agreement, count = 0, 0
        with scratch() as made, load(tensorrt_alone(bundle, made / output.name)) as written:
            for index, clip in enumerate(CLIPS):
                progress(f"clip '{clip}': image only, audio only, fused, int8", index / len(CLIPS))
                path = folder / f"{clip}.mp4"
                row, same, n = judge(bundle, written, path, truth, live if clip == "clean" else None)
                report.accuracy.append({"clip": clip, **row})
                agreement, count = agreement + same, count + n
        progress(f"clip 'claim': {TYPED_CLIP} at its own speed, and each digit is typed", 1.0)
        alone = next(row for row in report.accuracy if row["clip"] == TYPED_CLIP)
        report.accuracy.append(judge_typed(bundle, folder / f"{TYPED_CLIP}.mp4", truth, alone))
    report.int8 = {
        "agreement": round(agreement / count, 4),
        "n": count,
        "how": "labels of fused triggers over all clips, TensorRT's INT8 files simulated by ONNX Runtime, against fp32",
        **sizes(output),
    }
    return report


def judge(
    bundle: Bundle, written: Bundle, clip: Path, truth: Truth, fused: list[tuple[float, Result]] | None
) -> tuple[dict[str, Any], int, int]:
    """Return the accuracy row of one clip, and how many of its n fused INT8 labels equal those of fp32.

    ``written`` has TensorRT's files alone: its INT8 is what they say, not what this CPU's 8-bit kernels make of it.
    """
    row: dict[str, Any] = {}
    for seat in seats(bundle):
        row[seat] = round(accuracy(play(bundle, clip, (seat,))[0], truth)[0], 4)
    exact = play(bundle, clip, seats(bundle), precision="fp32")[0]
    value, row["n"] = accuracy(fused or exact, truth)
    row["fused"] = round(value, 4)
    row["agree"] = agreeing(fused or exact, truth)
    coarse = play(written, clip, seats(bundle), precision="int8")[0]
    pairs = [(a.tasks["digit"].label, b.tasks["digit"].label) for (_, a), (_, b) in zip(exact, coarse, strict=True)]
    return row, sum(a == b for a, b in pairs), len(pairs)


def judge_typed(bundle: Bundle, clip: Path, truth: Truth, silent: dict[str, Any]) -> dict[str, Any]:
    """Return the accuracy row of the clip with texts; ``silent`` is the row of the same clip without."""
    results, statistics = play_typed(bundle, clip, truth)
    check_conservation(statistics)
    value, n = accuracy(results, truth)
    return {
        "clip": "claim",
        **{seat: silent[seat] for seat in seats(bundle)},
        "n": n,
        "fused": round(value, 4),
        "agree": agreeing(results, truth),
        "fused_without_text": silent["fused"],
    }


def compile_all(bundle: Bundle, progress: Progress) -> dict[str, Any]:
    """Build every stage's INT8 engine: for the GPU at hand, or ahead of time where there is none."""
    compiled = compile_bundle(bundle, "int8", progress).engines
    problem = tensorrt_problem()
    first = compiled[0]
    return {
        "module": first["module"],
        "version": first["version"],
        "evidence": first["evidence"],
        "not_run_because": problem,
        "engines": compiled,
    }


def check_conservation(statistics: Statistics) -> None:
    """Raise CheckError unless every frame was answered or counted as dropped."""
    if statistics.triggers != statistics.results + statistics.dropped:
        raise CheckError(
            f"{statistics.triggers} frames in, {statistics.results} results, {statistics.dropped} dropped",
            where="live run",
            fix="report it: frames must be conserved",
        )


def sizes(path: Path) -> dict[str, Any]:
    """Return bytes and INT8 coverage of the bundle's TensorRT files by precision."""
    with load(path) as bundle:
        listed = {v.precision: 0 for v in bundle.manifest.variants}
        for variant in bundle.manifest.variants:
            if variant.target == "tensorrt":
                listed[variant.precision] += bundle.manifest.files[variant.file].bytes
        share: float | None = None
        if find_spec("onnx") is not None:
            from .report import coverage  # needs onnx

            share = coverage(bundle)
        return {
            "bytes": listed.get("int8", 0),
            "fp32_bytes": listed.get("fp32", 0),
            "coverage": share,
        }
