"""Gated PixelCNN: van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv:1606.05328).

Two stacks leave no blind spot: the vertical one sees the rows above, the horizontal one the pixels to the left and, at
each layer, the vertical features. A class adds a bias to both halves of each gate (equations 2 and 4).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.core import Recipe, count_classes
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.masked import ClassBias, Features, Head, Labels, MaskedConv, Position
from cvjax.nets.layers import Conv
from cvjax.signature import Count, Range, Share

PAPER = pixel_model.Architecture(layers=20, width=384, kernel=5)  # for ImageNet


def gate(x: Float[Array, "batch height width twice"]) -> Float[Array, "batch height width once"]:
    """Returns tanh of the first half of the features times the sigmoid of the second (equation 2)."""
    signal, gates = jnp.split(x, 2, axis=-1)
    return nn.tanh(signal) * nn.sigmoid(gates)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2).

    Attributes:
      kernel: height and width of the masked kernel that the kernels of both stacks make up.
      dropout: share of the horizontal stack's gated features dropped while training.
      first: the inputs are the image; no residual connection, and mask A.
    """

    width: int
    kernel: int
    channels: int
    classes: int | None
    dropout: float
    first: bool

    def setup(self):
        """Makes the convolutions of both stacks."""
        square, strip = (self.kernel, self.kernel), (1, self.kernel)
        options = dict(channels=self.channels, first=self.first)
        self.vertical = MaskedConv(2 * self.width, square, None, **options)
        self.link = Conv(2 * self.width, 1)
        self.horizontal = MaskedConv(2 * self.width, strip, "A" if self.first else "B", parts=2, **options)
        self.output = MaskedConv(self.width, (1, 1), channels=self.channels)
        self.vertical_class, self.horizontal_class = (ClassBias(self.classes, 2 * self.width) for _ in range(2))
        self.drop = nn.Dropout(self.dropout)

    def vertical_step(self, x: Features, labels: Labels | None, position: Position | None) -> tuple[Features, Features]:
        """Returns the vertical stack's next features, and its input to the horizontal stack."""
        x = self.vertical(x, position)
        return gate(x + self.vertical_class(labels)), self.link(x)

    def horizontal_step(
        self, x: Features, link: Features, labels: Labels | None, train: bool, position: Position | None
    ) -> Features:
        """Returns the horizontal stack's next features."""
        y = gate(self.horizontal(x, position) + link + self.horizontal_class(labels))
        y = self.output(self.drop(y, deterministic=not train))
        return y if self.first else x + y


class GatedPixelCNN(nn.Module):
    """Layers of two stacks and a softmax over the levels; the attributes are those of `PixelCNN`."""

    levels: int
    classes: int | None = None
    layers: int = 20
    width: int = 384
    first_kernel: int = 7
    kernel: int = 5
    head: int = 1024
    dropout: float = 0.0
    channels: int = 3

    def setup(self):
        """Makes the layers."""
        kernels = [self.first_kernel] + [self.kernel] * (self.layers - 1)
        options = dict(channels=self.channels, classes=self.classes, dropout=self.dropout)
        self.stack = [GatedLayer(self.width, size, first=not n, **options) for n, size in enumerate(kernels)]
        self.outputs = Head(self.head, self.levels, self.channels)

    def __call__(
        self, images: Float[Array, "batch height width channels"], labels: Labels | None = None, train: bool = False
    ) -> Float[Array, "batch height width channels levels"]:
        """Returns logits of all pixels."""
        return self.logits(images, labels, self.context(images, labels), train=train)

    def context(self, images: Features, labels: Labels | None, position: Position | None = None) -> list[Features]:
        """Returns the vertical stack's inputs to the horizontal one, everywhere or in one row."""
        # Shifted down by a row: each pixel sees the rows above its own.
        x, links = jnp.pad(2 * images - 1, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1], []
        for layer in self.stack:
            x, link = layer.vertical_step(x, labels, position)
            links.append(link)
        return links

    def logits(
        self,
        images: Features,
        labels: Labels | None,
        context: list[Features],
        position: Position | None = None,
        train: bool = False,
    ) -> Float[Array, "batch rows columns channels levels"]:
        """Returns logits of all pixels, or of one."""
        x = 2 * images - 1
        for layer, link in zip(self.stack, context, strict=True):
            x = layer.horizontal_step(x, link, labels, train, position)
        return self.outputs(x)


def recipe(
    shape: tuple[Count, Count, Count],
    levels: Annotated[int, Range(2)] = 256,
    classes: Count | tuple[str, ...] | None = None,
    architecture: pixel_model.Architecture = PAPER,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "rmsprop", "learning_rate": 1e-4},
) -> Recipe:
    """Makes a Gated PixelCNN; the default architecture is the paper's for ImageNet.

    Args:
      shape, levels, classes, architecture, ema, optimiser: as in `pixelcnn.recipe`.

    Returns:
      The recipe; its figures are those of `pixel_model.make_recipe`.
    """
    net = GatedPixelCNN(levels, count_classes(classes), **dataclasses.asdict(architecture), channels=shape[2])
    return pixel_model.make_recipe("pixelcnn", net, shape, ema, optimiser)
