"""The three networks of MTCNN with the weights of the ``facenet-pytorch`` wheel (MIT), ready to export.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016
(arXiv 1604.02878). What lies between the networks is in ``mmedge.fusion.faces``.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmedge.bundle.manifest import ImageInput
from mmedge.errors import ConfigError

from ..datasets.fetch import wheel_file
from ..recipe import Recipe

FACTOR = 0.709
CELL, STRIDE = 12, 2


class Proposal(nn.Module):
    """P-Net: [1, 3, h, w] -> face probability [1, 1, h', w'] and box offsets [1, 4, h', w'] of every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return probability and offsets. All are float32."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return torch.softmax(self.conv4_1(x), 1)[:, 1:], self.conv4_2(x)


class Pyramid(nn.Module):
    """P-Net on a picture at every scale: [1, 3, h, w] -> cells [1, n, 10], see ``mmedge.fusion.faces.propose``.

    Args:
        network: P-Net.
        size: Height and width of the picture.
        smallest: Side of the smallest face, in pixels of the picture.
    """

    def __init__(self, network: Proposal, size: tuple[int, int], smallest: float) -> None:
        super().__init__()
        self.network = network
        self.levels = pyramid(size, smallest)
        for index, (scale, height, width, _) in enumerate(self.levels):
            rows, columns = (-(-(side - 2) // 2) - 4 for side in (height, width))
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            low = torch.stack([x, y], -1).reshape(-1, 2) * STRIDE
            boxes = torch.cat([(low + 1) / scale, (low + CELL) / scale], 1).floor()
            self.register_buffer(f"boxes{index}", boxes[None], persistent=False)
            self.register_buffer(f"level{index}", torch.full((1, len(boxes), 1), float(index)), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the cells of all scales. Both are float32."""
        cells = []
        for index, (_, height, width, pool) in enumerate(self.levels):
            # An average first: bilinear sampling alone would skip pixels, and TensorRT has no antialiased Resize.
            small = functional.avg_pool2d(image, pool) if pool > 1 else image
            small = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)
            probability, offsets = self.network(small)
            boxes, level = self.get_buffer(f"boxes{index}"), self.get_buffer(f"level{index}")
            score = probability.flatten(2).transpose(1, 2)
            cells.append(torch.cat([boxes, score, offsets.flatten(2).transpose(1, 2), level], 2))
        return torch.cat(cells, 1)


class Refinement(nn.Module):
    """R-Net: crops [n, 3, 24, 24] -> face probability [n, 1] and box offsets [n, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return probability and offsets. All are float32; offsets are in box widths and heights."""
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu4(self.dense4(x))
        return torch.softmax(self.dense5_1(x), 1)[:, 1:], self.dense5_2(x)


class Output(nn.Module):
    """O-Net: crops [n, 3, 48, 48] -> face probability [n, 1] and box offsets [n, 4]; its landmarks are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return probability and offsets. All are float32; offsets are in box widths and heights."""
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu5(self.dense5(x))
        return torch.softmax(self.dense6_1(x), 1)[:, 1:], self.dense6_2(x)


def pyramid(size: tuple[int, int], smallest: float) -> list[tuple[float, int, int, int]]:
    """Return scale, height, width and averaging factor of every level.

    Example:
        >>> pyramid((240, 320), 20)[0]
        (0.6, 145, 193, 1)
    """
    levels = []
    scale = CELL / smallest
    while min(size) * scale >= CELL:
        pool = 1
        while 2 * pool * scale <= 1 and not any(side % (2 * pool) for side in size):
            pool *= 2
        levels.append((scale, int(size[0] * scale + 1), int(size[1] * scale + 1), pool))
        scale *= FACTOR
    return levels


def make(recipe: Recipe, smallest: float = 20.0) -> nn.ModuleDict:
    """Return the networks with their weights.

    Args:
        recipe: Has the stages pnet, rnet and onet, the first fed by an image input.
        smallest: Side of the smallest face, in pixels of that input's ``size``.

    Returns:
        A module per stage.

    Raises:
        MissingDependencyError: If the weights cannot be fetched.
    """
    seat = recipe.inputs.get(recipe.stages["pnet"].inputs.get("image", "")) if "pnet" in recipe.stages else None
    if not isinstance(seat, ImageInput):
        raise ConfigError("'image' of stage pnet needs an image input", where="stages.pnet", fix="see attention.toml")
    pnet = Pyramid(_weighted(Proposal(), "pnet"), seat.size, smallest)
    return nn.ModuleDict({"pnet": pnet, "rnet": _weighted(Refinement(), "rnet"), "onet": _weighted(Output(), "onet")})


_Network = TypeVar("_Network", bound=nn.Module)


def _weighted(network: _Network, name: str) -> _Network:
    path = wheel_file("facenet-pytorch", f"facenet_pytorch/data/{name}.pt")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    # Landmarks are not wanted.
    network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("dense6_3")})
    return network.eval()
