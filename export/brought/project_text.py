"""The files of a new project as text: its recipe with comments, and a rule that joins its networks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from mmedge.bundle.manifest import Mask

from ..recipe import Recipe, RecipeStage, RecipeTask
from ..tasks import KINDS

# More networks than these have no label for each combination: those would be more than 16, and none of them likely.
_MOST_COMBINED = 4
_HEAD = """\
# Made by `mmedge new`: what could be read off the networks is filled in. Change what you like, then
#     mmedge export {folder}/recipe.toml --output {folder}/{name}.mmedge
"""
_NOTES = {
    "size": "height and width of the network's input",
    "color": "gray, rgb or bgr",
    "fit": "stretch, crop (centre) or letterbox",
    "mean": "in units of 0..1, per channel; ImageNet: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
    "layout": "how the network's axes lie; it gets a Transpose in front",
    "gain": "the network takes sound of -1..1 times this",
    "shares": "the source of this input feeds this one too",
    "outputs": "told as they are, beside the tasks",
    "frame": "height and width of the camera's picture that enters a TensorRT engine",
    "sample_rate_hz": "what the network was trained on; the microphone's own rate is converted",
    "window_ms": "how much sound the network hears at once",
    "max_tokens": "longer texts are cut",
    "pad": "the token behind a text's end; a mask made of 'input_ids' goes by it",
    "licence": "of the networks",
    "every_ms": "run at most this often",
    "threshold": "below this score: no label, no box",
    "labels": "in the order of the output",
    "scores": "logits get a softmax; probabilities are taken as they are",
    "smoothing": 'for example { kind = "ema", tau_ms = 200 }',
    "trigger": "an answer per picture or text (or every `every_ms` of sound)",
    "policy": "hold, zero, skip or fail",
}


_USUAL = {"reduce": 1, "layout": "nchw", "gain": 1.0}
_COMBINED = """\
    state = np.ones(1)
    for p in sure:
        state = np.outer(state, [1 - p, p]).ravel()"""
_SUREST = """\
    state = [1 - max(sure), *sure]"""


def join_outputs(recipe: Recipe, tasks: dict[str, RecipeTask], joined: Mapping[str, RecipeTask]) -> None:
    """Add the stage ``join``, a callable of ``rules.py``, and its task.

    Args:
        recipe: Gets the stage.
        tasks: Gets the task ``joined``.
        joined: Stage -> the task whose output says how sure it is.
    """
    labels = joined_labels(list(joined))
    recipe.stages["join"] = RecipeStage(
        callable="rules:join",
        inputs={name: task.output for name, task in joined.items()},
        outputs={"state": (1, len(labels))},
    )
    tasks["joined"] = RecipeTask(
        kind="classification",
        output="join.state",
        labels=labels,
        scores="probabilities",
        threshold=0.5,
        top_k=0 if len(joined) <= _MOST_COMBINED else 3,
    )


def joined_labels(names: list[str]) -> tuple[str, ...]:
    """Return a label for every combination of what the networks may have found; of many networks, for each of them.

    Example:
        >>> joined_labels(["face", "voice"])
        ('nothing', 'voice', 'face', 'face+voice')
    """
    if len(names) > _MOST_COMBINED:
        return "nothing", *names
    switches = itertools.product((False, True), repeat=len(names))
    return tuple("+".join(itertools.compress(names, on)) or "nothing" for on in switches)


def rule_text(joined: Mapping[str, RecipeTask]) -> str:
    """Return ``rules.py``."""
    arguments = ", ".join(f"{name}: np.ndarray" for name in joined)
    sure = "\n".join(
        f"    # {task.kind}, {task.output}{_note(name, task)}\n    sure.append({KINDS[task.kind].sure(name, task)})"
        for name, task in joined.items()
    )
    labels = ", ".join(joined_labels(list(joined)))
    combined = len(joined) <= _MOST_COMBINED
    what = "each combination is" if combined else "it is that none has found anything, and that each has"
    state = _COMBINED if combined else _SUREST
    return f'''\
"""How the networks' answers become one. Change it as you like: it is called at every trigger."""

from __future__ import annotations

import numpy as np


def join({arguments}) -> np.ndarray:
    """Return how likely {what}: {labels}.

    An output whose inputs are absent is all zeros: that network has found nothing. A softmax over C classes is never
    below 1/C at its largest: where one class matters, take its score instead, with its place in the labels as INDEX.
    """
    sure = []
{sure}
{state}
    return np.array([state], np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities; zeros stay zeros."""
    if not logits.any():
        return logits
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
'''


def _note(name: str, task: RecipeTask) -> str:
    """Return a comment on how sure a network of several classes is of one of them."""
    if task.kind != "classification" or len(task.labels) < 2:
        return ""
    scores = f"softmax({name})" if task.scores == "logits" else name
    return f": of {len(task.labels)} classes the likeliest; of one: float({scores}[0, INDEX])"


def recipe_text(recipe: Recipe, tasks: Mapping[str, RecipeTask]) -> str:
    """Return the recipe as TOML, every default that one may want to change with a comment."""
    folder = recipe.folder.name
    parts = [_HEAD.format(folder=folder, name=recipe.name)]
    parts += _lines({"name": recipe.name, "licence": recipe.licence})
    parts += _lines({"outputs": recipe.outputs}) if recipe.outputs else []
    for name, spec in recipe.inputs.items():
        told = {key: getattr(spec, key) for key in spec.__struct_fields__ if getattr(spec, key) is not None}
        for key, usual in _USUAL.items():
            if told.get(key) == usual:
                del told[key]
        parts += ["", f"[inputs.{name}]", *_lines({"modality": spec.__struct_config__.tag, **told})]
    for name, stage in recipe.stages.items():
        parts += ["", f"[stages.{name}]", *_lines({k: v for k, v in msgspec.to_builtins(stage).items() if v})]
    for name, task in tasks.items():
        parts += ["", f"[tasks.{name}]", *_lines({key: getattr(task, key) for key in KINDS[task.kind].keys})]
        if task.kind == "classification":
            parts.append('# smoothing = { kind = "ema", tau_ms = 200 }')
    parts += ["", "[export]", *_lines({"targets": list(recipe.export.targets)})]
    for name, missing in recipe.missing.items():
        parts += ["", f"[missing.{name}]", *_lines(msgspec.to_builtins(missing))]
    parts += ["", "[sync]", *_lines({"trigger": recipe.sync.trigger, "every_ms": recipe.sync.every_ms})]
    if recipe.validated_masks:
        parts += [
            "",
            "# Inputs that may be missing. What that costs in accuracy was not measured: do so, and note it here.",
        ]
        parts += [line for mask in recipe.validated_masks for line in _mask(mask)]
    return "\n".join(parts) + "\n"


def _mask(mask: Mask) -> list[str]:
    return ["[[validated_masks]]", *_lines(msgspec.to_builtins(mask)), ""]


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} = {_toml(value)}" + (f"  # {_NOTES[key]}" if key in _NOTES else "") for key, value in values.items()
    ]


def _toml(value: Any) -> str:
    """Return a value as TOML: its strings, numbers and arrays are those of JSON."""
    value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
