"""L-BFGS in a box ends where SciPy's L-BFGS-B ends, for every row of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from cvjax.attacks.box_lbfgs import minimise, precondition


def quadratics(batch=6, variables=12, seed=0):
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(batch, variables, variables))
    hessian = factor @ factor.swapaxes(1, 2) / variables + 0.05 * np.eye(variables)
    return hessian.astype(np.float32), generator.normal(size=(batch, variables)).astype(np.float32)


def valued_of(function):
    def valued(points):
        gradients, values = jax.grad(lambda x: (function(x).sum(), function(x)), has_aux=True)(points)
        return values, gradients

    return valued


@pytest.mark.parametrize("rosenbrock", [False, True])
def test_ends_where_scipy_ends(rosenbrock):
    hessian, centre = quadratics()

    def convex(x):
        return 0.5 * jnp.einsum("bi,bij,bj->b", x - centre, hessian, x - centre)

    def valley(x):
        x = 3 * x - 1
        return jnp.sum(100 * jnp.square(x[:, 1:] - jnp.square(x[:, :-1])) + jnp.square(1 - x[:, :-1]), axis=-1)

    function = valley if rosenbrock else convex
    begin = np.random.default_rng(1).uniform(0, 0.3, (6, 12)).astype(np.float32)
    found, values = jax.jit(lambda x: minimise(valued_of(function), x, 0.0, 0.6, steps=300))(begin)
    assert found.min() >= 0 and found.max() <= np.float32(0.6)
    for row in range(6):

        def alone(x, row=row):
            x = np.float64(x)
            if rosenbrock:
                return scipy.optimize.rosen(3 * x - 1), 3 * scipy.optimize.rosen_der(3 * x - 1)
            away = x - centre[row]
            return 0.5 * away @ hessian[row] @ away, hessian[row] @ away

        theirs = scipy.optimize.minimize(alone, begin[row], jac=True, method="L-BFGS-B", bounds=[(0, 0.6)] * 12)
        assert float(values[row]) <= theirs.fun * (1 + 1e-3) + 1e-4  # float32
        if not rosenbrock:
            np.testing.assert_allclose(found[row], theirs.x, atol=2e-3)


def test_the_estimated_inverse_hessian_meets_the_secant_equation():
    hessian, _ = quadratics()
    moves = np.random.default_rng(2).normal(size=(4, 6, 12)).astype(np.float32)
    moves, bends = map(jnp.asarray, (moves, np.einsum("bij,mbj->mbi", hessian, moves)))
    np.testing.assert_allclose(precondition(bends[-1], moves, bends), moves[-1], atol=1e-3)


def test_pairs_without_curvature_are_left_out():
    slope = jnp.ones((1, 3)) / 8
    nothing = jnp.zeros((2, 1, 3))
    np.testing.assert_allclose(precondition(slope, nothing, nothing), slope, atol=1e-7)
    np.testing.assert_allclose(precondition(slope, nothing + 1, nothing - 1), slope, atol=1e-7)
