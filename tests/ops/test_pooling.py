import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops.pooling import max_pool


@pytest.mark.parametrize(
    ("shape", "window", "stride", "padding"),
    [
        ((2, 8, 6, 3), 2, 2, 0),
        ((1, 7, 5, 2), 2, 2, 0),  # the odd row and column are left out
        ((2, 9, 8, 3), 3, 2, 1),  # ResNet's
        ((5, 7, 1), 3, 1, 0),
    ],
)
def test_equals_flax_with_its_gradient(shape, window, stride, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    theirs = lambda x: nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)  # noqa: E731
    ours = lambda x: max_pool(x, window, stride, padding)  # noqa: E731
    np.testing.assert_array_equal(ours(x), theirs(x))
    weights = jax.random.normal(jax.random.key(1), theirs(x).shape)
    found, expected = (jax.grad(lambda x, f=f: (weights * f(x)).sum())(x) for f in (ours, theirs))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # sums of the same few float32 in another order


def test_padding_is_never_the_largest_and_ties_share_the_gradient():
    x = -jnp.ones((1, 2, 2, 1))
    np.testing.assert_array_equal(max_pool(x, 3, 2, 1), -np.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(jax.grad(lambda x: max_pool(x).sum())(x), np.full((1, 2, 2, 1), 0.25))
