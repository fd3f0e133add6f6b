"""Sampling against Bayes' rule on a grid, against diffusers, and on signals whose best denoiser is known."""

import functools

import jax
import jax.numpy as jnp
import mixtures
import numpy as np
import pytest

from cvjax.generative.diffusion.process import Process
from cvjax.generative.diffusion.samplers import ddim_step, invert, previous_alpha_bars, sample, sample_ancestral
from cvjax.generative.diffusion.schedule import alpha_bars, sampling_steps

KEY = jax.random.key(0)


@pytest.mark.parametrize("step, previous", [(5, 4), (15, 3)])
def test_a_step_with_eta_1_draws_from_the_posterior(step, previous):
    # q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): both Gaussians of equation 2, multiplied on a grid
    levels, clean, noisy = alpha_bars("linear", 20), 0.8, -0.5
    grid, kept = np.linspace(-8, 8, 20_001), levels[step] / levels[previous]
    log = -((noisy - np.sqrt(kept) * grid) ** 2) / (2 * (1 - kept))
    log -= (grid - np.sqrt(levels[previous]) * clean) ** 2 / (2 * (1 - levels[previous]))
    weights = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean = (weights * grid).sum()
    deviation = np.sqrt((weights * (grid - mean) ** 2).sum())
    noise = (noisy - np.sqrt(levels[step]) * clean) / np.sqrt(1 - levels[step])
    full = functools.partial(jnp.full, 40_000)
    found = ddim_step(KEY, full(clean), full(noise), jnp.float32(levels[step]), jnp.float32(levels[previous]), 1.0)
    assert abs(found.mean() - mean) < 5 * deviation / 200  # five deviations of the mean of 40,000
    assert abs(found.std() / deviation - 1) < 0.02


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_steps_are_those_of_diffusers(eta):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.set_timesteps(50)
    levels, (noisy, noise) = Process().alpha_bars, jax.random.normal(jax.random.key(1), (2, 4, 3))
    visited = sampling_steps(1000, 50)
    for step, after in ((visited[0], visited[1]), (visited[30], visited[31]), (visited[49], None)):
        level, previous = levels[step], np.float32(1) if after is None else levels[after]
        clean = (noisy - np.sqrt(1 - level) * noise) / np.sqrt(level)
        found = ddim_step(KEY, clean, noise, jnp.float32(level), jnp.float32(previous), eta)
        tensors = [torch.from_numpy(np.array(x)) for x in (noise, noisy, jax.random.normal(KEY, noisy.shape))]
        expected = scheduler.step(tensors[0], int(step), tensors[1], eta=eta, variance_noise=tensors[2]).prev_sample
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)  # the first step divides by sqrt(5e-5)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw_gaussian(eta, count):
    """Samples N(2, 0.5^2) by its best denoiser."""
    levels, visited = Process(steps=200).alpha_bars, sampling_steps(200, count)

    def denoise(noisy, step):
        level = jnp.asarray(levels)[step]
        gain = jnp.sqrt(level) * 0.25 / (0.25 * level + 1 - level)
        clean = 2 + gain * (noisy - jnp.sqrt(level) * 2)
        return clean, (noisy - jnp.sqrt(level) * clean) / jnp.sqrt(1 - level)

    return sample(KEY, jax.random.normal(jax.random.key(1), (20_000, 1)), denoise, levels, visited, eta)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_best_denoiser_of_a_gaussian_samples_that_gaussian(eta):
    found, chain = draw_gaussian(eta, 200)
    assert abs(found.mean() - 2) < 0.02 and abs(found.std() - 0.5) < 0.02
    np.testing.assert_array_equal(chain[-1], found)
    assert chain.shape == (200, 20_000, 1) and abs(chain[0].std() - 1) < 0.05


def test_ddim_without_noise_is_a_function_of_its_start_and_the_ancestral_sampler_is_not():
    levels = Process(steps=10).alpha_bars

    def halve(noisy, step):
        return noisy / 2, noisy / 2

    start = jnp.ones((1, 2))
    draw = functools.partial(sample, start=start, denoise=halve, alpha_bars=levels, visited=sampling_steps(10, 5))
    first, second = jax.random.split(KEY)
    np.testing.assert_array_equal(draw(first, eta=0.0)[0], draw(second, eta=0.0)[0])
    assert not np.allclose(draw(first, eta=1.0)[0], draw(second, eta=1.0)[0], atol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize(
    "variance, theirs", [("small", "fixed_small"), ("large", "fixed_large"), (None, "learned_range")]
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ancestral_sampling_is_that_of_diffusers(variance, theirs, clip, monkeypatch):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    levels, visited = alpha_bars("linear", 1000), sampling_steps(1000, 10)
    scheduler = module.DDPMScheduler(1000, variance_type=theirs, clip_sample=clip is not None)
    scheduler.set_timesteps(10)
    start, noises = jax.random.normal(jax.random.key(1), (4, 3)), iter(jax.random.split(KEY, 10))
    monkeypatch.setattr(
        module, "randn_tensor", lambda *_, **__: torch.from_numpy(np.array(jax.random.normal(next(noises), (4, 3))))
    )
    expected, chain = torch.from_numpy(np.array(start)), []
    for step in scheduler.timesteps:
        output = torch.tanh(expected)
        output = torch.cat([output, 2 * torch.sigmoid(expected) - 1], dim=1) if variance is None else output
        expected = scheduler.step(output, step, expected).prev_sample
        chain.append(expected.numpy())

    def denoise(noisy, step):
        level = jnp.asarray(levels, jnp.float32)[step]
        noise = jnp.tanh(noisy)
        clean = (noisy - jnp.sqrt(1 - level) * noise) / jnp.sqrt(level)
        return (clean, noise) if variance else (clean, noise, jax.nn.sigmoid(noisy))

    found, steps = sample_ancestral(KEY, start, denoise, levels, visited, variance or "small", clip)
    # Without clipping, x_0 is divided by sqrt(2.7e-4). The last step adds no noise, whatever the variance.
    np.testing.assert_allclose(steps, chain, rtol=1e-4, atol=1e-4 if clip is None else 1e-5)
    np.testing.assert_array_equal(found, steps[-1])


def test_any_falling_steps_are_visited_and_clipping_bounds_the_end():
    levels, visited = alpha_bars("linear", 1000), np.array([990, 500, 499, 20])
    np.testing.assert_array_equal(previous_alpha_bars(levels, visited), [*levels[[500, 499, 20]], 1])
    seen = []

    def denoise(noisy, step):
        jax.debug.callback(lambda step: seen.append(int(step)), step, ordered=True)
        return 3 * jnp.ones_like(noisy), noisy

    found, _ = sample(KEY, jnp.ones((1, 2)), denoise, levels, visited, 0.0, clip=1.0)
    np.testing.assert_array_equal(found, 1.0)
    jax.effects_barrier()
    assert seen == visited.tolist()


def test_inversion_returns_the_more_exactly_the_more_iterations():
    levels, visited = alpha_bars("cosine", 1000), sampling_steps(1000, 50)
    clean, _ = mixtures.draw(KEY, 2000)
    how, errors = dict(denoise=mixtures.denoiser(levels), alpha_bars=levels, visited=visited), []
    descend = jax.jit(functools.partial(sample, KEY, eta=0.0, **how))
    for iterations in (1, 3, 20):
        start, chain = jax.jit(functools.partial(invert, iterations=iterations, **how))(clean)
        found, forth = descend(start)
        errors.append(float(jnp.abs(found - clean).max()))
    assert errors[2] < 1e-3 and errors[1] < errors[0] / 3
    np.testing.assert_allclose(chain[1:], forth[:-1], atol=1e-3)
    np.testing.assert_array_equal(chain[0], start)
    # what is found is noise, up to four deviations of 2,000 draws and what 50 steps leave
    np.testing.assert_allclose(start.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(start.T), np.eye(2), atol=0.2)
