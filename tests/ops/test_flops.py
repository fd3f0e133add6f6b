"""Counted operations are those of XLA's cost analysis where it sees all, and those of the definition elsewhere."""

import jax
import jax.numpy as jnp
import pytest

from cvjax.ops import convolution, flops

IMAGES, KERNEL = jnp.ones((2, 9, 8, 6)), jnp.ones((3, 3, 6, 10))


def total(function, *args):
    return flops.count(jax.make_jaxpr(function)(*args)).total()


def lax_conv(x, w, **kwargs):
    return jax.lax.conv_general_dilated(
        x, w, kwargs.pop("stride", (1, 1)), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), **kwargs
    )


@pytest.mark.parametrize(
    "function, args",
    [
        (jnp.matmul, (jnp.ones((5, 7)), jnp.ones((7, 3)))),
        (lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (jnp.ones((4, 5, 7)), jnp.ones((4, 3, 7)))),
        (lax_conv, (IMAGES, KERNEL)),
        (lambda x, w: lax_conv(x, w, stride=(2, 2)), (IMAGES, KERNEL)),
        (lambda x, w: lax_conv(x, w, rhs_dilation=(2, 2)), (IMAGES, KERNEL)),
        (lambda x, w: lax_conv(x, w, feature_group_count=2), (IMAGES, jnp.ones((3, 3, 3, 10)))),
        (lambda x, w: lax_conv(x, w, batch_group_count=2), (IMAGES, KERNEL)),
    ],
)
def test_equals_xlas_cost_analysis(function, args):
    assert total(function, *args) == jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_the_three_maps_of_a_convolution_cost_the_same():
    def outputs(x, w):
        return convolution.conv(x, w, stride=2, padding=1).sum()

    forward = 2 * 2 * 5 * 4 * 3 * 3 * 6 * 10  # multiply and add, 2 images, 5 x 4 pixels, 3 x 3 taps, 6 to 10 channels
    assert total(outputs, IMAGES, KERNEL) == forward
    assert total(jax.grad(lambda x, w: outputs(x, w) ** 2, (0, 1)), IMAGES, KERNEL) == 3 * forward


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_weight_gradient_costs_what_the_outputs_do(groups):
    def outputs(w):
        return lax_conv(IMAGES, w, feature_group_count=groups).sum()

    w = jnp.ones((3, 3, 6 // groups, 12))
    forward = 2 * 2 * 7 * 6 * 3 * 3 * 6 // groups * 12
    assert total(outputs, w) == forward
    assert total(jax.grad(lambda w: outputs(w) ** 2), w) == 2 * forward


def test_the_holes_of_a_transposed_convolution_cost_nothing():
    y, w = jnp.ones((2, 4, 4, 10)), jnp.ones((4, 4, 10, 6))
    ours = total(lambda y, w: convolution.conv_transpose(y, w, stride=2, padding=1), y, w)
    lax = total(lambda y, w: jax.lax.conv_transpose(y, w, (2, 2), "SAME"), y, w)
    assert ours == lax == 2 * 2 * 4 * 4 * 4 * 4 * 10 * 6


def test_loops_branches_and_nested_functions():
    square = jnp.ones((3, 3))

    def scan(x):
        return jax.lax.scan(lambda carry, _: (carry @ square, None), x, length=5)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    assert total(scan, square) == 5 * 54
    assert total(branch, square) == 2 * 54
    assert total(jax.jit(jax.checkpoint(lambda x: jax.vmap(jnp.dot)(x, x))), square) == 3 * 3 * 2


def test_dtypes_are_told_apart():
    def function(x):
        return (x @ x).astype(jnp.bfloat16) @ x.astype(jnp.bfloat16)

    assert flops.count(jax.make_jaxpr(function)(jnp.ones((3, 3)))) == {"float32": 54, "bfloat16": 54}
