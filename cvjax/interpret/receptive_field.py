"""The pixels that each unit of a convolutional network sees, exactly, at the borders too.

Read off the traced program: the windows of its convolutions and poolings are followed from the image to each layer, an
interval of rows and one of columns for every unit. The arithmetic of strides alone (Araujo et al., Computing Receptive
Fields of Convolutional Neural Networks, 2019, section 2) holds only away from the borders. No network is run, and no
weight matters. Operations that are not listed at the end count as seeing all of what they take.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, Float, Int

# Of an array, by axis of the image (0: rows, 1: columns): which of its axes runs along it, and the [start, stop) that
# each entry on this axis sees. The axis is None once it has been summed up; {} is independent of the image.
Reach = dict[int, tuple[int | None, np.ndarray]]
Spans = Int[np.ndarray, "_ 2"]

NOTHING = (2**30, -(2**30))  # an interval that a union with another one leaves alone
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_jvp_call"}
CALLS |= {"custom_vjp_call", "custom_vjp_call_jaxpr"}
ELEMENTWISE = {  # of operands that have the shape of the result
    *("add", "add_any", "sub", "mul", "div", "rem", "max", "min", "neg", "sign", "abs", "clamp", "select_n"),
    *("pow", "integer_pow", "square", "sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "logistic"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "floor", "ceil", "round", "is_finite", "real", "imag", "complex"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "convert_element_type", "reduce_precision"),
    *("copy", "copy_p", "name", "nextafter", "sharding_constraint"),
}


def receptive_fields(
    activations_fn: Callable[[Float[Array, "batch height width channels"]], dict[str, Float[Array, "batch ..."]]],
    shape: tuple[int, int, int],
) -> dict[str, tuple[Int[np.ndarray, "rows 2"], Int[np.ndarray, "columns 2"]]]:
    """Returns the [start, stop) of image rows and of image columns that the units of each layer see.

    Units in row i and column j of a layer see the pixels image[rows[i, 0] : rows[i, 1], columns[j, 0] : columns[j, 1]].
    A layer without rows or columns, such as logits, has one interval of each; what sees nothing of the image, such as
    only padding, has [0, 0).

    Args:
      shape: height, width, channels of the image.
    """
    program, outputs = jax.make_jaxpr(activations_fn, return_shape=True)(jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    every = {axis: (1 + axis, np.arange(shape[axis])[:, None] + [0, 1]) for axis in (0, 1)}
    layers = [(path[0].key, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(outputs)]
    reaches = _follow(program.jaxpr, [every])
    return {
        name: (_spans_of(reach, 0, shape), _spans_of(reach, 1, shape))
        for (name, shape), reach in zip(layers, reaches, strict=True)
    }


def _spans_of(reach: Reach, axis: int, shape: tuple[int, ...]) -> Spans:
    """What each row (axis 0) or column (axis 1) of a layer sees along this axis of the image."""
    place, spans = reach.get(axis, (None, np.zeros((1, 2), int)))
    if len(shape) != 4 or place != 1 + axis:
        spans = np.broadcast_to(_hull(spans), (shape[1 + axis] if len(shape) == 4 else 1, 2))
    return np.where(spans[:, :1] < spans[:, 1:], spans, 0)


def _follow(program: Jaxpr, arguments: Sequence[Reach]) -> list[Reach]:
    """The reaches of a program's outputs."""
    known = dict(zip(program.invars, arguments, strict=True))

    def read(atom) -> Reach:
        return {} if isinstance(atom, Literal) else known.get(atom, {})

    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        if any(operands):
            known |= zip(equation.outvars, _apply(equation, operands), strict=True)
    return [read(atom) for atom in program.outvars]


def _apply(equation: JaxprEqn, operands: list[Reach]) -> list[Reach]:
    name, params = equation.primitive.name, equation.params
    inner = [getattr(params[key], "jaxpr", params[key]) for key in ("jaxpr", "call_jaxpr") if key in params]
    if name == "cond" and not operands[0]:
        branches = [_follow(branch.jaxpr, operands[1:]) for branch in params["branches"]]
        return [_union(reaches) for reaches in zip(*branches, strict=True)]
    if name in CALLS and inner and len(inner[0].invars) == len(operands):
        return _follow(inner[0], operands)
    if name == "concatenate":
        return [_concatenate(equation, operands)]
    if name == "dot_general":
        return [_union([_product(equation, index, reach) for index, reach in enumerate(operands)])]
    dependent = [index for index, reach in enumerate(operands) if reach]
    if name in RULES and dependent == [0]:
        return [RULES[name](equation, operands[0])]
    shapes = {equation.invars[index].aval.shape for index in dependent}
    if name in ELEMENTWISE and shapes == {equation.outvars[0].aval.shape}:
        return [_union(operands)]
    return [_union([_whole(reach) for reach in operands]) for _ in equation.outvars]


def _union(reaches: Sequence[Reach]) -> Reach:
    """What is seen through several arrays of one shape together."""
    reaches, union = [reach for reach in reaches if reach], {}
    for axis in {axis for reach in reaches for axis in reach}:
        parts = [reach[axis] for reach in reaches if axis in reach]
        places = {place for place, _ in parts if place is not None}
        if len(places) > 1:  # such as x @ x.T
            parts, places = [(None, _hull(spans)) for _, spans in parts], {None}
        starts, stops = ([spans[:, side] for _, spans in parts] for side in (0, 1))
        spans = np.stack(
            [np.minimum.reduce(np.broadcast_arrays(*starts)), np.maximum.reduce(np.broadcast_arrays(*stops))]
        )
        union[axis] = (next(iter(places), None), spans.T)
    return union


def _hull(spans: Spans) -> Spans:
    return np.array([[spans[:, 0].min(), spans[:, 1].max()]])


def _whole(reach: Reach) -> Reach:
    return {axis: (None, _hull(spans)) for axis, (_, spans) in reach.items()}


def _slide(
    spans: Spans, outputs: int, kernel: int, stride: int = 1, before: int = 0, dilation: int = 1, holes: int = 1
):
    """What a window sees at each place; `holes` is the distance between the entries of a dilated input."""
    seen = np.full((outputs, 2), NOTHING)
    for tap in range(kernel):
        place = np.arange(outputs) * stride - before + tap * dilation
        inside = (place >= 0) & (place % holes == 0) & (place // holes < len(spans))
        found = spans[place[inside] // holes]
        seen[inside, 0] = np.minimum(seen[inside, 0], found[:, 0])
        seen[inside, 1] = np.maximum(seen[inside, 1], found[:, 1])
    return seen


# --- operations ---------------------------------------------------------------------------------------------------


def _windows(equation: JaxprEqn, reach: Reach, axes: dict[int, tuple[int, dict]]) -> Reach:
    """Slides a window along some axes of the input, {axis: (axis of the output, arguments of `_slide`)}."""
    seen = {}
    for image_axis, (place, spans) in reach.items():
        if place not in axes:
            seen[image_axis] = (place, spans)
            continue
        out, window = axes[place]
        seen[image_axis] = (out, _slide(spans, equation.outvars[0].aval.shape[out], **window))
    return seen


def _convolution(equation: JaxprEqn, reach: Reach) -> Reach:
    params, kernel = equation.params, equation.invars[1].aval.shape
    lhs, rhs, out = params["dimension_numbers"]
    axes = {}
    for i, (before, _) in enumerate(params["padding"]):
        window = dict(kernel=kernel[rhs[2 + i]], stride=params["window_strides"][i], before=int(before))
        window |= dict(dilation=params["rhs_dilation"][i], holes=params["lhs_dilation"][i])
        axes[lhs[2 + i]] = (out[2 + i], window)
    return _windows(equation, reach, axes)


def _own_convolution(equation: JaxprEqn, reach: Reach) -> Reach:
    of = equation.params["geometry"]
    axes = {
        1 + i: (1 + i, dict(kernel=of.kernel[i], stride=of.stride[i], before=of.padding[i][0], dilation=of.dilation[i]))
        for i in (0, 1)
    }
    return _windows(equation, reach, axes)


def _own_transpose(equation: JaxprEqn, reach: Reach) -> Reach:
    of, axes = equation.params["geometry"], {}
    for i in (0, 1):
        window = dict(kernel=of.kernel[i], before=of.reach[i] - of.padding[i][0], dilation=of.dilation[i])
        axes[1 + i] = (1 + i, window | dict(holes=of.stride[i]))
    return _windows(equation, reach, axes)


def _pooling(equation: JaxprEqn, reach: Reach) -> Reach:
    params = equation.params
    axes = {}
    for axis, kernel in enumerate(params["window_dimensions"]):
        window = dict(kernel=kernel, stride=params["window_strides"][axis], before=int(params["padding"][axis][0]))
        window |= dict(dilation=params["window_dilation"][axis], holes=params["base_dilation"][axis])
        axes[axis] = (axis, window)
    return _windows(equation, reach, axes)


def _slice(equation: JaxprEqn, reach: Reach) -> Reach:
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    return {
        axis: (place, spans if place is None else spans[starts[place] : limits[place] : strides[place]])
        for axis, (place, spans) in reach.items()
    }


def _pad(equation: JaxprEqn, reach: Reach) -> Reach:
    axes = {
        axis: (axis, dict(kernel=1, before=int(before), holes=1 + int(between)))
        for axis, (before, _, between) in enumerate(equation.params["padding_config"])
    }
    return _windows(equation, reach, axes)


def _move(places: Sequence[int | None]) -> Callable[[JaxprEqn, Reach], Reach]:
    """Axis of the output for each axis of the input."""
    return lambda reach: {
        axis: (None, _hull(spans)) if place is None or places[place] is None else (places[place], spans)
        for axis, (place, spans) in reach.items()
    }


def _transpose(equation: JaxprEqn, reach: Reach) -> Reach:
    permutation = equation.params["permutation"]
    return _move([permutation.index(axis) for axis in range(len(permutation))])(reach)


def _broadcast(equation: JaxprEqn, reach: Reach) -> Reach:
    moved, shape = _move(equation.params["broadcast_dimensions"])(reach), equation.outvars[0].aval.shape
    return {
        axis: (place, spans if place is None else np.broadcast_to(spans, (shape[place], 2)))
        for axis, (place, spans) in moved.items()
    }


def _without(axes: Sequence[int]) -> Callable[[Reach], Reach]:
    def places(rank: int) -> list[int | None]:
        kept = [axis for axis in range(rank) if axis not in axes]
        return [kept.index(axis) if axis in kept else None for axis in range(rank)]

    return lambda reach, rank: _move(places(rank))(reach)


def _reduce(equation: JaxprEqn, reach: Reach) -> Reach:
    return _without(equation.params["axes"])(reach, equation.invars[0].aval.ndim)


def _squeeze(equation: JaxprEqn, reach: Reach) -> Reach:
    return _without(equation.params["dimensions"])(reach, equation.invars[0].aval.ndim)


def _reshape(equation: JaxprEqn, reach: Reach) -> Reach:
    """Follows the axes that stay whole: of the same length, after the same number of entries."""
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    kept = {(math.prod(new[:axis]), size): axis for axis, size in enumerate(new) if size > 1}
    return _move([kept.get((math.prod(old[:axis]), size)) for axis, size in enumerate(old)])(reach)


def _product(equation: JaxprEqn, index: int, reach: Reach) -> Reach:
    """What is seen through one of the two operands of a product."""
    contracted, batch = (axes[index] for axes in equation.params["dimension_numbers"])
    rank, result = equation.invars[index].aval.ndim, equation.outvars[0].aval.ndim
    free = [axis for axis in range(rank) if axis not in (*contracted, *batch)]
    first = len(batch) if index == 0 else result - len(free)  # batch axes come first, then those of the first operand
    places = {axis: place for place, axis in enumerate(batch)} | {axis: first + n for n, axis in enumerate(free)}
    return _move([places.get(axis) for axis in range(rank)])(reach)


def _concatenate(equation: JaxprEqn, operands: list[Reach]) -> Reach:
    """Joins the intervals along the axis that grows; along others, what all see together."""
    along, joined = equation.params["dimension"], _union(operands)
    for axis, (place, _) in joined.items():
        if place != along:
            continue
        parts = []
        for atom, reach in zip(equation.invars, operands, strict=True):
            _, spans = reach.get(axis, (along, np.array([NOTHING])))
            parts.append(np.broadcast_to(spans, (atom.aval.shape[along], 2)))
        joined[axis] = (along, np.concatenate(parts))
    return joined


RULES = {
    "conv_general_dilated": _convolution,
    "conv": _own_convolution,
    "conv_transpose": _own_transpose,
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum", "reduce_window_min"), _pooling),
    "slice": _slice,
    "pad": _pad,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "reshape": _reshape,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_and", "reduce_or"), _reduce),
}
