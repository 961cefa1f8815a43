from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import fusion_study  # noqa: E402
from benchmarks.fusion_study import Embedded, Study  # noqa: E402
from benchmarks.fusion_table import difference  # noqa: E402
from mmedge.export.shipped import shipped_recipe  # noqa: E402

EVERYTHING, BOTH = ("image", "audio", "text"), ("image", "audio")


def gaussians(count: int, seed: int) -> Embedded:
    """Digits and none as clusters of points, independent given the label: nothing beats the sum here."""
    generator = torch.Generator().manual_seed(seed)
    means = 1.1 * torch.randn(3, 11, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 11, (count, 1), generator=generator).expand(-1, 3).clone()
    vectors = tuple(means[m][labels[:, m]] + 4 * torch.randn(count, 64, generator=generator) for m in range(3))
    return Embedded(vectors=vectors, labels=labels, present=torch.ones(count, 3))


@pytest.fixture(scope="module")
def study() -> Study:
    torch.manual_seed(0)
    return Study(shipped_recipe("av_digits"), gaussians(6000, 1), gaussians(600, 2))


@pytest.mark.long
def test_the_sum_is_best_where_modalities_are_independent(study: Study) -> None:
    test = gaussians(1500, 3)
    heads = study.heads()
    concat = study.learned("concat", heads)
    hits = {mask: study.hits(heads, test, mask)["digit"] for mask in study.masks}
    assert hits[EVERYTHING].mean() > hits[BOTH].mean() > max(hits["image",].mean(), hits["audio",].mean()) > 0.3
    mean, low, high = difference([study.hits(concat, test, EVERYTHING)["digit"]], [hits[EVERYTHING]])
    assert low <= mean <= high
    assert mean < 2
    assert set(study.hits(heads, test, BOTH)) == {"digit", "agreement"}
    assert set(study.hits(heads, test, ("text",))) == {"digit"}


def test_decision_fusion_starts_from_the_calibrated_heads(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_study, "_EPOCHS", 1)
    heads = study.heads()
    before = [p.clone() for p in heads.posteriors.parameters()]
    experts = study.learned("experts", heads)
    for a, b in zip(before, experts.posteriors.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert [name for name, p in experts.named_parameters() if p.requires_grad] == ["weights", "agree_bias"]


def test_the_interval_covers_what_is_paired() -> None:
    rng = np.random.default_rng(0)
    theirs = [rng.random(4000) < 0.6 for _ in range(3)]
    ours = [hits | (rng.random(4000) < 0.1) for hits in theirs]
    mean, low, high = difference(ours, theirs)
    assert low < 4 < high
    assert high - low < 2
    assert difference(theirs, theirs) == (0, 0, 0)
    assert mean == pytest.approx(4, abs=1)
