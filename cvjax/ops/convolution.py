"""Convolutions in two dimensions whose derivatives of every order are fast, on CPU too.

A convolution is one trilinear form T(x, w, y) of an image `x`, a kernel `w` and an output `y`, left open in one place:

    conv(x, w) = ∂T/∂y,    conv_transpose(y, w) = ∂T/∂x,    weight_gradient(x, y) = ∂T/∂w.

So the three maps are closed under differentiation: the transposes of each are the other two. They are JAX primitives
here, bilinear by declaration, and so keep both modes of differentiation, of every order. JAX by itself differentiates
`lax.conv_general_dilated` into further ones with holes in their input, whose weight gradient (that of any transposed
convolution, or the second derivative of any strided one) XLA's CPU backend runs as a naive loop, ten times slower than
the three maps need. What each platform computes for them is in `convolution_plain`, `convolution_cpu` and
`convolution_gpu`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, DTypeLike, Float

from cvjax.errors import UserError, number_of, suggest
from cvjax.ops import convolution_cpu, convolution_gpu, convolution_plain
from cvjax.ops.convolution_plain import Geometry, swap_channels

Size = int | Sequence[int]
Padding = str | int | Sequence[int | Sequence[int]]


def conv(
    x: Float[Array, "*batch height width channels"],
    w: Float[Array, "kh kw in features"],
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "*batch rows columns features"]:
    """Convolves images (as networks do: without flipping the kernel), like torch's `conv2d`.

    Returns rows = floor((height + before + after - dilation * (kh - 1) - 1) / stride) + 1, and the same for columns.
    Raises a UserError if the sizes do not fit together.

    Args:
      w: kernel [kh, kw, channels / groups, features]; torch's is `weight.permute(2, 3, 1, 0)`. The features of the
        first group of channels come first.
      stride: step of the window, one for both axes or (vertical, horizontal).
      padding: zeros around the image: `p` on every side, `(vertical, horizontal)`, each a number or `(before, after)`,
        or JAX's `"SAME"` and `"VALID"`. At stride 2, "SAME" is not torch's `padding=1`.
      dilation: step between the kernel's taps, one for both axes or (vertical, horizontal).
      groups: number of blocks of channels that do not see one another; `groups=channels` is a depthwise convolution.
      precision: as in `jax.lax.conv_general_dilated`.
      preferred_element_type: dtype of the output and of the sums, by default that of x and w together.
    """
    *batch, height, width, channels = x.shape
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    _check_channels("conv", channels, w.shape, groups)
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise UserError(f"conv: padding={padding!r} is unknown. {suggest(padding, ['SAME', 'VALID'])}")
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, w.shape, strict=False))
        padding = lax.padtype_to_pads((height, width), reach, stride, padding.upper())
    geometry = Geometry((height, width), w.shape[:2], stride, _pads(padding), dilation, groups)
    if min(geometry.output) < 1:
        raise UserError(f"conv: a {height} x {width} image is too small for {geometry}.")
    w, geometry = _leave_out_taps(w, geometry)
    y = _bind(conv_p, _one_batch(x), w, geometry, precision, preferred_element_type)
    return y.reshape(*batch, *y.shape[1:])


def conv_transpose(
    y: Float[Array, "*batch rows columns channels"],
    w: Float[Array, "kh kw in features"],
    *,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "*batch height width features"]:
    """Transposes `conv`, like torch's `conv_transpose2d`: each pixel of y stamps the kernel on the output.

    It is the adjoint of `conv` with the same arguments. `stride=2` doubles a size exactly with a 4x4 kernel and
    `padding=1`, or a 3x3 kernel and `padding=1, output_padding=1`.

    Returns height = (rows - 1) * stride - before - after + dilation * (kh - 1) + output_padding + 1, and the same for
    width. Raises a UserError if the sizes do not fit together.

    Args:
      w: kernel [kh, kw, channels / groups, features], as in `conv`; torch's is `weight.permute(2, 3, 0, 1)` where
        groups = 1. (Groups: torch's [channels, features / groups, kh, kw] holds the groups along its first axis, this
        one along its last.)
      padding: rows and columns cut off the output: `p` on every side, or `(vertical, horizontal)`, each a number or
        `(before, after)`.
      output_padding: rows and columns added at the end, one for both axes or (vertical, horizontal).
    """
    *batch, rows, columns, channels = y.shape
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    extra = _pair("output_padding", output_padding, 0)
    _check_channels("conv_transpose", channels, w.shape, groups)
    if isinstance(padding, str):
        raise UserError(
            f"conv_transpose: padding is given in numbers, not {padding!r}: 1 for a 4x4 kernel at stride 2."
        )
    # The convolution of which this is the adjoint: it has the output for its image.
    pads = tuple((before, after - e) for (before, after), e in zip(_pads(padding), extra, strict=True))
    axes = zip((rows, columns), stride, pads, dilation, w.shape, strict=False)
    image = tuple((size - 1) * step - sum(pad) + d * (k - 1) + 1 for size, step, pad, d, k in axes)
    if min(image) < 1:
        raise UserError(f"conv_transpose: a {rows} x {columns} image and padding {padding} leave no output.")
    geometry = Geometry(image, w.shape[:2], stride, pads, dilation, groups)
    w = swap_channels(w, groups)
    x = _bind(conv_transpose_p, _one_batch(y), w, geometry, precision, preferred_element_type)
    return x.reshape(*batch, *x.shape[1:])


def _leave_out_taps(w: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """Leaves out a kernel's outer taps that see only padding, as most do of an atrous kernel on a small image."""
    seen, padding = [], []
    axes = zip(w.shape, geometry.image, geometry.padding, geometry.dilation, geometry.span, strict=False)
    for taps, size, (before, after), step, span in axes:
        places = [tap for tap in range(taps) if -span <= tap * step - before < size] or [0]
        first, last = places[0], places[-1]
        seen.append(slice(first, last + 1))
        padding.append((before - first * step, after - (taps - 1 - last) * step))
    if tuple(padding) == geometry.padding:
        return w, geometry
    w = w[tuple(seen)]
    return w, dataclasses.replace(geometry, kernel=w.shape[:2], padding=tuple(padding))


def _one_batch(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def _pair(name: str, value: Size, least: int | None = None) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(v, int) or (least is not None and v < least) for v in pair):
        bound = "" if least is None else f" of at least {least}"
        raise UserError(f"convolution: {name} is a number{bound} or two, (vertical, horizontal), not {value!r}.")
    return pair


def _pads(padding: int | Sequence) -> tuple[tuple[int, int], tuple[int, int]]:
    axes = (padding, padding) if isinstance(padding, int) else tuple(padding)
    if len(axes) != 2:
        raise UserError(f"convolution: padding is a number or (vertical, horizontal), not {padding!r}.")
    return tuple(_pair("padding", axis) for axis in axes)


def _check_channels(name: str, channels: int, kernel: tuple[int, ...], groups: int) -> None:
    if groups < 1 or channels % groups or kernel[3] % groups:
        raise UserError(
            f"{name}: {groups} groups do not divide {number_of(channels, 'channel')} into "
            f"{number_of(kernel[3], 'feature')}."
        )
    if kernel[2] * groups != channels:
        wanted = f"[kh, kw, {channels // groups}, features]"
        raise UserError(
            f"{name}: {number_of(channels, 'channel')} in {number_of(groups, 'group')} want a kernel "
            f"{wanted}, not {list(kernel)}."
        )


def _bind(primitive: Primitive, left: Array, right: Array, geometry: Geometry, precision, dtype) -> Array:
    compute = jnp.promote_types(left.dtype, right.dtype)
    return primitive.bind(
        left.astype(compute),
        right.astype(compute),
        geometry=geometry,
        precision=precision,
        dtype=jnp.dtype(dtype or compute),
    )


# The primitives. An operand is named by its role in T: "x", "w" or "y".

# Where a mapped axis goes in x [batch, height, width, group, in], w [kh, kw, in, group, out] and
# y [batch, rows, columns, group, out], by the roles that carry it: next to the axis that these, and no other, have.
MAPPED = {
    frozenset("xy"): {"x": 0, "y": 0},  # images of their own: more batch
    frozenset("wy"): {"w": 4, "y": 4},  # kernels of their own for the same image: more output channels
    frozenset("xw"): {"x": 4, "w": 2},  # more channels to sum over
    frozenset("xwy"): {"x": 3, "w": 3, "y": 3},  # more groups
}


def _batch(primitive: Primitive, roles: str, operands: Sequence, axes: Sequence, *, geometry: Geometry, **params):
    """`vmap` of a primitive is the primitive again, the mapped axis laid into one that T already has."""
    result = roles[2]
    mapped = {role for role, axis in zip(roles, axes, strict=False) if axis is not None}
    places = MAPPED[frozenset(mapped | {result})]
    size = next(a.shape[i] for a, i in zip(operands, axes, strict=True) if i is not None)
    folded = [
        _fold(jnp.moveaxis(a, i, 0), places[role], geometry.groups) if role in mapped else a
        for a, role, i in zip(operands, roles, axes, strict=False)
    ]
    groups = geometry.groups * (size if len(places) == 3 else 1)
    out = primitive.bind(*folded, geometry=dataclasses.replace(geometry, groups=groups), **params)
    return _unfold(out, places[result], geometry.groups, size), 0


def _fold(operand: Array, place: int, groups: int) -> Array:
    """[mapped, *plain] -> plain, the mapped axis merged into the one at whose `place` it goes."""
    mapped, *shape = operand.shape
    split = operand.reshape(mapped, *shape[:3], groups, shape[3] // groups)
    shape[min(place, 3)] *= mapped
    return jnp.moveaxis(split, 0, place).reshape(shape)


def _unfold(result: Array, place: int, groups: int, mapped: Any) -> Array:
    """The inverse of `_fold`; `mapped` is the size of the mapped axis, symbolic in an exported program."""
    shape = list(result.shape)
    shape[min(place, 3)] //= mapped
    split = [*shape[:3], groups, shape[3] // groups]
    split.insert(place, mapped)
    return jnp.moveaxis(result.reshape(split), place, 0).reshape(mapped, *shape)


def _primitive(name: str, roles: str, plain: Callable, **platforms: Callable) -> Primitive:
    """A bilinear map that is computed by `plain`, or by another form on the platforms that have one."""
    primitive = Primitive(name)
    statics = ("geometry", "dtype", "precision")
    # Its type (shape, sharding, ...) is that of the plain form; jit remembers what either costs.
    typed = jax.jit(plain, static_argnames=statics)
    primitive.def_abstract_eval(lambda *avals, **params: typed.trace(*avals, **params).jaxpr.out_avals[0])
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=statics))
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    for platform, form in platforms.items():
        mlir.register_lowering(primitive, mlir.lower_fun(form, multiple_results=False), platform=platform)
    batching.primitive_batchers[primitive] = partial(_batch, primitive, roles)
    ad.defbilinear(primitive, partial(_transpose, roles[0], roles), partial(_transpose, roles[1], roles))
    return primitive


def _transpose(missing: str, roles: str, cotangent: Array, *operands, **params) -> Array:
    """The cotangent of an operand (given as a placeholder of its type): the map that leaves its role open in T."""
    known = dict(zip(roles, (*operands, cotangent), strict=True))
    primitive, (left, right, _) = next((p, r) for p, r in ROLES.items() if r[2] == missing)
    return primitive.bind(known[left], known[right], **params | {"dtype": known[missing].aval.dtype})


conv_p = _primitive("conv", "xwy", convolution_plain.conv, cpu=convolution_cpu.conv)
conv_transpose_p = _primitive(
    *("conv_transpose", "ywx", convolution_plain.conv_transpose),
    cpu=convolution_cpu.conv_transpose,
    cuda=convolution_gpu.conv_transpose,
)
weight_gradient_p = _primitive(
    *("weight_gradient", "xyw", convolution_plain.weight_gradient),
    cpu=convolution_cpu.weight_gradient,
    cuda=convolution_gpu.weight_gradient,
)
ROLES = {conv_p: "xwy", conv_transpose_p: "ywx", weight_gradient_p: "xyw"}
