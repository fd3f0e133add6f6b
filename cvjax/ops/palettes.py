"""Colours of classes, and maps of classes painted in them, on the host."""

import functools

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from cvjax.data.class_maps import VOID

GREY = (200, 200, 200)  # of void


@functools.cache
def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """Returns PASCAL VOC's colours: a class's bits, lowest first, are the highest of red, green, blue, red, ...

    The last one, that of void, is grey here.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        place = 7 - bit // 3
        colours[:, bit % 3] |= ((numbers >> bit & 1) << place).astype(np.uint8)
    colours[VOID] = GREY
    colours.flags.writeable = False  # it is shared
    return colours


def paint(numbers: Integer[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Returns maps of classes in their colours, float32 in [0, 1]; what is no class is painted as void."""
    inside = np.where((numbers >= 0) & (numbers < VOID), numbers, VOID)
    return voc_palette()[inside].astype(np.float32) / 255


def overlay(
    image: Float[np.ndarray, "height width channels"],
    numbers: Integer[np.ndarray, "height width"],
    opacity: float = 0.6,
    background: int | None = 0,
) -> Float[np.ndarray, "height width 3"]:
    """Returns a copy of a grey or RGB image with the classes of pixels painted over it, opaque where a class ends.

    `background` is the class that is not painted, if any.
    """
    edge = np.zeros(numbers.shape, bool)
    edge[1:] |= numbers[1:] != numbers[:-1]
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    share = np.where(edge, 1.0, opacity) * ((numbers != background) & (numbers != VOID))
    colours = paint(numbers)
    return (image + share[..., None].astype(np.float32) * (colours - image)).astype(np.float32)


def heat(
    image: Float[Array | np.ndarray, "height width channels"],
    values: Float[Array | np.ndarray, "height width"],
    opacity: float = 0.6,
) -> Float[Array, "height width 3"]:
    """Returns a copy of a grey or RGB image, in grey, with a map painted over it, from blue (0) to red.

    The map's 99.5th percentile and all above are red, and negative values blue; a map of zeros leaves blue alone.
    """
    top = jnp.percentile(values, 99.5)
    top = jnp.where(top == 0, values.max(), top)
    level = jnp.where(top > 0, jnp.clip(values / jnp.where(top > 0, top, 1), 0, 1), 0)
    table = jnp.asarray(matplotlib.colormaps["turbo"](np.arange(256))[:, :3], jnp.float32)
    colours = table[jnp.clip(256 * level, 0, 255).astype(jnp.int32)]
    grey = jnp.clip(image, 0, 1).mean(axis=-1, keepdims=True)
    return grey + opacity * (colours - grey)
