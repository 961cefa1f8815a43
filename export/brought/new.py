"""``mmedge new``: a starter project, or a bundle made from existing ONNX files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

import msgspec
import numpy as np
import onnx

from mmedge.address import Address
from mmedge.bundle import load
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.errors import ConfigError
from mmedge.fusion.consent import PROJECT_FILE, project_text, remember
from mmedge.plain import unsafe
from mmedge.service import Unit
from mmedge.types import AnyArray

from ..onnx.outside import left, write_network
from ..onnx.to_onnx import random_samples
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Recipe, RecipeTask
from ..run import run_steps
from ..stages import StageGraph, onnx_runners
from ..starter import write_starter
from ..tokenizer import check_vocabulary, load_tokenizer
from .brought import bring
from .class_numbers import spread_class_numbers
from .draft import draft_recipe, run_command, run_sources
from .infer import (
    Guess,
    Network,
    boxes_beside,
    check_files,
    detector_of,
    is_assumed,
    is_doubtful,
    last_operator,
    read_network,
    task_of,
    why_left,
)
from .made import NewReport
from .project_text import join_outputs, recipe_text, rule_text
from .said import check_names
from .seats import Seats
from .token_inputs import IDS, padding_of

MOST_NETWORKS = 8


def starter(folder: Path) -> NewReport:
    """Write a project that can be trained and exported: recipe, model, a small folder of data.

    Raises:
        ConfigError: If the folder is not empty or cannot be written.
    """
    with _removed_on_error(folder, _make_folder(folder)):
        write_starter(folder)
        _write_project(folder, [])
        unit = _write_unit(folder, "starter", {"image": "0", "audio": "mic://default"})
    recipe, bundle = quote(str(folder / "recipe.toml")), quote(str(folder / "starter.mmedge"))
    steps = ["train {0}", "export {0} --output {1}", "run {1} --image 0 --audio mic://default"]
    commands = ["mmedge " + step.format(recipe, bundle) for step in steps]
    report = NewReport(folder=folder, commands=commands, unit=unit)
    _note(folder, report)
    return report


def from_networks(
    folder: Path,
    files: list[Path],
    tokenizer: Path | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
) -> NewReport:
    """Make a project and a bundle from ONNX files.

    Args:
        folder: New or empty.
        files: The networks.
        tokenizer: ``tokenizer.json`` for an input ``input_ids``.
        options: What the user says where files do not tell, as ``said_of`` takes it.

    Returns:
        What was inferred.

    Raises:
        ConfigError: If a file cannot be used, an output looks like boxes and may be none, or the folder is not empty.
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
        network = read_network(file, [other.name for other in networks], options)
        same = next((other.name for other in networks if other.path.samefile(file)), None)
        if same is not None:
            seats.hints.append(f"'{file}' was given twice: networks '{same}' and '{network.name}' answer the same")
        networks.append(network)
        seats.hints += network.hints
        seats.add(network)
        seats.guesses += spread_class_numbers(network)
    check_names([network.name for network in networks], options or {})
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
    report.asks = [ask for network in networks for ask in network.asks]
    recipe, bundle = folder / "recipe.toml", folder / f"{draft.name}.mmedge"
    if problem is not None:
        fix = f"correct it there, then `mmedge export {quote(str(recipe))} --output {quote(str(bundle))}`"
        raise ConfigError(problem, where=str(recipe), fix="; ".join((fix, *seats.hints)))
    with _removed_on_error(folder, made):
        report.bundle = run_steps(Recipe.load(recipe), output=bundle, smoke=False).path
        with load(bundle) as packed:  # nobody should find out at the next command that it cannot be used
            packed.verify()
        report.unit = _write_unit(folder, draft.name, run_sources(draft, networks))
    report.commands = [run_command(bundle, draft, networks)]
    if (folder / "rules.py").is_file():
        _note(folder, report)
    return report


def _write_project(folder: Path, modules: Sequence[str]) -> None:
    """Write ``mmedge.toml``: bundles of this project may call these modules."""
    (folder / PROJECT_FILE).write_text(project_text(modules), encoding="utf-8")
    (folder / PROJECT_FILE).chmod(0o644)


def _write_unit(folder: Path, name: str, sources: Mapping[str, str]) -> Path | None:
    """Write a unit that runs the project's bundle as a service; what is typed comes from a file there."""
    if not sources:
        return None
    inputs = dict(sources)
    for seat, uri in sources.items():
        if uri.startswith("text://"):
            file = folder.absolute() / ("said.txt" if uri == "text://stdin" else uri.removeprefix("text://"))
            file.touch()  # it is followed from the start on
            inputs[seat] = f"text://{file}"
    unit = Unit(
        name=name,
        bundle=folder / f"{name}.mmedge",
        inputs={seat: Address(uri) for seat, uri in inputs.items()},
        projects=[folder / PROJECT_FILE] if (folder / "rules.py").is_file() else [],
    )
    path = folder / unit.file
    path.write_text(unit.text, encoding="utf-8")
    return path


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
        file = folder / "networks" / f"{network.name}.onnx"
        write_network(network.model, file) if left(network.model) else onnx.save_model(network.model, file)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    draft = draft_recipe(folder, networks, seats.inputs)
    recipe, models = bring(draft)
    for network in networks:
        for tensor, source in network.sources.items():
            if isinstance(draft.inputs.get(source), TextInput):
                check_vocabulary(models[network.name], tensor, load_tokenizer(draft, source))
    graph, preprocess = StageGraph(recipe, onnx_runners(models)), Preprocessor(recipe.inputs)
    seen = [graph(preprocess(sample)) for sample in random_samples(recipe, 3)]
    tasks, outputs = _tasks(recipe, networks, models, seen, report)
    draft = msgspec.structs.replace(draft, outputs=outputs)
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


def _tasks(
    recipe: Recipe,
    networks: list[Network],
    models: Mapping[str, onnx.ModelProto],
    seen: list[dict[str, AnyArray]],
    report: NewReport,
) -> tuple[dict[str, RecipeTask], tuple[str, ...]]:
    """Return a task for every output that looks like one, by what was seen on noise, and the outputs told as they are.

    Those are the outputs of networks without a task.
    """
    tasks: dict[str, RecipeTask] = {}
    told: list[str] = []
    for network in networks:
        fed_back = recipe.stages[network.name].states.values()
        outputs = {
            output: [known[f"{network.name}.{output}"] for known in seen]
            for output in recipe.stages[network.name].outputs
            if output not in fed_back
        }
        boxes = detector_of(network, recipe.inputs, outputs)
        left: dict[str, str] = {}
        own: list[RecipeTask] = []
        ends = {output: last_operator(models[network.name], output) for output in outputs}
        seen_as = {output: task_of(network, output, outputs[output], end, boxes) for output, end in ends.items()}
        for output, samples in outputs.items():
            beside = None if network.said.classes else boxes_beside(output, outputs)
            found = None if beside or is_doubtful(network, output, seen_as) else seen_as[output]
            if found is None:
                why, left[f"{network.name}.{output}"] = why_left(network, output, samples, ends[output], beside)
                report.left.append(f"{network.name}.{output} {list(samples[0].shape)}{why}")
                continue
            task, why = found
            if is_assumed(network, task):
                network.asks.append(
                    f"the file of network '{network.name}' does not tell, of '{output}', what its {len(task.labels)} "
                    "numbers are (taken as classes: --classes none, or a file of their names)"
                )
            name = network.name if network.name not in tasks else re.sub(r"\W+", "_", f"{network.name}_{output}")
            tasks[name] = task
            own.append(task)
            report.guesses.append(Guess(network.name, output, f"task '{name}': {task.kind}", why))
        if not own and left:
            told += left
            report.hints += dict.fromkeys(
                f"network '{network.name}' has no task, and results tell {', '.join(left)} as they are: {fix}"
                for fix in left.values()
            )
        if network.labels and all(task.labels != network.labels for task in own) and (own or network.said.classes):
            has = f"has {len(own[0].labels)}" if own else "has none"
            if network.said.classes is not None:
                raise ConfigError(
                    f"--classes gives {len(network.labels)} classes to network '{network.name}', its output {has}",
                    where="--classes",
                    fix=f"say it of the network that has as many: --classes NETWORK={len(network.labels)}",
                )
            report.hints.append(
                f"the file of network '{network.name}' names {len(network.labels)} classes, its output {has}: they are "
                "called by number; write 'labels' in the recipe, in the output's order"
            )
    if not tasks and not told:
        raise ConfigError(
            "the networks have no output beside their states",
            where=", ".join(str(network.path) for network in networks),
            fix="export them with an answer",
        )
    return tasks, tuple(told)


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
