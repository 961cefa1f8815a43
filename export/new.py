"""``mmedge new``: a project to start from, or a bundle made of ONNX files that are there already."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import msgspec
import numpy as np
import onnx

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Mask, Missing, Sync, TextInput
from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from .brought import bring
from .infer import Guess, Network, Seats, check_files, last_operator, read_network, task_of
from .preprocess.onnx_prefix import Preprocessor
from .project_text import join_outputs, recipe_text, rule_text
from .recipe import Export, Recipe, RecipeStage, RecipeTask
from .run import run_steps
from .stages import StageGraph, onnx_runners
from .starter import write_starter
from .to_onnx import random_samples
from .token_inputs import IDS, padding_of
from .tokenizer import check_vocabulary, load_tokenizer

# More networks than these are not joined by the starter callable: it would have more than 16 labels.
MOST_JOINED = 4
# A device feeds one input: each that follows gets another source.
_URIS = {
    ImageInput: ("image", "0", "{}"),
    AudioInput: ("audio", "mic://default", "mic://NAME{}"),
    TextInput: ("text", "text://stdin", "text://said{}.txt"),
}


@dataclass(kw_only=True, slots=True)
class NewReport:
    """What was made and what was inferred.

    Attributes:
        folder: Where the project lies.
        bundle: The bundle that was packed; None for a starter project.
        guesses: What was inferred, and why.
        left: Outputs that no task reads.
        hints: What would make more of the networks.
        commands: What to type next.
    """

    folder: Path
    bundle: Path | None = None
    guesses: list[Guess] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return the document of schema ``mmedge.new/1``."""
        return {
            "schema": "mmedge.new/1",
            "folder": str(self.folder),
            "bundle": None if self.bundle is None else str(self.bundle),
            "inferred": [msgspec.to_builtins(guess) for guess in self.guesses],
            "left": self.left,
            "hints": self.hints,
            "next": self.commands,
        }


def starter(folder: Path) -> NewReport:
    """Write a project that can be trained and exported: recipe, model, a small folder of data.

    Raises:
        ConfigError: If the folder is not empty or cannot be written.
    """
    _make_folder(folder)
    write_starter(folder)
    recipe, bundle = quote(str(folder / "recipe.toml")), quote(str(folder / "starter.mmedge"))
    steps = ["train {0}", "export {0} --output {1}", "run {1} --image 0 --audio mic://default"]
    return NewReport(folder=folder, commands=["mmedge " + step.format(recipe, bundle) for step in steps])


def from_networks(folder: Path, files: list[Path], tokenizer: Path | None = None) -> NewReport:
    """Make a project and a bundle from ONNX files.

    Args:
        folder: New or empty.
        files: The networks.
        tokenizer: ``tokenizer.json`` for an input ``input_ids``.

    Returns:
        What was inferred.

    Raises:
        ConfigError: If a file cannot be used, none of the outputs can be shown as a task, or the folder is not empty.
            If a network answers what is not a number, the project is left there, without a bundle.

    Example:
        >>> from_networks(Path("kiosk"), [Path("yolo.onnx"), Path("vad.onnx")]).commands  # doctest: +SKIP
        ['PYTHONPATH=kiosk mmedge run kiosk/kiosk.mmedge --image 0 --audio mic://default']
    """
    check_files(files)
    networks: list[Network] = []
    seats = Seats()
    if tokenizer is not None:
        pad, hint = padding_of(tokenizer)
        seats = Seats("tokenizer.json", pad)
        seats.hints += [hint] if hint else []
    for file in files:
        networks.append(read_network(file, [network.name for network in networks]))
        seats.add(networks[-1])
    if tokenizer is not None and not any(isinstance(spec, TextInput) for spec in seats.inputs.values()):
        raise ConfigError(
            "no network reads tokens",
            where=f"--tokenizer {tokenizer}",
            fix=f"leave it out: nothing takes int64 '{IDS}'",
        )
    _make_folder(folder)
    report = NewReport(folder=folder, guesses=seats.guesses, hints=seats.hints)
    with _emptied_on_error(folder):
        draft, problem = _write(report, networks, seats, tokenizer)
    recipe, bundle = folder / "recipe.toml", folder / f"{draft.name}.mmedge"
    if problem is not None:
        fix = f"correct it there, then `mmedge export {quote(str(recipe))} --output {quote(str(bundle))}`"
        raise ConfigError(problem, where=str(recipe), fix="; ".join((fix, *seats.hints)))
    with _emptied_on_error(folder):
        report.bundle = run_steps(Recipe.load(recipe), output=bundle).path
    report.commands = [_command(bundle, draft, networks, rules="join" in draft.stages)]
    return report


@contextmanager
def _emptied_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:  # what is half made would be in the way of another try
        for child in folder.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        raise


def _write(
    report: NewReport, networks: list[Network], seats: Seats, tokenizer: Path | None
) -> tuple[Recipe, str | None]:
    """Write the recipe and what it needs; return it, and why it cannot be packed as it is."""
    folder = report.folder
    (folder / "networks").mkdir()
    for network in networks:
        onnx.save_model(network.model, folder / "networks" / f"{network.name}.onnx")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    draft = _draft(folder, networks, seats.inputs)
    recipe, models = bring(draft)
    for network in networks:
        for tensor, source in network.sources.items():
            if isinstance(draft.inputs.get(source), TextInput):
                check_vocabulary(models[network.name], tensor, load_tokenizer(draft, source))
    graph, preprocess = StageGraph(recipe, onnx_runners(models)), Preprocessor(recipe.inputs)
    seen = [graph(preprocess(sample)) for sample in random_samples(recipe, 3)]
    tasks = _tasks(recipe, networks, models, seen, report)
    joined: dict[str, RecipeTask] = {}
    for task in tasks.values():
        joined.setdefault(task.output.partition(".")[0], task)
    if 2 <= len(joined) <= MOST_JOINED:
        join_outputs(draft, tasks, joined)
        (folder / "rules.py").write_text(rule_text(joined), encoding="utf-8")
    (folder / "recipe.toml").write_text(recipe_text(draft, tasks), encoding="utf-8")
    return draft, _problem(recipe, networks, seen)


def _make_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("the folder is there already and not empty", where=str(folder), fix="name a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder: {error.strerror}", where=str(folder), fix="name another one"
        ) from error


def _draft(folder: Path, networks: list[Network], inputs: Mapping[str, Input]) -> Recipe:
    """Return the recipe without its tasks."""
    images = [name for name, spec in inputs.items() if isinstance(spec, ImageInput)]
    sounds = [name for name, spec in inputs.items() if isinstance(spec, AudioInput)]
    every_ms = min((n.every_ms for n in networks if n.every_ms is not None), default=100.0)
    if not inputs:
        raise ConfigError(
            "the networks have no inputs", where=str(networks[0].path), fix="give networks that see, hear or read"
        )
    trigger = [*images, *sounds, *inputs][0]
    missing = {name: Missing(policy="hold", max_age_ms=300) for name in images}
    missing |= {name: Missing(policy="zero") for name in inputs if name not in images}
    seats = [frozenset(source for source in n.sources.values() if source in inputs) for n in networks]
    # A network has all of its inputs or none.
    unions = {
        frozenset().union(*part) for size in range(1, len(seats) + 1) for part in itertools.combinations(seats, size)
    }
    masks = [tuple(name for name in inputs if name in union) for union in unions if len(union) < len(inputs)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "project"
    return Recipe(
        name=name[:64],
        licence=_licence(networks),
        inputs=dict(inputs),
        stages={
            n.name: RecipeStage(
                inputs=n.sources, onnx=f"networks/{n.name}.onnx", every_ms=n.every_ms if n.stream else None
            )
            for n in networks
        },
        tasks={},
        export=Export(precisions=("fp32",)),
        missing=missing,
        validated_masks=tuple(Mask(present=mask, metric="not measured", value=0.0) for mask in sorted(masks)),
        sync=Sync(trigger=trigger, every_ms=every_ms),
        folder=folder.resolve(),
        sha256="",
    )


def _licence(networks: list[Network]) -> str:
    found = [entry.value for n in networks for entry in n.model.metadata_props if entry.key == "license"]
    return " AND ".join(dict.fromkeys(found)) or "unknown"


def _tasks(
    recipe: Recipe,
    networks: list[Network],
    models: Mapping[str, onnx.ModelProto],
    seen: list[dict[str, AnyArray]],
    report: NewReport,
) -> dict[str, RecipeTask]:
    """Return a task for every output that looks like one, by what was seen on noise."""
    tasks: dict[str, RecipeTask] = {}
    for network in networks:
        fed_back = {source[7:] for source in network.sources.values() if source.startswith("@state:")}
        image = next((s for s in network.sources.values() if isinstance(recipe.inputs.get(s), ImageInput)), None)
        for output in recipe.stages[network.name].outputs:
            if output in fed_back:
                continue
            samples = [known[f"{network.name}.{output}"] for known in seen]
            last = last_operator(models[network.name], output)
            found = task_of(network, output, samples, image, last)
            if found is None:
                shape = samples[0].shape
                told = f", one number that ends in {last}: a logit or a measure" if shape == (1, 1) and last else ""
                report.left.append(f"{network.name}.{output} {list(shape)}{told}")
                continue
            task, why = found
            name = network.name if network.name not in tasks else re.sub(r"\W+", "_", f"{network.name}_{output}")
            tasks[name] = task
            report.guesses.append(Guess(network.name, output, f"task '{name}': {task.kind}", why))
    if not tasks:
        raise ConfigError(
            "none of the outputs looks like classes, a probability or boxes",
            where="; ".join(report.left),
            fix="end the network in a Sigmoid or Softmax, or write a recipe with a callable that makes classes of it",
        )
    return tasks


def _problem(recipe: Recipe, networks: list[Network], seen: list[dict[str, AnyArray]]) -> str | None:
    """Say which network gives what is no number on noise, and what may be the cause."""
    for network in networks:
        for output in recipe.stages[network.name].outputs:
            if all(np.isfinite(known[f"{network.name}.{output}"]).all() for known in seen):
                continue
            specs = {tensor: recipe.inputs[s] for tensor, s in network.sources.items() if s in recipe.inputs}
            fed = "; ".join(f"'{tensor}' is given {_range(spec)}" for tensor, spec in specs.items())
            return f"output '{output}' of network '{network.name}' is NaN or infinite on noise: {fed}"
    return None


def _range(spec: Input) -> str:
    if isinstance(spec, ImageInput):
        low, high = ((end - spec.mean[0]) / spec.std[0] for end in (0, 1))
        return f"{low:.3g}..{high:.3g}, which mean and std of its seat decide"
    if isinstance(spec, AudioInput):
        return f"sound of about -1..1 at {spec.sample_rate_hz} Hz"
    return "token numbers" if isinstance(spec, TextInput) else "numbers about 0"


def _command(bundle: Path, recipe: Recipe, networks: list[Network], *, rules: bool) -> str:
    """Return what runs the bundle live, every device once."""
    used: Counter[str] = Counter()
    live: dict[str, tuple[str, str]] = {}
    for name, spec in recipe.inputs.items():
        if type(spec) in _URIS:
            kind, first, other = _URIS[type(spec)]
            live[name] = kind, other.format(used[kind]) if used[kind] else first
            used[kind] += 1
    options: list[str] = []
    for network in networks:
        seats = [source for source in network.sources.values() if source in recipe.inputs]
        if not all(seat in live for seat in seats):
            continue
        for seat in seats:
            kind, uri = live[seat]
            options.append(f"--{kind} {uri}" if used[kind] == 1 else f"--input {seat}={uri}")
    path = f"PYTHONPATH={quote(str(bundle.parent))} " if rules else ""
    if not options:
        pushed = ", ".join(f"'{name}': 'push://'" for name in recipe.inputs)
        return (
            f"{path}python: mmedge.Pipeline({str(bundle)!r}, inputs={{{pushed}}}), then pipe.push(name, array, time_ns)"
        )
    return f"{path}mmedge run {quote(str(bundle))} {' '.join(dict.fromkeys(options))}"
