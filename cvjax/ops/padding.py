"""Images padded by their own reflections, for networks that halve sizes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cvjax.ops.tiling import mirrored_indices


def reflect(x: Float[Array, "batch height width channels"], margin: int) -> Float[Array, "batch rows columns channels"]:
    """Returns features with a margin on every side that mirrors them, the border itself not repeated."""
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")


def pad_to_multiple(
    images: Shaped[Array | np.ndarray, "batch height width channels"], divisor: int, least: int = 0
) -> tuple[Shaped[Array | np.ndarray, "batch rows columns channels"], tuple[slice, slice]]:
    """Pads images on all sides by their reflections, repeated where an image is smaller than its margin.

    Returns the padded images, whose sides are the next multiples of `divisor`, `least` or more, and where the images
    lie in them: rows and columns.
    """
    places, inside = [], []
    for side in images.shape[1:3]:
        padded = -(-max(side, least) // divisor) * divisor
        before = (padded - side) // 2
        places.append(mirrored_indices(-before, padded, side))
        inside.append(slice(before, before + side))
    return images[:, places[0]][:, :, places[1]], (inside[0], inside[1])
