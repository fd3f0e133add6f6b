"""Straight paths: their ends, their velocities, and the error that is 0 for the velocity of a single signal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.diffusion.flow import between, velocity_error

CLEAN, NOISE = jax.random.normal(jax.random.key(0), (2, 5, 3))


def test_paths_lead_from_noise_to_signals():
    np.testing.assert_array_equal(between(CLEAN, NOISE, 0.0), NOISE)
    np.testing.assert_array_equal(between(CLEAN, NOISE, 1.0), CLEAN)
    np.testing.assert_allclose(between(CLEAN, NOISE, 1.0, 0.1), CLEAN + 0.1 * NOISE, atol=1e-6)
    np.testing.assert_allclose(between(CLEAN, NOISE, 0.25), CLEAN / 4 + 3 * NOISE / 4, atol=1e-6)


@pytest.mark.parametrize("smallest", [0.0, 0.1])
def test_the_field_towards_one_signal_has_no_error(smallest):
    clean = jnp.broadcast_to(CLEAN[:1], (64, 3))

    def towards(noisy, times):  # equation 21 of Lipman et al.
        return (clean - (1 - smallest) * noisy) / (1 - (1 - smallest) * times[:, None])

    error = jax.jit(velocity_error, static_argnums=(2, 3))
    errors = error(jax.random.key(1), clean, towards, smallest)
    assert errors.shape == (64,) and errors.max() < 1e-5
    nothing = error(jax.random.key(1), clean, lambda noisy, times: jnp.zeros_like(noisy), smallest)
    expected = jnp.square(CLEAN[0]).mean() + (1 - smallest) ** 2
    assert abs(nothing.mean() - expected) < 0.5  # 192 squares of deviation 1.4 + 2 |x_0|
