"""Wasserstein GANs with DCGAN's networks: Arjovsky, Chintala & Bottou, 2017 (arXiv:1701.07875).

The critic's gradient is bounded by weight clipping, or by a penalty: Gulrajani et al., Improved Training of Wasserstein
GANs, 2017 (arXiv:1704.00028).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn

from cvjax.core import Recipe, count_classes
from cvjax.generative.gans.game import make_recipe
from cvjax.generative.gans.gan import WEIGHTS, Discriminator, Generator, count_doublings
from cvjax.generative.gans.sampling import Prior, Sampler
from cvjax.losses.strategies import Training
from cvjax.signature import Count, Range

ADAM = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}  # Gulrajani et al., algorithm 1
RMSPROP = {"name": "rmsprop", "learning_rate": 5e-5, "decay": 0.99, "eps_in_sqrt": False}  # Arjovsky et al.; torch's
TRAINING = Training(discriminator_steps=5)  # of both papers


def recipe(
    shape: tuple[Count, Count, Count],
    constraint: Literal["penalty", "clipping"] = "penalty",
    penalty: Annotated[float, Range(0)] = 10.0,
    clip: Annotated[float, Range(0)] = 0.01,
    classes: Count | tuple[str, ...] | None = None,
    latent: Count = 128,
    prior: Prior = "normal",
    width: Count = 64,
    kernel: Count = 5,
    base: Count = 4,
    training: Training = TRAINING,
    generator_optimiser: Mapping[str, Any] | None = None,
    discriminator_optimiser: Mapping[str, Any] | None = None,
) -> Recipe:
    """Makes a Wasserstein GAN.

    Args:
      shape: height, width, channels of the images.
      constraint: "penalty" for WGAN-GP, "clipping" for WGAN. The critic has batch normalisation only with clipping:
        the signal would vanish in its small weights otherwise.
      penalty: weight of the gradient penalty.
      clip: largest magnitude of the critic's weights with clipping.
      classes: number of classes, or their names, of a conditional GAN; None for an unconditional one.
      latent: dimensions of z.
      prior: distribution of z, "normal" or "uniform" in [-1, 1].
      width, kernel, base: sizes of the networks, as in `cvjax.generative.gans.gan.recipe`.
      training: training strategies; a batch is split among the critic's steps.
      generator_optimiser, discriminator_optimiser: as `cvjax.optim.build` takes them; None for those of the papers,
        Adam(1e-4, 0, .9) with the penalty and RMSProp(5e-5) with clipping.

    Returns:
      The recipe; its figures are those of `cvjax.generative.gans.game.make_recipe`.

    Raises:
      UserError: a shape does not fit the networks, or the loss does not support a strategy.
    """
    count_doublings(shape, base)
    shape, number = tuple(shape), count_classes(classes)
    clipping = constraint == "clipping"
    paper = RMSPROP if clipping else ADAM
    weights = WEIGHTS if clipping else nn.initializers.he_normal()
    critic = Discriminator(shape, width, kernel, base, number, normalise=clipping, weights=weights)
    sampler = Sampler(Generator(shape, width, kernel, base, number), shape, latent, prior, number)
    bound = {"clip": clip} if clipping else {"penalty": penalty, "joint": True}
    optimisers = generator_optimiser or paper, discriminator_optimiser or paper
    return make_recipe(sampler, critic, "wasserstein", training, *optimisers, **bound)
