"""Signals filled in, edited, interpolated and restored, where the right answer is known."""

import functools

import jax
import jax.numpy as jnp
import mixtures
import numpy as np
import pytest

from cvjax.generative.diffusion import editing
from cvjax.generative.diffusion.process import diffuse
from cvjax.generative.diffusion.samplers import sample
from cvjax.generative.diffusion.schedule import alpha_bars, last_share, sampling_steps

KEY = jax.random.key(0)
LEVELS, VISITED = alpha_bars("cosine", 100), sampling_steps(100, 50)
MIXTURE = mixtures.denoiser(LEVELS)
CORRELATION = np.float32([[1.0, 0.9], [0.9, 1.0]])


def correlated(noisy, step):
    """The best denoiser of N(0, CORRELATION)."""
    alpha_bar = jnp.asarray(LEVELS, jnp.float32)[step]
    total = alpha_bar * CORRELATION + (1 - alpha_bar) * jnp.eye(2)
    noise = jnp.sqrt(1 - alpha_bar) * jnp.linalg.solve(total, noisy.T).T
    return (noisy - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar), noise


def test_filling_in_keeps_what_is_known_and_repeats_fit_the_rest_to_it():
    known = jnp.stack(
        [jnp.linspace(-2, 2, 4000), jnp.full(4000, jnp.nan)], axis=1
    )  # nothing is read where the mask is 1
    errors = []
    for repeats in (1, 10):
        fill = functools.partial(
            editing.inpaint, denoise=correlated, alpha_bars=LEVELS, visited=VISITED, repeats=repeats
        )
        found = np.asarray(jax.jit(fill)(KEY, known, jnp.array([0.0, 1.0])))
        np.testing.assert_array_equal(found[:, 0], known[:, 0])
        slope = (found[:, 0] * found[:, 1]).mean() / np.square(found[:, 0]).mean()
        errors.append(abs(slope - 0.9))
        spread = (found[:, 1] - slope * found[:, 0]).std()
    # given x, the other is N(.9 x, 1 - .81): the slope is off by .006, from 4,000 draws
    assert errors[1] < 0.04 < errors[0]
    assert abs(spread - np.sqrt(1 - 0.81)) < 0.06


def test_edits_are_noised_by_a_share_of_the_steps():
    clean, _ = mixtures.draw(KEY, 300)
    noise = jax.random.normal(jax.random.key(1), clean.shape)
    edit = functools.partial(editing.edit, KEY, clean, noise, MIXTURE, LEVELS, VISITED, 0.0)
    np.testing.assert_array_equal(edit(0.0), clean)
    start = diffuse(clean, noise, np.float32(LEVELS[VISITED[25]]))
    np.testing.assert_array_equal(edit(0.5), sample(KEY, start, MIXTURE, LEVELS, VISITED[25:], 0.0)[0])
    np.testing.assert_array_equal(last_share(VISITED, 1.0), VISITED)
    changes = [float(jnp.square(edit(strength) - clean).mean()) for strength in (0.1, 0.5, 1.0)]
    assert changes[0] < changes[1] / 3 and changes[1] < changes[2] / 1.5


def test_slerp_goes_round_the_circle():
    first, second = (
        jnp.array([[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 2.0]]]),
        jnp.array([[[0.0, 1.0]], [[0.0, 3.0]]] * 2)[:3],
    )
    np.testing.assert_allclose(editing.slerp(first, second, 0.0), first, atol=1e-6)
    np.testing.assert_allclose(editing.slerp(first, second, 1.0), second, atol=1e-6)
    third = editing.slerp(first[:2], second[:2], 1 / 3)  # 30 degrees
    np.testing.assert_allclose(third[:, 0], np.array([[1], [3]]) * [np.cos(np.pi / 6), np.sin(np.pi / 6)], atol=1e-6)
    same = editing.slerp(first, 2 * first, 0.25)
    np.testing.assert_allclose(same, 1.25 * first, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda x: editing.slerp(x, first, 0.3).sum()))(first)
    assert np.isfinite(slope).all()


def test_between_two_signals_their_noises_are_mixed():
    scale = 0.5  # signals from N(0, .25), along whose ODE they are .5 times their noises

    def denoise(noisy, step):
        alpha_bar = jnp.asarray(LEVELS, jnp.float32)[step]
        clean = jnp.sqrt(alpha_bar) * scale**2 / (alpha_bar * scale**2 + 1 - alpha_bar) * noisy
        return clean, (noisy - jnp.sqrt(alpha_bar) * clean) / jnp.sqrt(1 - alpha_bar)

    first, second = scale * jax.random.normal(KEY, (2, 3, 4))
    shares = jnp.array([0.0, 0.4, 1.0])
    between = jax.jit(functools.partial(editing.interpolate, denoise=denoise, alpha_bars=LEVELS, visited=VISITED))
    found = between(first, second, shares)
    np.testing.assert_allclose(found[0], first, atol=2e-3)  # fixed points after three iterations
    np.testing.assert_allclose(found[2], second, atol=2e-3)
    np.testing.assert_allclose(found[1], editing.slerp(first, second, 0.4), atol=2e-3)


def draw_pictures(deviation):
    """Smooth pictures with an edge, under noise."""
    x, y = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 64))
    picture = np.sin(3 * x) * np.cos(2 * y) + (x + y > 1.1)
    return (picture + deviation * np.random.default_rng(0).normal(size=(3, 64, 64))).astype(np.float32)[..., None]


@pytest.mark.parametrize("deviation", [0.05, 0.3])
def test_the_deviation_of_noise_is_found(deviation):
    found = editing.estimate_deviation(jnp.asarray(draw_pictures(deviation)))
    np.testing.assert_allclose(found, deviation, rtol=0.12)  # the median of 1,024: three deviations, and an edge
    np.testing.assert_allclose(editing.estimate_deviation(jnp.asarray(draw_pictures(0.0))), 0, atol=1e-3)


def test_a_signal_is_restored_from_the_step_that_has_its_noise():
    clean, _ = mixtures.draw(KEY, 2000)
    levels, deviation = alpha_bars("linear", 1000), 0.6
    denoise = mixtures.denoiser(levels)
    noisy = clean + deviation * jax.random.normal(jax.random.key(1), clean.shape)
    found = editing.restore(KEY, noisy, deviation, denoise, levels)
    np.testing.assert_allclose(found, mixtures.best(noisy, 1.0, deviation), atol=0.02)  # of a step .2 % away
    errors = [np.square(x - clean).mean() for x in (noisy, found)]
    drawn = editing.restore(KEY, noisy, deviation, denoise, levels, steps=40, eta=1.0)
    errors.append(np.square(drawn - clean).mean())
    assert errors[1] < errors[2] < errors[0]  # the mean is nearest, a draw has twice its error
    assert abs(errors[2] / errors[1] - 2) < 0.3
    np.testing.assert_allclose(np.cov(drawn.T), mixtures.COVARIANCE, atol=0.08)  # but only draws are like signals
    same = editing.restore(KEY, clean, 0.0, denoise, levels)
    np.testing.assert_allclose(same, clean, atol=0.05)
