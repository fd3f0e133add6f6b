"""Generative Adversarial Metric: two trained GANs, each with its discriminator shown the other's samples.

Im, Kim, Jiang & Memisevic, Generating Images with Recurrent Adversarial Networks, 2016 (arXiv:1602.05110), "battle
between GANs". It needs no features and no classifier, but says only which of two is better.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from cvjax.core import Recipe, State
from cvjax.errors import UserError

CHUNK = 256  # images a call of a discriminator, always padded to that many: one compilation

Images = Float[np.ndarray, "images height width channels"]


class Errors(NamedTuple):
    """Shares of images that a discriminator gets wrong.

    Attributes:
      test: real images it takes for generated ones.
      samples: the other generator's images it takes for real ones.
    """

    test: float
    samples: float


class Verdict(NamedTuple):
    """The result of a comparison.

    Attributes:
      r_test: A's error on the test images over B's; far from 1, one discriminator is simply the better of the two.
      r_samples: A's error on B's samples over B's error on A's.
      winner: "a", "b", or "none" where r_test is far from 1 or r_samples is 1.
      fair: whether r_test is near 1: both discriminators judge real images about equally well.
    """

    r_test: float
    r_samples: float
    winner: str
    fair: bool


def gam(a: Errors, b: Errors, tolerance: float = 0.2) -> Verdict:
    """Decides between two GANs by the errors of their discriminators.

    Returns the verdict. Two errors of 0 have the ratio 1, and one over 0 is infinite.

    Args:
      a, b: of the first and the second one's discriminator, `samples` on images of the other one.
      tolerance: how far from 1 r_test or its inverse may be. The paper says "approximately" and no number.
    """
    r_test, r_samples = _ratio(a.test, b.test), _ratio(a.samples, b.samples)
    fair = max(r_test, _ratio(b.test, a.test)) <= 1 + tolerance
    winner = "none" if not fair or r_samples == 1 else "a" if r_samples < 1 else "b"
    return Verdict(r_test, r_samples, winner, fair)


def _ratio(one: float, other: float) -> float:
    if one == other:
        return 1.0
    return one / other if other else float("inf")


def battle(
    a: tuple[Recipe, State], b: tuple[Recipe, State], images: Images, count: int = 1000, seed: int = 0
) -> tuple[Errors, Errors]:
    """Shows two trained GANs' discriminators the test images and each other's samples.

    Returns (errors of A's discriminator, errors of B's), for `gam`. Raises a UserError for a system that does not
    sample, or has no discriminator that says real or not.

    Args:
      a, b: recipe and trained state; `sample` draws, and `predict` gives a `logit`, above 0 for real images.
      images: held-out real ones.
      count: number of samples that each draws.
    """
    samples = []
    for name, (recipe, state) in (("a", a), ("b", b)):
        judges = recipe.predict and "logit" in _predict(recipe, state, images[:CHUNK])
        if recipe.sample is None or not judges:
            raise UserError(f"--run_{name} is no GAN whose discriminator tells real images from generated ones.")
        samples.append(np.asarray(recipe.sample(state, jax.random.key(seed), {"count": count})["image"]))
    # What is not a number is wrong about both.
    return tuple(
        Errors(np.mean(~(_logits(*gan, images) > 0)).item(), np.mean(~(_logits(*gan, others) <= 0)).item())
        for gan, others in ((a, samples[1]), (b, samples[0]))
    )


def _predict(recipe: Recipe, state: State, images: Images) -> dict[str, Any]:
    """Predicts for up to `CHUNK` images, padded to that number so that there is one compilation."""
    padded = np.pad(images, ((0, CHUNK - len(images)), (0, 0), (0, 0), (0, 0)))
    return recipe.predict(state, {"image": padded}, jax.random.key(0))


def _logits(recipe: Recipe, state: State, images: Images) -> Float[np.ndarray, " images"]:
    parts = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        parts.append(np.asarray(_predict(recipe, state, part)["logit"])[: len(part)])
    return np.concatenate(parts)


def report(names: Mapping[str, str], errors: tuple[Errors, Errors], verdict: Verdict) -> str:
    """Returns a comparison as a small table in text; `names` are those of the runs, for "a" and "b"."""
    width = max(12, *map(len, names.values()))
    rows = [
        ("discriminator of", *names.values()),
        ("error on test images", *(f"{error.test:.4f}" for error in errors)),
        ("error on the other's samples", *(f"{error.samples:.4f}" for error in errors)),
    ]
    lines = [f"{title:<30}{one:>{width}}  {other:>{width}}" for title, one, other in rows]
    if verdict.winner != "none":
        outcome = f"{names[verdict.winner]} wins: its samples deceive the other's discriminator more often"
    elif verdict.fair:
        outcome = "a draw"
    else:
        outcome = "no verdict: r_test is far from 1, one of the discriminators is simply the better"
    return "\n".join([*lines, f"r_test {verdict.r_test:.3f}, r_samples {verdict.r_samples:.3f}: {outcome}"])
