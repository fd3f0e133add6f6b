"""The arithmetic of a traced program, counted from its products and convolutions.

XLA's own cost analysis leaves out whatever a library such as cuDNN computes, which on a GPU is nearly everything.
"""

import collections
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from cvjax.ops import convolution


def dtype_of_factors(equation: JaxprEqn) -> str:
    """The dtype of what a product or a convolution multiplies."""
    return str(np.dtype(equation.invars[0].aval.dtype))


def count(
    program: ClosedJaxpr | Jaxpr, kind: Callable[[JaxprEqn], Hashable] = dtype_of_factors
) -> collections.Counter[Hashable]:
    """Returns {kind: floating-point operations} of a program's matrix products and convolutions.

    A multiplication with its addition counts as two, the zeros of padding as numbers, and the holes of a dilated image
    not at all. A scan counts once per step, a `while` loop once in all, and a `cond` as its most expensive branch.
    `jax.make_jaxpr` or `jax.jit(...).trace(...).jaxpr` gives the program.
    """
    total = collections.Counter()
    for equation in getattr(program, "jaxpr", program).eqns:
        name = equation.primitive.name
        inner = [count(body, kind) for body in _programs(equation.params)]
        if name in COSTS:
            total[kind(equation)] += COSTS[name](equation)
        elif name == "cond":
            total += max(inner, key=lambda branch: branch.total())
        else:
            times = equation.params["length"] if name == "scan" else 1
            for body in inner:
                total += collections.Counter({label: times * operations for label, operations in body.items()})
    return total


def _programs(value: Any) -> Iterator[ClosedJaxpr | Jaxpr]:
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _programs(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _programs(entry)


def _product(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, (out,) = equation.invars[0].aval, equation.outvars
    return 2 * out.aval.size * math.prod(left.shape[axis] for axis in contracted)


def _lax_convolution(equation: JaxprEqn) -> int:
    params, (_, kernel), (out,) = equation.params, equation.invars, equation.outvars
    features = kernel.aval.shape[params["dimension_numbers"].rhs_spec[0]]
    taps = kernel.aval.size // features  # of one output: kernel positions times input channels of a group
    return 2 * out.aval.size * taps // math.prod(params["lhs_dilation"])


def _convolution(equation: JaxprEqn) -> int:
    """The same for all three maps of `cvjax.ops.convolution`: every output pixel meets every tap of the kernel."""
    geometry, shapes = equation.params["geometry"], [v.aval.shape for v in (*equation.invars, *equation.outvars)]
    shape = dict(zip(convolution.ROLES[equation.primitive], shapes, strict=True))
    return 2 * shape["y"][0] * math.prod(geometry.output) * math.prod(shape["w"])


COSTS = {"dot_general": _product, "conv_general_dilated": _lax_convolution} | {
    primitive.name: _convolution for primitive in convolution.ROLES
}
