"""The forward process against a loop over its steps, and predictions against what they are predictions of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.diffusion.process import (
    Process,
    at_steps,
    clip_clean,
    convert,
    diffuse,
    learned_log_variance,
    posterior_mean,
    posteriors,
    separate,
    target,
)
from cvjax.generative.diffusion.schedule import alpha_bars, betas

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


@pytest.mark.parametrize("prediction", ["noise", "velocity", "clean"])
def test_a_perfect_prediction_gives_signal_and_noise_back(prediction):
    noisy, wanted = diffuse(CLEAN, NOISE, ALPHA_BAR), target(prediction, CLEAN, NOISE, ALPHA_BAR)
    clean, noise = separate(prediction, wanted, noisy, ALPHA_BAR)
    np.testing.assert_allclose(clean, CLEAN, atol=1e-4)  # float32, divided by sqrt(1e-3)
    np.testing.assert_allclose(noise, NOISE, atol=1e-4)
    clean, noise = separate(prediction, 0.3 * wanted, noisy, ALPHA_BAR)  # of any prediction they make up the noisy one
    np.testing.assert_allclose(diffuse(clean, noise, ALPHA_BAR), noisy, atol=1e-5)


@pytest.mark.parametrize("given", ["noise", "velocity", "clean"])
@pytest.mark.parametrize("wanted", ["noise", "velocity", "clean"])
def test_predictions_are_converted_there_and_back(given, wanted):
    noisy, output = diffuse(CLEAN, NOISE, ALPHA_BAR), target(given, CLEAN, NOISE, ALPHA_BAR)
    found = convert(given, wanted, output, noisy, ALPHA_BAR)
    np.testing.assert_allclose(found, target(wanted, CLEAN, NOISE, ALPHA_BAR), atol=1e-4)  # as above
    np.testing.assert_allclose(convert(wanted, given, found, noisy, ALPHA_BAR), output, atol=2e-4)


def test_clipping_moves_the_noise_too():
    noisy = diffuse(CLEAN, NOISE, ALPHA_BAR)
    clean, noise = clip_clean(CLEAN, NOISE, noisy, ALPHA_BAR, 0.5)
    assert jnp.abs(clean).max() == 0.5 and jnp.abs(CLEAN).max() > 1
    np.testing.assert_allclose(diffuse(clean, noise, ALPHA_BAR), noisy, atol=1e-5)
    assert clip_clean(CLEAN, NOISE, noisy, ALPHA_BAR, None)[1] is NOISE


@pytest.mark.parametrize("step, previous", [(5, 4), (15, 3)])
def test_the_posterior_is_that_of_bayes_on_a_grid(step, previous):
    levels, clean, noisy = alpha_bars("linear", 20), 0.8, -0.5  # q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0)
    grid, kept = np.linspace(-8, 8, 20_001), levels[step] / levels[previous]
    log = -((noisy - np.sqrt(kept) * grid) ** 2) / (2 * (1 - kept))
    log -= (grid - np.sqrt(levels[previous]) * clean) ** 2 / (2 * (1 - levels[previous]))
    weights = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean = (weights * grid).sum()
    table = posteriors(levels[[step]], levels[[previous]])
    found = posterior_mean(jnp.array([clean]), jnp.array([noisy]), jax.tree.map(jnp.float32, table))
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    np.testing.assert_allclose(table.log_variance, np.log((weights * (grid - mean) ** 2).sum()), rtol=1e-6)
    np.testing.assert_allclose(table.log_beta, np.log(1 - kept), rtol=1e-9)


def test_before_the_first_step_is_the_clean_signal_with_the_least_variance():
    table = posteriors(alpha_bars("cosine", 100))
    assert table.clean[0] == 1 and table.noisy[0] == 0 and table.log_variance.dtype == np.float64
    assert table.log_variance[0] == table.log_variance[1] < table.log_variance[2]
    np.testing.assert_allclose(np.exp(table.log_beta), betas("cosine", 100), rtol=1e-9)
    assert (table.log_variance[1:] < table.log_beta[1:]).all()
    rows = at_steps(table, jnp.array([3, 0]), 4)
    assert rows.clean.shape == (2, 1, 1, 1) and rows.clean.dtype == jnp.float32
    np.testing.assert_allclose(learned_log_variance(jnp.zeros(()), rows), rows.log_variance)
    np.testing.assert_allclose(learned_log_variance(jnp.ones(()), rows), rows.log_beta)


@pytest.mark.parity
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_posteriors_are_those_of_diffusers(variance):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(1000, variance_type=variance, clip_sample=False)
    scheduler.alphas_cumprod = torch.from_numpy(alpha_bars("linear", 1000))  # in float32 it is off by 5e-5 at step 1
    steps = np.array([1, 10, 300, 600, 999])
    rows = at_steps(posteriors(alpha_bars("linear", 1000)), jnp.asarray(steps), 2)
    noisy = diffuse(CLEAN, NOISE, Process().alpha_bars[steps, None])
    share = jnp.linspace(-0.1, 1.1, 5)[:, None]
    logs = {"fixed_small": rows.log_variance, "fixed_large": rows.log_beta}
    logs["learned_range"] = learned_log_variance(share, rows)
    for row, step in enumerate(steps):
        theirs = scheduler._get_variance(int(step), torch.tensor(2 * float(share[row, 0]) - 1))
        expected = theirs if variance == "learned_range" else torch.log(theirs)
        np.testing.assert_allclose(logs[variance][row, 0], expected, rtol=1e-5)
        output, generator = torch.from_numpy(np.array(NOISE[row : row + 1])), torch.Generator().manual_seed(0)
        if variance == "learned_range":
            output = torch.cat([output, torch.full((1, 3), 2 * float(share[row, 0]) - 1)], dim=1)
        drawn = scheduler.step(
            output, int(step), torch.from_numpy(np.array(noisy[row : row + 1])), generator
        ).prev_sample
        fresh = torch.randn((1, 3), generator=torch.Generator().manual_seed(0)).numpy()
        mean = posterior_mean(CLEAN, noisy, rows)[row : row + 1]
        np.testing.assert_allclose(mean + jnp.exp(logs[variance][row, 0] / 2) * fresh, drawn, atol=1e-5, rtol=1e-5)
