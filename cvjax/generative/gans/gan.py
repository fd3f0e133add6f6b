"""Generative adversarial networks: Goodfellow et al., 2014 (arXiv:1406.2661), dense, conditional and convolutional.

Conditional: Mirza & Osindero, Conditional Generative Adversarial Nets, 2014 (arXiv:1411.1784). DCGAN: Radford, Metz &
Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, 2016
(arXiv:1511.06434). Least squares: Mao et al., 2017 (arXiv:1611.04076). How they are trained is in
`cvjax.generative.gans.game`; samples are drawn from an exponential moving average of the generator.
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
from cvjax.generative.gans.game import assemble
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
    """Draws the scale of batch normalisation from N(1, 0.02), as the authors' code does.

    Args:
      key: of the draw.
      shape: of the scale.
      dtype: of the scale.

    Returns:
      The initial scale.
    """
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def batch_norm(train: bool, name: str | None = None) -> nn.BatchNorm:
    """Makes a batch normalisation with the momentum (0.9 kept) and epsilon of the reference implementations.

    Args:
      train: normalise by the batch's statistics, and update the running ones.
      name: of the module.

    Returns:
      The module.
    """
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, name=name)


class Generator(nn.Module):
    """DCGAN's generator: a projection to 4 x 4, then transposed convolutions that double the size.

    Attributes:
      shape: height, width, channels of the image; height and width are the same, `base` times a power of two.
      width: channels before the last layer; each earlier layer has twice as many (128 at 64 px is the paper's).
      kernel: of the transposed convolutions.
      base: height and width of the projection; 4 is the paper's, smaller gives small images more layers.
      classes: how many labels there are, one-hot beside the latent; None: it is not conditional.
    """

    shape: tuple[int, int, int]
    width: int = 128
    kernel: int = 5
    base: int = 4
    classes: int | None = None

    @nn.compact
    def __call__(self, latent: Latents, labels: Labels | None = None, train: bool = False) -> Images:
        """Returns images in [0, 1]; the paper's tanh gives 2 * image - 1."""
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
    """DCGAN's discriminator: strided convolutions down to 4 x 4, then one logit.

    Attributes:
      shape: as the generator's.
      width: channels of the first layer; each later layer has twice as many.
      kernel: of the convolutions.
      base: height and width of the last layer, as the generator's.
      classes: as the generator's; a label is a map of ones among as many maps beside the image's channels.
      normalise: batch normalisation, which a critic under a gradient penalty must not have.
      weights: draws the kernels.
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
        """Returns one logit an image, high where it looks real."""
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
    """Counts how many times the first layer's size is doubled.

    Args:
      shape: height, width, channels.
      base: height and width of the first layer.

    Returns:
      log2(height / base).

    Raises:
      UserError: not square, or not 2, 4, 8, ... times the base.
    """
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
    """The first GAN's generator: two layers of ReLU, and a sigmoid for each pixel.

    Attributes:
      shape: height, width, channels of the image.
      hidden: units of a layer. A conditional generator's first layer is of two parts, a sixth of the units for the
        latent and the others for the label: 200 and 1,000 of the paper's 1,200.
      classes: how many labels there are; None: it is not conditional.
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
            of_latent, onehot = max(self.hidden // 6, 1), jax.nn.one_hot(labels, self.classes)
            parts = nn.Dense(of_latent)(latent), nn.Dense(self.hidden - of_latent)(onehot)
            x = nn.relu(jnp.concatenate(parts, axis=1))
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.sigmoid(nn.Dense(math.prod(self.shape))(x)).reshape(len(latent), *self.shape)


class Maxout(nn.Module):
    """Units that give the largest of several linear maps: Goodfellow et al., 2013 (arXiv:1302.4389).

    Attributes:
      features: units.
      pieces: linear maps of a unit.
    """

    features: int
    pieces: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch features"]:
        """Returns the largest of each unit's maps."""
        return nn.Dense(self.features * self.pieces)(x).reshape(len(x), self.features, self.pieces).max(axis=2)


class DenseDiscriminator(nn.Module):
    """The first GAN's discriminator: two layers of maxout, with dropout.

    Attributes:
      hidden: units of a layer, 5 pieces each. A conditional discriminator sees the label through a layer of its own, 50
        units for the paper's 240, and joins both in units of 4 pieces.
      dropout: share of the hidden units dropped while training.
      classes: as the generator's.
    """

    hidden: int = 240
    dropout: float = 0.5
    classes: int | None = None

    @nn.compact
    def __call__(self, images: Images, labels: Labels | None = None, train: bool = False) -> Float[Array, " batch"]:
        """Returns one logit an image, high where it looks real."""
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
    """Makes a GAN: by default DCGAN; dense networks are the first GAN's, and with classes those of conditional GANs.

    Args:
      shape: height, width, channels of the images.
      networks: "convolutional" or "dense".
      loss: "cross_entropy" or "least_squares", which is LSGAN.
      classes: number of classes, or their names, if the images are to be made of a class; None: they are not.
      latent: dimensions of z.
      prior: of z, "uniform" in [-1, 1], as in the papers, or "normal".
      width: convolutional: channels of the layers nearest the image, in both networks.
      kernel: of all convolutions.
      base: height and width of the smallest layer, in both networks; the images are 2, 4, 8, ... times as large.
      hidden: dense: units of a layer of the generator, and of the discriminator.
      dropout: share of the dense discriminator's hidden units that are dropped.
      training: the strategies.
      generator_optimiser: as `cvjax.optim.build` takes it.
      discriminator_optimiser: likewise; two time scales are two learning rates.

    Returns:
      The recipe. It has no figures of its own: its samples are what is judged.

    Raises:
      UserError: sizes that the networks cannot make, or a strategy that the loss cannot use.
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
    return assemble(sampler, discriminator, loss, training, *optimisers, joint=networks == "dense")
