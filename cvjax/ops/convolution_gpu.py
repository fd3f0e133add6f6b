"""The maps of `cvjax.ops.convolution` where cuDNN does better than by their plain forms.

* XLA hands a transposed convolution to cuDNN's backward-data kernels only if the flipped kernel goes into the
  convolution as it is, so its channels are exchanged by the convolution's dimension numbers and not by a transposition.
* The gradients of an atrous convolution are dense ones, of each phase of the pixels as an image of its own: space to
  batch. Its forward pass is faster as it is.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from cvjax.ops import convolution_plain as plain
from cvjax.ops.convolution_plain import Geometry

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv_transpose(
    y: Float[Array, "batch rows columns features"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch height width channels"]:
    """Returns x as `convolution_plain.conv_transpose` does."""
    if geometry.groups > 1:
        return plain.conv_transpose(y, w, geometry=geometry, dtype=dtype, precision=precision)
    if _is_atrous(geometry):
        phases, pads, rows = _dense(geometry)
        x = conv_transpose(_split(y, geometry, rows), w, geometry=phases, dtype=dtype, precision=precision)
        return _merge(x, geometry, pads)
    return plain.convolve(
        *(y, lax.rev(w, (0, 1)), dtype),
        window_strides=(1, 1),
        padding=geometry.adjoint_padding,
        lhs_dilation=geometry.stride,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        precision=precision,
    )


def weight_gradient(
    x: Float[Array, "batch height width channels"],
    y: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "kh kw in features"]:
    """Returns w as `convolution_plain.weight_gradient` does."""
    if geometry.groups == 1 and _is_atrous(geometry):
        phases, pads, rows = _dense(geometry)
        x, y = _split(x, geometry, pads), _split(y, geometry, rows)
        geometry = phases
    return plain.weight_gradient(x, y, geometry=geometry, dtype=dtype, precision=precision)


def _is_atrous(geometry: Geometry) -> bool:
    return geometry.stride == (1, 1) and geometry.dilation != (1, 1)


def _dense(geometry: Geometry) -> tuple[Geometry, Pads, Pads]:
    """The dense convolution of each phase, and the padding that makes images and outputs whole numbers of phases."""
    axes = list(zip(geometry.image, geometry.padding, geometry.dilation, geometry.kernel, strict=True))
    image = tuple(-(-(size + sum(pad)) // d) for size, pad, d, _ in axes)
    pads = tuple((pad[0], n * d - size - pad[0]) for n, (size, pad, d, _) in zip(image, axes, strict=True))
    missing = [d * (n - k + 1) - rows for n, rows, (_, _, d, k) in zip(image, geometry.output, axes, strict=True)]
    dense = dataclasses.replace(geometry, image=image, padding=((0, 0), (0, 0)), dilation=(1, 1))
    return dense, pads, tuple((0, rows) for rows in missing)


def _split(image: Array, geometry: Geometry, pads: Pads) -> Array:
    """Space to batch: the phases of a padded image as images."""
    (dh, dw), zero = geometry.dilation, jnp.zeros((), image.dtype)
    image = lax.pad(image, zero, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    batch, height, width, channels = image.shape
    phases = image.reshape(batch, height // dh, dh, width // dw, dw, channels).transpose(0, 2, 4, 1, 3, 5)
    return phases.reshape(batch * dh * dw, height // dh, width // dw, channels)


def _merge(phases: Array, geometry: Geometry, pads: Pads) -> Array:
    """The inverse of `_split`: batch to space, without the padding."""
    (dh, dw), zero = geometry.dilation, jnp.zeros((), phases.dtype)
    batch, height, width, channels = phases.shape
    image = phases.reshape(batch // (dh * dw), dh, dw, height, width, channels).transpose(0, 3, 1, 4, 2, 5)
    image = image.reshape(-1, height * dh, width * dw, channels)
    return lax.pad(image, zero, ((0, 0, 0), *((-before, -after, 0) for before, after in pads), (0, 0, 0)))
