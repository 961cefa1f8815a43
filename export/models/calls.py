"""How a stage's module is called and what it returns: inputs and outputs matched by name, else by position."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mmedge.errors import ConfigError

_Leaf = tuple[tuple[str, ...], Tensor]  # where it lies in what was returned, as names and numbers


def call(module: nn.Module, feeds: Mapping[str, Tensor], stage: str) -> Any:
    """Call a module with its inputs by name; by position where its ``forward`` takes none of them by name.

    Args:
        module: Its ``forward`` may have positional-only parameters or ``*args``.
        feeds: Input of the stage -> tensor, [batch, ...] in the recipe's dtypes and order.
        stage: For the error.

    Raises:
        ConfigError: If the parameters are others than the inputs.
    """
    args, kwargs = arguments(module, tuple(feeds), stage)
    return module(*(feeds[name] for name in args), **{name: feeds[name] for name in kwargs})


def arguments(module: nn.Module, names: Sequence[str], stage: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which inputs a module takes by position, in order, and which by name.

    Args:
        module: Its ``forward`` is looked at.
        names: Inputs of the stage, in the recipe's order.
        stage: For the error.

    Raises:
        ConfigError: If the parameters are others than the inputs.
    """
    try:
        parameters = list(inspect.signature(unwrapped(module).forward).parameters.values())
    except (TypeError, ValueError):  # written in C: whether it takes them shows when it is called
        return (), tuple(names)
    kinds = inspect.Parameter
    by_name = {p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    only_by_position = [p.name for p in parameters if p.kind == kinds.POSITIONAL_ONLY]
    needed = [
        p for p in parameters if p.default is kinds.empty and p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]
    is_open = any(p.kind == kinds.VAR_KEYWORD for p in parameters)
    takes_all = any(p.kind == kinds.VAR_POSITIONAL for p in parameters)
    rest = [name for name in names if name not in by_name and name not in only_by_position]
    absent = [p.name for p in needed if p.name not in names]
    if not absent and (not rest or is_open):
        given = [name for name in only_by_position if name in names]
        if given == only_by_position[: len(given)]:
            return tuple(given), tuple(name for name in names if name not in given)
    if not absent and takes_all:
        first = [p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        named = [name for name in first if name in names]
        if named == first:
            keywords = tuple(p.name for p in parameters if p.kind == kinds.KEYWORD_ONLY and p.name in names)
            return (*named, *rest), keywords
    if len(names) == 1 and len(needed) <= 1 and parameters and parameters[0].kind != kinds.KEYWORD_ONLY:
        return tuple(names), ()  # there is nothing to confuse
    told = ", ".join(str(p) for p in parameters)
    raise ConfigError(
        f"forward({told}) of {type(module).__name__} does not take the inputs {', '.join(names)}",
        where=f"stages.{stage}.inputs",
        fix="name the inputs as the parameters of forward, or let it take *args in the order of the recipe",
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module itself: torch.compile and parallel training wrap it without changing what it computes."""
    wraps = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
    while type(module).__module__.startswith("torch.") and (held := wraps.get(type(module).__name__)) is not None:
        module = getattr(module, held)
    return module


def named_outputs(result: Any, outputs: Sequence[str], module: nn.Module, stage: str) -> dict[str, Tensor]:
    """Return the declared outputs of what a module returned.

    Keys of mappings and fields of named tuples and data classes that are named as the outputs give these, in whatever
    order and depth; what else is there is left out. Otherwise tensors are taken in order, if there are as many.

    Args:
        result: A tensor, or tuples, lists, mappings, named tuples and data classes of tensors.
        outputs: The declared names, in order.
        module: For the error.
        stage: For the error.

    Returns:
        Output -> tensor [batch, ...] of the dtype that was returned.

    Raises:
        ConfigError: If names and number of the tensors are others than declared; says what came.

    Example:
        >>> import torch
        >>> one, two = torch.zeros(1), torch.ones(1)
        >>> named_outputs({"b": two, "a": one}, ["a", "b"], nn.Identity(), "net")["a"].item()
        0.0
    """
    leaves = _leaves(result)
    by_name: dict[str, list[Tensor]] = {}
    for path, tensor in leaves:
        words = [word for word in path if not word.isdigit()]
        for name in {".".join(path), *words[-1:]} if words else {".".join(path)}:
            by_name.setdefault(name, []).append(tensor)
    exact = {".".join(path): tensor for path, tensor in leaves}
    found = {name: exact[name] if name in exact else by_name[name][0] for name in outputs if name in by_name}
    unclear = [name for name in outputs if name not in exact and len(by_name.get(name, ())) > 1]
    if not unclear and len(found) == len(outputs):
        return found
    # Names that fit in part are names that somebody meant: only what has none of them goes by position.
    if not unclear and not found and len(leaves) == len(outputs):
        return {name: tensor for name, (_, tensor) in zip(outputs, leaves, strict=True)}
    came = ", ".join(f"{'.'.join(path) or 'a tensor'} {list(tensor.shape)}" for path, tensor in leaves) or "no tensor"
    raise ConfigError(
        f"{type(module).__name__} returns {came}, but the recipe declares {', '.join(outputs)}"
        + (f"; {unclear[0]} is there more than once" if unclear else ""),
        where=f"stages.{stage}.outputs",
        fix="name the outputs as the network's keys or fields, or declare all of its tensors in order",
    )


def is_plain(result: Any, outputs: Sequence[str]) -> bool:
    """Tell whether a module returned its outputs as they are declared: one tensor, or a tuple of them in order."""
    if isinstance(result, Tensor):
        return len(outputs) == 1
    return (
        type(result) in (tuple, list)
        and len(result) == len(outputs)
        and all(isinstance(part, Tensor) for part in result)
    )


def _leaves(result: Any) -> list[_Leaf]:
    found: list[_Leaf] = []
    flat: list[tuple[Any, Any]] = pytree.tree_flatten_with_path(result)[0]
    for keys, leaf in flat:
        path = tuple(_word(key) for key in keys)
        if isinstance(leaf, Tensor):
            found.append((path, leaf))
        elif isinstance(leaf, Mapping):  # of a class that torch does not know
            found += [((*path, str(k), *rest), t) for k, v in leaf.items() for rest, t in _leaves(v)]
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += [((*path, f.name, *rest), t) for f in fields(leaf) for rest, t in _leaves(getattr(leaf, f.name))]
    return found


def _word(key: Any) -> str:
    for attribute in ("key", "name", "idx"):  # of a mapping, a named tuple or data class, a sequence
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def positional(module: nn.Module, feeds: Mapping[str, Tensor], outputs: Sequence[str], stage: str) -> bool:
    """Make a module take its inputs by name and return its outputs in order, in place, unless it does so already.

    Args:
        module: A copy, in evaluation mode; it is run once.
        feeds: One sample of zeros, [1, ...] in the dtypes that the graph feeds.
        outputs: The declared names.
        stage: For errors.

    Returns:
        Whether the module was changed.
    """
    args, _ = arguments(module, tuple(feeds), stage)
    if not args and is_plain(result := call(module, feeds, stage), outputs):
        return False
    if args:
        result = call(module, feeds, stage)
    named_outputs(result, outputs, module, stage)  # raises where it cannot
    own: Callable[..., Any] = module.forward

    def forward(**given: Tensor) -> tuple[Tensor, ...]:
        returned = own(*(given[name] for name in args), **{k: v for k, v in given.items() if k not in args})
        return tuple(named_outputs(returned, outputs, module, stage)[name] for name in outputs)

    module.forward = forward
    return True
