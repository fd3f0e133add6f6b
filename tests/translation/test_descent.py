"""Descents counted in evaluations, which a callback counts too."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from cvjax.translation.descent import minimise

START = jnp.array([-1.2, 1.0, -0.5, 0.8])


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("tx", [optax.lbfgs(1.0), optax.adam(0.05)], ids=["lbfgs", "adam"])
def test_evaluations_are_counted_as_they_happen(tx):
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return rosenbrock(x)

    bounds = jnp.array([1.0, 10.0, 40.0])
    points, losses, counts = jax.jit(lambda x: minimise(counted, x, tx, bounds))(START)
    jax.effects_barrier()
    assert len(calls) == counts[-1]
    assert (counts >= bounds).all() and (counts <= bounds + 8).all() and counts[0] == 1
    np.testing.assert_array_equal(points[0], START)
    np.testing.assert_allclose(losses, jax.vmap(rosenbrock)(points), rtol=1e-5)


def test_lbfgs_falls_below_adam_at_equal_evaluations_and_finds_scipys_minimum():
    bounds = jnp.array([50.0, 150.0])
    (_, ours, counts), (_, adam, _) = (
        jax.jit(lambda x, tx=tx: minimise(rosenbrock, x, tx, bounds))(START)
        for tx in (optax.lbfgs(1.0), optax.adam(0.05))
    )
    assert (ours < adam).all() and counts[0] <= 55
    found = scipy.optimize.minimize(lambda x: float(rosenbrock(jnp.asarray(x))), START, method="L-BFGS-B")
    assert ours[-1] < max(found.fun, 1e-6) + 1e-6
