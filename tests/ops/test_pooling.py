import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops.pooling import adaptive_avg_pool, avg_pool, max_pool


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


@pytest.mark.parametrize(
    ("window", "stride", "padding", "inside"), [(2, 2, 0, False), (3, 1, 1, False), (3, 1, 1, True)]
)
def test_means_are_flaxs_in_float32_and_exact_in_half_precision(window, stride, padding, inside):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    options = dict(padding=((padding, padding),) * 2, count_include_pad=not inside)
    np.testing.assert_array_equal(
        avg_pool(x, window, stride, padding, inside), nn.avg_pool(x, (window,) * 2, (stride,) * 2, **options)
    )
    large = jnp.full((1, 6, 6, 1), 60_000, jnp.float16)  # of which two are more than float16 holds
    middle = avg_pool(large, window, stride, padding, inside)[:, 1:-1, 1:-1]
    assert middle.dtype == jnp.float16 and (middle == 60_000).all()
    uneven = jnp.ones((1, 2, 2, 1), jnp.bfloat16).at[0, 0, 0].set(256)  # 256 + 1 is 256 in bfloat16
    assert avg_pool(uneven, 2, 2)[0, 0, 0, 0] == jnp.bfloat16(259 / 4)


@pytest.mark.parametrize("size", [(14, 21), (9, 5), (7, 1)])  # windows side by side, overlapping, of one pixel
def test_adaptive_means_are_those_of_their_windows(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    found = adaptive_avg_pool(jnp.asarray(x), 7)
    for row in range(7):
        for column in range(7):
            window = x
            for axis, place in ((1, row), (2, column)):
                first = int(np.floor(place * x.shape[axis] / 7))
                window = np.take(window, np.arange(first, np.ceil((place + 1) * x.shape[axis] / 7), dtype=int), axis)
            np.testing.assert_allclose(found[:, row, column], window.mean(axis=(1, 2)), atol=1e-6)
    assert adaptive_avg_pool(jnp.asarray(x, jnp.bfloat16), 7).dtype == jnp.bfloat16
