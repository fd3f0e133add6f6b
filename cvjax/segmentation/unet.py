"""U-Net: Ronneberger et al., Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Recipe, Variables, class_names
from cvjax.losses.segmentation import MapLoss
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.ops.pooling import max_pool
from cvjax.segmentation.segmenter import CROSS_ENTROPY, ONE_SCALE, Images, Inference, Logits, Segmenter, check_loss
from cvjax.signature import Count, Share

KERNELS = nn.initializers.he_normal()  # section 3: deviation sqrt(2 / N)


# --- nets ---------------------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """A contracting path, an expanding path, and the features of the first beside those of the second (figure 1).

    Attributes:
      width: channels of the first level, doubled at each further level.
      depth: number of poolings.
      padding: "valid": unpadded convolutions, as in the paper, that turn 572 pixels into 388; "same": zeros keep sizes,
        which have to be multiples of 2 ** depth.
      batch_norm: normalise after each 3x3 convolution; the paper does not.
      dropout: share of the features of the last two contracting levels that is dropped in training.
    """

    classes: int
    width: int = 64
    depth: int = 4
    padding: Literal["valid", "same"] = "valid"
    batch_norm: bool = False
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch rows columns classes"]:
        """Computes logits from images in [0, 1]; training takes the random stream "dropout"."""
        x, levels = 2 * images - 1, []
        for level in range(self.depth + 1):
            x = max_pool(x, 2, 2) if level else x
            x = self._convolve(x, self.width * 2**level, f"down_{level}", train)
            if level >= self.depth - 1:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            levels.append(x)
        for level in reversed(range(self.depth)):
            features = self.width * 2**level
            x = ConvTranspose(features, 2, stride=2, kernel_init=KERNELS, name=f"up_{level}")(x)
            x = jnp.concatenate([crop_centre(levels[level], x.shape[1:3]), x], axis=-1)
            x = self._convolve(x, features, f"expand_{level}", train)
        return Conv(self.classes, 1, name="logits")(x)

    def _convolve(self, x: Array, features: int, name: str, train: bool) -> Array:
        for index in (1, 2):
            padding = 1 if self.padding == "same" else 0
            x = Conv(features, 3, padding=padding, kernel_init=KERNELS, name=f"{name}_conv_{index}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"{name}_norm_{index}")(x)
            x = nn.relu(x)
        return x


def crop_centre(
    x: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch rows columns channels"]:
    """Returns the middle of features, of a height and width."""
    top, left = ((old - new) // 2 for old, new in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


def margin(depth: int) -> int:
    """Returns the pixels that unpadded convolutions take away on each side: 92 at depth 4."""
    return 6 * 2**depth - 4


def tile_size(side: int, depth: int) -> int:
    """Returns the smallest output of a U-Net of unpadded convolutions that covers a side: a multiple of 2^depth + 4."""
    return max(0, -(-(side - 4) // 2**depth)) * 2**depth + 4


def padding_of(net: UNet, side: int) -> tuple[int, int]:
    """Returns the pixels to mirror before and after a side, so that the output of a U-Net covers it."""
    if net.padding == "same":
        return 0, -side % 2**net.depth
    edge = margin(net.depth)
    return edge, edge + tile_size(side, net.depth) - side


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class UNetSegmenter(Segmenter):
    """A U-Net that sees images with mirrored borders; the attributes are those of `Segmenter`, and the network."""

    net: UNet

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network, by its name in the state."""
        return {"unet": self.net}

    def begin(self, key: Key[Array, ""], images: Images) -> dict[str, Variables]:
        """Initialises the network."""
        return {"unet": self.net.init(key, self.mirror(images))}

    def mirror(self, images: Images) -> Float[Array, "batch rows columns channels"]:
        """Mirrors images at their borders, so that the network's output covers them."""
        rows, columns = (padding_of(self.net, side) for side in images.shape[1:3])
        return jnp.pad(images, ((0, 0), rows, columns, (0, 0)), mode="reflect")

    def forward(
        self, key: Key[Array, ""] | None, held: Mapping[str, Variables], images: Images
    ) -> tuple[Logits, dict[str, Any]]:
        """Computes the logits of every pixel."""
        height, width = images.shape[1:3]
        if key is None:
            return self.net.apply(held["unet"], self.mirror(images))[:, :height, :width], {}
        options = dict(train=True, mutable=["batch_stats"], rngs={"dropout": key})
        logits, new = self.net.apply(held["unet"], self.mirror(images), **options)
        return logits[:, :height, :width], {"unet": new.get("batch_stats", {})}


PAPER = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.99}  # section 3, which leaves out the learning rate


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    truth: str = "class_map",
    weights: str = "",
    width: Count = 64,
    depth: Count = 4,
    padding: Literal["valid", "same"] = "valid",
    batch_norm: bool = False,
    dropout: Share = 0.5,
    loss: MapLoss = CROSS_ENTROPY,
    inference: Inference = ONE_SCALE,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes U-Net. The defaults are the paper's.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes of the maps, background included, or their names.
      truth: name of the true maps, one of `data.keep`.
      weights: name of a map of pixel weights, such as that of the borders between touching objects; "": none.
      width, depth, padding, batch_norm, dropout: as in `UNet`.
      loss: weights of the parts of the loss.
      inference: scales and mirror images of evaluation.
      ema: share of the moving average that each step keeps; 0: no average.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.segmentation.figures`.

    Raises:
      UserError: class weights that do not fit.
    """
    names = class_names(classes)
    check_loss(loss, names)
    net = UNet(len(names), width, depth, padding, batch_norm, dropout)
    base = (tuple(shape), names, truth, weights, loss, inference, ema, optim.build(optimiser))
    return Recipe.of(UNetSegmenter(*base, net))
