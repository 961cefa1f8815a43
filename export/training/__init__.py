"""Training: prepare data, train with Lightning, calibrate on validation, print one test table, save the weights."""

from __future__ import annotations

from .loop import make_dataset, train, train_and_save
from .report import TrainReport
from .validated_masks import mask_figures
from .weights import load_weights, make_pretrained, save_weights

__all__ = [
    "TrainReport",
    "load_weights",
    "make_dataset",
    "make_pretrained",
    "mask_figures",
    "save_weights",
    "train",
    "train_and_save",
]
