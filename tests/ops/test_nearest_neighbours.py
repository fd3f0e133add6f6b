"""Neighbours are scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from cvjax.ops.neighbours import nearest


@pytest.mark.parametrize("offset", [0.0, 1000.0], ids=["around 0", "far from 0"])
def test_neighbours_are_those_of_scikit_learn(offset):
    generator = np.random.default_rng(0)
    # Whole numbers times 1/8: exact in float32 far from 0 too.
    reference, queries = (generator.integers(-400, 400, (n, 6)).astype(np.float32) / 8 + offset for n in (300, 40))
    distances, expected = NearestNeighbors(n_neighbors=10).fit(reference).kneighbors(queries)
    assert np.diff(distances).min() > 1e-3  # no ties
    np.testing.assert_array_equal(jax.jit(nearest, static_argnums=2)(queries, reference, 10), expected)


def test_of_equal_ones_the_first_comes_first():
    reference = jnp.zeros((5, 2))
    np.testing.assert_array_equal(nearest(reference[:1] + 1, reference, 3), [[0, 1, 2]])
