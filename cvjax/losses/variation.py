"""Total variation: how much neighbouring pixels differ.

Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, 2015 (arXiv:1412.0035), equation 6; of
a printed region, Sharif et al., Accessorize to a Crime, 2016, equation 2.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax.ops.precision import at_least_float32

TINY = 1e-8  # added to squares before a root, whose gradient at 0 is infinite


def total_variation(
    images: Float[Array, "*batch height width channels"],
    beta: float = 2.0,
    mask: Float[Array | np.ndarray, "height width"] | None = None,
) -> Float[Array, "*batch"]:
    """Returns the sum over pixels and channels of (squared differences to the pixels below and right) ** (beta / 2).

    The last row has nothing below it, and the last column nothing to its right.

    Args:
      beta: 1 is the usual total variation, which leaves spikes on strided networks; above 1 they are punished.
      mask: shares of pixels that count; a squared difference counts by the product of its two.
    """
    images = at_least_float32(images)
    vertical, horizontal = (jnp.square(jnp.diff(images, axis=axis)) for axis in (-3, -2))
    if mask is not None:
        vertical *= (mask[1:] * mask[:-1])[..., None]
        horizontal *= (mask[:, 1:] * mask[:, :-1])[..., None]
    if beta == 2:
        return vertical.sum(axis=(-3, -2, -1)) + horizontal.sum(axis=(-3, -2, -1))
    none = [(0, 0)] * (images.ndim - 3)
    squares = jnp.pad(vertical, [*none, (0, 1), (0, 0), (0, 0)]) + jnp.pad(horizontal, [*none, (0, 0), (0, 1), (0, 0)])
    return ((squares + TINY) ** (beta / 2)).sum(axis=(-3, -2, -1))
