"""The forward process against a loop over its steps, and predictions against what they are predictions of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.diffusion.process import Process, diffuse, separate, target
from cvjax.generative.diffusion.schedule import betas

CLEAN, NOISE = jax.random.normal(jax.random.key(0), (2, 5, 3))
ALPHA_BAR = jnp.array([0.999, 0.7, 0.5, 0.1, 1e-3])[:, None]


def test_diffusing_at_once_is_diffusing_step_by_step():
    process = Process("cosine", 20)
    rng, signals = np.random.default_rng(0), np.full(20_000, 2.0)
    for beta in betas("cosine", 20)[:8]:  # x_t = sqrt(1 - beta) x_(t-1) + sqrt(beta) noise, equation 2 of Ho et al.
        signals = np.sqrt(1 - beta) * signals + np.sqrt(beta) * rng.normal(size=signals.shape)
    noise = jax.random.normal(jax.random.key(1), (20_000,))
    at_once = diffuse(jnp.full(20_000, 2.0), noise, process.alpha_bars[7])
    assert abs(at_once.mean() - signals.mean()) < 0.02 and abs(at_once.std() - signals.std()) < 0.02  # 4 deviations
    assert abs(signals.mean() - 2.0) > 0.2


def test_velocity_is_the_derivative_by_the_angle():
    angle = jnp.arccos(jnp.sqrt(ALPHA_BAR))
    _, derivative = jax.jvp(
        lambda angle: jnp.cos(angle) * CLEAN + jnp.sin(angle) * NOISE, (angle,), (jnp.ones_like(angle),)
    )
    np.testing.assert_allclose(target("velocity", CLEAN, NOISE, ALPHA_BAR), derivative, atol=1e-5)


@pytest.mark.parity
def test_velocity_is_that_of_diffusers():
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler, steps = diffusers.DDPMScheduler(1000), np.array([0, 10, 300, 600, 999])
    found = target("velocity", CLEAN, NOISE, Process().alpha_bars[steps, None])
    clean, noise = (torch.from_numpy(np.array(x)) for x in (CLEAN, NOISE))
    np.testing.assert_allclose(found, scheduler.get_velocity(clean, noise, torch.from_numpy(steps)), atol=1e-5)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_a_perfect_prediction_gives_signal_and_noise_back(prediction):
    noisy, wanted = diffuse(CLEAN, NOISE, ALPHA_BAR), target(prediction, CLEAN, NOISE, ALPHA_BAR)
    clean, noise = separate(prediction, wanted, noisy, ALPHA_BAR)
    np.testing.assert_allclose(clean, CLEAN, atol=1e-4)  # float32, divided by sqrt(1e-3)
    np.testing.assert_allclose(noise, NOISE, atol=1e-5)
    clean, noise = separate(prediction, 0.3 * wanted, noisy, ALPHA_BAR)  # of any prediction they make up the noisy one
    np.testing.assert_allclose(diffuse(clean, noise, ALPHA_BAR), noisy, atol=1e-5)
