"""The figures of GANs: latents that stay the same, paths between them, a row for each class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import core
from cvjax.errors import UserError
from cvjax.generative.gans import sampling
from cvjax.generative.gans.sampling import Sampler

SHAPE, LATENT = (2, 2, 1), 4


class Painter(nn.Module):
    """Writes the first dimensions of the latent and the label into the pixels, times a parameter."""

    @nn.compact
    def __call__(self, latent, labels=None, train=False):
        gain = self.param("gain", nn.initializers.ones, ())
        label = jnp.zeros(len(latent)) if labels is None else labels
        return gain * jnp.concatenate([latent[:, :3], label[:, None]], axis=1).reshape(-1, *SHAPE)


def make_state(raw_gain=0.5):
    raw, averaged = ({"params": {"gain": jnp.float32(gain)}} for gain in (raw_gain, 1))
    return core.start({"generator": raw}, {}).replace(average={"generator": averaged})


def latents_and_labels(images):
    """What `Painter` wrote."""
    rows = np.asarray(images).reshape(len(images), 4)
    return rows[:, :3], rows[:, 3]


@pytest.fixture(scope="module")
def figures():
    return Sampler(Painter(), SHAPE, LATENT, classes=10).figures(jax.random.key(0), make_state())


def test_samples_are_of_the_averaged_generator_beside_the_raw_one(figures):
    assert {name: len(images) for name, images in figures.items()} == {
        "samples": 64,
        "raw_samples": 64,
        "interpolations": 64,
        "classes": 100,
    }
    np.testing.assert_allclose(figures["raw_samples"], 0.5 * figures["samples"])


def test_classes_have_a_row_each_and_latents_a_column(figures):
    latents, labels = latents_and_labels(figures["classes"])
    np.testing.assert_array_equal(labels.reshape(10, 10), np.arange(10)[:, None].repeat(10, axis=1))
    grid = latents.reshape(10, 10, 3)
    np.testing.assert_array_equal(grid, grid[:1].repeat(10, axis=0))
    assert len(np.unique(grid[0, :, 0])) == 10


def test_an_interpolation_is_of_one_class(figures):
    latents, labels = latents_and_labels(figures["interpolations"])
    np.testing.assert_array_equal(labels, np.arange(8).repeat(8))
    steps = np.diff(latents.reshape(8, 8, 3), axis=1)
    np.testing.assert_allclose(steps, steps[:, :1].repeat(7, axis=1), atol=1e-5)  # straight, for a uniform prior


def test_the_same_key_gives_the_same_latents_in_every_state():
    sampler = Sampler(Painter(), SHAPE, LATENT)
    early, late = (sampler.figures(jax.random.key(0), make_state(gain)) for gain in (0.5, 0.25))
    np.testing.assert_array_equal(early["samples"], late["samples"])
    np.testing.assert_allclose(early["raw_samples"], 2 * late["raw_samples"])
    assert set(early) == {"samples", "raw_samples", "interpolations"}  # there are no classes


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_paths_keep_both_ends_and_lengths_that_the_prior_makes_likely(prior):
    start, end = jax.random.normal(jax.random.key(1), (2, 5, 100))
    paths = jax.jit(sampling.interpolate, static_argnums=(0, 3))(prior, start, end, 9)
    np.testing.assert_allclose(paths[:, 0], start, atol=1e-5)
    np.testing.assert_allclose(paths[:, -1], end, atol=1e-5)
    middle = jnp.linalg.norm(paths[:, 4], axis=1) / jnp.linalg.norm(start, axis=1)
    if prior == "uniform":
        np.testing.assert_allclose(paths[:, 4], (start + end) / 2, atol=1e-5)
        assert middle.max() < 0.85  # the chord: about 1 / sqrt 2
    else:
        assert middle.min() > 0.85 and middle.max() < 1.2  # the arc


def test_paths_are_straight_where_there_is_no_arc():
    interpolate = jax.jit(sampling.interpolate, static_argnums=(0, 3))
    start, end = jnp.array([[1.0], [1.0]]), jnp.array([[3.0], [-1.0]])  # of one dimension
    np.testing.assert_allclose(interpolate("normal", start, end, 3)[..., 0], [[1, 2, 3], [1, 0, -1]], atol=1e-6)
    same = jax.random.normal(jax.random.key(0), (1, 4))
    np.testing.assert_allclose(interpolate("normal", same, same, 3), same[None].repeat(3, axis=1), atol=1e-6)


def test_latents_are_of_the_prior():
    for prior, deviation, bound in [("uniform", 1 / np.sqrt(3), 1.0), ("normal", 1.0, 6.0)]:
        z = np.asarray(Sampler(Painter(), SHAPE, 50, prior).draw_latents(jax.random.key(0), 400))
        assert z.shape == (400, 50) and np.abs(z).max() <= bound
        assert z.std() == pytest.approx(deviation, rel=0.02) and abs(z.mean()) < 0.03  # 20,000 draws


def test_images_are_of_the_labels_or_of_all_classes_in_turn():
    sampler = Sampler(Painter(), SHAPE, LATENT, classes=3)
    z = sampler.draw_latents(jax.random.key(0), 5)
    for given, labels in ((None, [0, 1, 2, 0, 1]), (np.array([2, 2, 0, 1, 1]), [2, 2, 0, 1, 1])):
        images = sampler.generate_averaged(make_state(), z, sampler.class_labels(given, 5))
        found = latents_and_labels(images)
        np.testing.assert_array_equal(found[0], z[:, :3])
        np.testing.assert_array_equal(found[1], labels)
    assert Sampler(Painter(), SHAPE, LATENT).class_labels(None, 5) is None


def test_labels_that_are_not_the_gans_are_refused():
    plain, conditional = (Sampler(Painter(), SHAPE, LATENT, classes=classes) for classes in (None, 3))
    for sampler, label, message in [
        (plain, [0, 0], "trained without classes"),
        (conditional, [0], r"one for each of 2 images, not an array \(1,\)"),
        (conditional, [0, 3], "label=3: .* 0 to 2"),
        (conditional, [-1, 0], "label=-1: .* 0 to 2"),
    ]:
        with pytest.raises(UserError, match=message):
            sampler.class_labels(label, 2)
