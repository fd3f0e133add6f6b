"""Convolutional encoders and decoders whose codes are small images, and the codebook of such codes.

Networks: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752),
appendix G, after Esser, Rombach & Ommer, Taming Transformers for High-Resolution Image Synthesis, 2021
(arXiv:2012.09841). Codebook: van den Oord, Vinyals & Kavukcuoglu, Neural Discrete Representation Learning, 2017
(arXiv:1711.00937). Entries that are not used any more are replaced as by Dhariwal et al., Jukebox, 2020
(arXiv:2005.00341), section 3.1.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cvjax.errors import UserError
from cvjax.generative.diffusion.unet import Attention, ResidualBlock, normalise
from cvjax.nets.layers import Conv
from cvjax.ops.resampling import magnify
from cvjax.signature import Count

Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch rows columns code"]
Features = Float[Array, "batch _ _ _"]
Codebook = Float[Array, "entries code"]
Indices = Int[Array, "batch rows columns"]

DRAW = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # as torch draws kernels
LEAST, MOST = -30.0, 20.0  # log-variances, as in the published code


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of an encoder and its decoder, `config.recipe.networks`; the defaults are the paper's for f = 4.

    Attributes:
      width: channels at the size of the image.
      multipliers: of the width, at each size; the next one is half as large. (1, 2, 4) is f = 4, (1, 2, 4, 4) f = 8.
      blocks: residual blocks of the encoder for each size; the decoder has one more.
      attention: heights of features that have self-attention; the smallest always have it, between two blocks.
      code: channels of the codes: 3 for f = 4, 4 for f = 8.
      groups: of the normalisation; fewer where a group would have less than four channels.
    """

    width: Count = 128
    multipliers: tuple[Count, ...] = (1, 2, 4)
    blocks: Count = 2
    attention: tuple[Count, ...] = ()
    code: Count = 3
    groups: Count = 32

    @property
    def factor(self) -> int:
        """The paper's f: an image is f times as high as its code."""
        return 2 ** (len(self.multipliers) - 1)

    def check(self, size: Sequence[int]) -> None:
        """Raises a UserError if images of this height and width cannot be encoded."""
        where = "config.recipe.networks"
        if not self.multipliers:
            raise UserError(f"{where}.multipliers=(): there is one for each size, such as (1, 2, 4).")
        if any(side % self.factor for side in size):
            raise UserError(
                f"{where}.multipliers={self.multipliers}: they halve the image {len(self.multipliers) - 1} times, but "
                f"{' x '.join(map(str, size))} is not a multiple of {self.factor}: give fewer, or resize the images by "
                "data.transforms and data.eval_transforms."
            )
        heights = [size[0] >> level for level in range(len(self.multipliers))]
        for height in self.attention:
            if height not in heights:
                raise UserError(
                    f"{where}.attention={self.attention}: no features have the height {height}; expected some of "
                    f"{heights}, or () for attention in the middle alone."
                )


# --- networks -----------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Encodes images in [0, 1].

    Attributes:
      posterior: whether it gives the (mean, log-variance) of codes, or codes.
    """

    architecture: Architecture = Architecture()
    posterior: bool = True

    @nn.compact
    def __call__(self, images: Images) -> Codes | tuple[Codes, Codes]:
        """Returns (mean, log-variance) or codes; log-variances are clipped to [-30, 20]."""
        sizes = self.architecture
        x = conv(sizes.width, "first")(2 * images - 1)
        for level, multiplier in enumerate(sizes.multipliers):
            for index in range(sizes.blocks):
                x = _block(sizes, x, sizes.width * multiplier, f"down{level}_{index}")
            if level < len(sizes.multipliers) - 1:
                x = Conv(x.shape[-1], 3, 2, ((0, 1), (0, 1)), kernel_init=DRAW, name=f"halve{level}")(x)
        x = nn.silu(normalise(_middle(sizes, x), sizes.groups, "norm"))
        channels = sizes.code * (2 if self.posterior else 1)
        x = Conv(channels, 1, kernel_init=DRAW, name="code")(conv(channels, "last")(x))
        if not self.posterior:
            return x
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_variance, LEAST, MOST)


class Decoder(nn.Module):
    """Decodes codes, of which a codebook, if there is one, gives the nearest entries first.

    Attributes:
      channels: of the images.
      entries: of the codebook; None: there is none.
    """

    architecture: Architecture = Architecture()
    channels: int = 3
    entries: int | None = None

    def setup(self):
        """Makes the codebook, uniform in +-1 / entries, and the last convolution."""
        if self.entries:
            near_zero = nn.initializers.uniform(2 / self.entries)
            shape = self.entries, self.architecture.code
            self.codebook = self.param("codebook", lambda key: near_zero(key, shape) - 1 / self.entries)
        self.last = conv(self.channels, None)

    def __call__(self, codes: Codes) -> Images:
        """Returns images, about in [0, 1]: not clipped."""
        if self.entries:
            codes, _ = self.look_up(codes)
        return (self.paint(self.features(codes)) + 1) / 2

    def look_up(self, codes: Codes) -> tuple[Codes, Indices]:
        """Returns (the nearest entries, their indices)."""
        indices = nearest(codes, self.codebook)
        return self.codebook[indices], indices

    @nn.compact
    def features(self, codes: Codes) -> Features:
        """Returns what the last convolution paints."""
        sizes = self.architecture
        levels, x = len(sizes.multipliers), Conv(sizes.code, 1, kernel_init=DRAW, name="code")(codes)
        x = conv(sizes.width * sizes.multipliers[-1], "first")(x)
        x = _middle(sizes, x)
        for level in reversed(range(levels)):
            for index in range(sizes.blocks + 1):
                x = _block(sizes, x, sizes.width * sizes.multipliers[level], f"up{level}_{index}")
            if level:
                x = conv(x.shape[-1], f"double{level}")(magnify(x, 2))
        return nn.silu(normalise(x, sizes.groups, "norm"))

    def paint(self, features: Features) -> Images:
        """Returns images, about in [-1, 1]."""
        return self.last(features)


def conv(features: int, name: str | None) -> Conv:
    """Returns a 3x3 convolution that keeps the size."""
    return Conv(features, 3, padding=1, kernel_init=DRAW, name=name)


def _block(sizes: Architecture, x: Features, features: int, name: str) -> Features:
    """A residual block, and attention at the heights that have it."""
    x = ResidualBlock(features, 0.0, sizes.groups, DRAW, DRAW, name=name)(x)
    if x.shape[1] in sizes.attention:
        x = Attention(1, sizes.groups, DRAW, DRAW, name=f"{name}_attention")(x)
    return x


def _middle(sizes: Architecture, x: Features) -> Features:
    """Two blocks with attention between them."""
    options = 0.0, sizes.groups, DRAW, DRAW
    x = ResidualBlock(x.shape[-1], *options, name="middle0")(x)
    x = Attention(1, sizes.groups, DRAW, DRAW, name="middle_attention")(x)
    return ResidualBlock(x.shape[-1], *options, name="middle1")(x)


# --- codebooks ----------------------------------------------------------------------------------------------------


def nearest(codes: Float[Array, "*places code"], codebook: Codebook) -> Int[Array, "*places"]:
    """Returns the index of the entry nearest to each code, of several the first (van den Oord et al., equation 1)."""
    products = jnp.matmul(codes, codebook.T, precision=jax.lax.Precision.HIGHEST)
    return (jnp.square(codebook).sum(axis=1) - 2 * products).argmin(axis=-1)


def straight_through(codes: Codes, entries: Codes) -> Codes:
    """Returns the entries, whose gradient goes to the codes as if these had not been replaced."""
    return codes + jax.lax.stop_gradient(entries - codes)


def squared_distance(codes: Codes, entries: Codes) -> Float[Array, " batch"]:
    """Returns each image's squared distance of codes and entries, summed over a code and averaged over places."""
    return jnp.square(codes - entries).sum(axis=-1).mean(axis=(1, 2))


def replace_unused(
    key: Key[Array, ""], codebook: Codebook, usage: Float[Array, " entries"], codes: Codes, least: float
) -> tuple[Codebook, Float[Array, " entries"]]:
    """Returns (codebook, usage) in which entries of little use are codes of the batch, with an even share of the use.

    Args:
      usage: share of the places of recent batches that each entry was nearest to.
      least: the smallest use, in even shares, that an entry keeps its place with; with 0 all do.
    """
    entries, rows = len(codebook), codes.reshape(-1, codes.shape[-1])
    fresh = rows[jax.random.randint(key, (entries,), 0, len(rows))]
    unused = usage * entries < least
    return jnp.where(unused[:, None], fresh, codebook), jnp.where(unused, 1 / entries, usage)


def entry_shares(indices: Int[Array, "..."], entries: int) -> Float[Array, " entries"]:
    """Returns the share of the places that each entry has."""
    return jnp.bincount(indices.reshape(-1), length=entries) / indices.size
