"""Noise levels, scalings and steps of Karras et al. beside diffusers', and what they promise."""

import functools

import jax
import jax.numpy as jnp
import mixtures
import numpy as np
import pytest

from cvjax.generative.diffusion import edm
from cvjax.generative.diffusion.samplers import sample
from cvjax.generative.diffusion.schedule import alpha_bars

KEY = jax.random.key(0)
START = jax.random.normal(KEY, (4, 3))


def test_levels_of_sampling_and_of_training():
    found = edm.sampling_sigmas(18)
    assert found.shape == (19,) and found[-1] == 0 and (np.diff(found) < 0).all()
    np.testing.assert_allclose(found[[0, 17]], [80, 0.002])
    np.testing.assert_allclose(np.diff(found[:-1] ** (1 / 7), n=2), 0, atol=1e-12)
    logs = np.log(edm.training_sigmas(KEY, 20_000))
    assert abs(logs.mean() + 1.2) < 0.04 and abs(logs.std() - 1.2) < 0.03  # four deviations


def test_inputs_and_targets_of_the_network_have_unit_variance_and_errors_one_weight():
    clean, noise = 0.7 * jax.random.normal(KEY, (50_000,)), jax.random.normal(jax.random.key(1), (50_000,))
    for sigma in (0.01, 0.5, 20.0):
        noisy, found = clean + sigma * noise, edm.scalings(sigma, 0.7)
        wanted = (clean - found.skip * noisy) / found.output
        np.testing.assert_allclose([(found.input * noisy).std(), wanted.std()], 1, atol=0.02)
        np.testing.assert_allclose(edm.loss_weight(sigma, 0.7) * found.output**2, 1, rtol=1e-5)


def test_the_error_of_an_untrained_network_is_1_at_all_levels():
    clean, sigma = 0.5 * jax.random.normal(KEY, (4000, 8)), jnp.repeat(jnp.array([0.01, 0.3, 2.0, 50.0]), 1000)
    seen = []

    def network(signals, noise):
        seen.append((signals, noise))
        return jnp.zeros_like(signals)

    errors = edm.weighted_error(jax.random.key(1), clean, sigma, functools.partial(edm.precondition, network))
    np.testing.assert_allclose(errors.reshape(4, 1000).mean(axis=1), 1, atol=0.08)  # five deviations of 8,000 squares
    np.testing.assert_allclose(seen[0][1], np.log(sigma) / 4, rtol=1e-5)
    np.testing.assert_allclose(seen[0][0].std(), 1, atol=0.03)


@pytest.mark.parity
def test_levels_and_scalings_are_those_of_diffusers():
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5)
    scheduler.set_timesteps(10)
    np.testing.assert_allclose(edm.sampling_sigmas(10), scheduler.sigmas, rtol=1e-5)
    sigma, noisy = torch.tensor([0.3]), torch.from_numpy(np.array(START[:1]))
    expected = scheduler.precondition_outputs(
        noisy, torch.tanh(scheduler.precondition_inputs(noisy, sigma)) * scheduler.precondition_noise(sigma), sigma
    )
    found = edm.precondition(lambda x, noise: jnp.tanh(x) * noise[:, None], START[:1], jnp.array([0.3]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def by_noise(noisy, sigma):
    """x_0, by a network of variance-preserving signals that predicts the noise: tanh."""
    return noisy - sigma * jnp.tanh(noisy / jnp.sqrt(1 + sigma**2))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "EulerDiscreteScheduler"])
def test_steps_are_those_of_diffusers(name):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(1000, beta_start=1e-4, beta_end=0.02, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    expected = torch.from_numpy(np.array(10 * START))
    for step in scheduler.timesteps:
        output = torch.tanh(scheduler.scale_model_input(expected, step))
        expected = scheduler.step(output, step, expected).prev_sample
    sigmas = edm.noise_levels(alpha_bars("linear", 1000))[np.arange(900, -1, -100)]
    np.testing.assert_allclose(np.append(sigmas, 0), np.unique(scheduler.sigmas)[::-1], rtol=1e-4)  # theirs: float32
    found, _ = edm.sample(KEY, 10 * START, by_noise, np.append(sigmas, 0), second_order="Heun" in name)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # their levels are off by 1e-5, of 60


def test_churn_adds_the_noise_that_it_says_and_no_other():
    # a denoiser that leaves signals alone: all that changes is the fresh noise
    sigmas, steps = np.array([10.0, 5.0, 2.0, 1.0, 0.5, 0.0]), 5
    draw = functools.partial(edm.sample, KEY, jnp.zeros((20_000, 1)), lambda noisy, sigma: noisy, sigmas)
    np.testing.assert_array_equal(draw(churned=(1.0, 5.0))[0], 0)
    found, chain = draw(churn=1.0, churned=(1.0, 5.0), inflation=1.1)
    raised = (1 + 1.0 / steps) ** 2 - 1
    variances = 1.21 * raised * np.cumsum([0, 25, 4, 1, 0])
    np.testing.assert_allclose(np.asarray(chain).var(axis=(1, 2)), variances, rtol=0.05)  # five deviations
    found, _ = draw(churn=1e3)  # at most doubles the variance
    np.testing.assert_allclose(found.var(), np.square(sigmas).sum(), rtol=0.05)


def test_without_churn_the_key_is_idle():
    sigmas = edm.sampling_sigmas(5)
    found = [edm.sample(jax.random.key(seed), 80 * START, by_noise, sigmas)[0] for seed in (0, 1)]
    np.testing.assert_array_equal(*found)


def test_eulers_steps_at_the_levels_of_a_process_are_those_of_ddim():
    levels, visited = alpha_bars("cosine", 100), np.array([90, 70, 40, 10])
    denoise, start = mixtures.denoiser(levels), START[:, :2]
    _, expected = sample(KEY, start, denoise, levels, visited, 0.0)
    sigmas = edm.noise_levels(levels)[visited]
    found, chain = edm.sample(
        KEY,
        start * np.float32(np.hypot(1, sigmas[0])),
        edm.by_noise_level(denoise, levels),
        np.append(sigmas, 0),
        False,
    )
    np.testing.assert_allclose(found, expected[-1], atol=1e-5)
    np.testing.assert_allclose(chain[0] / np.hypot(1, sigmas[1]), expected[0], atol=1e-5)
