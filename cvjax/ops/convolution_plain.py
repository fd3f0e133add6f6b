"""The three maps of `cvjax.ops.convolution` as single `jax.lax` convolutions, which GPUs and TPUs recognise.

They are what JAX's own derivatives of `jax.lax.conv_general_dilated` come to. For CPUs see `cvjax.ops.convolution_cpu`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How images [batch, *image, groups * in] and kernels [*kernel, in, groups * out] meet.

    All pairs are (vertical, horizontal).

    Attributes:
      stride: step of the window.
      padding: zeros (before, after) each axis; negative ones crop.
      dilation: step between the kernel's taps.
      groups: number of blocks of channels that do not see one another.
    """

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int

    @property
    def reach(self) -> Pair:
        """Distance from a kernel's first tap to its last."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def output(self) -> Pair:
        """Size of the convolution's output."""
        axes = zip(self.image, self.padding, self.reach, self.stride, strict=True)
        return tuple((size + sum(pad) - reach - 1) // step + 1 for size, pad, reach, step in axes)

    @property
    def span(self) -> Pair:
        """Distance from the window's first place to its last."""
        return tuple(step * (rows - 1) for step, rows in zip(self.stride, self.output, strict=True))

    @property
    def adjoint_padding(self) -> tuple[Pair, Pair]:
        """Padding that a y with holes (`stride - 1` zeros between pixels) needs to convolve back to an image."""
        axes = zip(self.image, self.span, self.reach, self.padding, strict=True)
        return tuple((reach - before, size + before - span - 1) for size, span, reach, (before, _) in axes)

    @property
    def exact_padding(self) -> tuple[Pair, Pair]:
        """The padding, less the rows at the end that the window never reaches."""
        axes = zip(self.image, self.span, self.reach, self.padding, strict=True)
        return tuple((before, reach + span + 1 - size - before) for size, span, reach, (before, _) in axes)


def conv(
    x: Float[Array, "batch height width channels"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch rows columns features"]:
    """Returns y, the images convolved by the kernel, in [batch, *geometry.output, features] and in `dtype`."""
    return convolve(
        *(x, w, dtype),
        window_strides=geometry.stride,
        padding=geometry.padding,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def conv_transpose(
    y: Float[Array, "batch rows columns features"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch height width channels"]:
    """Computes the adjoint of x -> conv(x, w) at y: a convolution of y with holes by the flipped kernel.

    Returns x, in [batch, *geometry.image, channels] and in `dtype`.
    """
    return convolve(
        *(y, swap_channels(jnp.flip(w, (0, 1)), geometry.groups), dtype),
        window_strides=(1, 1),
        padding=geometry.adjoint_padding,
        lhs_dilation=geometry.stride,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
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
    """Computes the adjoint of w -> conv(x, w) at y: a convolution of x by y, summed over the batch, not the channels.

    Returns w, in [*geometry.kernel, channels / groups, features] and in `dtype`.
    """
    return convolve(
        *(x, y, dtype),
        window_strides=geometry.dilation,
        padding=geometry.exact_padding,
        rhs_dilation=geometry.stride,
        batch_group_count=geometry.groups,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        precision=precision,
    )


def swap_channels(w: Float[Array, "kh kw in features"], groups: int) -> Float[Array, "kh kw out channels"]:
    """Returns a kernel [kh, kw, in, groups * out] as [kh, kw, out, groups * in]: in and out exchanged in each group."""
    kh, kw, inputs, features = w.shape
    grouped = w.reshape(kh, kw, inputs, groups, features // groups)
    return grouped.transpose(0, 1, 4, 3, 2).reshape(kh, kw, features // groups, groups * inputs)


def convolve(
    left: Float[Array, "..."], right: Float[Array, "..."], dtype: DTypeLike, **settings: Any
) -> Float[Array, "..."]:
    """Returns `jax.lax.conv_general_dilated`, with its `settings`, of operands of any two dtypes.

    They are multiplied in the wider of the two; `dtype` is that of the result, and of the sums if it is wider still.
    """
    multiply = jnp.promote_types(left.dtype, right.dtype)
    add = jnp.promote_types(multiply, dtype)
    result = lax.conv_general_dilated(
        left.astype(multiply), right.astype(multiply), preferred_element_type=add, **settings
    )
    return result.astype(dtype)
