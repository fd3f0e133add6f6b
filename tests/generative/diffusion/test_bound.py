"""The variational bound: its parts by brute force, and their sum above and close to a known entropy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from cvjax.generative.diffusion import bound
from cvjax.generative.diffusion.process import at_steps, diffuse, posteriors
from cvjax.generative.diffusion.schedule import alpha_bars

KEY = jax.random.key(0)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("deviation", [0.002, 0.05, 3.0])
def test_levels_have_the_gaussians_mass_around_them(levels, deviation):
    grid, means = np.linspace(-1, 1, levels), np.array([-1.3, -0.2, 0.61])
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    expected = np.diff(stats.norm.cdf(edges, means[:, None], deviation), axis=1)
    signals = jnp.broadcast_to(jnp.asarray(grid, jnp.float32), (3, levels))
    means = jnp.broadcast_to(jnp.asarray(means, jnp.float32)[:, None], (3, levels))
    log_variance = jnp.float32(2 * math.log(deviation))
    found = jax.jit(bound.discretised_log_likelihood, static_argnums=3)(signals, means, log_variance, levels)
    # In float32 a bin's edge, in deviations, is off by 1e-7 / deviation, and its mass by that times the density.
    np.testing.assert_allclose(np.exp(found), expected, rtol=2e-4, atol=1e-7 / deviation)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, atol=2e-4)
    slopes = jax.jit(jax.grad(lambda m, v: bound.discretised_log_likelihood(signals, m, v, levels).sum(), (0, 1)))
    assert all(np.isfinite(slope).all() for slope in slopes(means, log_variance))


def test_far_from_the_mean_the_logarithm_is_that_of_float64():
    found = bound.discretised_log_likelihood(
        jnp.zeros((1, 1)), jnp.array([[0.4]]), jnp.float32(2 * math.log(0.01)), 256
    )
    lower, upper = stats.norm.logsf(((0.4 - 1 / 255) / 0.01, (0.4 + 1 / 255) / 0.01))
    np.testing.assert_allclose(found, lower + np.log1p(-np.exp(upper - lower)), rtol=1e-5)  # about -790


def test_divergence_is_that_of_quadrature():
    one, other = stats.norm(0.3, math.exp(0.2)), stats.norm(-0.5, math.exp(-0.35))
    expected, _ = integrate.quad(lambda x: one.pdf(x) * (one.logpdf(x) - other.logpdf(x)), -12, 12)
    np.testing.assert_allclose(bound.gaussian_kl(0.3, 0.4, -0.5, -0.7), expected, rtol=1e-5)
    assert bound.gaussian_kl(0.3, 0.4, 0.3, 0.4) == 0


def test_terms_at_steps_are_a_divergence_and_at_the_first_a_likelihood():
    levels, count = alpha_bars("linear", 20), 17
    clean = jax.random.randint(KEY, (3, 4), 0, count) / 8 - 1.0
    steps, noise = jnp.array([0, 1, 12]), jax.random.normal(jax.random.key(1), (3, 4))
    noisy, predicted = diffuse(clean, noise, at_steps(levels, steps, 2)), 0.9 * clean
    table = posteriors(levels)
    rows = at_steps(table, steps, 2)
    terms = jax.jit(bound.bound_at_steps, static_argnames="levels")
    found = terms(clean, noisy, predicted, jnp.float32(-4.0), rows, steps, levels=count)
    for row, step in enumerate(np.asarray(steps)):
        here = jax.tree.map(lambda values, step=step: float(values[step]), table)
        true, mean = (here.clean * np.asarray(x)[row] + here.noisy * np.asarray(noisy)[row] for x in (clean, predicted))
        if step:
            deviations = math.exp(here.log_variance / 2), math.exp(-2)
            nats = np.log(deviations[1] / deviations[0]) - 0.5
            nats += (deviations[0] ** 2 + (true - mean) ** 2) / 2 / deviations[1] ** 2
        else:
            mass = stats.norm(mean, math.exp(-2))
            upper = np.where(clean[row] == 1, np.inf, clean[row] + 1 / 16)
            nats = -np.log(mass.cdf(upper) - mass.cdf(np.where(clean[row] == -1, -np.inf, clean[row] - 1 / 16)))
        np.testing.assert_allclose(found[row], nats.mean() / math.log(2), rtol=1e-4)


def test_the_last_term_is_what_the_noise_still_says():
    clean, alpha_bar = jnp.array([[1.0, -0.5], [0.0, 0.0]]), 1e-3
    variance = 1 - alpha_bar
    expected = 0.5 * (variance - 1 - math.log(variance) + alpha_bar * np.array([0.625, 0.0])) / math.log(2)
    np.testing.assert_allclose(bound.prior_term(clean, alpha_bar), expected, rtol=1e-3, atol=1e-7)


DEVIATION, COUNT = 0.25, 400  # of Gaussian signals of 16 numbers


def bound_of_gaussian(variance, levels):
    """Mean terms of the bound, with the best denoiser of N(0, DEVIATION^2), of signals of that distribution."""
    shares = alpha_bars("linear", 500)
    draws = jnp.clip(DEVIATION * jax.random.normal(KEY, (COUNT, 16)), -1, 1)
    clean = jnp.round((draws + 1) / 2 * (levels - 1)) / (levels - 1) * 2 - 1
    table = jax.tree.map(jnp.float32, posteriors(shares))

    def denoise(noisy, step):
        alpha_bar = jnp.asarray(shares, jnp.float32)[step]
        unsure = DEVIATION**2 * (1 - alpha_bar) / (DEVIATION**2 * alpha_bar + 1 - alpha_bar)  # Var(x_0 | x_t)
        predicted = unsure * jnp.sqrt(alpha_bar) / (1 - alpha_bar) * noisy
        noise = (noisy - jnp.sqrt(alpha_bar) * predicted) / jnp.sqrt(1 - alpha_bar)
        if variance != "learned":
            return predicted, noise
        small, large = table.log_variance[step], table.log_beta[step]
        variance_of_step = jnp.where(step == 0, 0.0, jnp.exp(small)) + table.clean[step] ** 2 * unsure
        share = (jnp.log(variance_of_step) - small) / jnp.where(large > small, large - small, 1.0)
        return predicted, noise, jnp.full_like(noisy, share)

    kind = "small" if variance == "learned" else variance
    return np.asarray(jax.jit(lambda: bound.bound_terms(jax.random.key(1), clean, denoise, shares, levels, kind))())


def test_the_bound_is_above_the_entropy_and_the_best_variance_comes_close_to_it():
    # Levels much finer than the deviation: the entropy is the density's, less the logarithm of their distance.
    entropy = 0.5 * math.log2(2 * math.pi * math.e * DEVIATION**2) - math.log2(2 / 255)
    terms = {variance: bound_of_gaussian(variance, 256) for variance in ("small", "large", "learned")}
    assert terms["small"].shape == (501, COUNT)
    totals = {variance: found.sum(axis=0).mean() for variance, found in terms.items()}
    error = terms["learned"].sum(axis=0).std() / math.sqrt(COUNT)  # of one draw of each term, averaged
    assert error < 0.03
    assert entropy - 3 * error < totals["learned"] < entropy + 0.05 + 3 * error
    assert totals["learned"] < totals["small"] < entropy + 1.0 and totals["learned"] < totals["large"] < entropy + 1.0
    assert terms["small"][-1].mean() < 1e-4  # nothing is left of the signal
