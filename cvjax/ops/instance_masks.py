"""Masks of objects inside their boxes: what a network of regions is to predict, and its masks back in the image.

Training is in JAX and batched. Pasting is done on the host, since images have any size and detections any number.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from cvjax.ops.roi import roi_align

VALUES = 2**24  # pixels of masks that are cropped at a time
FAR = 2.0**30  # pixels: corners further away are taken to be here


def split_instances(
    instances: Int[Array, "batch height width"], objects: int
) -> Bool[Array, "batch {objects} height width"]:
    """Returns the mask of each object of a map whose numbers are 1 + the object's row; 0 is background."""
    return instances[:, None] == jnp.arange(1, objects + 1)[:, None, None]


def mask_targets(
    masks: Bool[Array, "batch objects height width"],
    matched: Int[Array, "batch regions"],
    boxes: Float[Array, "batch regions 4"],
    present: Bool[Array, "batch regions"],
    size: int = 28,
    aligned: bool = True,
) -> Float[Array, "batch regions {size} {size}"]:
    """Returns the part of its object's mask that each region sees, in [0, 1]: He et al., 2017, section 3.

    It is RoIAlign of the mask with as many samples as a bin has pixels, and is not rounded, as in torchvision's
    `project_masks_on_boxes`. What lies a pixel and more outside of the image is 0; padding is 0.

    Args:
      matched: the object of each region.
      present: False in padding of the regions.
      aligned: a pixel's value is that at its middle, as in Detectron2. If not, it is that at its near corner, as in
        torchvision, which moves masks by half a pixel: a third of a bin of a region of 40 pixels.
    """
    batch, objects, height, width = masks.shape
    flat = masks.reshape(-1, height, width)
    at = (objects * jnp.arange(batch)[:, None] + jnp.clip(matched, 0, objects - 1)).reshape(-1)
    each = min(len(at), max(1, VALUES // (height * width)))
    chunks = -(-len(at) // each)

    def split(x: Shaped[Array, " all *rest"]) -> Shaped[Array, "chunks each *rest"]:
        rest = [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, [(0, chunks * each - len(x)), *rest]).reshape(chunks, each, *x.shape[1:])

    def crop(chunk: tuple[Array, Array, Array]) -> Array:
        at, boxes, present = chunk
        one = flat[at][..., None].astype(jnp.float32)
        return roi_align(one, boxes[:, None], present[:, None], size=size, sampling=None, aligned=aligned)

    cropped = lax.map(crop, (split(at), split(boxes.reshape(-1, 4)), split(present.reshape(-1))))
    return cropped.reshape(-1, size, size)[: len(at)].reshape(*matched.shape, size, size)


# --- pasting ------------------------------------------------------------------------------------------------------


def paste_masks(
    masks: Float[np.ndarray, "objects size size"],
    boxes: Float[np.ndarray, "objects 4"],
    height: int,
    width: int,
    whole_pixels: bool = False,
) -> Float32[np.ndarray, "objects height width"]:
    """Returns masks of boxes as images of this size, interpolated and 0 outside of their boxes.

    A mask ends, falling to 0, within a bin beyond its box, as if it had a border of zeros. An object's pixels are those
    of 0.5 and more: `threshold_masks`. Boxes without a width and a height and boxes that are not finite have none.

    Args:
      boxes: in pixels of that image, whatever the network's was.
      whole_pixels: round the boxes to whole pixels, as torchvision's `paste_masks_in_image` does, which makes masks up
        to a pixel wider; if not, it is Detectron2's.
    """
    pasted = np.zeros((len(masks), height, width), np.float32)
    for mask, box, canvas in zip(masks, np.asarray(boxes, np.float64), pasted, strict=True):
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            continue
        rows, down = _weights(box[1], box[3], len(mask), height, whole_pixels)
        columns, across = _weights(box[0], box[2], len(mask), width, whole_pixels)
        canvas[rows, columns] = down @ np.pad(mask, 1) @ across.T
    return pasted


def threshold_masks(
    masks: Float[np.ndarray, "objects size size"], boxes: Float[np.ndarray, "objects 4"], height: int, width: int
) -> Bool[np.ndarray, "objects height width"]:
    """Returns the pixels of objects in an image of this size: where `paste_masks` is 0.5 or more."""
    return paste_masks(masks, boxes, height, width) >= 0.5


def _weights(
    near: float, far: float, size: int, pixels: int, whole_pixels: bool
) -> tuple[slice, Float32[np.ndarray, "_ _"]]:
    """Pixels of an axis that a padded mask covers, and the share of each of its bins in each of them."""
    near, far = (np.float32(np.clip(edge, -FAR, FAR)) for edge in (near, far))
    middle, half = (near + far) / 2, (far - near) / 2 * np.float32((size + 2) / size)
    near, far = float(middle - half), float(middle + half)
    if whole_pixels:
        near, far = float(int(near)), float(int(far) + 1)  # towards 0, as torchvision
    first = int(np.clip(np.ceil(near - 0.5), 0, pixels))
    last = int(np.clip(np.ceil(far - 0.5), first, pixels))
    place = (np.arange(first, last) + 0.5 - near) / (far - near) * (size + 2) - 0.5
    distance = np.abs(np.clip(place, 0, size + 1)[:, None] - np.arange(size + 2))
    return slice(first, last), np.maximum(1 - distance, 0).astype(np.float32)
