"""Decision fusion as rules over probabilities, for networks that share no embedding.

Each takes probabilities as float32 [1, classes] by name. An expert whose probabilities are all zero is absent (that
is what a stage gives while its inputs are): it has no say. Rules can be called from a rule of your own:

    def join(picture, sound):
        return weighted_log_probs(picture=picture, sound=sound, weight_sound=0.5, prior=PRIOR)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.types import FloatArray

# What a bundle may name without anybody's consent, by exactly these names: these functions compute, and do no more.
LISTED = (
    "mmedge.fusion.rules:weighted_log_probs",
    "mmedge.fusion.rules:product_of_experts",
    "mmedge.fusion.rules:joint_of_two",
    "mmedge.fusion.faces:propose",
    "mmedge.fusion.faces:refine",
    "mmedge.fusion.faces:decide",
)
TINY = 1e-7  # a probability below this counts as this: log 0 would veto all others
_WEIGHT = "weight_"


def weighted_log_probs(*, prior: npt.ArrayLike | None = None, **tensors: npt.ArrayLike) -> FloatArray:
    """Return the classes' probabilities from the weighted sum of log-probabilities.

    Each expert's posterior holds the prior once; all but one of these are divided out again: with weights of 1
    this is Bayes' rule for experts that are independent given the class.

    Args:
        prior: How likely each class is before anybody is asked [classes]; equal by default.
        **tensors: ``NAME``: the probabilities of an expert [1, classes]; ``weight_NAME``: how much it counts, 1 by
            default.

    Returns:
        Probabilities [1, classes]; the prior where every expert is absent.

    Raises:
        ValueError: If experts have different numbers of classes, or a weight belongs to no expert.

    Example:
        >>> weighted_log_probs(eye=[[0.8, 0.2]], ear=[[0.5, 0.5]]).round(2)
        array([[0.8, 0.2]], dtype=float32)
    """
    given = {name: np.asarray(value, np.float64).reshape(-1) for name, value in tensors.items()}
    weights = {name.removeprefix(_WEIGHT): v for name, v in given.items() if name.startswith(_WEIGHT)}
    experts = {name: v for name, v in given.items() if not name.startswith(_WEIGHT)}
    sizes = {v.size for v in experts.values()}
    if len(sizes) != 1 or not weights.keys() <= experts.keys():
        raise ValueError(
            f"experts need the same size and one weight each, got { ({n: v.size for n, v in given.items()}) }"
        )
    classes = sizes.pop()
    base = np.full(classes, 1 / classes)
    if prior is not None and np.any(prior):  # zeros: the stage that tells the prior is absent
        base = np.asarray(prior, np.float64).reshape(-1)
    log_prior = np.log(np.maximum(base / base.sum(), TINY))
    total = log_prior.copy()
    for name, probabilities in experts.items():
        if probabilities.any():
            weight = float(weights[name].reshape(-1)[0]) if name in weights else 1.0
            total += weight * (np.log(np.maximum(probabilities, TINY)) - log_prior)
    powers = np.exp(total - total.max())
    joined: FloatArray = (powers / powers.sum()).astype(np.float32)[None]
    return joined


def product_of_experts(**probabilities: npt.ArrayLike) -> FloatArray:
    """Return the product of the experts' probabilities [1, classes], normalised; absent ones are left out.

    Example:
        >>> product_of_experts(eye=[[0.8, 0.2]], ear=[[0.6, 0.4]]).round(3)
        array([[0.857, 0.143]], dtype=float32)
    """
    return weighted_log_probs(**probabilities)


def joint_of_two(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Return how likely two independent things are together, from a detector of each.

    A detector that is absent (zero) has seen nothing: what needs it is not claimed.

    Args:
        first: Probability of the first thing, one number.
        second: Probability of the second thing, one number.

    Returns:
        Probabilities [1, 4] of neither, only the first, only the second, both.

    Example:
        >>> joint_of_two(first=0.9, second=0.2).round(2)
        array([[0.08, 0.72, 0.02, 0.18]], dtype=float32)
    """
    one, two = (np.clip(float(np.asarray(value).reshape(-1)[0]), 0.0, 1.0) for value in (first, second))
    return np.array([[(1 - one) * (1 - two), one * (1 - two), (1 - one) * two, one * two]], np.float32)
