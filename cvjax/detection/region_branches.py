"""Branches of a network of regions that see inside them: masks and joints, and what they are trained on.

He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870), sections 3 and 5.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.ops.resampling import resize

Pooled = Float[Array, "*batch side side channels"]

KERNELS = nn.initializers.he_normal()


class MaskHead(nn.Module):
    """Convolutions over a region's features, and a mask for each class, twice as fine (figure 4, right).

    Attributes:
      classes: number of classes, each with its own mask, so that they do not compete.
      channels: of the 3x3 convolutions.
    """

    classes: int
    channels: Sequence[int] = (256, 256, 256, 256)

    @nn.compact
    def __call__(self, pooled: Pooled) -> Float[Array, "*batch 2*side 2*side {self.classes}"]:
        """Returns the logits of each class's mask, float32."""
        x = pooled
        for index, channels in enumerate(self.channels):
            x = nn.relu(Conv(channels, 3, padding=1, kernel_init=KERNELS, name=f"conv_{index}")(x))
        up = ConvTranspose(x.shape[-1], 2, stride=2, kernel_init=KERNELS, name="up")
        logits = Conv(self.classes, 1, kernel_init=nn.initializers.normal(0.001), name="logits")
        return logits(nn.relu(up(x))).astype(jnp.float32)


class KeypointHead(nn.Module):
    """Convolutions over a region's features, and a heat map for each joint, four times as fine (section 5).

    Attributes:
      channels: of the 3x3 convolutions.
    """

    joints: int
    channels: Sequence[int] = (512,) * 8

    @nn.compact
    def __call__(self, pooled: Pooled) -> Float[Array, "*batch 4*side 4*side {self.joints}"]:
        """Returns the logits of each joint's place, float32."""
        x = pooled
        for index, channels in enumerate(self.channels):
            x = nn.relu(Conv(channels, 3, padding=1, kernel_init=KERNELS, name=f"conv_{index}")(x))
        up = ConvTranspose(self.joints, 4, stride=2, padding=1, kernel_init=KERNELS, name="up")
        x = up(x).astype(jnp.float32)
        return resize(x, (2 * x.shape[-3], 2 * x.shape[-2]), "bilinear")


def own_masks(
    logits: Float[Array, "*batch size size classes"], labels: Int[Array, "*batch"]
) -> Float[Array, "*batch size size"]:
    """Returns the logits of the mask of each region's own class."""
    at = jnp.broadcast_to(labels[..., None, None, None], (*logits.shape[:-1], 1))
    return jnp.take_along_axis(logits, at, axis=-1)[..., 0]


def mask_loss(
    logits: Float[Array, "*batch size size classes"],
    targets: Float[Array, "*batch size size"],
    labels: Int[Array, "*batch"],
    positive: Bool[Array, "*batch"],
) -> Float[Array, ""]:
    """Computes the mean binary cross-entropy of the pixels of positive regions, in the mask of their class alone.

    Returns 0 without positive regions.
    """
    errors = optax.sigmoid_binary_cross_entropy(own_masks(logits, labels), targets).mean((-2, -1))
    return jnp.where(positive, errors, 0).sum() / jnp.maximum(positive.sum(), 1)


def keypoint_loss(
    logits: Float[Array, "*batch size size joints"],
    bins: Int[Array, "*batch joints"],
    valid: Bool[Array, "*batch joints"],
) -> Float[Array, ""]:
    """Computes the mean cross-entropy of the bins of joints, each over all of its heat map; 0 without joints.

    Returns it over the valid joints, as `cvjax.ops.keypoint_heatmaps.encode_keypoints` has them.
    """
    logits = jnp.moveaxis(logits.reshape(*logits.shape[:-3], -1, logits.shape[-1]), -1, -2)
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, bins)
    return jnp.where(valid, errors, 0).sum() / jnp.maximum(valid.sum(), 1)
