"""Samplers, with the best denoiser of two Gaussians, draw signals of their moments; few steps are of their order."""

import functools

import jax
import jax.numpy as jnp
import mixtures
import numpy as np
import pytest

from cvjax.generative.diffusion import dpm_solver, edm, flow, samplers
from cvjax.generative.diffusion.schedule import alpha_bars, sampling_steps

KEY, COUNT = jax.random.key(0), 4000
LEVELS = alpha_bars("cosine", 200)
DENOISE, VISITED = mixtures.denoiser(LEVELS), sampling_steps(200, 100)
SIGMAS = edm.sampling_sigmas(20)


def with_share(noisy, step):
    return *DENOISE(noisy, step), jnp.full_like(noisy, 0.5)


SAMPLERS = {
    "ddim": lambda key, start: samplers.sample(key, start, DENOISE, LEVELS, VISITED, 0.0),
    "ddim, eta 1": lambda key, start: samplers.sample(key, start, DENOISE, LEVELS, VISITED, 1.0, clip=4.0),
    "ancestral": lambda key, start: samplers.sample_ancestral(key, start, DENOISE, LEVELS, VISITED),
    "ancestral, large": lambda key, start: samplers.sample_ancestral(key, start, DENOISE, LEVELS, VISITED, "large"),
    "ancestral, learned": lambda key, start: samplers.sample_ancestral(key, start, with_share, LEVELS, VISITED),
    "dpm solver": lambda key, start: dpm_solver.sample(start, DENOISE, LEVELS, dpm_solver.solver_steps(LEVELS, 25)),
    "heun": lambda key, start: edm.sample(key, SIGMAS[0] * start, mixtures.by_sigma, SIGMAS),
    "churned": lambda key, start: edm.sample(key, 80 * start, mixtures.by_sigma, edm.sampling_sigmas(60), churn=10.0),
    "flow": lambda key, start: flow.sample(start, mixtures.velocity, 100),
    "flow, heun": lambda key, start: flow.sample(start, mixtures.velocity, 20, second_order=True),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_the_moments_of_the_mixture(name):
    draw, start = jax.jit(SAMPLERS[name]), jax.random.normal(jax.random.key(1), (COUNT, 2))
    found, chain = draw(KEY, start)
    again, _ = draw(KEY, start)
    np.testing.assert_array_equal(found, again)  # the same key, the same bits
    np.testing.assert_array_equal(chain[-1], found)
    # The mean of 4,000 draws of deviation .9 is off by .014, moments of second order by .02, the share of a class by
    # .007: four of those, and 1 % that is left for the steps' length.
    np.testing.assert_allclose(found.mean(axis=0), mixtures.MEAN, atol=0.06)
    np.testing.assert_allclose(np.cov(found.T), mixtures.COVARIANCE, atol=0.08)
    assert abs((found @ np.array([1.0, 1.0]) > 0.1).mean() - mixtures.SHARES[0]) < 0.04
    nearest = np.abs(found[:, None] - mixtures.MEANS).sum(axis=2).argmin(axis=1)
    inside = np.asarray(found - mixtures.MEANS[nearest]).std(axis=0)
    np.testing.assert_allclose(inside, mixtures.DEVIATION, rtol=0.06)


def ends(sample, start):
    return np.asarray(jax.jit(sample)(start)[0], np.float64)


def error(sample, start, exact):
    return np.sqrt(np.square(ends(sample, start) - exact).mean())


def test_the_second_order_solver_is_closer_to_the_ode_than_ddim_at_ten_steps():
    levels, start = alpha_bars("linear", 1000), jax.random.normal(KEY, (500, 2))
    denoise = mixtures.denoiser(levels)
    exact = ends(lambda x: dpm_solver.sample(x, denoise, levels, np.arange(1000)[::-1]), start)
    errors = {}
    steps = {count: dpm_solver.solver_steps(levels, count) for count in (10, 20, 40)}
    steps["even"] = np.linspace(0, 999, 10).round().astype(int)[::-1]
    for count, visited in steps.items():
        ddim = functools.partial(samplers.sample, KEY, denoise=denoise, alpha_bars=levels, visited=visited, eta=0.0)
        errors["ddim", count] = error(ddim, start, exact)
        errors["2m", count] = error(lambda x, v=visited: dpm_solver.sample(x, denoise, levels, v), start, exact)
    assert errors["2m", 10] < errors["ddim", 10] / 2
    assert errors["2m", "even"] > errors["ddim", "even"]  # the step to 0 is far longer in lambda than the one before it
    assert errors["2m", 40] < errors["2m", 20] / 3 < errors["2m", 10] / 9  # second order
    assert errors["ddim", 40] > errors["ddim", 20] / 2.6  # first order


GAUSSIAN = 0.5  # deviation


def test_heun_is_of_second_order_and_euler_of_first():
    # x_0 from N(0, .25): along the ODE x is proportional to its deviation, so that the end is known
    start = 80 * jnp.linspace(-2, 2, 9)[:, None]
    exact = np.asarray(start) * GAUSSIAN / np.sqrt(GAUSSIAN**2 + 80**2)
    errors = {}
    for second in (True, False):
        for count in (20, 40):
            sample = functools.partial(
                edm.sample,
                KEY,
                denoise=lambda x, sigma: x * GAUSSIAN**2 / (GAUSSIAN**2 + sigma**2),
                sigmas=edm.sampling_sigmas(count),
                second_order=second,
            )
            errors[second, count] = error(sample, start, exact)
    assert 3.4 < errors[True, 20] / errors[True, 40] < 4.6
    assert 1.8 < errors[False, 20] / errors[False, 40] < 2.3
    assert errors[True, 40] < errors[False, 40] / 5


def test_flows_are_of_first_or_second_order():
    start, errors = jnp.linspace(-2, 2, 9)[:, None], {}
    for second in (True, False):
        for steps in (20, 40):
            sample = functools.partial(
                flow.sample,
                velocity=lambda x, t: (t * GAUSSIAN**2 - (1 - t)) / (t**2 * GAUSSIAN**2 + (1 - t) ** 2) * x,
                steps=steps,
                second_order=second,
            )
            errors[second, steps] = error(sample, start, GAUSSIAN * np.asarray(start))
    assert 3.4 < errors[True, 20] / errors[True, 40] < 4.6
    assert 1.8 < errors[False, 20] / errors[False, 40] < 2.3
