"""Generative adversarial networks: Goodfellow et al., 2014 (arXiv:1406.2661), dense, conditional and convolutional.

Conditional: Mirza & Osindero, Conditional Generative Adversarial Nets, 2014 (arXiv:1411.1784). DCGAN: Radford, Metz &
Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, 2016
(arXiv:1511.06434). Least squares: Mao et al., 2017 (arXiv:1611.04076).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int, Key

from cvjax.core import Recipe, count_classes
from cvjax.errors import UserError
from cvjax.generative.gans.game import make_recipe
from cvjax.generative.gans.sampling import Prior, Sampler
from cvjax.losses.strategies import Training
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.signature import Count, Share

Images = Float[Array, "batch height width channels"]
Latents = Float[Array, "batch latent"]
Labels = Int[Array, " batch"]

# --- convolutional nets -------------------------------------------------------------------------------------------

WEIGHTS = nn.initializers.normal(0.02)  # "all weights were initialized from a zero-centered Normal" (section 4)


def scale_around_one(key: Key[Array, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """Returns an initial scale of batch normalisation drawn from N(1, 0.02), as in the authors' code."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def batch_norm(train: bool, name: str | None = None) -> nn.BatchNorm:
    """Returns a batch normalisation with the momentum and epsilon of the reference implementations."""
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, name=name)


class Generator(nn.Module):
    """DCGAN's generator: a dense projection, then transposed convolutions that double the resolution.

    Attributes:
      shape: of the image; height = width = `base` times a power of two.
      width: channels before the last layer, doubled in each earlier layer; 128 in the paper, for 64 x 64 pixels.
      base: height and width of the projection; 4 in the paper.
      classes: number of classes, one-hot beside the latent; None for an unconditional network.
    """

    shape: tuple[int, int, int]
    width: int = 128
    kernel: int = 5
    base: int = 4
    classes: int | None = None

    @nn.compact
    def __call__(self, latent: Latents, labels: Labels | None = None, train: bool = False) -> Images:
        """Returns images in [0, 1], the paper's tanh output rescaled."""
        doublings = count_doublings(self.shape, self.base)
        if self.classes is not None:
            latent = jnp.concatenate([latent, jax.nn.one_hot(labels, self.classes)], axis=1)
        features = self.width * 2 ** (doublings - 1)
        x = nn.Dense(self.base**2 * features, use_bias=False, kernel_init=WEIGHTS)(latent)
        x = nn.relu(batch_norm(train)(x.reshape(-1, self.base, self.base, features)))
        padding = (self.kernel - 1) // 2
        double = dict(kernel=self.kernel, stride=2, padding=padding, output_padding=self.kernel % 2)
        for level in range(doublings - 1)[::-1]:
            x = ConvTranspose(self.width * 2**level, **double, use_bias=False, kernel_init=WEIGHTS)(x)
            x = nn.relu(batch_norm(train)(x))
        x = ConvTranspose(self.shape[2], **double, kernel_init=WEIGHTS)(x)  # no normalisation on the output
        return (nn.tanh(x) + 1) / 2


class Discriminator(nn.Module):
    """DCGAN's discriminator: strided convolutions, then one logit.

    Attributes:
      width: channels of the first layer, doubled in each later layer.
      classes: number of classes, one-hot as further channels of the image; None for an unconditional network.
      normalise: use batch normalisation; must be False under a gradient penalty.
    """

    shape: tuple[int, int, int]
    width: int = 128
    kernel: int = 5
    base: int = 4
    classes: int | None = None
    normalise: bool = True
    weights: Callable = WEIGHTS

    @nn.compact
    def __call__(self, images: Images, labels: Labels | None = None, train: bool = False) -> Float[Array, " batch"]:
        """Returns one logit per image, high for images that look real."""
        x = 2 * images - 1
        if self.classes is not None:
            maps = jax.nn.one_hot(labels, self.classes)[:, None, None]
            x = jnp.concatenate([x, jnp.broadcast_to(maps, (*x.shape[:3], self.classes))], axis=3)
        for level in range(count_doublings(self.shape, self.base)):
            normalise = self.normalise and level > 0  # none on the input
            halve = dict(kernel=self.kernel, stride=2, padding=(self.kernel - 1) // 2, kernel_init=self.weights)
            x = Conv(self.width * 2**level, **halve, use_bias=not normalise)(x)
            x = nn.leaky_relu(batch_norm(train)(x) if normalise else x, 0.2)
        return nn.Dense(1, kernel_init=self.weights)(x.reshape(len(x), -1))[:, 0]


def count_doublings(shape: tuple[int, ...], base: int = 4) -> int:
    """Returns log2(height / base), the number of layers that double the resolution; other shapes raise a UserError."""
    height, width = shape[:2]
    doublings = round(math.log2(height / base)) if height > base > 0 else 0
    if height != width or doublings < 1 or base * 2**doublings != height:
        sizes = ", ".join(str(base * 2**n) for n in range(1, 4))
        raise UserError(
            f"config.recipe.shape={tuple(shape)}: base={base} makes squares of {sizes}, ...: pad or resize."
        )
    return doublings


# --- dense nets ---------------------------------------------------------------------------------------------------


class DenseGenerator(nn.Module):
    """The first GAN's generator: two hidden layers with ReLU, then a sigmoid.

    With classes, the latent gets a sixth of the first layer's units, the label the rest: 200 and 1,000 in the paper.
    """

    shape: tuple[int, int, int]
    hidden: int = 1200
    classes: int | None = None

    @nn.compact
    def __call__(self, latent: Latents, labels: Labels | None = None, train: bool = False) -> Images:
        """Returns images in [0, 1]."""
        if self.classes is None:
            x = nn.relu(nn.Dense(self.hidden)(latent))
        else:
            latent_units, onehot = max(self.hidden // 6, 1), jax.nn.one_hot(labels, self.classes)
            parts = nn.Dense(latent_units)(latent), nn.Dense(self.hidden - latent_units)(onehot)
            x = nn.relu(jnp.concatenate(parts, axis=1))
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.sigmoid(nn.Dense(math.prod(self.shape))(x)).reshape(len(latent), *self.shape)


class Maxout(nn.Module):
    """Maximum over `pieces` linear maps for each unit: Goodfellow et al., Maxout Networks, 2013 (arXiv:1302.4389)."""

    features: int
    pieces: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch features"]:
        """Returns the maximum of each unit."""
        return nn.Dense(self.features * self.pieces)(x).reshape(len(x), self.features, self.pieces).max(axis=2)


class DenseDiscriminator(nn.Module):
    """The first GAN's discriminator: two maxout layers of `hidden` units, each of 5 pieces, with dropout.

    With classes, the label has a layer, of 50 units in the paper beside the image's 240; one of 4 pieces joins both.
    """

    hidden: int = 240
    dropout: float = 0.5
    classes: int | None = None

    @nn.compact
    def __call__(self, images: Images, labels: Labels | None = None, train: bool = False) -> Float[Array, " batch"]:
        """Returns one logit per image, high for images that look real."""
        x = Maxout(self.hidden, 5)(images.reshape(len(images), -1))
        if self.classes is not None:
            label = Maxout(max(self.hidden * 5 // 24, 1), 5)(jax.nn.one_hot(labels, self.classes))
            x = jnp.concatenate([x, label], axis=1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Maxout(self.hidden, 5 if self.classes is None else 4)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]


# --- recipe -------------------------------------------------------------------------------------------------------

ADAM = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}  # DCGAN's, section 4
TRAINING = Training()


def recipe(
    shape: tuple[Count, Count, Count],
    networks: Literal["convolutional", "dense"] = "convolutional",
    loss: Literal["cross_entropy", "least_squares"] = "cross_entropy",
    classes: Count | tuple[str, ...] | None = None,
    latent: Count = 100,
    prior: Prior = "uniform",
    width: Count = 128,
    kernel: Count = 5,
    base: Count = 4,
    hidden: tuple[Count, Count] = (1200, 240),
    dropout: Share = 0.5,
    training: Training = TRAINING,
    generator_optimiser: Mapping[str, Any] = ADAM,
    discriminator_optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes a GAN: DCGAN by default, the first GAN or conditional GAN with dense networks.

    Args:
      shape: height, width, channels of the images.
      networks: "convolutional" or "dense".
      loss: "cross_entropy", or "least_squares" for LSGAN.
      classes: number of classes, or their names, of a conditional GAN; None for an unconditional one.
      latent: dimensions of z.
      prior: distribution of z, "uniform" in [-1, 1] or "normal".
      width: channels of the convolutional layers nearest the image.
      kernel: size of the convolutions.
      base: height and width of the smallest convolutional layer; images are 2, 4, 8, ... times as large.
      hidden: units per layer of the dense generator and of the dense discriminator.
      dropout: dropout rate of the dense discriminator.
      training: training strategies.
      generator_optimiser, discriminator_optimiser: as `cvjax.optim.build` takes them.

    Returns:
      The recipe. It has no figures of its own; a judge scores its samples.

    Raises:
      UserError: a shape does not fit the networks, or the loss does not support a strategy.
    """
    shape, number = tuple(shape), count_classes(classes)
    if networks == "dense":
        generator = DenseGenerator(shape, hidden[0], number)
        discriminator = DenseDiscriminator(hidden[1], dropout, number)
    else:
        count_doublings(shape, base)
        generator = Generator(shape, width, kernel, base, number)
        discriminator = Discriminator(shape, width, kernel, base, number)
    sampler = Sampler(generator, shape, latent, prior, number)
    optimisers = generator_optimiser, discriminator_optimiser
    return make_recipe(sampler, discriminator, loss, training, *optimisers, joint=networks == "dense")
