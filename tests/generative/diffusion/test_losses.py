"""Errors of denoisers: what weights do to them, and what the hybrid error trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.diffusion.losses import hybrid_error, min_snr_weight, squared_error
from cvjax.generative.diffusion.process import convert, diffuse, separate, target
from cvjax.generative.diffusion.schedule import alpha_bars

CLEAN, NOISE, OUTPUT = jax.random.normal(jax.random.key(0), (3, 6, 5))
LEVELS = alpha_bars("cosine", 100)


def test_errors_are_means_of_each_signal_in_float32():
    large = jnp.full((2, 4, 4, 1), 256.0, jnp.bfloat16)
    found = squared_error(large + 2, large)  # 2^16 would be next to 66049
    assert found.dtype == jnp.float32 and found.shape == (2,)
    np.testing.assert_array_equal(found, 4.0)


@pytest.mark.parametrize("prediction", ["noise", "velocity", "clean"])
def test_with_min_snr_one_prediction_has_the_same_error_whatever_it_is_called(prediction):
    alpha_bar = jnp.asarray(LEVELS[[2, 20, 40, 60, 80, 95]], jnp.float32)
    noisy = diffuse(CLEAN, NOISE, alpha_bar[:, None])
    output = convert("velocity", prediction, OUTPUT, noisy, alpha_bar[:, None])
    errors = squared_error(output, target(prediction, CLEAN, NOISE, alpha_bar[:, None]))
    clean, _ = separate("velocity", OUTPUT, noisy, alpha_bar[:, None])
    ratio = alpha_bar / (1 - alpha_bar)
    assert ratio[0] > 5 > ratio[-1]
    expected = np.minimum(ratio, 5) * squared_error(clean, CLEAN)
    np.testing.assert_allclose(min_snr_weight(prediction, alpha_bar) * errors, expected, rtol=1e-3)  # 1 - .999


@functools.partial(jax.jit, static_argnames="weight")
def hybrid(output, share, weight=1e-3):
    steps = jnp.array([0, 1, 10, 50, 80, 99])
    clean = jnp.clip(jnp.round(CLEAN * 8) / 8, -1, 1)
    return hybrid_error("noise", output, share, clean, NOISE, steps, LEVELS, 17, weight)


def test_the_hybrid_error_trains_the_mean_by_the_simple_error_and_the_variance_by_the_bound():
    share = jnp.full_like(OUTPUT, 0.5)
    slopes = jax.jit(jax.grad(lambda output, share: hybrid(output, share).sum(), (0, 1)))
    by_output, by_share = slopes(OUTPUT, share)
    simple = jax.grad(lambda output: squared_error(output, NOISE).sum())(OUTPUT)
    np.testing.assert_allclose(by_output, simple, atol=1e-7)
    assert (jnp.abs(by_share).sum(axis=1) > 0)[1:].all()
    # of a perfect prediction the best variance is the posterior's, share 0; of one that is far off a larger one
    assert (slopes(NOISE, share)[1][1:] > 0).all()
    assert (slopes(NOISE + 30, share)[1][1:-1] < 0).all()
    np.testing.assert_allclose(hybrid(OUTPUT, share, weight=0.0), squared_error(OUTPUT, NOISE), rtol=1e-6)
    parts = [hybrid(OUTPUT, share, weight=weight) - hybrid(OUTPUT, share, weight=0.0) for weight in (1e-3, 2e-3)]
    np.testing.assert_allclose(parts[1], 2 * parts[0], rtol=1e-3, atol=1e-6)
