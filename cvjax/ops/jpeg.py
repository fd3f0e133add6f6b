"""What JPEG loses, as arithmetic: the standard's cosine transform and quantisation, and libjpeg's halved colours.

ITU-T T.81 | ISO/IEC 10918-1, 1992, sections A.3.3, A.3.4 and K.1. Its entropy coding loses nothing, so that no file has
to be written, and an image is compressed and decompressed on any device, within any compiled function.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import resize

Image = Float[Array, "height width channels"]

BLOCK = 8
LUMINANCE = np.array(  # table K.1
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((BLOCK, BLOCK), 99)  # table K.2
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF: Y, Cb and Cr of R, G and B in 0..255, all of them in 0..255.
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
OFFSET = np.array([0.0, 128.0, 128.0])


def quantisation(table: Int[np.ndarray, "8 8"], quality: int | float | Float[Array, ""]) -> Float[Array, "8 8"]:
    """Returns a table at a quality from 1 to 100, as libjpeg scales it: 50 leaves it as it is."""
    quality = jnp.asarray(quality, jnp.float32)
    share = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table * share + 50) / 100), 1, 255)


def cosines() -> Float[np.ndarray, "8 8"]:
    """Returns the orthonormal cosine transform of eight numbers."""
    rows, columns = np.mgrid[:BLOCK, :BLOCK]
    matrix = np.cos((2 * columns + 1) * rows * np.pi / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def compress(image: Image, quality: int | float | Float[Array, ""], halved: bool = True) -> Image:
    """Returns an image in [0, 1], grey or RGB, as a JPEG file of it would be read; the result has 256 levels.

    Args:
      quality: from 1 to 100, as of libjpeg and PIL.
      halved: store colours at half the size, as most files do (4:2:0).
    """
    levels = jnp.round(jnp.clip(at_least_float32(image), 0, 1) * 255)
    height, width, channels = levels.shape
    if channels == 1:
        return jnp.clip(_quantised(levels[..., 0], LUMINANCE, quality), 0, 255)[..., None] / 255
    exact = jax.lax.Precision.HIGHEST
    planes = jnp.round(jnp.dot(levels, TO_YCC.T.astype(np.float32), precision=exact) + OFFSET)
    luma = _quantised(planes[..., 0], LUMINANCE, quality)
    colours = planes[..., 1:]
    if halved:
        even = jnp.pad(colours, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        pairs = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, 2)
        colours = jnp.round(pairs.mean(axis=(1, 3)))
    colours = [_quantised(colours[..., index], CHROMINANCE, quality) for index in range(2)]
    if halved:  # libjpeg's "fancy" decoder interpolates linearly
        grown = (2 * colours[0].shape[0], 2 * colours[0].shape[1])
        colours = [resize(plane[..., None], grown, "bilinear")[:height, :width, 0] for plane in colours]
    found = jnp.stack([luma, *colours], axis=-1) - OFFSET
    back = np.linalg.inv(TO_YCC).T.astype(np.float32)
    return jnp.clip(jnp.round(jnp.dot(found, back, precision=exact)), 0, 255) / 255


def _quantised(
    plane: Float[Array, "height width"], table: Int[np.ndarray, "8 8"], quality: int | float | Float[Array, ""]
) -> Float[Array, "height width"]:
    """A plane in 0..255 after its blocks were transformed, quantised and transformed back."""
    height, width = plane.shape
    padded = jnp.pad(plane, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="edge") - 128
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    transform, exact = cosines().astype(np.float32), jax.lax.Precision.HIGHEST
    waves = jnp.einsum("ui,yixj,vj->yuxv", transform, blocks, transform, precision=exact)
    steps = quantisation(table, quality)[:, None]
    waves = jnp.round(waves / steps) * steps
    blocks = jnp.einsum("ui,yuxv,vj->yixj", transform, waves, transform, precision=exact)
    return jnp.clip(jnp.round(blocks.reshape(padded.shape)[:height, :width] + 128), 0, 255)
