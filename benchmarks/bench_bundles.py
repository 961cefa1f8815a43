"""Bundles of one camera and one stage: ResNet-18, or a rule whose time is known."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from mmedge.bundle import write_archive
from mmedge.bundle.manifest import Manifest

SLEEP_MS = 10
SIZE = (224, 224)


class Basic(nn.Module):
    """Two 3x3 convolutions with a residual (He et al., Deep Residual Learning for Image Recognition, 2015)."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(taken, given, 3, stride, 1, bias=False),
            nn.BatchNorm2d(given),
            nn.ReLU(),
            nn.Conv2d(given, given, 3, 1, 1, bias=False),
            nn.BatchNorm2d(given),
        )
        shrink = nn.Sequential(nn.Conv2d(taken, given, 1, stride, bias=False), nn.BatchNorm2d(given))
        self.beside = nn.Identity() if stride == 1 and taken == given else shrink

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.beside(x))


def resnet18(classes: int = 1000) -> nn.Module:
    """Return ResNet-18 with random weights, which cost no less time: [n, 3, 224, 224] -> logits [n, classes]."""
    torch.manual_seed(0)
    widths = (64, 128, 256, 512)
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for before, width in zip((64, *widths), widths, strict=False):
        layers += [Basic(before, width, 1 if width == 64 else 2), Basic(width, width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)).eval()


def sleeps(x: Any) -> Any:
    """Take 10 ms, to some microseconds: the last of them awake."""
    end_ns = time.monotonic_ns() + SLEEP_MS * 1_000_000
    time.sleep((SLEEP_MS - 0.5) / 1e3)
    while time.monotonic_ns() < end_ns:
        pass
    return np.zeros((1, 2), np.float32)


def camera_bundle(path: Path, frame: tuple[int, int], *, classes: int = 1000) -> Path:
    """Write a bundle that classifies a colour camera's pictures by ResNet-18.

    Args:
        path: Where to.
        frame: Height and width of its pictures.
        classes: How many labels it has.
    """
    file = io.BytesIO()
    example = torch.zeros(1, 3, *SIZE)
    torch.onnx.export(resnet18(classes), (example,), file, input_names=["x"], output_names=["y"], dynamo=False)
    model = file.getvalue()
    given = onnxruntime.InferenceSession(model).run(["y"], {"x": example.numpy()})[0]
    black = np.zeros((1, 1, *frame, 3), np.uint8)
    return _write(path, frame, "rgb", classes, SIZE, model=model, golden=(black, given[None]))


def sleeping_bundle(path: Path) -> Path:
    """Write a bundle whose only stage takes 10 ms."""
    return _write(path, (64, 64), "gray", 2, (32, 32), rule=f"{__name__}:sleeps")


def _write(
    path: Path,
    frame: tuple[int, int],
    color: str,
    classes: int,
    size: tuple[int, int],
    *,
    model: bytes | None = None,
    golden: tuple[Any, Any] | None = None,
    rule: str | None = None,
) -> Path:
    files = {"labels.txt": "".join(f"{number}\n" for number in range(classes)).encode()}
    variants = []
    if model is not None and golden is not None:
        arrays = io.BytesIO()
        np.savez_compressed(arrays, allow_pickle=False, **{"in.x": golden[0], "out.y": golden[1]})
        files |= {"net.onnx": model, "net.npz": arrays.getvalue()}
        variant = {"stage": "net", "target": "cpu", "precision": "fp32", "file": "net.onnx"}
        variants.append({**variant, "golden": "net.npz", "tolerance": {}})
    channels = 1 if color == "gray" else 3
    picture = {"modality": "image", "size": size, "color": color, "frame": frame}
    stage = {"inputs": {"x": "image"}, "outputs": {"y": ["batch", classes]}}
    document = {
        "schema": "mmedge.bundle/1",
        "name": path.stem,
        "licence": "Apache-2.0",
        "inputs": {"image": {**picture, "mean": [0.0] * channels, "std": [1.0] * channels}},
        "stages": {"net": {**stage, **({} if rule is None else {"callable": rule})}},
        "variants": variants,
        "tasks": {"kind": {"kind": "classification", "output": "net.y", "labels": "labels.txt"}},
        "missing": {"image": {"policy": "skip"}},
        "validated_masks": [{"present": ["image"], "metric": "none", "value": 0.0}],
        "sync": {"trigger": "image"},
        "files": {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()},
    }
    return write_archive(path, msgspec.convert(document, Manifest), files)
