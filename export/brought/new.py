"""``mmedge new``: a starter project, or a bundle made from existing ONNX files."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

import numpy as np
import onnx

from mmedge.bundle import load
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Mask, Missing, Sync, TextInput
from mmedge.errors import ConfigError
from mmedge.fusion.consent import PROJECT_FILE, project_text, remember
from mmedge.plain import unsafe
from mmedge.types import AnyArray

from ..onnx.to_onnx import random_samples
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Export, Recipe, RecipeStage, RecipeTask
from ..run import run_steps
from ..stages import StageGraph, onnx_runners
from ..starter import write_starter
from ..tokenizer import check_vocabulary, load_tokenizer
from .brought import bring
from .infer import Guess, Network, check_files, detector_of, last_operator, read_network, task_of, why_left
from .made import NewReport
from .project_text import join_outputs, recipe_text, rule_text
from .seats import Seats
from .token_inputs import IDS, padding_of

MOST_NETWORKS = 8
# A device may feed the inputs of several networks; what follows is for two inputs of one network, and for texts.
_URIS = {
    ImageInput: ("image", "0", "{}"),
    AudioInput: ("audio", "mic://default", "mic://NAME{}"),
    TextInput: ("text", "text://stdin", "text://said{}.txt"),
}


def starter(folder: Path) -> NewReport:
    """Write a project that can be trained and exported: recipe, model, a small folder of data.

    Raises:
        ConfigError: If the folder is not empty or cannot be written.
    """
    with _removed_on_error(folder, _make_folder(folder)):
        write_starter(folder)
        _write_project(folder, [])
    recipe, bundle = quote(str(folder / "recipe.toml")), quote(str(folder / "starter.mmedge"))
    steps = ["train {0}", "export {0} --output {1}", "run {1} --image 0 --audio mic://default"]
    report = NewReport(folder=folder, commands=["mmedge " + step.format(recipe, bundle) for step in steps])
    _note(folder, report)
    return report


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
        ['mmedge run kiosk/kiosk.mmedge --image 0 --audio mic://default']
    """
    check_files(files)
    if len(files) > MOST_NETWORKS:
        raise ConfigError(
            f"`mmedge new` joins at most {MOST_NETWORKS} networks, got {len(files)}",
            where="--from",
            fix="start with fewer, and add the others to the recipe as stages with 'onnx'",
        )
    networks: list[Network] = []
    seats = Seats()
    if tokenizer is not None:
        pad, hint = padding_of(tokenizer)
        seats = Seats("tokenizer.json", pad)
        seats.hints += [hint] if hint else []
    for file in files:
        network = read_network(file, [other.name for other in networks])
        same = next((other.name for other in networks if other.path.samefile(file)), None)
        if same is not None:
            seats.hints.append(f"'{file}' was given twice: networks '{same}' and '{network.name}' answer the same")
        networks.append(network)
        seats.hints += network.hints
        seats.add(network)
    if tokenizer is not None and not any(isinstance(spec, TextInput) for spec in seats.inputs.values()):
        raise ConfigError(
            "no network takes tokens",
            where=f"--tokenizer {tokenizer}",
            fix=f"leave it out: nothing takes int64 '{IDS}'",
        )
    made = _make_folder(folder)
    report = NewReport(folder=folder, guesses=seats.guesses, hints=seats.hints)
    with _removed_on_error(folder, made):
        draft, problem = _write(report, networks, seats, tokenizer)
    recipe, bundle = folder / "recipe.toml", folder / f"{draft.name}.mmedge"
    if problem is not None:
        fix = f"correct it there, then `mmedge export {quote(str(recipe))} --output {quote(str(bundle))}`"
        raise ConfigError(problem, where=str(recipe), fix="; ".join((fix, *seats.hints)))
    with _removed_on_error(folder, made):
        report.bundle = run_steps(Recipe.load(recipe), output=bundle, smoke=False).path
        with load(bundle) as packed:  # nobody should find out at the next command that it cannot be used
            packed.verify()
    report.commands = [_command(bundle, draft, networks)]
    _note(folder, report)
    return report


def _write_project(folder: Path, modules: Sequence[str]) -> None:
    """Write ``mmedge.toml``: bundles of this project may call these modules."""
    (folder / PROJECT_FILE).write_text(project_text(modules), encoding="utf-8")
    (folder / PROJECT_FILE).chmod(0o644)


def _note(folder: Path, report: NewReport) -> None:
    """Have the project's ``mmedge.toml`` count where its bundles run."""
    try:
        remember(folder)
    except ConfigError as error:
        report.hints.append(f"{error.message}: runs need --allow-callable {quote(str(folder / PROJECT_FILE))}")


@contextmanager
def _removed_on_error(folder: Path, made: Sequence[Path]) -> Iterator[None]:
    """Remove what is in ``folder``, and the folders that were ``made`` for it, if there is an error."""
    try:
        yield
    except BaseException:  # what is half made would be in the way of another try
        for child in folder.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        with suppress(OSError):  # somebody else has put something there
            for path in made:
                path.rmdir()
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
        joined.setdefault(task.tensor.stage, task)
    _write_project(folder, ["rules"] if len(joined) > 1 else [])
    if len(joined) > 1:
        join_outputs(draft, tasks, joined)
        (folder / "rules.py").write_text(rule_text(joined), encoding="utf-8")
    (folder / "recipe.toml").write_text(recipe_text(draft, tasks), encoding="utf-8")
    return draft, _problem(recipe, networks, seen)


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder if it is not there, and return what was made, the innermost first."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError("the path is a file, not a folder", where=str(folder), fix="choose a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("the folder exists and is not empty", where=str(folder), fix="choose a new folder")
    if (found := unsafe(folder.name)) is not None:
        raise ConfigError(f"the folder's name has the character {found}", where=str(folder), fix="name another one")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder: {error.strerror}", where=str(folder), fix="name another one"
        ) from error
    return made


def _draft(folder: Path, networks: list[Network], inputs: Mapping[str, Input]) -> Recipe:
    """Return the recipe without its tasks."""
    images = [name for name, spec in inputs.items() if isinstance(spec, ImageInput)]
    sounds = [name for name, spec in inputs.items() if isinstance(spec, AudioInput)]
    every_ms = min((n.every_ms for n in networks if n.every_ms is not None), default=100.0)
    if not inputs:
        raise ConfigError(
            "the networks have no inputs",
            where=str(networks[0].path),
            fix="give networks with image, audio or text inputs",
        )
    trigger = [*images, *sounds, *inputs][0]
    missing = {name: Missing(policy="hold", max_age_ms=300) for name in images}
    missing |= {name: Missing(policy="zero") for name in inputs if name not in images}
    masks = [tuple(name for name in inputs if name in present) for present in _masks(networks, inputs)]
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


def _masks(networks: list[Network], inputs: Mapping[str, Input]) -> set[frozenset[str]]:
    """Return which inputs may come without the others: a network has all of its inputs or none.

    As in ``stages.masks``, each network alone and all but one; and since a device may feed many of them, the same for
    what sees, what hears, and what a device can feed at all.
    """
    seats = [frozenset(_seats_of(network, inputs)) for network in networks]
    parts: list[set[int]] = [{index} for index in range(len(seats))]
    for kinds in (*((kind,) for kind in _URIS), tuple(_URIS)):
        parts.append({index for index, own in enumerate(seats) if all(isinstance(inputs[s], kinds) for s in own)})
        parts.append({index for index, own in enumerate(seats) if any(isinstance(inputs[s], kinds) for s in own)})
    everything = set(range(len(seats)))
    unions = {frozenset[str]().union(*(seats[i] for i in kept)) for part in parts for kept in (part, everything - part)}
    return {union for union in unions if 0 < len(union) < len(inputs)}


def _seats_of(network: Network, inputs: Mapping[str, Input]) -> list[str]:
    return [source for source in network.sources.values() if source in inputs]


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
    fixes: list[str] = []
    for network in networks:
        fed_back = recipe.stages[network.name].states.values()
        outputs = recipe.stages[network.name].outputs
        boxes = detector_of(network, recipe.inputs, list(outputs.values()))
        for output in outputs:
            if output in fed_back:
                continue
            samples = [known[f"{network.name}.{output}"] for known in seen]
            last = last_operator(models[network.name], output)
            found = task_of(network, output, samples, last, boxes)
            if found is None:
                shape = samples[0].shape
                told, fix = why_left(network, output, shape, last)
                report.left.append(f"{network.name}.{output} {list(shape)}{told}")
                fixes.append(fix)
                continue
            task, why = found
            name = network.name if network.name not in tasks else re.sub(r"\W+", "_", f"{network.name}_{output}")
            tasks[name] = task
            report.guesses.append(Guess(network.name, output, f"task '{name}': {task.kind}", why))
        own = [task for task in tasks.values() if task.output.startswith(f"{network.name}.")]
        if network.labels and own and all(task.labels != network.labels for task in own):
            report.hints.append(
                f"the file of network '{network.name}' names {len(network.labels)} classes, its output has "
                f"{len(own[0].labels)}: they are called by number; write 'labels' in the recipe, in the output's order"
            )
    if not tasks:
        raise ConfigError(
            "no output looks like classes, a probability or boxes",
            where="; ".join(report.left),
            fix="; ".join(dict.fromkeys(fixes)) or "give the networks an output beside their states",
        )
    return tasks


def _problem(recipe: Recipe, networks: list[Network], seen: list[dict[str, AnyArray]]) -> str | None:
    """Name the networks that return NaN or infinity for noise, and the likely cause."""
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


def _command(bundle: Path, recipe: Recipe, networks: list[Network]) -> str:
    """Return what runs the bundle live: one device of a kind, two where one network has two inputs of that kind."""
    inputs = recipe.inputs
    live = {name: _URIS[type(spec)] for name, spec in inputs.items() if type(spec) in _URIS}
    beside = [set(_seats_of(network, inputs)) for network in networks]
    devices: dict[str, str] = {}
    for name, (kind, first, other) in live.items():
        # A text source feeds one input.
        taken = {uri for n, uri in devices.items() if kind == "text" or any({name, n} <= seats for seats in beside)}
        uris = (other.format(number) if number else first for number in itertools.count())
        devices[name] = next(uri for uri in uris if uri not in taken)
    options: list[str] = []
    for network in networks:
        seats = _seats_of(network, inputs)
        if all(seat in live for seat in seats):
            for seat in seats:
                kind = live[seat][0]
                alone = sum(other == kind for other, _, _ in live.values()) == 1
                options.append(f"--{kind} {devices[seat]}" if alone else f"--input {seat}={devices[seat]}")
    if not options:
        pushed = ", ".join(f"'{name}': 'push://'" for name in recipe.inputs)
        return f"python: mmedge.Pipeline({str(bundle)!r}, inputs={{{pushed}}}), then pipe.push(name, array, time_ns)"
    return f"mmedge run {quote(str(bundle))} {' '.join(dict.fromkeys(options))}"
