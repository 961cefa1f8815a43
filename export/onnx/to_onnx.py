"""PyTorch -> ONNX: every stage through torch.export, cleaned, checked and held against torch."""

from __future__ import annotations

import copy
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils import _pytree as pytree

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.engine.rows import row_axis
from mmedge.errors import CheckError, ConfigError
from mmedge.types import AnyArray, Tensors

from ..brought.brought import bring
from ..failures import is_ours
from ..models.calls import call, named_outputs, positional, unwrapped
from ..models.staged import check_shapes
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Recipe
from ..stages import StageGraph, Types, feed_zeros, network_stages, onnx_runners, output_types
from ..tokenizer import load_tokenizer
from ..user_code import is_user_file
from .clean import clean, short_line, user_line
from .gate import parser_gate, refuse
from .onnx_models import OnnxModels, Parity
from .parity import relative_gap

OPSETS = range(18, 23)
MAX_REL = 1e-3
# Loggers of torch that warn about packages an export does not need, or repeat what the exception says.
_NOISY = (
    "torch.onnx._internal.exporter._registration",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export._trace",
)


def to_onnx(model: nn.Module | None, recipe: Recipe, samples: Sequence[Tensors] | None = None) -> OnnxModels:
    """Export every stage of a model to ONNX and check it against torch; take in the networks that are brought along.

    Samples have the raw shapes [...] and dtypes of the recipe's inputs.

    Args:
        model: Has one submodule per stage, named as the stage; each takes its inputs as keyword arguments named
            as in the recipe and returns its outputs by name, or a tensor or a tuple in their order. It is not changed.
            None where the recipe brings every network along.
        recipe: Names, shapes and opset.
        samples: Raw arrays by input name to compare on; random ones by default.

    Returns:
        The fp32 networks in tensor form, batch 1.

    Raises:
        ConfigError: If a stage is missing, does not fit the recipe, cannot be exported, or has what TensorRT
            refuses while that is a target; source lines are named.
        CheckError: If an output differs from torch by more than 1e-3 of its range.

    Example:
        >>> onnx = export.to_onnx(model, recipe)  # doctest: +SKIP
        >>> onnx.parity[0].max_rel < 1e-3  # doctest: +SKIP
        True
    """
    made, modules = export_stages(model, recipe)
    if "tensorrt" in recipe.export.targets:
        refuse(recipe, parser_gate(recipe, {stage: made.models[stage] for stage in modules}, made.sources))
    return replace(made, parity=check_parity(made, modules, samples))


def export_stages(model: nn.Module | None, recipe: Recipe) -> tuple[OnnxModels, dict[str, nn.Module]]:
    """Export every stage and clean what came of it; nothing is compared yet.

    Args:
        model: As ``to_onnx`` takes it.
        recipe: Names, shapes and opset.

    Returns:
        The networks, and stage -> the module to hold them against.

    Raises:
        ConfigError: As ``to_onnx`` raises it, but for what TensorRT refuses.
    """
    opset = recipe.export.opset
    if opset not in OPSETS:
        raise ConfigError(
            f"opset {opset} is not between {OPSETS[0]} and {OPSETS[-1]}",
            where="export.opset",
            fix="use 20; 23 exports Attention, which TensorRT fails to build or crashes on",
        )
    for name, declared in recipe.stages.items():
        for twice in declared.inputs.keys() & declared.outputs.keys() if declared.callable is None else ():
            raise ConfigError(
                f"'{twice}' names both an input and an output",
                where=f"stages.{name}",
                fix="rename one of them: ONNX needs different names",
            )
    recipe, brought = bring(recipe)
    types = {stage: output_types(network) for stage, network in brought.items()}
    exported: dict[str, onnx.ModelProto] = {}
    sources: dict[str, dict[str, str]] = {}
    modules: dict[str, nn.Module] = {}
    for stage in network_stages(recipe):  # each after those that feed it, so that their types are known
        if stage in brought:
            continue
        modules[stage] = _stage_module(model, stage)
        exported[stage] = _export(recipe, stage, modules[stage], types)
        types[stage] = output_types(exported[stage])
        sources[stage] = clean(exported[stage])
        onnx.checker.check_model(exported[stage], full_check=True)
    models = {stage: {**exported, **brought}[stage] for stage in network_stages(recipe)}
    metadata = getattr(model, "metadata", {})
    return OnnxModels(recipe=recipe, precision="fp32", models=models, sources=sources, metadata=metadata), modules


def check_parity(
    made: OnnxModels, modules: Mapping[str, nn.Module], samples: Sequence[Tensors] | None = None
) -> tuple[Parity, ...]:
    """Run torch and ONNX on the same stage inputs; return the worst sample per output.

    Samples have the raw shapes [...] and dtypes of the recipe's inputs.

    Args:
        made: What ``export_stages`` returned.
        modules: And the modules.
        samples: Raw arrays by input name; random ones by default.

    Raises:
        CheckError: If an output differs from torch by more than 1e-3 of its range.
    """
    return _parity(made.recipe, modules, made.models, samples or random_samples(made.recipe, 4))


def random_samples(recipe: Recipe, count: int) -> list[dict[str, AnyArray]]:
    """Return raw arrays of noise for every input, reproducible by the recipe's seed.

    They have the raw shapes [...] and dtypes of the recipe's inputs.
    """
    rng = np.random.default_rng(recipe.seed)

    def one(name: str) -> AnyArray:
        spec = recipe.inputs[name]
        if isinstance(spec, ImageInput):
            return rng.integers(0, 256, spec.raw_shape, dtype=np.uint8)
        if isinstance(spec, AudioInput):
            return rng.normal(0.0, 0.1, spec.raw_shape).astype(np.float32)
        if isinstance(spec, TextInput):
            return rng.integers(0, load_tokenizer(recipe, name).size, spec.tensor_shape)
        if spec.dtype.startswith("float"):
            return rng.normal(0.0, 1.0, spec.shape).astype(spec.dtype)
        return rng.integers(0, 2, spec.shape).astype(spec.dtype)

    return [{name: one(name) for name in recipe.inputs} for _ in range(count)]


def stage_modules(model: nn.Module | None, recipe: Recipe) -> dict[str, nn.Module]:
    """Return the module of every stage that is exported, copies in evaluation mode on the CPU."""
    own = [stage for stage in network_stages(recipe) if recipe.stages[stage].onnx is None]
    return {stage: _stage_module(model, stage) for stage in own}


def _stage_module(model: nn.Module | None, stage: str) -> nn.Module:
    module = getattr(model, stage, None)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{type(model).__name__} has no submodule '{stage}'",
            where=f"stages.{stage}",
            fix=f"assign the stage's network to self.{stage}",
        )
    if isinstance(module, torch.jit.ScriptModule) or any(
        isinstance(m, torch.jit.ScriptModule) for m in module.modules()
    ):
        raise ConfigError(
            f"{type(module).__name__} is TorchScript, which torch.export does not take",
            where=f"stages.{stage}",
            fix="give the module that was scripted or traced, and load its weights into it",
        )
    module = unwrapped(module)
    if any(nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise ConfigError(
            f"{type(module).__name__} has parameters without values: its lazy layers were never run",
            where=f"stages.{stage}",
            fix="run it once, and load or train its weights",
        )
    # Such as the weights that torch.nn.utils.weight_norm computes: torch refuses to copy what has a gradient behind it.
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    computed: dict[int, Any] = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    try:
        return copy.deepcopy(module, computed).cpu().eval()
    except Exception as error:  # locks, files, generators, and whatever the user's own classes raise
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{type(module).__name__} cannot be copied: {told}",
            where=f"stages.{stage}",
            fix="keep locks, open files and the like outside of the module",
        ) from error


def _export(recipe: Recipe, stage: str, module: nn.Module, types: Types) -> onnx.ModelProto:
    feeds = {tensor: torch.from_numpy(zeros) for tensor, zeros in feed_zeros(recipe, stage, types=types).items()}
    outputs = recipe.stages[stage].outputs
    with _quiet(), torch.no_grad():
        try:
            positional(module, feeds, tuple(outputs), stage)
            program = torch.export.export(module, (), feeds)
        except ConfigError as error:
            raise ConfigError(error.message, where=recipe.at(error.where or ""), fix=error.fix) from error
        except Exception as error:  # torch.export raises its own classes and whatever the model raises
            raise _failure(stage, module, error) from error
        shapes = [tuple(node.meta["val"].shape) for node in program.graph.output_node().args[0]]
        check_shapes(recipe, stage, module, shapes)
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=recipe.export.opset,
                input_names=list(feeds),
                output_names=list(outputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise _unsupported(stage, program, error) from error
    if exported is None:
        raise ConfigError("torch.onnx.export returned nothing", where=f"stages.{stage}", fix="update torch")
    # torch names values by their operators: that of nn.Embedding would be taken for an output "embedding".
    results = set(exported.model.graph.outputs)
    graph = exported.model.graph
    taken = [value for node in graph for value in node.outputs] + list(graph.initializers.values())
    for value in taken:
        if value.name in outputs and value not in results:
            value.name = f"{stage}/{value.name}"
    result: onnx.ModelProto = exported.model_proto
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # Recurrent layers write their weight list while they are traced, and hooks computed weights: it is put back.
        warnings.filterwarnings(
            "ignore", message=r"The tensor attributes? .* assigned during export", category=UserWarning
        )
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*", category=FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def raised_at(error: BaseException, *ours: str) -> str | None:
    """Return the innermost line of the user's own code, ``file:line``, that an error came through; None without.

    Args:
        error: What was raised.
        ours: Files that are not the user's.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_user_file(f.filename, packages=True)]
    lines = [
        short_line(f.filename, f.lineno or 0) for f in frames if f.filename not in ours and not is_ours(f.filename)
    ]
    return lines[-1] if lines else None


def _failure(stage: str, module: nn.Module, error: Exception) -> ConfigError:
    """Turn what torch.export raised into the user's line and the reason."""
    line = user_line(str(error)) or raised_at(error, __file__)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if inner := re.search(r": got \w+\((['\"])(.+?)\1\)\.?\s*$", str(error), re.MULTILINE):
        reason = inner[2]  # what an operator said of its inputs, below what torch says of itself
    if "data-dependent" in reason:
        fix = "the graph must not depend on values: use torch.where, or clamp and mask, instead of if and int()"
    elif isinstance(error, TypeError):
        fix = "take the stage's inputs as keyword arguments, named as in the recipe"
    else:
        fix = "run the stage once in eager mode with batch 1 and the recipe's shapes"
    return ConfigError(
        f"torch.export cannot trace {type(module).__name__}: {reason}",
        where=f"stages.{stage}" + (f", {line}" if line else ""),
        fix=fix,
    )


def _unsupported(stage: str, program: Any, error: Exception) -> ConfigError:
    """Turn an operator without an ONNX form into its name and source line."""
    chain: BaseException | None = error
    text = ""
    while chain is not None:
        text += f"{chain}\n"
        chain = chain.__cause__
    name = re.search(r"translating node %(\w+)", text)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    node = next((n for n in program.graph.nodes if name and n.name == name[1]), None)
    line = user_line(node.meta.get("stack_trace", "")) if node is not None else None
    what = f"'{operator[1]}' has no ONNX form" if operator else str(error).strip().splitlines()[0]
    return ConfigError(
        f"cannot convert to ONNX: {what}",
        where=f"stages.{stage}" + (f", {line}" if line else ""),
        fix="use other operators, or move this part out of the network",
    )


def _parity(
    recipe: Recipe, modules: Mapping[str, nn.Module], models: Mapping[str, onnx.ModelProto], samples: Sequence[Tensors]
) -> tuple[Parity, ...]:
    """Run torch and ONNX on the same stage inputs, worst sample per output."""
    preprocess, graph = Preprocessor(recipe.inputs, recipe.export.opset), StageGraph(recipe, onnx_runners(models))
    got: dict[tuple[str, str], list[AnyArray]] = {}
    want: dict[tuple[str, str], list[AnyArray]] = {}
    given: dict[str, dict[str, torch.Tensor]] = {}
    for sample in samples:
        known = graph(preprocess(sample))
        for stage, module in modules.items():
            given[stage] = {name: torch.from_numpy(value) for name, value in graph.feeds(stage, known).items()}
            with torch.no_grad():
                feeds = given[stage]
                results = named_outputs(call(module, feeds, stage), tuple(recipe.stages[stage].outputs), module, stage)
            for output, value in results.items():
                got.setdefault((stage, output), []).append(known[f"{stage}.{output}"])
                want.setdefault((stage, output), []).append(value.numpy())
    report = tuple(_compare(*key, np.stack(got[key]), np.stack(want[key])) for key in got)
    for entry in report:
        if not np.isfinite(np.stack(want[entry.stage, entry.output])).all():
            raise CheckError(
                "the network answers NaN or infinite numbers, in torch already",
                where=f"{entry.stage}.{entry.output}",
                fix="look at its weights, and at what feeds it: the recordings, and the rules before it",
            )
        # Written so that NaN fails.
        if not entry.max_rel <= MAX_REL:
            module = modules[entry.stage]
            if not _repeats(module, given[entry.stage], entry.stage):
                raise CheckError(
                    f"{type(module).__name__} answers the same input differently each time, in torch already",
                    where=f"stages.{entry.stage}",
                    fix="let forward draw no random numbers in evaluation (dropout asks self.training), and change no "
                    "buffer: what it keeps from run to run is an output that is fed back, @state:OUTPUT",
                )
            raise CheckError(
                f"the ONNX file differs from torch by {entry.max_rel:.2g} of its range (cosine {entry.cosine:.4f})",
                where=f"{entry.stage}.{entry.output}",
                fix=f"look for operators that behave differently in ONNX; the limit is {MAX_REL:g}",
            )
    return report


def _repeats(module: nn.Module, feeds: Mapping[str, torch.Tensor], stage: str) -> bool:
    """Tell whether a module gives the same again for the same input."""
    answers: list[list[torch.Tensor]] = []
    with torch.no_grad():
        for _ in range(2):  # copies: what is returned may be a buffer that the next run changes
            found = pytree.tree_leaves(call(module, feeds, stage))
            answers.append([leaf.clone() for leaf in found if isinstance(leaf, torch.Tensor)])
    return all(torch.equal(one, other) for one, other in zip(*answers, strict=True))


def _compare(stage: str, output: str, got: AnyArray, want: AnyArray) -> Parity:
    got, want = got.astype(np.float64), want.astype(np.float64)
    axis = row_axis(want.shape[1:])
    a, b = got.ravel(), want.ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Parity(
        stage=stage,
        output=output,
        samples=len(got),
        max_abs=float(np.abs(a - b).max()),
        max_rel=relative_gap(want, got, None if axis is None else axis + 1, 1e-12),
        cosine=float(a @ b) / norms if norms else 1.0,
    )
