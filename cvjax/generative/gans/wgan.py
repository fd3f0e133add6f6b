"""Wasserstein GAN: Arjovsky, Chintala & Bottou, 2017 (arXiv:1701.07875), by clipping or by a gradient penalty.

The penalty: Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (arXiv:1704.00028). Both have DCGAN's
networks; the discriminator is a critic, whose slope is bounded and whose score has no sigmoid.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn

from cvjax.core import Recipe, count_classes
from cvjax.generative.gans.game import assemble
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
      constraint: what keeps the critic's slope bounded: "penalty", WGAN-GP, or "clipping", WGAN. Only the latter's
        critic has batch normalisation, without which its clipped weights would let hardly any signal through.
      penalty: weight of the gradient penalty.
      clip: largest magnitude of a weight of the clipped critic.
      classes: number of classes, or their names, if the images are to be made of a class; None: they are not.
      latent: dimensions of z.
      prior: of z, "normal" or "uniform" in [-1, 1].
      width: channels of the layers nearest the image, in both networks.
      kernel: of all convolutions.
      base: height and width of the smallest layer, in both networks; the images are 2, 4, 8, ... times as large.
      training: the strategies; `discriminator_steps` of the critic share a batch.
      generator_optimiser: as `cvjax.optim.build` takes it; None: the paper's, Adam(1e-4, 0, .9) with the penalty and
        RMSProp(5e-5) with clipping.
      discriminator_optimiser: likewise, the critic's.

    Returns:
      The recipe. With the penalty its figures are `gradient_norm`: the mean norm of the critic's gradient between
      held-out images and generated ones, both in [-1, 1], and `gradient_error`: how far that is from 1.

    Raises:
      UserError: sizes that the networks cannot make, or a strategy that the loss cannot use.
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
    return assemble(sampler, critic, "wasserstein", training, *optimisers, **bound)
