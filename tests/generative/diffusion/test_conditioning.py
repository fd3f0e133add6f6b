"""Embeddings beside diffusers', dropped labels counted, guidance against the papers' equations and Bayes' rule."""

import jax
import jax.numpy as jnp
import mixtures
import numpy as np
import pytest

from cvjax.generative.diffusion.conditioning import drop_labels, guide, timestep_embedding, with_classifier
from cvjax.generative.diffusion.schedule import alpha_bars


@pytest.mark.parity
def test_timestep_embedding_is_that_of_diffusers():
    torch = pytest.importorskip("torch")
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    steps = np.array([0, 1, 17, 500, 999])
    expected = embeddings.get_timestep_embedding(torch.from_numpy(steps), 32)
    np.testing.assert_allclose(timestep_embedding(jnp.asarray(steps), 32), expected, atol=2e-4)  # sin of 999 in float32


def test_timestep_embedding_has_wavelengths_from_2_pi_to_20_000_pi():
    found = timestep_embedding(jnp.array([3, 999]), 6)
    angles = np.array([[3.0], [999.0]]) / np.array([1.0, 100.0, 10_000.0])
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-4)


def test_the_share_of_labels_that_is_dropped():
    labels = jnp.arange(10_000) % 10
    found = drop_labels(jax.random.key(0), labels, 0.2, null=10)
    dropped = np.asarray(found == 10)
    assert abs(dropped.mean() - 0.2) < 0.02  # five deviations
    np.testing.assert_array_equal(found[~dropped], labels[~dropped])


def test_guidance_leaves_the_conditional_at_0_and_goes_on_beyond_it():
    conditional, unconditional = jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0])
    np.testing.assert_array_equal(guide(conditional, unconditional, 0.0), conditional)
    scale = 1 + 0.5  # of other libraries
    np.testing.assert_allclose(
        guide(conditional, unconditional, 0.5), unconditional + scale * (conditional - unconditional)
    )


def test_the_best_classifier_makes_the_best_denoiser_of_its_class():
    levels, noisy = alpha_bars("cosine", 100), jax.random.normal(jax.random.key(0), (20, 2))
    denoise = mixtures.denoiser(levels)

    def first(noisy, step):  # log p(first Gaussian | x_t)
        alpha_bar = jnp.asarray(levels, jnp.float32)[step]
        return mixtures.log_shares(noisy, jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar))[:, 0]

    guided = jax.jit(with_classifier(denoise, first, levels, 1.0))
    mean, variance = mixtures.MEANS[0], mixtures.DEVIATION**2
    for step in (1, 40, 95):
        clean, noise = guided(noisy, jnp.int32(step))
        signal, sigma = np.sqrt(levels[step]), np.sqrt(1 - levels[step])
        gain = signal * variance / (signal**2 * variance + sigma**2)
        np.testing.assert_allclose(clean, mean + gain * (noisy - signal * mean), atol=1e-3)  # divided by signal, .06
        np.testing.assert_allclose(signal * clean + sigma * noise, noisy, atol=1e-5)
    idle = jax.jit(with_classifier(lambda x, t: (*denoise(x, t), x), first, levels, 0.0))(noisy, jnp.int32(40))
    np.testing.assert_allclose(idle[0], denoise(noisy, 40)[0], atol=1e-4)
    np.testing.assert_array_equal(idle[2], noisy)  # what the denoiser says of the variance stays
