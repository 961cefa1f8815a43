"""ResNet-18 and MobileNetV3-Large as torchvision defines them, which has no CPU build here; random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 1000


def conv(
    taken: int, given: int, size: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = None
) -> nn.Sequential:
    """Return convolution, normalisation and activation; padded so that stride 1 keeps the size."""
    layers: list[nn.Module] = [
        nn.Conv2d(taken, given, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(given, eps=1e-3),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    """Two 3x3 convolutions and a sum (He et al., "Deep Residual Learning for Image Recognition", 2015)."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(taken, given, 3, stride, act=nn.ReLU), conv(given, given, 3))
        self.short = nn.Identity() if stride == 1 and taken == given else conv(taken, given, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, float32 as ``x``."""
        y: Tensor = self.body(x) + self.short(x)
        return torch.relu(y)


class Squeeze(nn.Module):
    """Each channel weighed by what all of them are on average (Hu et al., 2017)."""

    def __init__(self, width: int, least: int) -> None:
        super().__init__()
        self.less, self.more = nn.Conv2d(width, least, 1), nn.Conv2d(least, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [n, width, h, w], weighed."""
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.more(torch.relu(self.less(mean))))


class Inverted(nn.Module):
    """Expand, depthwise, squeeze, project (Howard et al., "Searching for MobileNetV3", 2019)."""

    def __init__(self, taken: int, size: int, wide: int, given: int, squeeze: bool, hard: bool, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        layers = [conv(taken, wide, 1, act=act)] if wide != taken else []
        layers.append(conv(wide, wide, size, stride, wide, act=act))
        if squeeze:
            layers.append(nn.Sequential(Squeeze(wide, (wide // 4 + 4) // 8 * 8)))
        layers.append(conv(wide, given, 1))
        self.body, self.residual = nn.Sequential(*layers), stride == 1 and taken == given

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, float32 as ``x``."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


# Kernel size, width inside, channels given, squeezed, hard-swish, stride.
_LARGE = (
    *((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1)),
    *((5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1)),
    *((3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2)),
    *((5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1)),
)


def resnet18() -> nn.Module:
    """Return ResNet-18, 11.7 M parameters, [n, 3, h, w] -> logits [n, 1000], float32."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [conv(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    taken = 64
    for given in (64, 128, 256, 512):
        layers += [Residual(taken, given, 1 if given == taken else 2), Residual(given, given, 1)]
        taken = given
    return _started(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)))


def mobilenet_v3() -> nn.Module:
    """Return MobileNetV3-Large, 5.48 M parameters, [n, 3, h, w] -> logits [n, 1000], float32."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [conv(3, 16, 3, 2, act=nn.Hardswish)]
    taken = 16
    for size, wide, given, squeeze, hard, stride in _LARGE:
        layers.append(Inverted(taken, size, wide, given, bool(squeeze), bool(hard), stride))
        taken = given
    layers += [conv(taken, 960, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _started(nn.Sequential(*layers, nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, CLASSES)))


def _started(model: nn.Module) -> nn.Module:
    """Return a network with the weights that torchvision begins training with, to be evaluated."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    return model.eval()
