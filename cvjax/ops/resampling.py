"""Images resized as MATLAB's `imresize` does, by products with two matrices; no image is read outside of its borders.

The kernel is Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981, equation 15: a = -1/2. When an
image shrinks, the kernel is widened by the factor, so that there are no aliases. Published figures of super-resolution
are of images that were made smaller in this way; OpenCV's bicubic and torch's without `antialias=True`, which have
a = -3/4 and do not widen, make others.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

Kernel = Literal["bicubic", "lanczos", "bilinear"]
Distances = Float[np.ndarray, "*shape"]

A = -0.5  # Keys' constant, with which the interpolation is exact for parabolas
LOBES = 3  # of Lanczos' kernel


def cubic(x: Distances) -> Distances:
    """Returns Keys' cubic kernel, which ends at distances of 2."""
    x = np.abs(x)
    near = (A + 2) * x**3 - (A + 3) * x**2 + 1
    far = A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def lanczos(x: Distances) -> Distances:
    """Returns the sinc function windowed by its own middle lobe, which ends at distances of 3."""
    return np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)


def triangle(x: Distances) -> Distances:
    """Returns the kernel of linear interpolation, which ends at distances of 1."""
    return np.maximum(1 - np.abs(x), 0)


KERNELS: dict[
    str, tuple[Callable[[np.ndarray], np.ndarray], int]
] = {  # the function, and the distance at which it ends
    "bicubic": (cubic, 2),
    "lanczos": (lanczos, LOBES),
    "bilinear": (triangle, 1),
}


def symmetric_indices(
    places: Integer[Array | np.ndarray, "*places"], size: int | Integer[Array, ""]
) -> Integer[Array | np.ndarray, "*places"]:
    """Returns places mirrored at both ends of an axis, whose outermost pixels are repeated, as often as needed."""
    folded = places % (2 * size)
    return jnp.minimum(folded, 2 * size - 1 - folded) if isinstance(folded, jax.Array) else _folded(folded, size)


def _folded(places: np.ndarray, size: int) -> np.ndarray:
    return np.minimum(places, 2 * size - 1 - places)


@functools.cache
def resize_matrix(old: int, new: int, kernel: Kernel = "bicubic") -> Float[np.ndarray, "new old"]:
    """Returns the weights of `old` pixels in each of `new` ones; the weights of a pixel sum to 1.

    Pixels are squares that fill the axis: the middle of pixel i is at (i + 1/2) old / new. Beyond its ends the axis is
    mirrored.
    """
    function, reach = KERNELS[kernel]
    widening = max(1.0, old / new)
    middles = (np.arange(new) + 0.5) * (old / new) - 0.5
    taps = int(np.ceil(2 * reach * widening)) + 1
    places = np.floor(middles - reach * widening).astype(int)[:, None] + np.arange(taps + 1)
    weights = function((middles[:, None] - places) / widening)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], symmetric_indices(places, old)), weights)
    return matrix


def resize(
    images: Float[Array, "*batch height width channels"], size: tuple[int, int], kernel: Kernel = "bicubic"
) -> Float[Array, "*batch rows columns channels"]:
    """Returns images of another size, in float32 at least; overshoot beyond [0, 1] is not clipped."""
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    down, across = (
        jnp.asarray(resize_matrix(old, new, kernel), dtype) for old, new in zip(images.shape[-3:-1], size, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    columns = jnp.einsum("xw,...hwc->...hxc", across, images.astype(dtype), precision=exact)
    return jnp.einsum("yh,...hxc->...yxc", down, columns, precision=exact)


def magnify(
    images: Float[Array, "batch height width channels"], factor: int
) -> Float[Array, "batch rows columns channels"]:
    """Returns images or features of which each pixel is repeated `factor` times in either direction."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)
