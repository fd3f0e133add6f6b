"""Row LSTM: van den Oord, Kalchbrenner & Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv:1601.06759).

A convolutional LSTM goes down the rows of an image: the state of a row comes from that of the row above, by a
convolution along it, and from the row itself, by a masked one. A pixel sees a triangle above it, and to its left.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from cvjax.core import Recipe, count_classes
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.masked import ClassBias, Features, Head, Labels, MaskedConv, Position, write_row
from cvjax.signature import Count, Range, Share

# The contribution of the row above to the gates of a row, and its cell state.
Context = tuple[Float[Array, "batch _ _ gates"], Float[Array, "batch _ _ width"]]

PAPER = pixel_model.Architecture(layers=12, width=128, kernel=3)  # for CIFAR-10


def lstm_step(
    gates: Float[Array, "batch _ _ gates"], cell: Float[Array, "batch _ _ width"]
) -> tuple[Float[Array, "batch _ _ width"], Float[Array, "batch _ _ width"]]:
    """Returns (hidden state, cell state) from an LSTM's output, forget, input and content gates (equation 3)."""
    output, forget, entry, content = jnp.split(gates, 4, axis=-1)
    cell = nn.sigmoid(forget) * cell + nn.sigmoid(entry) * nn.tanh(content)
    return nn.sigmoid(output) * nn.tanh(cell), cell


class RowLSTM(nn.Module):
    """The recurrent layer; both of its convolutions are `kernel` wide.

    Parameters: `input_to_state`, and `kernel` [kernel, width, 4 * width] of the convolution along the row above.
    """

    width: int
    kernel: int
    channels: int
    dtype: DTypeLike | None = None

    def setup(self):
        """Makes both convolutions."""
        self.input_to_state = MaskedConv(4 * self.width, (1, self.kernel), channels=self.channels, parts=4)
        shape = (self.kernel, self.width, 4 * self.width)
        self.state_to_state = self.param("kernel", nn.initializers.lecun_normal(), shape)

    def _convolve(self, hidden: Array) -> Array:
        """Convolves along a row by a matrix product: in a loop on CPU, XLA's convolution is a hundred times slower."""
        side, width = self.kernel // 2, hidden.shape[2]
        padded = jnp.pad(hidden, ((0, 0), (0, 0), (side, side), (0, 0)))
        seen = jnp.concatenate([padded[:, :, tap : tap + width] for tap in range(self.kernel)], axis=-1)
        seen, kernel = nn.dtypes.promote_dtype(seen, self.state_to_state, dtype=self.dtype)
        return seen @ kernel.reshape(-1, 4 * self.width)

    def context(self) -> Context:
        """Returns the contribution of the cached row to the next one."""
        hidden, cell = jnp.split(self.get_variable("cache", "states"), 2, axis=-1)
        return self._convolve(hidden), cell

    def __call__(
        self,
        x: Features,
        bias: Float[Array, "batch 1 1 gates"] | float,
        context: Context | None = None,
        position: Position | None = None,
    ) -> Features:
        """Returns the hidden states of all pixels, or of the one at a position, below its part of the context."""
        gates = self.input_to_state(x, position) + bias
        if position is not None:
            hidden, cell = lstm_step(gates + context[0], context[1])
            piece = jnp.concatenate([hidden, cell], axis=-1)
            states = write_row(self.get_variable("cache", "states"), piece, *position)
            self.put_variable("cache", "states", states)
            return hidden

        def row(state, gates):
            state = lstm_step(gates + self._convolve(state[0]), state[1])
            return state, jnp.concatenate(state, axis=-1)

        start = jnp.zeros((len(x), 1, x.shape[2], self.width), x.dtype)
        rows = jnp.moveaxis(gates, 1, 0)[:, :, None]
        _, states = lax.scan(row, (start, start), rows)
        states = jnp.moveaxis(states[:, :, 0], 0, 1)
        if self.is_mutable_collection("cache"):
            self.put_variable("cache", "states", states[:, -1:])
        return states[..., : self.width]


class PixelRNN(nn.Module):
    """A masked convolution, residual Row LSTM layers and a softmax over the levels (table 1, figure 5).

    Layers are connected by 2 * width features. The attributes are those of `PixelCNN`.
    """

    levels: int
    classes: int | None = None
    layers: int = 12
    width: int = 128
    first_kernel: int = 7
    kernel: int = 3
    head: int = 1024
    dropout: float = 0.0
    channels: int = 3

    def setup(self):
        """Makes the layers."""
        layers, channels = range(self.layers), self.channels
        self.first = MaskedConv(2 * self.width, (self.first_kernel,) * 2, "A", channels, first=True)
        self.first_class = ClassBias(self.classes, 2 * self.width)
        self.recurrent = [RowLSTM(self.width, self.kernel, channels) for _ in layers]
        self.gates_class = [ClassBias(self.classes, 4 * self.width) for _ in layers]
        self.widen = [MaskedConv(2 * self.width, (1, 1), channels=channels) for _ in layers]
        self.drop = nn.Dropout(self.dropout)
        self.outputs = Head(self.head, self.levels, channels)

    def __call__(
        self, images: Float[Array, "batch height width channels"], labels: Labels | None = None, train: bool = False
    ) -> Float[Array, "batch height width channels levels"]:
        """Returns logits of all pixels."""
        return self.logits(images, labels, [None] * self.layers, train=train)

    def context(self, images: Features, labels: Labels | None, position: Position) -> list[Context]:
        """Returns the contribution of the row above to each layer."""
        return [layer.context() for layer in self.recurrent]

    def logits(
        self,
        images: Features,
        labels: Labels | None,
        context: list[Context] | list[None],
        position: Position | None = None,
        train: bool = False,
    ) -> Float[Array, "batch rows columns channels levels"]:
        """Returns logits of all pixels, or of one."""
        x = self.first(2 * images - 1, position) + self.first_class(labels)
        for layer, bias, widen, above in zip(self.recurrent, self.gates_class, self.widen, context, strict=True):
            hidden = layer(x, bias(labels), above, position)
            x = x + widen(self.drop(hidden, deterministic=not train))
        return self.outputs(x)


def recipe(
    shape: tuple[Count, Count, Count],
    levels: Annotated[int, Range(2)] = 256,
    classes: Count | tuple[str, ...] | None = None,
    architecture: pixel_model.Architecture = PAPER,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "rmsprop", "learning_rate": 1e-4},
) -> Recipe:
    """Makes a PixelRNN of Row LSTMs; the default architecture is the paper's for CIFAR-10.

    Args:
      shape, levels, classes, architecture, ema, optimiser: as in `pixelcnn.recipe`.

    Returns:
      The recipe; its figures are those of `pixel_model.make_recipe`.
    """
    net = PixelRNN(levels, count_classes(classes), **dataclasses.asdict(architecture), channels=shape[2])
    return pixel_model.make_recipe("pixelrnn", net, shape, ema, optimiser)
