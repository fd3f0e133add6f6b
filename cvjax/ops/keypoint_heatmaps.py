"""Joints as heat maps of their object's box, and heat maps read as joints.

He et al., Mask R-CNN, 2017 (arXiv:1703.06870), section 5. A heat map has size x size bins over a region, and one of
them is a joint's class. Positions are in pixels of the image; (0.5, 0.5) is the middle of the first one (Heckbert, What
are the coordinates of a pixel?, 1990).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cvjax.ops.precision import at_least_float32

VALUES = 2**24  # pixels of enlarged heat maps that are searched at a time
A = -0.75  # torch's constant of the cubic kernel, which is OpenCV's

Positions = Float[Array, "*batch joints 2"]


def encode_keypoints(
    positions: Positions, labelled: Bool[Array, "*batch joints"], boxes: Float[Array, "*batch 4"], size: int = 56
) -> tuple[Int[Array, "*batch joints"], Bool[Array, "*batch joints"]]:
    """Returns the bin of each joint in its region, row by row, and whether there is one; without, the bin is 0.

    Joints outside of the region, those that are not labelled, and those of a region without area have none. Those on
    the region's far edges are in the last bins.

    Args:
      labelled: whether somebody marked the joint, hidden or not.
    """
    near, far = boxes[..., None, :2], boxes[..., None, 2:]
    solid = (far > near).all(-1)
    scale = size / jnp.where(solid[..., None], far - near, 1)  # in torchvision's order, since `floor` tells roundings
    place = jnp.floor((jnp.where(labelled[..., None], positions, 0) - near) * scale)
    place = jnp.where(positions == far, size - 1, place)
    valid = labelled & solid & ((place >= 0) & (place < size)).all(-1)
    place = jnp.where(valid[..., None], place, 0).astype(jnp.int32)
    return place[..., 1] * size + place[..., 0], valid


def decode_keypoints(
    heatmaps: Float[Array, "regions size size joints"], boxes: Float[Array, "regions 4"], height: int, width: int
) -> tuple[Float[Array, "regions joints 2"], Float[Array, "regions joints"]]:
    """Returns where each heat map is highest, and its value there.

    As in torchvision's `heatmaps_to_keypoints`, maps are enlarged (or shrunk) to the box's number of pixels, rounded up
    and at least one, by bicubic interpolation, and a joint is in the middle of the highest pixel, the first of equals.

    Args:
      height, width: of the image. Boxes are inside; of larger ones only that many rows and columns are searched.
    """
    lengths = jnp.maximum(at_least_float32(boxes[:, 2:] - boxes[:, :2]), 1)
    counts = jnp.ceil(lengths)
    size = heatmaps.shape[1]

    def of_region(given: tuple[Array, Array]) -> tuple[Array, Array]:
        values, (columns, rows) = given
        down, across = (_cubic(count, size, most) for count, most in ((rows, height), (columns, width)))
        values = jnp.einsum("xq,pqj->pxj", across, at_least_float32(values), precision="highest")
        values = jnp.einsum("yp,pxj->jyx", down, values, precision="highest")
        inside = (jnp.arange(height)[:, None] < rows) & (jnp.arange(width) < columns)
        values = jnp.where(inside, values, -jnp.inf).reshape(len(values), -1)
        return values.argmax(-1), values.max(-1)

    each = max(1, VALUES // max(1, height * width * heatmaps.shape[-1]))
    at, values = lax.map(of_region, (heatmaps, counts), batch_size=min(each, max(1, len(boxes))))
    place = jnp.stack([at % width, at // width], -1) + 0.5
    return place * (lengths / counts)[:, None] + boxes[:, None, :2], values


def _cubic(count: Array, size: int, most: int) -> Array:
    """The weight of each of `size` bins in each of `count` pixels, [most, size]; its ends repeat the outermost bins."""
    place = (jnp.arange(most) + 0.5) * (size / count) - 0.5
    first = jnp.floor(place)
    tap = first[:, None] + jnp.arange(-1, 3)
    x = jnp.abs(place[:, None] - tap)
    near, far = ((A + 2) * x - (A + 3)) * x * x + 1, A * (((x - 5) * x + 8) * x - 4)
    weights = jnp.where(jnp.arange(4) % 3 == 0, far, near)
    bins = jax.nn.one_hot(jnp.clip(tap, 0, size - 1).astype(jnp.int32), size, dtype=weights.dtype)
    return jnp.einsum("yt,ytp->yp", weights, bins, precision="highest")
