"""One forward pass before anything is trained: does the model give what the recipe declares?"""

from __future__ import annotations

import torch
from torch import Tensor

from mmedge.errors import ConfigError, MmedgeError

from ..datasets.base import Dataset
from ..models import staged
from ..models.staged import StagedModel, check_shapes, everything
from ..preprocess.torch_module import preprocessors
from ..recipe import Recipe

_SAMPLES = 2


def dry_run(model: StagedModel, dataset: Dataset, recipe: Recipe) -> None:
    """Run a batch of two training samples through the stages; the model stays as it is.

    Args:
        model: Untrained.
        dataset: Prepared.
        recipe: Declares the outputs of every stage.

    Raises:
        ConfigError: If a stage cannot run, or returns other shapes than the recipe declares; names the stage.
    """
    samples = dataset.split("train")
    if not len(samples):
        raise ConfigError(
            "there are no samples of split 'train'", where=recipe.at("data"), fix="add samples of this split"
        )
    batch = dataset.collate([samples[index] for index in range(min(len(samples), _SAMPLES))])
    count, preprocess = len(batch["present"]), preprocessors(dataset.inputs)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    # Not in inference mode: what a network keeps of its first run would be of no use in training.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        inputs = {name: preprocess[name](raw) for name, raw in batch["inputs"].items()}
        known = everything(inputs, batch["present"], batch.get("age_ms"))
        for name in model.order:
            fresh = _run(model, name, known, recipe)
            check_shapes(recipe, name, model.get_submodule(name), [_of_one(x, count) for x in fresh.values()])
            known |= fresh
    for module, training in modes.items():
        module.training = training


def _run(model: StagedModel, name: str, known: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    try:
        return model.run_stage(name, known)
    except ConfigError as error:
        raise ConfigError(error.message, where=recipe.at(error.where or f"stages.{name}"), fix=error.fix) from error
    except MmedgeError:
        raise
    except Exception as error:  # whatever the user's network raises
        from ..onnx.to_onnx import raised_at

        line = raised_at(error, __file__, staged.__file__)
        feeds = {key: list(known[s].shape) for key, s in recipe.stages[name].inputs.items() if s in known}
        raise ConfigError(
            f"{type(model.get_submodule(name)).__name__} cannot take a batch {feeds}: {error}",
            where=recipe.at(f"stages.{name}") + (f", {line}" if line else ""),
            fix="take the stage's inputs as keyword arguments of these shapes, named as in the recipe",
        ) from error


def _of_one(tensor: Tensor, count: int) -> tuple[int, ...]:
    """Return the shape that one sample would have."""
    shape = tuple(tensor.shape)
    return (1, *shape[1:]) if shape[:1] == (count,) else shape
