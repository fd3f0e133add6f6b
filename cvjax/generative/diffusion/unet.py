"""The U-Net of Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239), appendix B.

Residual blocks with group normalisation, to which the step is added; self-attention at some sizes; strided convolutions
down, nearest neighbours and a convolution up. The defaults are the paper's for CIFAR-10, with 35,746,307 parameters.
Classes: their embedding is added to the step's, as in Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis,
2021 (arXiv:2105.05233). A context, such as the tokens of a text, is read by cross-attention after each self-attention,
as in Rombach et al., 2022 (arXiv:2112.10752).
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cvjax.errors import UserError
from cvjax.generative.diffusion.conditioning import timestep_embedding
from cvjax.nets.layers import Conv
from cvjax.ops.resampling import magnify
from cvjax.signature import Count, Share

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch height width features"]
Labels = Int[Array, " batch"]
Context = Float[Array, "batch length tokens"]
Unread = Bool[Array, "batch length"]  # tokens that are padding

WEIGHTS, ZERO = nn.initializers.glorot_uniform(), nn.initializers.zeros
SMALLEST_GROUP = 4  # channels that are normalised together, those of 32 groups at the paper's width


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of a U-Net.

    Attributes:
      width: channels at the size of the image.
      multipliers: of the width, at each size; the next one is half as large.
      blocks: residual blocks for each size on the way down, and one more on the way up.
      attention: heights of the features that have self-attention; those in the middle always have it.
      heads: of the attention.
      dropout: share of a residual block's features that are dropped in training.
      groups: of the normalisation; fewer where a group would have less than four channels or they do not divide evenly.
    """

    width: Count = 128
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    blocks: Count = 2
    attention: tuple[Count, ...] = (16,)
    heads: Count = 1
    dropout: Share = 0.1
    groups: Count = 32

    def check(self, size: Sequence[int]) -> None:
        """Raises a UserError if the U-Net cannot be built for images of this height and width."""
        where = "config.recipe.unet"
        if self.width % 2 or self.width < 4:
            raise UserError(
                f"{where}.width={self.width}: half of it are sines and half cosines of the step: at least 4, even."
            )
        if not self.multipliers:
            raise UserError(f"{where}.multipliers=(): there is one for each size, such as (1, 2, 2, 2).")
        reduction = 2 ** (len(self.multipliers) - 1)
        if any(side % reduction for side in size):
            raise UserError(
                f"{where}.multipliers={self.multipliers}: they halve the image {len(self.multipliers) - 1} times, but "
                f"{' x '.join(map(str, size))} is not a multiple of {reduction}: give fewer, or resize the images by "
                "data.transforms and data.eval_transforms."
            )
        heights = [size[0] >> level for level in range(len(self.multipliers))]
        for height in self.attention:
            if height not in heights:
                raise UserError(
                    f"{where}.attention={self.attention}: no features have the height {height}; expected some of "
                    f"{heights}, or () for attention in the middle alone."
                )
        for multiplier in self.multipliers:
            if self.width * multiplier % self.heads:
                raise UserError(
                    f"{where}.heads={self.heads}: does not divide the {self.width * multiplier} channels of "
                    f"width={self.width} times {multiplier}."
                )


class ResidualBlock(nn.Module):
    """Two convolutions, each after normalisation and swish; between them the condition, if there is one, is added.

    Attributes:
      dropout, groups: as in `Architecture`.
      draw, draw_last: initial kernels, and those of the second convolution, with which the block begins as `x` alone.
    """

    features: int
    dropout: float = 0.0
    groups: int = 32
    draw: Callable = WEIGHTS
    draw_last: Callable = ZERO

    @nn.compact
    def __call__(
        self, x: Images, condition: Float[Array, "batch condition"] | None = None, train: bool = False
    ) -> Features:
        """Returns x, by a 1 x 1 convolution if it has other channels, plus what the convolutions add."""
        y = nn.silu(normalise(x, self.groups, "norm1"))
        y = Conv(self.features, 3, padding=1, kernel_init=self.draw, name="conv1")(y)
        if condition is not None:
            y += nn.Dense(self.features, kernel_init=self.draw, name="condition")(nn.silu(condition))[:, None, None]
        y = nn.silu(normalise(y, self.groups, "norm2"))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = Conv(self.features, 3, padding=1, kernel_init=self.draw_last, name="conv2")(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, kernel_init=self.draw, name="shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Adds to every place a weighted mean over all places, or over a context.

    Attributes:
      heads, groups: as in `Architecture`.
      draw, draw_last: initial kernels, and those of the last layer, with which nothing is added at first.
    """

    heads: int = 1
    groups: int = 32
    draw: Callable = WEIGHTS
    draw_last: Callable = ZERO

    @nn.compact
    def __call__(self, x: Features, context: Context | None = None, unread: Unread | None = None) -> Features:
        """Returns the features; tokens of the context that are `unread` have no weight."""
        batch, height, width, channels = x.shape
        places = normalise(x, self.groups, "norm").reshape(batch, height * width, channels)
        source = places if context is None else context

        def project(name: str, inputs: Array) -> Array:
            rows = nn.Dense(channels, kernel_init=self.draw, name=name)(inputs)
            return rows.reshape(*rows.shape[:2], self.heads, channels // self.heads)

        query, key, value = project("query", places), project("key", source), project("value", source)
        mask = None if unread is None else ~unread[:, None, None]
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(places.shape)
        return x + nn.Dense(channels, kernel_init=self.draw_last, name="out")(attended).reshape(x.shape)


class UNet(nn.Module):
    """Predicts something of the noisy images' shape, such as their noise; 0 before training.

    Attributes:
      classes: number of classes; one label more stands for none. None: there are no labels.
      reads_context: whether there is cross-attention to a context.
      outputs: channels of the prediction, such as twice those of the images to learn variances too; None: the images'.
    """

    architecture: Architecture = Architecture()
    classes: int | None = None
    reads_context: bool = False
    outputs: int | None = None

    @nn.compact
    def __call__(
        self,
        noisy: Images,
        steps: Int[Array, " batch"],
        labels: Labels | None = None,
        context: Context | None = None,
        unread: Unread | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width outputs"]:
        """Returns the prediction; without labels, that of no class. Raises a UserError for sizes that do not halve."""
        sizes, levels = self.architecture, len(self.architecture.multipliers)
        sizes.check(noisy.shape[1:3])
        if self.reads_context != (context is not None):
            raise ValueError(f"reads_context={self.reads_context}, but the context is {context}")

        def attend(x: Features, name: str) -> Features:
            x = Attention(sizes.heads, sizes.groups, name=f"{name}_attention")(x)
            if not self.reads_context:
                return x
            return Attention(sizes.heads, sizes.groups, name=f"{name}_context")(x, context, unread)

        def block(x: Images, level: int, name: str) -> Features:
            return ResidualBlock(channels[level], sizes.dropout, sizes.groups, name=name)(x, condition, train)

        def stage(x: Images, level: int, name: str) -> Features:
            x = block(x, level, name)
            return attend(x, name) if x.shape[1] in sizes.attention else x

        channels, condition = [sizes.width * multiplier for multiplier in sizes.multipliers], self.embed(steps, labels)
        x = Conv(sizes.width, 3, padding=1, kernel_init=WEIGHTS, name="first")(noisy)
        kept = [x]
        for level in range(levels):
            for index in range(sizes.blocks):
                x = stage(x, level, f"down{level}_{index}")
                kept.append(x)
            if level < levels - 1:  # TensorFlow's "SAME" of even sizes: nothing before, a row and a column after
                halve = Conv(channels[level], 3, 2, ((0, 1), (0, 1)), kernel_init=WEIGHTS, name=f"halve{level}")
                x = halve(x)
                kept.append(x)
        x = attend(block(x, levels - 1, "middle0"), "middle0")
        x = block(x, levels - 1, "middle1")
        for level in reversed(range(levels)):
            for index in range(sizes.blocks + 1):
                x = stage(jnp.concatenate([x, kept.pop()], axis=-1), level, f"up{level}_{index}")
            if level:
                double = Conv(channels[level], 3, padding=1, kernel_init=WEIGHTS, name=f"double{level}")
                x = double(magnify(x, 2))
        x = nn.silu(normalise(x, sizes.groups, "norm"))
        return Conv(self.outputs or noisy.shape[-1], 3, padding=1, kernel_init=ZERO, name="last")(x)

    def embed(self, steps: Int[Array, " batch"], labels: Labels | None) -> Float[Array, "batch condition"]:
        """Returns what the residual blocks learn about the step and the class."""
        width = self.architecture.width
        x = nn.Dense(4 * width, kernel_init=WEIGHTS, name="step1")(timestep_embedding(steps, width))
        x = nn.Dense(4 * width, kernel_init=WEIGHTS, name="step2")(nn.silu(x))
        if self.classes is None:
            return x
        labels = jnp.full(len(steps), self.classes) if labels is None else labels
        return x + nn.Embed(self.classes + 1, 4 * width, name="classes")(labels)


class ContextUNet(nn.Module):
    """A U-Net that reads a context by cross-attention: a sequence of tokens, or the embedding of a class as one token.

    Of a class, it is the model of ImageNet of Rombach et al., 2022 (section 4.3.1 and table 13).

    Attributes:
      architecture, outputs: as in `UNet`.
      classes: number of classes, as in `UNet`; None: there is always a context.
      tokens: width of the class's token.
    """

    architecture: Architecture = Architecture()
    classes: int | None = None
    tokens: int = 512
    outputs: int | None = None

    @nn.compact
    def __call__(
        self,
        noisy: Images,
        steps: Int[Array, " batch"],
        labels: Labels | None = None,
        context: Context | None = None,
        unread: Unread | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width outputs"]:
        """Returns the prediction; a context takes the place of the labels."""
        if context is None:
            labels = jnp.full(len(steps), self.classes) if labels is None else labels
            context = nn.Embed(self.classes + 1, self.tokens, name="classes")(labels)[:, None]
        unet = UNet(self.architecture, reads_context=True, outputs=self.outputs, name="unet")
        return unet(noisy, steps, None, context, unread, train)


def normalise(x: Features, groups: int, name: str) -> Features:
    """Returns features normalised in groups by a layer `name` of the module that calls this."""
    return nn.GroupNorm(count_groups(x.shape[-1], groups), name=name)(x)


def count_groups(channels: int, most: int = 32) -> int:
    """Returns the largest number of equal groups of channels, up to `most`, that leaves at least four in each."""
    return max(n for n in range(1, most + 1) if n == 1 or (channels % n == 0 and channels // n >= SMALLEST_GROUP))
