from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mmedge.engine.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from mmedge.export.models.av_digits import Fusion  # noqa: E402
from mmedge.export.models.fusion import FUSIONS, JointTable, SumLogProbs  # noqa: E402

COUNT, WIDTH, CLASSES = 3, 16, 11
NONE = CLASSES - 1


def made(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return FUSIONS[kind](COUNT, WIDTH, CLASSES).eval()


def embeddings(batch: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [2 * torch.randn(batch, WIDTH, generator=generator) for _ in range(COUNT)]


def posteriors(block: JointTable | SumLogProbs, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.softmax(head(v), 1) for head, v in zip(block.posteriors.heads, vectors, strict=True)]


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("absent", range(COUNT))
def test_an_absent_modality_has_no_influence(kind: str, absent: int) -> None:
    block, vectors, present = made(kind), embeddings(), torch.ones(5, COUNT)
    with torch.inference_mode():
        everything = block(vectors, present)
        present[:, absent] = 0
        one = block(vectors, present)
        vectors[absent] = torch.full((5, WIDTH), 1e3)
        two = block(vectors, present)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.isfinite(a).all()
    assert one[0].shape == (5, CLASSES)
    assert one[1].shape == (5, 1)
    assert not torch.allclose(one[0], everything[0], atol=1e-3)


@pytest.mark.parametrize("kind", ["table", "sum"])
@pytest.mark.parametrize("alone", range(COUNT))
def test_alone_a_modality_says_what_its_head_says(kind: str, alone: int) -> None:
    block, vectors, present = made(kind), embeddings(), torch.zeros(5, COUNT)
    present[:, alone] = 1
    with torch.inference_mode():
        digit, _ = block(vectors, present)
        want = posteriors(block, vectors)[alone]
    torch.testing.assert_close(torch.softmax(digit, 1), want, atol=1e-4, rtol=1e-3)


def test_the_table_is_the_sum_over_all_that_may_have_been_named() -> None:
    block, vectors = made("table"), embeddings()
    with torch.inference_mode():
        digit, agreement = block(vectors, torch.ones(5, COUNT))
        said = posteriors(block, vectors)
        weight, conflict = float(block.agree_weight.exp()), float(block.conflict_weight.exp())
    table, same = torch.zeros(5, CLASSES), torch.zeros(5)
    for names in itertools.product(range(CLASSES), repeat=COUNT):
        chance = torch.stack([p[:, name] for p, name in zip(said, names, strict=True)]).prod(0)
        digits = [name for name in names if name != NONE]
        if not digits:
            table[:, NONE] += chance
        elif len(set(digits)) == 1:
            table[:, digits[0]] += chance * weight ** (len(digits) - 1)
            same += chance * weight ** (COUNT - 1) * (len(digits) == COUNT)
        else:
            for name in digits:
                table[:, name] += chance * conflict / COUNT
    torch.testing.assert_close(digit, table.clamp_min(1e-6).log(), atol=1e-4, rtol=1e-4)
    rest = table.sum(1) - same
    want = same.clamp_min(1e-6).log() - rest.clamp_min(1e-6).log()
    torch.testing.assert_close(agreement[:, 0], want, atol=1e-4, rtol=1e-4)


def test_a_modality_that_sees_nothing_leaves_the_others_alone() -> None:
    """A black picture is certain of ``none``: the table may then not move what is said."""
    block, vectors = made("table"), embeddings()
    with torch.no_grad():
        head = block.posteriors.heads[0]
        head.weight.zero_()
        head.bias.copy_(40.0 * torch.eye(CLASSES)[NONE])
    with torch.inference_mode():
        black, _ = block(vectors, torch.tensor([[1.0, 1.0, 0.0]] * 5))
        alone, _ = block(vectors, torch.tensor([[0.0, 1.0, 0.0]] * 5))
    torch.testing.assert_close(torch.softmax(black, 1), torch.softmax(alone, 1), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seats", [(0, 1, 2), (0, 2), (1,)])
def test_the_sum_is_bayes_rule_for_independent_modalities(seats: tuple[int, ...]) -> None:
    block, vectors, present = made("sum"), embeddings(), torch.zeros(5, COUNT)
    present[:, list(seats)] = 1
    prior = torch.softmax(torch.linspace(-1, 1, CLASSES), 0)
    with torch.inference_mode():
        block.log_prior.copy_(prior.log().expand(COUNT, -1))
        digit, agreement = block(vectors, present)
        said = [posteriors(block, vectors)[m] for m in seats]
    ratios = torch.stack([p / prior for p in said]).prod(0)  # how much likelier than if they were unrelated
    want = prior * ratios
    torch.testing.assert_close(torch.softmax(digit, 1), want / want.sum(1, keepdim=True), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(agreement[:, 0].exp(), want[:, :NONE].sum(1), atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("kind", ["table", "attention"])
def test_blocks_keep_their_answers_in_onnx(kind: str) -> None:
    fusion, (image, audio, text) = Fusion(made(kind)).eval(), embeddings(1)
    feeds = {"image": image, "audio": audio, "text": text, "present": torch.tensor([[1.0, 0.0, 1.0]])}
    program = torch.onnx.export(fusion, (), kwargs=feeds, dynamo=True, opset_version=20, verbose=False)
    engine = OnnxRuntimeEngine(program.model_proto.SerializeToString())
    for row in ([1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]):
        feeds["present"] = torch.tensor([row])
        with torch.inference_mode():
            want = fusion(**feeds)
        got = engine({name: value.numpy() for name, value in feeds.items()})
        for a, b in zip(got.values(), want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-3, rtol=1e-3)
