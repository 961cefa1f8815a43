"""Building blocks that TensorRT and the quantizer take without special cases: Conv, BatchNorm, ReLU."""

from __future__ import annotations

from torch import nn


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int | tuple[int, int] = 3,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 1,
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        kernel: Kernel size.
        stride: Stride.
        padding: Zero padding.

    Returns:
        The three layers.
    """
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
