"""Inception v3: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016 (arXiv:1512.00567).

In two variants that differ by more than their weights: the graph of December 2015 that FID, KID and the Inception Score
are defined by, and torchvision's. Modules have the names of torch's checkpoints, which `cvjax.weights` reads.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import avg_pool, max_pool
from cvjax.ops.precision import at_least_float32

SIZE = 299  # height and width that all images are brought to
CLASSES = {"fid": 1008, "torchvision": 1000}  # the graph of 2015 has eight logits that nothing was trained for

Features = Float[Array, "batch height width channels"]
Kernel = int | tuple[int, int]
Layer = tuple[int, Kernel] | tuple[int, Kernel, Kernel]  # output channels, kernel; two kernels: side by side
Branches = Mapping[str, Sequence[Layer]]

WIDE, TALL = (1, 7), (7, 1)


def _block_a(pooled: int) -> Branches:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": [(pooled, 1)],
    }


def _block_c(width: int) -> Branches:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, WIDE), (192, TALL)],
        "branch7x7dbl": [(width, 1), (width, TALL), (width, WIDE), (width, TALL), (192, WIDE)],
        "branch_pool": [(192, 1)],
    }


BLOCK_E: Branches = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, (1, 3), (3, 1))],
    "branch3x3dbl": [(448, 1), (384, 3), (384, (1, 3), (3, 1))],
    "branch_pool": [(192, 1)],
}
BLOCKS: Mapping[str, Branches] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]},
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": {
        "branch3x3": [(192, 1), (320, 3)],
        "branch7x7x3": [(192, 1), (192, WIDE), (192, TALL), (192, 3)],
    },
    "Mixed_7b": BLOCK_E,
    "Mixed_7c": BLOCK_E,
}


class ConvNorm(nn.Module):
    """A convolution, its normalisation by fixed statistics, and a ReLU; the attributes are those of `Conv`."""

    features: int
    kernel: Kernel
    stride: int = 1
    padding: Kernel = 0

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the features, at least 0."""
        # Full float32 everywhere: on GPU and TPU the default rounds factors to 10 bits or fewer, and figures with them.
        exact = dict(use_bias=False, precision=jax.lax.Precision.HIGHEST)
        x = Conv(self.features, self.kernel, self.stride, self.padding, name="conv", **exact)(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Mixed(nn.Module):
    """An Inception block: branches of convolutions, concatenated.

    Attributes:
      branches: the layers of each. Without a `branch_pool` the block halves the size: the last layers have stride 2,
        and a 3x3 maximum of stride 2 is one more branch.
      pool: of the `branch_pool`: mean of each 3x3 window, of its pixels inside the image only, or its maximum.
    """

    branches: Branches
    pool: Literal["mean", "mean inside", "maximum"]

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the features of all branches, concatenated."""
        halve = "branch_pool" not in self.branches
        outputs = []
        for branch, layers in self.branches.items():
            y = self._pooled(x) if branch == "branch_pool" else x
            for index, (features, *kernels) in enumerate(layers, start=1):
                name = branch if len(layers) == 1 else f"{branch}_{index}"
                names = [name] if len(kernels) == 1 else [f"{name}a", f"{name}b"]
                strided = halve and index == len(layers)
                parts = [
                    ConvNorm(features, kernel, 2 if strided else 1, 0 if strided else _half(kernel), name=name)(y)
                    for name, kernel in zip(names, kernels, strict=True)
                ]
                y = jnp.concatenate(parts, axis=-1)
            outputs.append(y)
        return jnp.concatenate([*outputs, max_pool(x, window=3, stride=2)] if halve else outputs, axis=-1)

    def _pooled(self, x: Array) -> Array:
        if self.pool == "maximum":
            return max_pool(x, window=3, stride=1, padding=1)
        return avg_pool(x, window=3, stride=1, padding=1, inside=self.pool == "mean inside")


def _half(kernel: Kernel) -> Kernel:
    """The padding that keeps a size."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


class InceptionV3(nn.Module):
    """Inception v3 as a judge of images: its 2,048 features and its logits, with fixed statistics.

    Attributes:
      variant: "fid": the graph that FID is defined by: images resized as TensorFlow 1 did, means over pixels inside the
        image, a maximum in the last block, 1,008 logits; "torchvision": torchvision's network, 1,000 logits.
    """

    variant: Literal["fid", "torchvision"] = "fid"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch ..."]]]:
        """Returns (logits, activations: `features` [batch, 2048] and the output of each block by its name).

        Images may have any size, and one channel, which stands for three. Raises a UserError for an unknown variant.
        """
        if self.variant not in CLASSES:
            raise UserError(f"Inception v3 has no variant {self.variant!r}. {suggest(self.variant, CLASSES)}")
        images = jnp.broadcast_to(images, (*images.shape[:3], 3))
        if self.variant == "fid":
            # The graph takes bytes: (byte - 128) / 128, where torchvision's 2 * image - 1 is (byte - 127.5) / 127.5.
            x = (255 * resize_as_tensorflow_1(images, SIZE) - 128) / 128
        else:
            x = 2 * jax.image.resize(images, (len(images), SIZE, SIZE, 3), "linear", antialias=False) - 1
        x = ConvNorm(32, 3, stride=2, name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, 3, name="Conv2d_2a_3x3")(x)
        x = ConvNorm(64, 3, padding=1, name="Conv2d_2b_3x3")(x)
        x = max_pool(x, window=3, stride=2)
        x = ConvNorm(80, 1, name="Conv2d_3b_1x1")(x)
        x = ConvNorm(192, 3, name="Conv2d_4a_3x3")(x)
        x = max_pool(x, window=3, stride=2)
        activations = {}
        for name, branches in BLOCKS.items():
            pool = "mean inside" if self.variant == "fid" else "mean"
            if self.variant == "fid" and name == "Mixed_7c":
                pool = "maximum"  # a slip of the graph's, most likely; the published figures have it
            activations[name] = x = Mixed(branches, pool, name=name)(x)
        activations["features"] = features = at_least_float32(x).mean(axis=(1, 2))
        head = partial(nn.Dense, precision=jax.lax.Precision.HIGHEST, name="fc")
        return head(CLASSES[self.variant])(features), activations


def resize_as_tensorflow_1(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch size size channels"]:
    """Returns bilinearly resized images, pixel i at i * input / output, without antialiasing, as TensorFlow 1 did.

    Neither corners nor centres are aligned: the image moves by up to half a pixel towards its end. FID's network was
    always given such images; with others, figures change by several per cent.
    """
    for axis in (1, 2):
        length = images.shape[axis]
        place = np.arange(size, dtype=np.float32) * np.float32(length / size)
        low = place.astype(np.int32)
        share = jnp.asarray(np.expand_dims(place - low, tuple(range(1, 4 - axis))))
        first = jnp.take(images, low, axis=axis)
        images = first + share * (jnp.take(images, np.minimum(low + 1, length - 1), axis=axis) - first)
    return images
