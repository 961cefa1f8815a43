"""Ways to join embeddings of which any may be missing.

Blocks that join features (concatenation, gates, attention, low-rank products) return one vector, on which every task
has a linear head. Blocks that join decisions start from what each modality says alone. All take the embeddings in the
order of the recipe's inputs, and ``present`` float32 [batch, n]; what an absent embedding holds has no influence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_TINY = 1e-6


def _masked(embeddings: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    return [embedding * present[:, m : m + 1] for m, embedding in enumerate(embeddings)]


class Concat(nn.Module):
    """One layer over all embeddings and their presence.

    Args:
        count: How many embeddings.
        width: Length of each, and of the result.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(count * width + count, width)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the joint vector [batch, width].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        return torch.relu(self.layer(torch.cat([*_masked(embeddings, present), present], 1)))


class Gated(nn.Module):
    """Each feature is a mixture of the present modalities; all embeddings together decide the shares.

    After the gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992), with a softmax over who is present.

    Args:
        count: How many embeddings.
        width: Length of each, and of the result.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count, self.width = count, width
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        self.gates = nn.Linear(count * width + count, count * width)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the joint vector [batch, width].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        masked = _masked(embeddings, present)
        values = torch.stack([torch.relu(layer(e)) for layer, e in zip(self.values, masked, strict=True)], 1)
        logits = self.gates(torch.cat([*masked, present], 1)).reshape(-1, self.count, self.width)
        shares = torch.softmax(logits - 1e4 * (1 - present.unsqueeze(2)), 1)
        return (shares * values).sum(1)


class CrossAttention(nn.Module):
    """One layer of attention between the modalities; nobody listens to an absent one.

    Args:
        count: How many embeddings.
        width: Length of each, and of the result.
        heads: Attention heads.
    """

    def __init__(self, count: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.count, self.width, self.heads = count, width, heads
        self.who = nn.Parameter(torch.randn(count, width) * 0.1)
        self.ask, self.show, self.tell = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the joint vector [batch, width].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        tokens = torch.stack(_masked(embeddings, present), 1) + self.who
        ask, show, tell = (self._split(layer(tokens)) for layer in (self.ask, self.show, self.tell))
        scores = ask @ show.transpose(2, 3) * (self.width // self.heads) ** -0.5
        scores = scores - 1e4 * (1 - present[:, None, None, :])
        heard = (torch.softmax(scores, 3) @ tell).transpose(1, 2).reshape(-1, self.count, self.width)
        changed = self.out(torch.cat([tokens, heard], 2)) * present.unsqueeze(2)
        mean: Tensor = changed.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return mean

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.count, self.heads, self.width // self.heads).transpose(1, 2)


class LowRank(nn.Module):
    """Products of all embeddings, as a sum of a few rank-one parts (Liu et al. 2018, arXiv 1806.00064).

    Args:
        count: How many embeddings.
        width: Length of each, and of the result.
        rank: How many parts.
    """

    def __init__(self, count: int, width: int, rank: int = 4) -> None:
        super().__init__()
        self.rank, self.width = rank, width
        # The bias is the constant 1 that the paper appends: it stands for a modality that says nothing.
        self.factors = nn.ModuleList(nn.Linear(width, rank * width) for _ in range(count))
        for factor in self.factors:
            assert isinstance(factor, nn.Linear)
            nn.init.normal_(factor.weight, std=width**-0.5)
            nn.init.ones_(factor.bias)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Return the joint vector [batch, width].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        product: Tensor | None = None
        for factor, embedding in zip(self.factors, _masked(embeddings, present), strict=True):
            part = factor(embedding)
            product = part if product is None else product * part
        assert product is not None
        return torch.relu(product.reshape(-1, self.rank, self.width).sum(1))


class Features(nn.Module):
    """A block that joins features, with a linear head per task.

    Args:
        block: Makes the block, from how many and how long.
        count: How many embeddings.
        width: Length of each.
        classes: Of the first task, ``none`` included.
    """

    def __init__(self, block: Callable[[int, int], nn.Module], count: int, width: int, classes: int) -> None:
        super().__init__()
        self.block = block(count, width)
        self.classify, self.agree = nn.Linear(width, classes), nn.Linear(width, 1)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the class [batch, classes] and of agreement [batch, 1].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        joint = self.block(embeddings, present)
        return self.classify(joint), self.agree(joint)


class Posteriors(nn.Module):
    """What each modality says alone: the probability of every class and of ``none``, which is last.

    An absent modality says ``none`` for certain.

    Args:
        count: How many embeddings.
        width: Length of each.
        classes: ``none`` included.
    """

    certain_none: Tensor

    def __init__(self, count: int, width: int, classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(count))
        self.register_buffer("certain_none", torch.eye(classes)[-1:], persistent=False)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """Return one distribution [batch, classes] per modality.

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        said = []
        for m, (head, embedding) in enumerate(zip(self.heads, _masked(embeddings, present), strict=True)):
            here = present[:, m : m + 1]
            said.append(torch.softmax(head(embedding), 1) * here + self.certain_none * (1 - here))
        return said


class SumLogProbs(nn.Module):
    """Decision fusion: the sum of log-probabilities, in which every further modality leaves its own prior out.

    With weights of 1 this is Bayes' rule for modalities that are independent given the class, so nothing can beat it
    where they are and every head is calibrated. With learnt weights it is a product of experts (Hinton 2002). They
    agree as far as one digit for all is likelier than digits that have nothing to do with each other.

    Args:
        count: How many embeddings.
        width: Length of each.
        classes: ``none`` included.
        learned: Learn a weight per modality.

    Attributes:
        log_prior: How often each modality shows each class in training [count, classes]; equal until it is set.
    """

    def __init__(self, count: int, width: int, classes: int, *, learned: bool = False) -> None:
        super().__init__()
        self.posteriors = Posteriors(count, width, classes)
        self.weights = nn.Parameter(torch.ones(count), requires_grad=learned)
        self.log_prior = nn.Parameter(torch.full((count, classes), 1 / classes).log(), requires_grad=False)
        self.agree_bias = nn.Parameter(torch.zeros(1))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the class [batch, classes] and of agreement [batch, 1].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        prior = present @ self.log_prior / present.sum(1, keepdim=True).clamp_min(1)
        digit, same = prior, prior[:, :-1]
        for m, p in enumerate(self.posteriors(embeddings, present)):
            gain = present[:, m : m + 1] * (p.clamp_min(_TINY).log() - self.log_prior[m])
            digit, same = digit + self.weights[m] * gain, same + gain[:, :-1]
        return digit, torch.logsumexp(same, 1, keepdim=True) + self.agree_bias


class JointTable(nn.Module):
    """Decision fusion over what the modalities may have named together; two learned numbers beside the heads.

    The products of what each says alone are summed over all that may be the case: everybody who speaks names the same
    digit, they name different ones, or nobody names any. Two weights say how much likelier the first is, and how much
    less likely the second, than if the modalities were unrelated: a product of experts (Hinton 2002) that knows
    silence from dissent. Alone, a modality says what its own head says, so no mask needs another network.

    Args:
        count: How many embeddings.
        width: Length of each.
        classes: ``none`` included.
    """

    def __init__(self, count: int, width: int, classes: int) -> None:
        super().__init__()
        self.posteriors = Posteriors(count, width, classes)
        self.agree_weight = nn.Parameter(torch.tensor(2.0))
        self.conflict_weight = nn.Parameter(torch.tensor(-2.0))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the class [batch, classes] and of agreement [batch, 1].

        Embeddings are float32 [batch, width], one per modality; ``present`` is float32 [batch, modalities].
        """
        said = self.posteriors(embeddings, present)
        digits, none = [p[:, :-1] for p in said], [p[:, -1:] for p in said]
        everyone = present.sum(1, keepdim=True)
        weight = torch.exp(self.agree_weight)

        nobody = _product(none)
        # A factor of the weight for every modality that joins the first in naming the digit.
        agree = (_product([weight * p + n for p, n in zip(digits, none, strict=True)]) - nobody) / weight
        conflict = torch.zeros_like(agree)
        for m, p in enumerate(digits):
            conflict = conflict + p * (1 - _product([digits[k] + none[k] for k in range(len(said)) if k != m]))
        conflict = torch.exp(self.conflict_weight) * conflict / everyone.clamp_min(1)
        table = torch.cat([agree + conflict, nobody], 1)

        same = _product([p + 1 - present[:, m : m + 1] for m, p in enumerate(digits)]).sum(1, keepdim=True)
        same = same * torch.exp(self.agree_weight * (everyone - 1))
        rest = table.sum(1, keepdim=True) - same
        return table.clamp_min(_TINY).log(), same.clamp_min(_TINY).log() - rest.clamp_min(_TINY).log()


def _product(factors: Sequence[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


# Name -> a network from how many embeddings, how long each, and how many classes.
FUSIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "sum": SumLogProbs,
    "experts": lambda count, width, classes: SumLogProbs(count, width, classes, learned=True),
    "table": JointTable,
    "concat": lambda count, width, classes: Features(Concat, count, width, classes),
    "gated": lambda count, width, classes: Features(Gated, count, width, classes),
    "attention": lambda count, width, classes: Features(CrossAttention, count, width, classes),
    "low-rank": lambda count, width, classes: Features(LowRank, count, width, classes),
}
