"""Convolutions that see only what comes before: van den Oord et al., Pixel Recurrent Neural Networks, 2016.

Pixels come row by row from the top, each row from the left, and the channels of a pixel in the order R, G, B
(arXiv:1601.06759, sections 2.1 and 3.4). Training computes all pixels of an image at once. Sampling applies the same
layers to a piece of the image at a time, a pixel or a row. Each layer then keeps the rows of its input that its kernel
sees in the variable collection "cache", writes the new piece into them and computes the outputs of that piece alone.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from cvjax.errors import UserError
from cvjax.ops.convolution import conv

Features = Float[Array, "batch _ _ _"]  # height, width and features of an image or of a piece of it
Labels = Int[Array, " batch"]
# Of a piece in its image: (row, column) of a pixel, or (row,) of a whole row.
Position = tuple[int | Int[Array, ""], ...]


def channel_mask(
    inputs: int, outputs: int, channels: int, mask: Literal["A", "B"], parts: int = 1
) -> Float[np.ndarray, "inputs outputs"]:
    """Returns the mask between the features of one pixel: 1 where the output may see the input, else 0.

    Features are split evenly into one group for each channel of the image, in order. Mask "A" shows a group those
    before it, "B" its own as well. The outputs are `parts` blocks, such as an LSTM's gates, each split by itself.
    """
    source = np.arange(inputs) * channels // inputs
    target = np.tile(np.arange(outputs // parts) * channels // (outputs // parts), parts)
    allowed = source[:, None] < target if mask == "A" else source[:, None] <= target
    return allowed.astype(np.float32)


def kernel_mask(
    shape: tuple[int, int, int, int], channels: int, mask: Literal["A", "B"], parts: int = 1
) -> Float[np.ndarray, "rows width inputs outputs"]:
    """Returns 1 for weights of what comes before the pixel, whose row is the last, else 0 (figure 2)."""
    allowed = np.ones(shape, np.float32)
    allowed[-1, shape[1] // 2] = channel_mask(*shape[2:], channels, mask, parts)
    allowed[-1, shape[1] // 2 + 1 :] = 0
    return allowed


class MaskedConv(nn.Module):
    """Convolution that sees only what comes before each pixel; the output has the size of the image.

    Parameters: `kernel` [kh // 2 + 1, kw, inputs, features], without the rows below the pixel; `bias` [features].

    Attributes:
      kernel: height and width of the full kernel, both odd.
      mask: "A" or "B" of the paper; None: all rows down to the pixel's own, for images shifted down by a row.
      channels, parts: as in `channel_mask`.
      first: the input is the image itself, which is passed whole when a piece is computed; else the piece is passed.
    """

    features: int
    kernel: tuple[int, int]
    mask: Literal["A", "B"] | None = "B"
    channels: int = 1
    parts: int = 1
    first: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Features, position: Position | None = None) -> Features:
        """Convolves a whole image, or computes the piece of it at a position."""
        if self.kernel[0] % 2 == 0 or self.kernel[1] % 2 == 0:
            raise UserError(f"config.recipe: the kernel of a masked convolution has to be odd, not {self.kernel}.")
        above, side = self.kernel[0] // 2, self.kernel[1] // 2
        shape = (above + 1, self.kernel[1], x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        if self.mask:
            kernel = kernel * kernel_mask(shape, self.channels, self.mask, self.parts)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if above or side or (self.first and position is not None):
            x = self._windows(x, position, above, side)
        return conv(x, kernel) + bias

    def _windows(self, x: Array, position: Position | None, above: int, side: int) -> Array:
        """Pads a whole image, or collects what the kernel sees of the piece at a position."""
        around = ((0, 0), (above, 0), (side, side), (0, 0))
        if position is None:
            if not self.first and self.is_mutable_collection("cache"):
                self.put_variable("cache", "rows", last_rows(jnp.pad(x, around), above + 1))
            return jnp.pad(x, around)
        row, column = (*position, 0)[:2]
        if self.first:
            seen = (len(x), above + 1, 2 * side + (x.shape[2] if len(position) == 1 else 1), x.shape[3])
            return lax.dynamic_slice(jnp.pad(x, around), (0, row, column, 0), seen)
        rows = write_row(self.get_variable("cache", "rows"), x, row, column + side)
        self.put_variable("cache", "rows", rows)
        return read_rows(rows, row, column, x.shape[2] + 2 * side)


# A cache is a ring buffer of the last rows of a layer's input: row r of the image is in row r % kept.


def last_rows(x: Features, kept: int) -> Features:
    """Returns the cache of the last rows of an image, which is given below kept - 1 rows of zeros."""
    return jnp.roll(x[:, -kept:], (x.shape[1] - (kept - 1)) % kept, axis=1)


def write_row(rows: Features, piece: Features, row: int | Int[Array, ""], column: int | Int[Array, ""]) -> Features:
    """Returns the cache with a piece of a row, from `column` on, in the place of the oldest row."""
    return lax.dynamic_update_slice(rows, piece.astype(rows.dtype), (0, row % rows.shape[1], column, 0))


def read_rows(rows: Features, row: int | Int[Array, ""], column: int | Int[Array, ""], width: int) -> Features:
    """Returns `width` columns of the cached rows in the order of the image; the last one is `row`."""
    batch, kept, _, features = rows.shape
    places = [(0, (row + 1 + index) % kept, column, 0) for index in range(kept)]
    return jnp.concatenate([lax.dynamic_slice(rows, place, (batch, 1, width, features)) for place in places], axis=1)


class ClassBias(nn.Module):
    """A bias of `features` for each of `classes`; None: nothing is added."""

    classes: int | None
    features: int

    @nn.compact
    def __call__(self, labels: Labels | None) -> Float[Array, "batch 1 1 features"] | float:
        """Returns what to add at every pixel; 0 without classes."""
        if self.classes is None:
            return 0.0
        return nn.Embed(self.classes, self.features, embedding_init=nn.initializers.zeros_init())(labels)[:, None, None]


class Head(nn.Module):
    """Two 1 x 1 convolutions after ReLUs, from features to the levels of each pixel and channel (table 1)."""

    features: int
    levels: int
    channels: int

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch height width channels levels"]:
        """Returns logits."""
        x = MaskedConv(self.features, (1, 1), channels=self.channels)(nn.relu(x))
        x = MaskedConv(self.channels * self.levels, (1, 1), channels=self.channels)(nn.relu(x))
        return x.reshape(*x.shape[:3], self.channels, self.levels)
