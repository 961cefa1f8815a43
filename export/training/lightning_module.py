"""One optimisation problem: every task under every way an input may be missing."""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmedge.bundle.manifest import ImageInput

from ..datasets.base import Batch, Dataset, Split, class_names
from ..models.staged import StagedModel
from ..preprocess.torch_module import preprocessors
from ..recipe import Recipe
from ..tasks import KINDS, Truth, boxed_tasks, task_loss
from .augment import augment
from .boxes import box_loss, f1
from .checkpoint import Checkpoint, set_random_state
from .fake_quant import fake_quantised
from .masks import as_tensor, modality_dropout
from .progress import TASK
from .targets import none_class


class Training(lightning.LightningModule):
    """Trains a staged model on raw samples, preprocessed on the fly.

    The loss is taken with random inputs dropped, and again with each input alone. Encoders run once for all of these,
    since only the stages behind ``@present`` and ``@age_ms`` differ; in bfloat16 where the hardware has it.

    Args:
        model: The model, changed in place.
        dataset: Where the samples come from.
        recipe: Tasks and hyper-parameters.
        checkpoint: Where the state is kept; it is told what Lightning does not know.
    """

    def __init__(
        self, model: StagedModel, dataset: Dataset, recipe: Recipe, checkpoint: Checkpoint | None = None
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._chance: dict[str, Any] | None = None  # as it stood when the run was interrupted
        self._rounding = ExitStack()
        self.model, self.dataset, self.recipe = model, dataset, recipe
        self.preprocess = preprocessors(dataset.inputs)
        self.names = tuple(recipe.inputs)
        self.boxed = {d.input for name in boxed_tasks(recipe) if (d := recipe.tasks[name].detection) is not None}

    def train_dataloader(self) -> DataLoader[Any]:
        """Return fresh random pairs for every epoch."""
        return self._loader("train", shuffle=True)

    def on_train_epoch_start(self) -> None:
        """Let chance stand where it stood, if the run was interrupted; round as INT8 does in the last epochs."""
        if self._chance is not None:
            set_random_state(self._chance)
        self._chance = None
        if self.current_epoch >= self.recipe.train.epochs - self.recipe.train.qat_epochs:
            self._rounding.close()  # of the epoch before
            self._rounding.enter_context(fake_quantised(self.model))

    def teardown(self, stage: str) -> None:
        """Put the layers back, however training ended."""
        self._rounding.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not keep."""
        if self._checkpoint is not None:
            self._checkpoint.fill(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up chance where it stood."""
        self._chance = checkpoint["mmedge"]["random"]

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation split."""
        return self._loader("validation", shuffle=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch. It is a float32 scalar, []."""
        loss, _ = self._loss(batch, train=True)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch["present"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation loss, and how well each task does with the inputs that are there."""
        loss, outputs = self._loss(batch, train=False)
        self.log("validation", loss, prog_bar=True, batch_size=len(batch["present"]))
        for name, task in self.recipe.tasks.items():
            kind = KINDS[task.kind]
            if name in batch.get("boxes", {}):
                judged = f1(task, outputs[task.output], batch["boxes"][name])
                if len(judged):
                    self.log(TASK + name, judged.mean(), batch_size=len(judged))
            elif kind.trained and len(judged := kind.judge(task, outputs[task.output], self._truth(name, batch))):
                self.log(TASK + name, judged.mean(), batch_size=len(judged))

    def configure_optimizers(self) -> Any:
        """Return AdamW and a one-cycle schedule; no decay for biases and normalisation."""
        train = self.recipe.train
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=train.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, train.learning_rate, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, batch: Batch, *, train: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the outputs for what is there."""
        inputs: dict[str, Tensor] = {}
        varied = train and self.recipe.train.augment
        with torch.no_grad():
            for name, raw in batch["inputs"].items():
                x = self.preprocess[name](raw)
                # What moves a picture would have to move its boxes.
                inputs[name] = augment(x, self.dataset.inputs[name]) if varied and name not in self.boxed else x
        present = cast("Tensor", batch["present"])
        first = modality_dropout(present, self.recipe.train.modality_dropout) if train else present
        with torch.autocast(present.device.type, torch.bfloat16, enabled=fast(present.device)):
            features = self.model.features(inputs)
        age_ms = batch.get("age_ms")
        outputs = self.model(inputs, first, age_ms, reuse={key: value.float() for key, value in features.items()})
        loss, there = self._tasks(outputs, batch, first), outputs
        if self.model.masked:
            for name in self.names:
                alone = present * as_tensor((name,), self.names).to(present)
                outputs = self.model(inputs, alone, age_ms, reuse=outputs)
                loss = loss + self._tasks(outputs, batch, alone)
        return loss, there

    def _tasks(self, outputs: dict[str, Tensor], batch: Batch, present: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for name, task in self.recipe.tasks.items():
            if task.detection is not None and name in batch.get("boxes", {}):
                spec = self.dataset.inputs[task.detection.input]
                assert isinstance(spec, ImageInput)
                there = present[:, self.names.index(task.detection.input)].tolist()
                boxes = [found if on else None for found, on in zip(batch["boxes"][name], there, strict=True)]
                loss = box_loss(task, outputs[task.output], boxes, spec.size)
            else:
                loss = task_loss(task, outputs[task.output], self._truth(name, batch, present))
            losses.append(task.loss_weight * loss)
        return torch.stack(losses).sum()

    def _truth(self, name: str, batch: Batch, present: Tensor | None = None) -> Truth:
        none, values = none_class(class_names(self.recipe)), batch.get("targets", {})
        there = cast("Tensor", batch["present"]) if present is None else present
        return Truth(labels=batch["labels"], present=there, none=none, values=values.get(name))

    def _loader(self, split: Split, *, shuffle: bool) -> DataLoader[Any]:
        # Of seed and epoch alone: Lightning makes iterators as often as it likes, and each of them would draw.
        drawn = hashlib.sha256(f"{self.recipe.seed} {self.current_epoch} {split}".encode()).digest()
        chance = int.from_bytes(drawn[:7], "big")
        samples = self.dataset.split(split, epoch=self.current_epoch)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(chance))
        train = self.recipe.train
        places = order.tolist() if shuffle else list(range(len(samples)))
        batches = [places[at : at + train.batch_size] for at in range(0, len(places), train.batch_size)]
        if shuffle and len(batches) > 1 and len(batches[-1]) == 1:  # of one sample nothing can be normalised
            batches[-2:] = [batches[-2] + batches[-1]]
        return DataLoader(
            cast("Any", samples),
            batch_sampler=batches,
            num_workers=train.workers,
            collate_fn=self.dataset.collate,
            generator=torch.Generator(),
            worker_init_fn=partial(_seed_worker, chance),
        )


def _seed_worker(chance: int, worker: int) -> None:
    seed = (chance + worker) % 2**32
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fast(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
