"""The patches that activate each channel of a layer most, over a dataset, and what of them the channel answers to.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901), figure 2. What an image
projects to comes from a deconvnet: the gradient of one unit where ReLUs pass positive gradients only (section 2.1; see
`cvjax.interpret.gates.deconvnet`). The switches of its unpooling are what the gradient of a maximum is anyway.
"""

from collections.abc import Callable, Mapping

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Images = Float[Array, "batch height width channels"]
ActivationsFn = Callable[[Images], dict[str, Float[Array, "batch ..."]]]
Spans = tuple[Int[np.ndarray, "rows 2"], Int[np.ndarray, "columns 2"]]  # of `receptive_field.receptive_fields`


@flax.struct.dataclass
class Strongest:
    """Where each channel of a layer was most active, strongest first, at most once in an image.

    Attributes:
      value: the activation; -inf where there were fewer images, and then the others are 0.
      image: number of the image.
      row, column: of the unit in the layer.
    """

    value: Float[Array, "channels count"]
    image: Int[Array, "channels count"]
    row: Int[Array, "channels count"]
    column: Int[Array, "channels count"]


def spatial_maxima(
    activations: Float[Array, "batch *places channels"],
) -> tuple[Float[Array, "batch channels"], Int[Array, "batch channels"], Int[Array, "batch channels"]]:
    """Returns the largest activation of each channel in each image, with its row and its column.

    The first counts where several are the largest; logits [batch, classes] count as one row and one column.
    """
    columns = activations.shape[2] if activations.ndim == 4 else 1
    flat = activations.reshape(len(activations), -1, activations.shape[-1])
    best = flat.argmax(axis=1)
    return flat.max(axis=1), best // columns, best % columns


def strongest(
    value: Float[Array, "images channels"],
    row: Int[Array, "images channels"],
    column: Int[Array, "images channels"],
    count: int,
) -> Strongest:
    """Returns the `count` images in which each channel is most active, of the maxima of all images of a dataset."""
    values, images = jax.lax.top_k(jnp.asarray(value).T, min(count, len(value)))
    places = [jnp.take_along_axis(jnp.asarray(place).T, images, axis=1) for place in (row, column)]
    missing = ((0, 0), (0, count - values.shape[1]))
    places = [jnp.pad(leaf, missing) for leaf in (images, *places)]
    return Strongest(jnp.pad(values, missing, constant_values=-jnp.inf), *places)


def projections(
    activations_fn: ActivationsFn,
    images: Images,
    layer: str,
    channel: Int[Array, " batch"],
    row: Int[Array, " batch"],
    column: Int[Array, " batch"],
) -> Images:
    """Returns the gradient of one unit of each image with respect to its pixels.

    It is a deconvnet's projection if `activations_fn` is `gates.deconvnet` of a network, and zero outside the unit's
    receptive field. Images may not depend on one another.
    """

    def chosen(images: Images) -> Float[Array, ""]:
        units = activations_fn(images)[layer]
        units = units if units.ndim == 4 else units[:, None, None]
        return units[jnp.arange(len(units)), row, column, channel].sum()

    return jax.grad(chosen)(images)


def cut(
    images: Float[np.ndarray, "batch height width channels"],
    spans: Spans,
    row: Int[np.ndarray, " batch"],
    column: Int[np.ndarray, " batch"],
    fill: float = 0.5,
) -> Float[np.ndarray, "batch patch_height patch_width channels"]:
    """Cuts out of each image what one unit sees, into patches of the size of the layer's largest receptive field.

    Returns patches that are `fill` where a receptive field reaches over the border of the image.

    Args:
      spans: receptive fields of the layer.
    """
    high, wide = (int((span[:, 1] - span[:, 0]).max()) for span in spans)
    patches = np.full((len(images), high, wide, images.shape[-1]), fill, np.float32)
    for patch, image, i, j in zip(patches, images, row, column, strict=True):
        (top, bottom), (left, right) = spans[0][i], spans[1][j]
        y, x = (high - (bottom - top)) * (top == 0), (wide - (right - left)) * (left == 0)
        patch[y : y + bottom - top, x : x + right - left] = image[top:bottom, left:right]
    return patches


def legible(
    gradients: Float[np.ndarray, "batch height width channels"],
) -> Float[np.ndarray, "batch height width channels"]:
    """Returns gradients as pictures: zero is grey, and the largest value of each image is 0 or 1."""
    largest = np.abs(gradients).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * gradients / np.maximum(largest, 1e-12)


def sheet(
    columns: Mapping[str, Float[np.ndarray, "channels count height width 3"]], gap: int = 2
) -> Float[np.ndarray, "rows columns 3"]:
    """Returns one picture: a row for each channel, and beside one another the groups of pictures, apart by white.

    All pictures have one size.
    """
    strips = []
    for pictures in columns.values():
        padded = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
        channels, count, height, width, bands = padded.shape
        strip = padded.transpose(0, 2, 1, 3, 4).reshape(channels * height, count * width, bands)
        strips.append(np.pad(strip, ((0, 0), (0, 3 * gap), (0, 0)), constant_values=1))
    return np.concatenate(strips, axis=1)[: -gap or None, : -4 * gap or None]
