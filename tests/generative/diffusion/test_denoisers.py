"""Guided denoisers against the formula, and the bound from a few steps against that from all."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.generative.diffusion import denoisers
from cvjax.generative.diffusion.bound import bound_terms
from cvjax.generative.diffusion.process import Process, separate
from cvjax.generative.diffusion.schedule import alpha_bars

KEY, PROCESS = jax.random.key(0), Process(steps=20)
STEP, NOISY, LABELS = jnp.int32(7), jax.random.normal(KEY, (3, 4, 4, 2)), jnp.array([0, 1, 0])


def predict(noisy, steps, labels=None):
    """A network that depends on all of its inputs; 9 is the label that stands for none."""
    number = 0.0 if labels is None else labels[:, None, None, None]
    return jnp.sin(noisy + number) + 0.1 * steps[:, None, None, None]


def test_without_guidance_it_is_the_conditional_prediction():
    expected = separate("noise", predict(NOISY, jnp.full(3, 7), LABELS), NOISY, PROCESS.alpha_bars[7])
    for guidance in (0.0, jnp.float32(0)):
        found = denoisers.make_denoiser(predict, PROCESS, LABELS, 9, guidance)(NOISY, STEP)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_guidance_goes_from_the_null_label_beyond_the_label():
    steps = jnp.full(3, 7)
    conditional, unconditional = predict(NOISY, steps, LABELS), predict(NOISY, steps, jnp.full(3, 9))
    for weight in (0.5, jnp.float32(4)):
        _, noise = denoisers.make_denoiser(predict, PROCESS, LABELS, 9, weight)(NOISY, STEP)
        np.testing.assert_allclose(noise, (1 + weight) * conditional - weight * unconditional, atol=1e-5)


def test_signals_may_have_steps_of_their_own():
    denoise = denoisers.make_denoiser(predict, PROCESS)
    clean, noise = denoise(NOISY, jnp.array([0, 7, 19]))
    for row, step in enumerate((0, 7, 19)):
        alone = denoise(NOISY[row : row + 1], jnp.int32(step))
        np.testing.assert_allclose(clean[row], alone[0][0], rtol=1e-6)
        np.testing.assert_allclose(noise[row], alone[1][0], rtol=1e-6)


def test_a_learned_variance_is_that_of_the_label_and_in_its_half():
    def twice(noisy, steps, labels):
        return jnp.concatenate(
            [predict(noisy, steps, labels), 0.01 * noisy * (labels[:, None, None, None] + 1)], axis=-1
        )

    _, noise, share = denoisers.make_denoiser(twice, PROCESS, LABELS, 9, 2.0)(NOISY, STEP)
    _, expected = denoisers.make_denoiser(predict, PROCESS, LABELS, 9, 2.0)(NOISY, STEP)
    np.testing.assert_allclose(noise, expected, atol=1e-6)
    np.testing.assert_allclose(share[1], (0.02 * NOISY[1] + 1) / 2, rtol=1e-5)


def test_clipping_bounds_the_signal_and_leaves_the_rest_to_the_noise():
    denoise = denoisers.make_denoiser(predict, PROCESS)
    clean, noise = denoisers.clip(denoise, PROCESS, 0.5)(NOISY, STEP)
    np.testing.assert_array_equal(clean, jnp.clip(denoise(NOISY, STEP)[0], -0.5, 0.5))
    level = PROCESS.alpha_bars[7]
    np.testing.assert_allclose(math.sqrt(level) * clean + math.sqrt(1 - level) * noise, NOISY, atol=1e-5)
    np.testing.assert_array_equal(denoisers.clip(denoise, PROCESS, None)(NOISY, STEP)[0], denoise(NOISY, STEP)[0])


def test_the_error_is_that_of_the_noise_at_ten_levels():
    clean = jnp.ones((5000, 1, 1, 1))
    steps = denoisers.evaluated_steps(20)
    np.testing.assert_array_equal(steps, np.arange(1, 20, 2))

    def nothing(noisy, step):
        return noisy, jnp.zeros_like(noisy)

    def perfect(noisy, step):
        level = jnp.asarray(PROCESS.alpha_bars)[step]
        return clean, (noisy - jnp.sqrt(level)) / jnp.sqrt(1 - level)

    assert abs(denoisers.denoising_error(KEY, clean, nothing, PROCESS).mean() - 1) < 0.03  # 5 deviations
    assert denoisers.denoising_error(KEY, clean, perfect, PROCESS).max() < 1e-8


def test_the_bound_from_a_few_steps_is_that_from_all():
    levels, clean = alpha_bars("linear", 20), jnp.tile(jnp.array([[-1.0], [0.25], [0.5], [1.0]]), (500, 1))

    def constant(noisy, step):  # terms are then numbers, whatever the noise
        return jnp.full_like(noisy, 0.3), noisy

    exact = bound_terms(KEY, clean[:4], constant, levels, 9, "large", 0.2).sum(axis=0)
    found = denoisers.sampled_bound(KEY, clean, constant, levels, 9, 19, "large", 0.2)
    np.testing.assert_allclose(found, jnp.tile(exact, 500), rtol=1e-4)
    assert jnp.abs(found - denoisers.sampled_bound(KEY, clean, constant, levels, 9, 19)).max() > 0.1
    few = denoisers.sampled_bound(KEY, clean, constant, levels, 9, 3, "large", 0.2).reshape(500, 4)
    error = few.std(axis=0) / math.sqrt(500)
    assert error.max() > 1e-4 and (jnp.abs(few.mean(axis=0) - exact) < 5 * error).all()


def test_guidance_without_classes_is_refused():
    denoisers.check_guidance(0.0, None)
    denoisers.check_guidance(1.0, 10)
    with pytest.raises(UserError, match="nothing to guide towards"):
        denoisers.check_guidance(1.0, None)
