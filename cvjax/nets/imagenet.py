"""What the networks published for ImageNet share: the statistics of its pixels, and how kernels are drawn."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue
KERNELS = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al., arXiv:1502.01852, section 2.2


def standardise(
    images: Float[Array, "batch height width channels"],
    mean: Sequence[float] = MEAN,
    deviation: Sequence[float] = DEVIATION,
) -> Float[Array, "batch height width 3"]:
    """Subtracts the mean of each colour and divides by its standard deviation.

    Returns images of three channels; one channel stands for three.
    """
    return (images - jnp.array(mean)) / jnp.array(deviation)
