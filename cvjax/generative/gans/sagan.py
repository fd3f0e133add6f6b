"""Self-attention GAN: Zhang, Goodfellow, Metaxas & Odena, 2019 (arXiv:1805.08318).

Residual networks under spectral normalisation, in the discriminator and in the generator, with self-attention in both;
the hinge loss; two learning rates. Classes enter by conditional batch normalisation in the generator and by a
projection in the discriminator (Miyato & Koyama, cGANs with Projection Discriminator, 2018, arXiv:1802.05637).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cvjax.core import Recipe, count_classes
from cvjax.errors import UserError
from cvjax.generative.gans.game import assemble
from cvjax.generative.gans.gan import count_doublings
from cvjax.generative.gans.sampling import Prior, Sampler
from cvjax.losses.strategies import Training
from cvjax.nets.attention import SelfAttention
from cvjax.nets.layers import Conv
from cvjax.nets.normalisation import ConditionalBatchNorm, spectral
from cvjax.signature import Count

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch rows columns features"]
Labels = Int[Array, " batch"]

WEIGHTS = nn.initializers.glorot_uniform()

# --- nets ---------------------------------------------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    """A residual block that doubles the size; the class scales and shifts its features.

    Attributes:
      features: channels out.
      classes: number of classes; None: plain batch normalisation.
    """

    features: int
    classes: int | None

    @nn.compact
    def __call__(self, x: Images, labels: Labels | None, train: bool) -> Features:
        """Returns the features at twice the size."""
        y = upsample(nn.relu(ConditionalBatchNorm(self.classes)(x, labels, train)))
        y = spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y)
        y = nn.relu(ConditionalBatchNorm(self.classes)(y, labels, train))
        y = spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y)
        return y + upsample(spectral(Conv(self.features, 1, kernel_init=WEIGHTS), train)(x))


class DiscriminatorBlock(nn.Module):
    """A residual block that halves the size, or keeps it.

    Attributes:
      features: channels out.
      halve: average blocks of four pixels at the end.
      first: the block sees the image: no ReLU before its first convolution.
    """

    features: int
    halve: bool = True
    first: bool = False

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Features:
        """Returns the features."""
        y = x if self.first else nn.relu(x)
        y = nn.relu(spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y))
        y = spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y)
        if self.halve:  # the shortcut's 1 x 1 convolution gives the same on the fewer pixels
            x, y = halve(x), halve(y)
        if not self.halve and x.shape[-1] == self.features:
            return x + y
        return spectral(Conv(self.features, 1, kernel_init=WEIGHTS), train)(x) + y


def upsample(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Doubles a size by repeating each pixel.

    Args:
      x: feature maps.

    Returns:
      Maps with twice as many rows and columns.
    """
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halve(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Halves a size by the mean of each block of four pixels.

    Args:
      x: feature maps, their height and width even.

    Returns:
      Maps with half as many rows and columns.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Generator(nn.Module):
    """A projection to `base` x `base`, then residual blocks that double the size.

    Attributes:
      shape: height, width, channels of the image; height and width are the same, `base` times a power of two.
      width: channels of the last block; each earlier one has twice as many, at most 16 times.
      base: height and width of the projection.
      attention: size of the features among whose places there is attention; 0: none.
      classes: number of classes; None: it is not conditional.
    """

    shape: tuple[int, int, int]
    width: int = 64
    base: int = 4
    attention: int = 32
    classes: int | None = None

    @nn.compact
    def __call__(
        self, latent: Float[Array, "batch latent"], labels: Labels | None = None, train: bool = False
    ) -> Images:
        """Returns images in [0, 1]; the paper's tanh gives 2 * image - 1."""
        doublings = count_doublings(self.shape, self.base)
        features = self.width * min(2 ** (doublings - 1), 16)
        x = spectral(nn.Dense(self.base**2 * features, kernel_init=WEIGHTS), train)(latent)
        x = x.reshape(-1, self.base, self.base, features)
        for level in range(doublings)[::-1]:
            x = GeneratorBlock(self.width * min(2**level, 16), self.classes)(x, labels, train)
            if x.shape[1] == self.attention:
                x = SelfAttention(spectral_norm=True)(x, train)
        x = nn.relu(ConditionalBatchNorm(None)(x, None, train))
        x = spectral(Conv(self.shape[2], 3, padding=1, kernel_init=WEIGHTS), train)(x)
        return (nn.tanh(x) + 1) / 2


class Discriminator(nn.Module):
    """Residual blocks down to `base` x `base`, summed over all places; a logit, and the class's by projection.

    Attributes:
      shape: as the generator's.
      width: channels of the first block; each later one has twice as many, at most 16 times.
      base: height and width of the last block.
      attention: as the generator's.
      classes: as the generator's.
    """

    shape: tuple[int, int, int]
    width: int = 64
    base: int = 4
    attention: int = 32
    classes: int | None = None

    @nn.compact
    def __call__(self, images: Images, labels: Labels | None = None, train: bool = False) -> Float[Array, " batch"]:
        """Returns one logit an image, high where it looks real and of its class."""
        x, doublings = 2 * images - 1, count_doublings(self.shape, self.base)
        for level in range(doublings):
            x = DiscriminatorBlock(self.width * min(2**level, 16), first=level == 0)(x, train)
            if x.shape[1] == self.attention:
                x = SelfAttention(spectral_norm=True)(x, train)
        x = nn.relu(DiscriminatorBlock(x.shape[-1], halve=False)(x, train)).sum(axis=(1, 2))
        logits = spectral(nn.Dense(1, kernel_init=WEIGHTS), train)(x)[:, 0]
        if self.classes is None:
            return logits
        embedding = nn.Embed(self.classes, x.shape[1], embedding_init=WEIGHTS, name="projection")
        return logits + (spectral(embedding, train)(labels) * x).sum(axis=1)


# --- recipe -------------------------------------------------------------------------------------------------------

SLOW = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}  # section 4: two time scales
FAST = {"name": "adam", "learning_rate": 4e-4, "b1": 0.0, "b2": 0.9}
TRAINING = Training()


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...] | None = None,
    latent: Count = 128,
    prior: Prior = "normal",
    width: Count = 64,
    base: Count = 4,
    attention: int = 32,
    training: Training = TRAINING,
    generator_optimiser: Mapping[str, Any] = SLOW,
    discriminator_optimiser: Mapping[str, Any] = FAST,
) -> Recipe:
    """Makes a SAGAN.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names, if the images are to be made of a class; None: they are not.
      latent: dimensions of z.
      prior: of z, "normal" or "uniform" in [-1, 1].
      width: channels of the blocks nearest the image, in both networks.
      base: height and width of the smallest layer, in both networks; the images are 2, 4, 8, ... times as large.
      attention: height and width of the features with attention among their places, in both networks; 0: none.
      training: the strategies.
      generator_optimiser: as `cvjax.optim.build` takes it.
      discriminator_optimiser: likewise; it is the faster one.

    Returns:
      The recipe. It has no figures of its own: its samples are what is judged.

    Raises:
      UserError: sizes that the networks cannot make, or a strategy that the loss cannot use.
    """
    shape, number = tuple(shape), count_classes(classes)
    sizes = [base * 2**level for level in range(1, count_doublings(shape, base))]
    if attention and attention not in sizes:
        shown = ", ".join(map(str, sizes)) or "none here"
        raise UserError(f"config.recipe.attention={attention}: the features are of {shown}; 0 is no attention.")
    sampler = Sampler(Generator(shape, width, base, attention, number), shape, latent, prior, number)
    discriminator = Discriminator(shape, width, base, attention, number)
    optimisers = generator_optimiser, discriminator_optimiser
    return assemble(sampler, discriminator, "hinge", training, *optimisers, joint=True)
