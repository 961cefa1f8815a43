"""Quantisation-aware training: layers with weights compute as INT8 will, while gradients pass as if they did not.

The rounding is that of the exported Q/DQ pairs: int8 without a zero point, weights per output channel, what enters per
tensor, biases in float. Nothing is added to the model: weights stay float32 under their names, and the export quantises
them as it always does. Gradients go straight through the rounding (Bengio et al. 2013; Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_MOST = 127
# Layer -> the axis of its weights' output channels.
_AXES: dict[type[nn.Module], int] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear), 0),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), 1),
}


@contextmanager
def fake_quantised(model: nn.Module) -> Iterator[int]:
    """Let every convolution and linear layer of a model round as INT8 does, until the block ends.

    Args:
        model: Changed in place, and put back; its parameters and their names stay as they are.

    Yields:
        How many layers round.

    Example:
        >>> with fake_quantised(model) as layers:  # doctest: +SKIP
        ...     loss(model(x)).backward()
    """
    found = [(layer, _AXES[type(layer)]) for layer in model.modules() if type(layer) in _AXES]
    for layer, axis in found:
        layer.forward = partial(_forward, layer, type(layer).forward, axis)
    try:
        yield len(found)
    finally:
        for layer, _ in found:
            del layer.forward


def _forward(layer: nn.Module, own: Callable[..., Tensor], axis: int, x: Tensor, *rest: Any) -> Tensor:
    weight = layer._parameters["weight"]
    assert weight is not None
    layer._parameters["weight"] = rounded_weight(weight, axis)  # type: ignore[assignment]
    try:
        return own(layer, rounded(x), *rest)
    finally:
        layer._parameters["weight"] = weight


def rounded(x: Tensor) -> Tensor:
    """Return what a Q/DQ pair gives whose largest value is that of ``x`` [...], a float tensor of any shape."""
    values = x.float()
    scale = _scale(values.detach().abs().amax())
    zero = torch.zeros((), dtype=torch.int32, device=x.device)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, -_MOST, _MOST).to(x.dtype)


def rounded_weight(weight: Tensor, axis: int) -> Tensor:
    """Return weights [...] rounded per channel of ``axis``, float32."""
    scale = _scale(weight.detach().abs().amax(dim=[a for a in range(weight.ndim) if a != axis]))
    zeros = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, axis, -_MOST, _MOST)


def _scale(largest: Tensor) -> Tensor:
    return (largest / _MOST).clamp_min(torch.finfo(torch.float32).tiny)
