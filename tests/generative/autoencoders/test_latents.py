"""Interpolations, traversals, moments and maps of a latent space whose decoder is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.autoencoders import latents
from cvjax.generative.autoencoders.latents import Moments


def decode(codes):
    """Two codes become the two pixels of an image."""
    return codes.reshape(-1, 1, 2, 1)


def test_interpolations_are_straight_and_end_at_the_codes():
    start, end = jnp.array([[0.0, 1.0], [2.0, 2.0]]), jnp.array([[1.0, 1.0], [0.0, -2.0]])
    rows = latents.interpolate(decode, start, end, count=5)
    assert rows.shape == (2, 5, 1, 2, 1)
    expected = np.linspace(start, end, 5, axis=1)
    np.testing.assert_allclose(rows[:, :, 0, :, 0], expected, atol=1e-6)


def test_traversals_move_one_latent_over_its_range_and_leave_the_others():
    moments = Moments(jnp.array([1.0, 0.0]), jnp.diag(jnp.array([1.0 + 4.0, 9.0])))  # deviations 2 and 3
    rows = latents.traverse(decode, jnp.array([0.3, 0.4]), jnp.array([1, 0]), moments, count=3)[:, :, 0, :, 0]
    np.testing.assert_allclose(rows[0], [[0.3, -7.5], [0.3, 0.0], [0.3, 7.5]], rtol=1e-6)
    np.testing.assert_allclose(rows[1], [[1 - 5.0, 0.4], [1.0, 0.4], [1 + 5.0, 0.4]], rtol=1e-6)


def test_pictures_order_latents_by_how_much_they_vary():
    codes = jnp.stack([jnp.array([0.1, 0.9]) * value for value in jnp.linspace(0, 1, 10)])
    shown = latents.pictures(decode, codes, Moments.standard(2))
    interpolations, traversals = shown["interpolations"], shown["traversals"]
    assert interpolations.shape == (5 * 26, 9 * 50, 1) and traversals.shape == (2 * 26, 9 * 50, 1)
    middle = traversals[13, :, 0].reshape(9, 50)  # the first row of images, through its middle
    np.testing.assert_allclose(middle[:, 5], codes[0, 0])  # the first pixel stays
    np.testing.assert_allclose(middle[:, 40], np.linspace(-2.5, 2.5, 9), rtol=1e-5)  # the second moves


def test_a_single_code_has_neither_interpolations_nor_a_map():
    codes = jnp.arange(3.0)[None]
    shown = latents.pictures(lambda z: jnp.zeros((len(z), 8, 8, 1)), codes, latents.Moments.standard(3))
    assert shown.keys() == {"traversals"}
    assert latents.latent_map(codes, {"label": jnp.zeros(1, int), "valid": jnp.ones(1, bool)}) == {}


def test_moments_approach_those_of_the_codes_and_samples_have_them():
    generator = np.random.default_rng(0)
    mixing, mean = np.array([[2.0, 0.5], [0.0, 0.3]]), np.array([3.0, -1.0])
    moments, update = Moments.standard(2), jax.jit(Moments.updated)
    for step in range(300):
        codes = jnp.asarray(generator.normal(size=(64, 2)) @ mixing + mean, jnp.float32)
        moments = update(moments, codes, jnp.int32(step))
    # About 100 batches of 64 count: the standard error of a mean is 2 / sqrt(6400), of a variance its sqrt(2 / 6400).
    np.testing.assert_allclose(moments.mean, mean, atol=0.1)
    np.testing.assert_allclose(moments.covariance(), mixing.T @ mixing, atol=0.3)
    drawn = np.asarray(moments.sample(jax.random.key(0), 20_000))
    np.testing.assert_allclose(np.cov(drawn.T), moments.covariance(), atol=0.15)
    np.testing.assert_allclose(moments.deviation(), np.sqrt(np.diag(moments.covariance())), rtol=1e-5)


def test_moments_of_codes_that_never_vary_are_finite():
    moments = Moments(jnp.full(3, 0.7), jnp.full((3, 3), 0.49))
    assert np.isfinite(moments.sample(jax.random.key(0), 4)).all() and (moments.deviation() > 0).all()


@pytest.mark.parametrize("codes", [1, 2, 5])
def test_maps_show_each_class_and_no_padding(codes):
    points = jax.random.normal(jax.random.key(codes), (12, codes))
    batch = {"label": jnp.arange(12) % 3, "valid": jnp.arange(12) < 10}
    shown = latents.latent_map(points, batch)["latent_map"]
    assert shown.ndim == 3 and shown.shape[2] == 3 and 0 <= shown.min() < shown.max() <= 1
    far = points.at[11].set(1e6)  # padding: it would squeeze all others into a corner
    np.testing.assert_array_equal(latents.latent_map(far, batch)["latent_map"], shown)
    assert latents.latent_map(points, {"valid": batch["valid"]}) == {}
