"""What each platform computes for the three maps of `cvjax.ops.convolution`, in terms of `jax.lax`.

`plain` is what JAX's own derivatives of `jax.lax.conv_general_dilated` come to, and what GPUs and TPUs recognise. `cpu`
differs from it where XLA's CPU backend is slow. Every function takes (left, right, geometry, dtype, precision), so that
`cvjax.ops.convolution` can register them as lowerings.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How an image [batch, *image, groups * in] and a kernel [*kernel, in, groups * out] meet. All are (height, width).

    Attributes:
      image: size of the image.
      kernel: size of the kernel.
      stride: step of the window.
      padding: (before, after) of each axis; negative crops.
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
        """Distance from the kernel's first tap to its last."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def output(self) -> Pair:
        """Size of the convolution's output."""
        axes = zip(self.image, self.padding, self.reach, self.stride, strict=True)
        return tuple((size + sum(pad) - reach - 1) // step + 1 for size, pad, reach, step in axes)


def plain_conv(
    x: Float[Array, "batch height width channels"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch rows columns features"]:
    """The convolution y of an image x by a kernel w."""
    return _conv_general(
        x,
        w,
        dtype,
        window_strides=geometry.stride,
        padding=geometry.padding,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def plain_conv_transpose(
    y: Float[Array, "batch rows columns features"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch height width channels"]:
    """The adjoint of x -> conv(x, w), at y: a convolution of y with holes by the kernel turned round."""
    before = tuple(reach - lo for reach, (lo, _) in zip(geometry.reach, geometry.padding, strict=True))
    axes = zip(geometry.image, geometry.output, geometry.stride, geometry.padding, strict=True)
    after = tuple(size - (rows - 1) * step - 1 + lo for size, rows, step, (lo, _) in axes)
    return _conv_general(
        y,
        swap_channels(jnp.flip(w, (0, 1)), geometry.groups),
        dtype,
        window_strides=(1, 1),
        padding=tuple(zip(before, after, strict=True)),
        lhs_dilation=geometry.stride,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def plain_weight_gradient(
    x: Float[Array, "batch height width channels"],
    y: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "kh kw in features"]:
    """The adjoint of w -> conv(x, w), at y: a convolution of x by y, the batch being the contracted channel."""
    axes = zip(geometry.image, geometry.output, geometry.stride, geometry.reach, geometry.padding, strict=True)
    padding = tuple((lo, reach + (rows - 1) * step + 1 - size - lo) for size, rows, step, reach, (lo, _) in axes)
    return _conv_general(
        x,
        y,
        dtype,
        window_strides=geometry.dilation,
        padding=padding,
        rhs_dilation=geometry.stride,
        batch_group_count=geometry.groups,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        precision=precision,
    )


def swap_channels(w: Float[Array, "kh kw in features"], groups: int) -> Float[Array, "kh kw out channels"]:
    """Exchanges the channels that a kernel reads with those that it writes, within each group.

    Args:
      w: [kh, kw, in, groups * out].
      groups: number of groups.

    Returns:
      [kh, kw, out, groups * in].
    """
    kh, kw, inputs, features = w.shape
    grouped = w.reshape(kh, kw, inputs, groups, features // groups)
    return grouped.transpose(0, 1, 4, 3, 2).reshape(kh, kw, features // groups, groups * inputs)


def _conv_general(left: Array, right: Array, dtype: DTypeLike, **kwargs) -> Array:
    """`lax.conv_general_dilated` of any two dtypes: computed in the wider one, accumulated and returned in `dtype`."""
    compute = jnp.promote_types(left.dtype, right.dtype)
    accumulate = jnp.promote_types(compute, dtype)
    y = lax.conv_general_dilated(
        left.astype(compute), right.astype(compute), preferred_element_type=accumulate, **kwargs
    )
    return y.astype(dtype)
