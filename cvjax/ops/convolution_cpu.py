"""The three maps of `cvjax.ops.convolution` in forms that XLA's CPU backend runs fast.

Its own convolution is fast for one group and dimensions in the order NHWC, HWIO, NHWC. All else is brought to that
here, or to matrix products, or to elementwise sums: above all the weight gradient, which otherwise runs as a loop a
hundred times slower wherever XLA does not reorder its dimensions, as inside `jax.lax.scan`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from cvjax.ops import convolution_plain as plain
from cvjax.ops.convolution_plain import Geometry

# Groups that have one channel on one side and no more than this on the other are summed elementwise, tap by tap, if the
# kernel has no more taps than this: each adds to the time of compilation.
THIN, TAPS = 4, 64
# Strided transposed convolutions of no more phases (at stride 2, four), with no fewer channels of output, are computed
# phase by phase.
PHASES, NARROW = 9, 8
# With no fewer features, weight gradients are products of patches and outputs: up to ten times as fast as convolutions,
# which are faster with fewer, and at stride 1 for MANY images or more (measured). A megabyte of patches, which caches
# hold, is laid out at a time.
WIDE, MANY, LAID_OUT = 24, 8, 2**18
# Without any padding, convolutions of images whose patches are this many numbers or more take up to five times as long
# as with a row of zeros (measured).
UNPADDED, LARGE = ((0, 0), (0, 0)), 2**19
# Where a convolution has few outputs beside its features, reading the kernel is what it costs, and the usual forms copy
# it, turn it round or cut it up first, which takes up to thirty times as long as one matrix product (measured). Few are
# no more than the features by FEW, and by OVERLAID for a transposed convolution.
FEW, OVERLAID = 1 / 4, 4
# LLVM unrolls sums of this many terms and then vectorises over channels; 16 terms take twice the time (measured).
UNROLLED = 8


def conv(
    x: Float[Array, "batch height width channels"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch rows columns features"]:
    """Returns y as `convolution_plain.conv` does."""
    groups, inputs, outputs = geometry.groups, w.shape[2], w.shape[3] // geometry.groups
    if _thin(inputs, outputs, geometry):
        x = _pad(_spread(x, outputs, dtype), geometry.exact_padding)
        return _gather(_correlate(x, _pairs(w, groups), geometry), inputs, dtype)
    return _in_groups(_dense_conv)(x, w, geometry=geometry, dtype=dtype, precision=precision)


def conv_transpose(
    y: Float[Array, "batch rows columns features"],
    w: Float[Array, "kh kw in features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "batch height width channels"]:
    """Returns x as `convolution_plain.conv_transpose` does."""
    groups, inputs, outputs = geometry.groups, w.shape[2], w.shape[3] // geometry.groups
    if _thin(inputs, outputs, geometry):
        # A convolution of y with holes by the kernel turned round.
        y = _pad(_spread(y, inputs, dtype), geometry.adjoint_padding, geometry.stride)
        unpadded = dataclasses.replace(geometry, image=y.shape[1:3], stride=(1, 1), padding=((0, 0), (0, 0)))
        return _gather(_correlate(y, jnp.flip(_pairs(w, groups), (0, 1)), unpadded), outputs, dtype)
    return _in_groups(_dense_conv_transpose)(y, w, geometry=geometry, dtype=dtype, precision=precision)


def weight_gradient(
    x: Float[Array, "batch height width channels"],
    y: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
    dtype: DTypeLike,
    precision: lax.PrecisionLike,
) -> Float[Array, "kh kw in features"]:
    """Returns w as `convolution_plain.weight_gradient` does."""
    groups, inputs, outputs = geometry.groups, x.shape[3] // geometry.groups, y.shape[3] // geometry.groups
    if _thin(inputs, outputs, geometry):
        pairs = _thin_weight_gradient(_spread(x, outputs, dtype), _spread(y, inputs, dtype), geometry)
        return _kernel(pairs, groups, inputs).astype(dtype)
    form = _pointwise_weight_gradient if geometry.kernel == (1, 1) else _dense_weight_gradient
    return _in_groups(form)(x, y, geometry=geometry, dtype=dtype, precision=precision)


# One group.


def _dense_conv(x: Array, w: Array, *, geometry: Geometry, dtype: DTypeLike, precision) -> Array:
    """One matrix product where the window is one pixel or the whole image: a convolution takes up to twice the time."""
    params = dict(dtype=dtype, precision=precision)
    if geometry.kernel != (1, 1) and _outputs(x.shape[0], geometry) <= FEW * w.shape[3]:
        return _einsum("bhwi,io->bhwo", _patches(x, geometry), w.reshape(-1, w.shape[3]), **params)
    if geometry.padding != UNPADDED:
        return plain.conv(x, w, geometry=geometry, **params)
    if geometry.kernel == geometry.image:
        x, w = x.reshape(x.shape[0], -1), w.reshape(-1, w.shape[3])  # the batch may be symbolic
        return _einsum("bi,io->bo", x, w, **params)[:, None, None]
    if geometry.kernel == (1, 1):
        (x,) = _taps(x, geometry)
        return _einsum("bhwi,io->bhwo", x, w[0, 0], **params)
    rows, columns = geometry.output
    if rows * columns * math.prod(w.shape[:3]) < LARGE:
        return plain.conv(x, w, geometry=geometry, **params)
    missing = geometry.reach[0] + 1 + rows * geometry.stride[0] - geometry.image[0]  # for one row more
    longer = dataclasses.replace(geometry, padding=((0, missing), (0, 0)))
    return plain.conv(x, w, geometry=longer, **params)[:, :rows]


def _dense_conv_transpose(y: Array, w: Array, *, geometry: Geometry, **params) -> Array:
    """Spares the products with the zeros between the pixels of y: at stride 2, three in four."""
    phases = math.prod(geometry.stride)
    if geometry.kernel == geometry.stride == (1, 1) and geometry.padding == UNPADDED:
        return _einsum("bhwo,io->bhwi", y, w[0, 0], **params)
    if _outputs(y.shape[0], geometry) <= OVERLAID * w.shape[3]:
        return _overlay(y, w, geometry=geometry, **params)
    if phases == 1 or geometry.dilation != (1, 1):
        return plain.conv_transpose(y, w, geometry=geometry, **params)
    if all(k <= s for k, s in zip(geometry.kernel, geometry.stride, strict=True)):
        return _stamp(y, w, geometry=geometry, **params)
    if phases > PHASES or w.shape[2] < NARROW:
        return plain.conv_transpose(y, w, geometry=geometry, **params)
    parts = [list(_phases(geometry, axis)) for axis in (0, 1)]
    x = jnp.zeros((y.shape[0], *geometry.image, w.shape[2]), params["dtype"])
    return sum((_one_phase(y, w, *part, **params) for part in itertools.product(*parts)), x)


def _phases(geometry: Geometry, axis: int) -> Iterator[tuple[slice, int, plain.Pair, tuple[int, int, int]]]:
    """Along one axis, each set of pixels of x at a distance of the stride, which the same taps of the kernel reach.

    Yields the taps, the number of the pixels, the padding of the convolution whose adjoint (at stride 1) these pixels
    are, and how `lax.pad` puts them into place.
    """
    size, kernel, rows = geometry.image[axis], geometry.kernel[axis], geometry.output[axis]
    step, before = geometry.stride[axis], geometry.padding[axis][0]
    for residue in range(min(step, kernel)):
        taps = len(range(residue, kernel, step))
        # Tap residue + step * m of output i reaches pixel residue + step * (i + m) - before.
        first = -((residue - before) // step)
        count = (before + size - 1 - residue) // step - first + 1
        start = residue + step * first - before
        if count > 0:
            place = (start, size - start - step * (count - 1) - 1, step - 1)
            yield slice(residue, None, step), count, (first, rows - count - first + taps - 1), place


def _one_phase(y: Array, w: Array, vertical: tuple, horizontal: tuple, **params) -> Array:
    (rows, height, *_), (columns, width, *_) = vertical, horizontal
    w = w[rows, columns]
    geometry = Geometry((height, width), w.shape[:2], (1, 1), (vertical[2], horizontal[2]), (1, 1), 1)
    x = plain.conv_transpose(y, w, geometry=geometry, **params)
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), vertical[3], horizontal[3], (0, 0, 0)])


def _stamp(y: Array, w: Array, *, geometry: Geometry, dtype: DTypeLike, precision) -> Array:
    """Kernels no larger than the stride do not overlap: one matrix product, and the stamps are laid side by side."""
    stamps = _einsum("bhwo,rcio->bhrwci", y, w, dtype=dtype, precision=precision)
    batch, rows, kh, columns, kw, channels = stamps.shape
    (down, right), none = geometry.stride, (0, 0, 0)
    stamps = lax.pad(stamps, jnp.zeros((), dtype), [none, none, (0, down - kh, 0), none, (0, right - kw, 0), none])
    x = stamps.reshape(batch, rows * down, columns * right, channels)
    axes = zip(geometry.image, x.shape[1:3], geometry.padding, strict=True)
    return _pad(x, tuple((-before, size - (whole - before)) for size, whole, (before, _) in axes))


def _overlay(y: Array, w: Array, *, geometry: Geometry, dtype: DTypeLike, precision) -> Array:
    """The adjoint of `_patches` at the products of y and the kernel: each is added to the pixels that it came from."""
    add = functools.reduce(jnp.promote_types, (y.dtype, w.dtype, dtype, jnp.float32))
    patches = _einsum("bhwo,io->bhwi", y, w.reshape(-1, w.shape[3]), dtype=add, precision=precision)
    image = jax.ShapeDtypeStruct((y.shape[0], *geometry.image, w.shape[2]), add)
    (x,) = jax.linear_transpose(functools.partial(_patches, geometry=geometry), image)(patches)
    return x.astype(dtype)


def _outputs(batch: Any, geometry: Geometry) -> float:
    """The number of outputs of each feature; infinity where the batch is symbolic, as in a program for export."""
    return float(batch * math.prod(geometry.output)) if isinstance(batch, int) else math.inf


def _dense_weight_gradient(x: Array, y: Array, *, geometry: Geometry, **params) -> Array:
    """Patches by outputs, or a convolution in which batch and channels, stride and dilation swap."""
    if y.shape[3] >= WIDE and (y.shape[0] < MANY or geometry.stride != (1, 1)):
        return _patches_by_outputs(x, y, geometry=geometry, **params)
    swapped = Geometry(
        image=geometry.image,
        kernel=geometry.output,
        stride=geometry.dilation,
        padding=geometry.exact_padding,
        dilation=geometry.stride,
        groups=1,
    )
    w = plain.conv(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), geometry=swapped, **params)
    return w.transpose(1, 2, 0, 3)


def _patches_by_outputs(x: Array, y: Array, *, geometry: Geometry, dtype: DTypeLike, precision) -> Array:
    """Sums matrix products of a few rows at a time, of all images: devices that share a batch add up only the sums."""
    batch, rows, columns, features = y.shape
    size, step = math.prod(geometry.kernel) * x.shape[3], geometry.stride[0]
    # No fewer than makes the product worth its sum, which is read and written again each time.
    height = min(rows, max(1, max(LAID_OUT, 2 * size * features) // (batch * columns * size)))
    blocks = -(-rows // height)
    height = -(-rows // blocks)
    surplus, seen = blocks * height - rows, (height - 1) * step + geometry.reach[0] + 1
    x = _pad(_pad(x, geometry.exact_padding), ((0, surplus * step), (0, 0)))
    y = _pad(y, ((0, surplus), (0, 0)))
    block = dataclasses.replace(geometry, image=(seen, x.shape[2]), padding=((0, 0), (0, 0)))
    add = functools.reduce(jnp.promote_types, (x.dtype, y.dtype, dtype, jnp.float32))

    def add_block(total: Array, index: Array) -> tuple[Array, None]:
        part = lax.dynamic_slice_in_dim(x, index * height * step, seen, axis=1)
        outputs = lax.dynamic_slice_in_dim(y, index * height, height, axis=1)
        patches = _patches(part, block)
        return total + _einsum("bhwi,bhwo->io", patches, outputs, dtype=add, precision=precision), None

    total, _ = lax.scan(add_block, jnp.zeros((size, features), add), jnp.arange(blocks))
    return total.reshape(*geometry.kernel, x.shape[3], features).astype(dtype)


def _pointwise_weight_gradient(x: Array, y: Array, *, geometry: Geometry, dtype: DTypeLike, precision) -> Array:
    """One matrix product, where a convolution takes three times as long."""
    (x,) = _taps(_pad(x, geometry.exact_padding), geometry)
    return _einsum("bhwi,bhwo->io", x, y, dtype=dtype, precision=precision)[None, None]


def _einsum(subscripts: str, left: Array, right: Array, *, dtype: DTypeLike, precision) -> Array:
    """Multiplied in the wider dtype of the two, summed in `dtype` if that is wider."""
    multiply = jnp.promote_types(left.dtype, right.dtype)
    left, right, add = left.astype(multiply), right.astype(multiply), jnp.promote_types(multiply, dtype)
    return jnp.einsum(subscripts, left, right, precision=precision, preferred_element_type=add).astype(dtype)


# Many groups.


def _in_groups(form: Callable) -> Callable:
    """Maps a form for one group over the groups: a loop, about as fast as its unrolling and compiled once."""

    @functools.wraps(form)
    def grouped(left: Array, right: Array, *, geometry: Geometry, **params) -> Array:
        one = dataclasses.replace(geometry, groups=1)
        if geometry == one:
            return form(left, right, geometry=geometry, **params)
        groups = geometry.groups
        split = [jnp.moveaxis(a.reshape(*a.shape[:3], groups, a.shape[3] // groups), 3, 0) for a in (left, right)]
        result = lax.map(lambda pair: form(*pair, geometry=one, **params), split)
        return jnp.moveaxis(result, 0, 3).reshape(*result.shape[1:4], groups * result.shape[4])

    return grouped


# Thin groups, such as those of a depthwise convolution: every pair of channels that meet is a channel of its own here.


def _thin(inputs: int, outputs: int, geometry: Geometry) -> bool:
    few = min(inputs, outputs) == 1 and max(inputs, outputs) <= THIN
    return few and geometry.groups > 1 and math.prod(geometry.kernel) <= TAPS


def _pairs(w: Array, groups: int) -> Array:
    """Kernel [kh, kw, in, groups * out] -> [kh, kw, groups * in * out]."""
    kh, kw, inputs, features = w.shape
    return w.reshape(kh, kw, inputs, groups, features // groups).swapaxes(2, 3).reshape(kh, kw, -1)


def _kernel(pairs: Array, groups: int, inputs: int) -> Array:
    """The inverse of `_pairs`."""
    kh, kw, _ = pairs.shape
    return pairs.reshape(kh, kw, groups, inputs, -1).swapaxes(2, 3).reshape(kh, kw, inputs, -1)


def _correlate(x: Array, w: Array, geometry: Geometry) -> Array:
    """Sum over taps of the padded image by the kernel [kh, kw, pairs]."""
    weights = w.reshape(-1, w.shape[-1])
    return functools.reduce(jnp.add, (tap * v for tap, v in zip(_taps(x, geometry), weights, strict=True)))


def _thin_weight_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """For each tap, the sum over batch, rows and columns of that part of the image by y: first over a few rows."""
    rows = geometry.output[0]
    blocks = -(-rows // UNROLLED)
    height = -(-rows // blocks)
    surplus = blocks * height - rows
    (before, after), columns = geometry.exact_padding
    x = _pad(x, ((before, after + surplus * geometry.stride[0]), columns))
    y = _pad(y, ((0, surplus), (0, 0)))
    blocked = (y.shape[0], blocks, height, *y.shape[2:])
    products = [(tap * y).reshape(blocked) for tap in _taps(x, geometry, surplus)]
    # A few taps a reduction: XLA does not vectorise one of a single operand, and one of very many is slow again.
    parts = -(-len(products) // UNROLLED)
    cuts = [len(products) * i // parts for i in range(parts + 1)]
    sums = [total for i, j in itertools.pairwise(cuts) for total in _sum_rows(products[i:j])]
    return jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(*geometry.kernel, -1)


def _sum_rows(products: list[Array]) -> list[Array]:
    def add(left: list[Array], right: list[Array]) -> list[Array]:
        return [a + b for a, b in zip(left, right, strict=True)]

    return lax.reduce(products, [jnp.zeros((), p.dtype) for p in products], add, (2,))


def _taps(padded: Array, geometry: Geometry, surplus: int = 0) -> Iterator[Array]:
    """The part of a padded image that each tap of the kernel sees, row by row, with `surplus` rows of output more."""
    (down, right), (height, width) = geometry.stride, geometry.span
    for i, j in itertools.product(*map(range, geometry.kernel)):
        top, left = i * geometry.dilation[0], j * geometry.dilation[1]
        yield padded[:, top : top + height + surplus * down + 1 : down, left : left + width + 1 : right]


def _patches(x: Array, geometry: Geometry) -> Array:
    """What the window sees at each of its places: [batch, rows, columns, kh * kw * channels]."""
    return jnp.concatenate(list(_taps(_pad(x, geometry.exact_padding), geometry)), axis=-1)


def _pad(a: Array, padding: tuple[plain.Pair, plain.Pair], stride: plain.Pair = (1, 1)) -> Array:
    """Pads the two middle axes with zeros, and leaves `stride - 1` zeros between their elements."""
    middle = [(before, after, step - 1) for (before, after), step in zip(padding, stride, strict=True)]
    return lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), *middle, (0, 0, 0)])


def _spread(a: Array, times: int, dtype: DTypeLike) -> Array:
    """Each channel `times` times in a row, in at least single precision."""
    a = a.astype(jnp.promote_types(jnp.promote_types(a.dtype, dtype), jnp.float32))
    return jnp.repeat(a, times, axis=-1) if times > 1 else a


def _gather(a: Array, times: int, dtype: DTypeLike) -> Array:
    """The adjoint of `_spread`."""
    return a.reshape(*a.shape[:-1], a.shape[-1] // times, times).sum(-1).astype(dtype) if times > 1 else a.astype(dtype)
