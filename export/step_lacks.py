"""Why an export does not have a step: the recipe does not ask for it, lacks what it needs, or it is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mmedge.errors import ConfigError

from .work import QUANTISED, Work


def without(key: Literal["precisions", "targets"], value: str) -> Callable[[Work], ConfigError | None]:
    """Return what says that the recipe does not ask for something; None where it does."""

    def lacks(work: Work) -> ConfigError | None:
        named = getattr(work.recipe.export, key)
        if value in named:
            return None
        line = f"{key} = {[*named, value]}".replace("'", '"')
        where = work.recipe.at(f"export.{key}")
        return ConfigError(f"the recipe does not ask for {value}", where=where, fix=f"write {line} in [export]")

    return lacks


def without_quantised(work: Work) -> ConfigError | None:
    """Say why there is nothing quantised to judge: it is not asked for, or every stage has stayed float."""
    done = [step for step in QUANTISED if step in work.results]
    if done and not work.quantised:
        steps = " and ".join(f"'{step}'" for step in done)
        return ConfigError(
            "no stage was quantised", where=work.recipe.at("stages"), fix=f"see the warnings of step {steps}"
        )
    asked = work.recipe.export.precisions
    return None if set(asked) & {"fp8", "int4"} else without("precisions", "int8")(work)


def without_data(work: Work) -> ConfigError | None:
    """Say why nothing is measured."""
    if work.recipe.data.dataset is None and work.recipe.data.folder is None:
        return ConfigError(
            "the recipe has no data to measure on",
            where=work.recipe.at("data"),
            fix="set data.dataset or data.folder",
        )
    return None if work.is_measured else _left_out("measure")


def without_builds(work: Work) -> ConfigError | None:
    """Say why TensorRT builds nothing."""
    return without("targets", "tensorrt")(work) or (None if work.is_compiled else _left_out("smoke"))


def _left_out(step: str) -> ConfigError:
    return ConfigError(f"step '{step}' is left out", where=f"--no-{step}", fix=f"leave out --no-{step}")
