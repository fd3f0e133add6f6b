"""Self-attention GAN: Zhang, Goodfellow, Metaxas & Odena, 2019 (arXiv:1805.08318).

Both networks are residual, with spectral normalisation and self-attention; the loss is the hinge loss. Labels enter the
generator through conditional batch normalisation and the discriminator through a projection (Miyato & Koyama, cGANs
with Projection Discriminator, 2018, arXiv:1802.05637).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from cvjax.core import Recipe, count_classes
from cvjax.errors import UserError
from cvjax.generative.gans.game import make_recipe
from cvjax.generative.gans.gan import count_doublings
from cvjax.generative.gans.sampling import Prior, Sampler
from cvjax.losses.strategies import Training
from cvjax.nets.attention import SelfAttention
from cvjax.nets.layers import Conv
from cvjax.nets.normalisation import ConditionalBatchNorm, spectral
from cvjax.ops.resampling import magnify
from cvjax.signature import Count

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch rows columns features"]
Labels = Int[Array, " batch"]

WEIGHTS = nn.initializers.glorot_uniform()

# --- nets ---------------------------------------------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    """A residual block that doubles the resolution; with classes, batch normalisation is conditional."""

    features: int
    classes: int | None

    @nn.compact
    def __call__(self, x: Images, labels: Labels | None, train: bool) -> Features:
        """Returns the upsampled features."""
        y = magnify(nn.relu(ConditionalBatchNorm(self.classes)(x, labels, train)), 2)
        y = spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y)
        y = nn.relu(ConditionalBatchNorm(self.classes)(y, labels, train))
        y = spectral(Conv(self.features, 3, padding=1, kernel_init=WEIGHTS), train)(y)
        return y + magnify(spectral(Conv(self.features, 1, kernel_init=WEIGHTS), train)(x), 2)


class DiscriminatorBlock(nn.Module):
    """A residual block that halves the resolution by average pooling, or keeps it.

    If `first`, the input is the image, so there is no ReLU before the first convolution.
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
        if self.halve:  # pooling commutes with the shortcut's 1 x 1 convolution, which is cheaper after it
            x, y = halve(x), halve(y)
        if not self.halve and x.shape[-1] == self.features:
            return x + y
        return spectral(Conv(self.features, 1, kernel_init=WEIGHTS), train)(x) + y


def halve(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Returns feature maps of even height and width, average-pooled to half the resolution."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Generator(nn.Module):
    """A dense projection, then residual blocks that double the resolution.

    Attributes:
      shape: of the image; height = width = `base` times a power of two.
      width: channels of the last block, doubled in each earlier block up to 16 times.
      base, attention: height and width of the projection, and of the features with self-attention (0 for none).
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
        """Returns images in [0, 1], the paper's tanh output rescaled."""
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
    """Residual blocks that halve the resolution, a sum over positions, then a logit and the label's projection.

    `width` is the channels of the first block, doubled in each later block up to 16 times.
    """

    shape: tuple[int, int, int]
    width: int = 64
    base: int = 4
    attention: int = 32
    classes: int | None = None

    @nn.compact
    def __call__(self, images: Images, labels: Labels | None = None, train: bool = False) -> Float[Array, " batch"]:
        """Returns one logit per image, high for images that look real and match their label."""
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
      classes: number of classes, or their names, of a conditional GAN; None for an unconditional one.
      latent: dimensions of z.
      prior: distribution of z, "normal" or "uniform" in [-1, 1].
      width: channels of the blocks nearest the image.
      base: height and width of the smallest feature maps; images are 2, 4, 8, ... times as large.
      attention: height and width of the feature maps with self-attention; 0 for none.
      training: training strategies.
      generator_optimiser, discriminator_optimiser: as `cvjax.optim.build` takes them.

    Returns:
      The recipe. It has no figures of its own; a judge scores its samples.

    Raises:
      UserError: a shape does not fit the networks, or the loss does not support a strategy.
    """
    shape, number = tuple(shape), count_classes(classes)
    sizes = [base * 2**level for level in range(1, count_doublings(shape, base))]
    if attention and attention not in sizes:
        raise UserError(
            f"config.recipe.attention={attention}: no feature maps of that size; expected 0 (no attention) or one of "
            f"{sizes}."
        )
    sampler = Sampler(Generator(shape, width, base, attention, number), shape, latent, prior, number)
    discriminator = Discriminator(shape, width, base, attention, number)
    optimisers = generator_optimiser, discriminator_optimiser
    return make_recipe(sampler, discriminator, "hinge", training, *optimisers, joint=True)
