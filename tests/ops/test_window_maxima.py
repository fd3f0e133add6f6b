"""Maxima of windows equal loops over them, in value and in gradient, for more channels than are held at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.ops.window_maxima import TABLED, window_maxima


def test_equals_loops_and_the_first_maximum_has_the_gradient():
    random = np.random.default_rng(0)
    batch, rows, columns, channels, windows = 2, 7, 10, TABLED + 3, 30
    features = random.integers(-3, 3, (batch, rows, columns, channels)).astype(np.float32)  # with many equal ones
    top, left = random.integers(0, rows, (batch, windows)), random.integers(0, columns, (batch, windows))
    bottom, right = random.integers(top, rows + 1), random.integers(left, columns + 1)
    edges = [jnp.asarray(edge, jnp.int32) for edge in (top, bottom, left, right)]
    weights = random.normal(size=(batch, windows, channels)).astype(np.float32)
    expected, gradient = np.zeros_like(weights), np.zeros_like(features)
    for here in np.ndindex(batch, windows):
        y, x = (part.ravel() for part in np.mgrid[top[here] : bottom[here], left[here] : right[here]])
        if not y.size:
            continue
        seen = features[here[0], y, x]
        at = seen.argmax(0)  # the first
        expected[here] = seen.max(0)
        places = (here[0], y[at], x[at], np.arange(channels))
        np.add.at(gradient, places, weights[here])
    assert (bottom > top).mean() > 0.5 and ((bottom == top) | (right == left)).any()
    found, back = jax.jit(jax.value_and_grad(lambda x: (window_maxima(x, *edges) * weights).sum()))(features)
    np.testing.assert_array_equal(window_maxima(jnp.asarray(features), *edges), expected)
    np.testing.assert_allclose(back, gradient, atol=1e-5)  # sums in another order
    assert np.isclose(found, (expected * weights).sum(), rtol=1e-4)
