"""What GANs show: latents that stay, paths between them, a row a class, the nearest digits; and their figures."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import core, data
from cvjax.generative.gans import sampling
from cvjax.generative.gans.sampling import Sampler
from cvjax.metrics import digits


class Memory(nn.Module):
    """A generator whose images are training digits: the label says of which class, the latent which of them."""

    @nn.compact
    def __call__(self, latent, labels=None, train=False):
        gain = self.param("gain", nn.initializers.ones, ())
        images, classes = known()
        if labels is None:
            index = jnp.argmin(jnp.abs(latent[:, :1] - jnp.linspace(-1, 1, len(images))), axis=1)
        else:
            index = jnp.argmax(classes[None] == labels[:, None], axis=1)
        return gain * jnp.asarray(images)[index]


@functools.cache
def known():
    train = data.arrays("digits", "train")
    return digits.quantise(train["image"]), train["label"]


def make_state(raw_gain=0.5):
    raw, averaged = ({"params": {"gain": jnp.float32(gain)}} for gain in (raw_gain, 1))
    return core.start({"generator": raw}, {}).replace(average={"generator": averaged})


@pytest.fixture(scope="module")
def figures():
    sampler = Sampler(Memory(), (8, 8, 1), 4, classes=10, measure="digits")
    return sampler.figures(jax.random.key(0), make_state())


def test_figures_are_grids_of_eight(figures):
    assert {name: len(images) for name, images in figures.items()} == {
        "samples": 64, "raw_samples": 64, "interpolations": 64, "classes": 100, "nearest": 64,
    }  # fmt: skip
    np.testing.assert_allclose(figures["raw_samples"], 0.5 * figures["samples"])


def test_a_row_a_class(figures):
    found = digits.features(np.asarray(figures["classes"]))[1].argmax(axis=1).reshape(10, 10)
    assert (found == np.arange(10)[:, None]).mean() >= 0.95  # the classifier errs on less than 1 % of digits


def test_a_sample_stands_beside_the_training_digit_that_is_most_like_it(figures):
    pairs = np.asarray(figures["nearest"]).reshape(32, 2, 8, 8, 1)
    np.testing.assert_allclose(pairs[:, 0], figures["samples"][:32])
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], atol=1e-6)  # the generator copies


def test_nearest_is_brute_force():
    images, _ = known()
    samples = np.random.default_rng(0).uniform(-0.2, 1.2, (5, 8, 8, 1)).astype(np.float32)
    ours = np.asarray(jax.jit(digits.nearest)(jnp.asarray(samples)))
    for sample, found in zip(digits.quantise(samples), ours, strict=True):
        distances = [np.square(sample - image).sum() for image in images]
        assert np.square(sample - found).sum() == pytest.approx(min(distances), rel=1e-5)


def test_the_same_key_gives_the_same_latents_whatever_the_state_has_become():
    sampler = Sampler(Memory(), (8, 8, 1), 4)
    early, late = (sampler.figures(jax.random.key(0), make_state(gain)) for gain in (0.5, 0.25))
    np.testing.assert_array_equal(early["samples"], late["samples"])
    np.testing.assert_allclose(early["raw_samples"], 2 * late["raw_samples"])
    assert set(early) == {"samples", "raw_samples", "interpolations"}  # no classes, no digits


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_paths_keep_both_ends_and_what_the_prior_makes_likely(prior):
    start, end = jax.random.normal(jax.random.key(1), (2, 5, 100))
    paths = sampling.interpolate(prior, start, end, 9)
    np.testing.assert_allclose(paths[:, 0], start, atol=1e-5)
    np.testing.assert_allclose(paths[:, -1], end, atol=1e-5)
    middle = jnp.linalg.norm(paths[:, 4], axis=1) / jnp.linalg.norm(start, axis=1)
    if prior == "uniform":
        np.testing.assert_allclose(paths[:, 4], (start + end) / 2, atol=1e-5)
        assert middle.max() < 0.85  # the chord: about 1 / sqrt 2
    else:
        assert middle.min() > 0.85 and middle.max() < 1.2  # the arc


def test_paths_are_straight_where_there_is_no_arc():
    start, end = jnp.array([[1.0], [1.0]]), jnp.array([[3.0], [-1.0]])  # of one dimension
    paths = sampling.interpolate("normal", start, end, 3)
    np.testing.assert_allclose(paths[..., 0], [[1, 2, 3], [1, 0, -1]], atol=1e-6)
    same = jax.random.normal(jax.random.key(0), (1, 4))
    np.testing.assert_allclose(sampling.interpolate("normal", same, same, 3), same[None].repeat(3, axis=1), atol=1e-6)


def test_latents_are_of_the_prior():
    for prior, deviation, bound in [("uniform", 1 / np.sqrt(3), 1.0), ("normal", 1.0, 6.0)]:
        z = Sampler(Memory(), (8, 8, 1), 50, prior).draw(jax.random.key(0), 400)
        assert z.shape == (400, 50) and np.abs(z).max() <= bound
        assert z.std() == pytest.approx(deviation, rel=0.02) and abs(z.mean()) < 0.03  # 20,000 draws


def test_samples_are_judged_by_their_own_labels_and_other_columns_are_averaged():
    sampler = Sampler(Memory(), (8, 8, 1), 4, classes=10, measure="digits", per_example=2)
    batches = [{"image": np.zeros((30, 8, 8, 1), np.float32), "label": np.arange(30) % 10} for _ in range(2)]
    rows = [
        (
            batch,
            jax.device_get(sampler.judged(jax.random.key(n), make_state(), jax.tree.map(jnp.asarray, batch)))
            | {"norm": np.full(30, n)},
        )
        for n, batch in enumerate(batches)
    ]
    figures = sampler.score(iter(rows))
    assert figures["class_accuracy"] >= 0.95 and figures["norm"] == 0.5
    assert figures["classes_seen"] >= 9 and figures["fid_over_raw"] == figures["fid"] / figures["raw_fid"]
    shifted = [(dict(batch, label=(batch["label"] + 1) % 10), outputs) for batch, outputs in rows]
    assert sampler.score(shifted)["class_accuracy"] <= 0.05


def test_a_collapse_is_counted():
    images, labels = known()
    ones = images[labels == 1][:99]
    assert sampling.class_measures(ones)["classes_seen"] == 1
    assert sampling.class_measures(ones, np.ones(99, int))["class_accuracy"] >= 0.9
    both = np.concatenate([ones, images[labels == 0][:1]])  # one of a hundred
    assert sampling.class_measures(both)["classes_seen"] == 2
    assert "class_accuracy" not in sampling.class_measures(both)


def test_new_images_are_of_the_classes_in_turn():
    sampler = Sampler(Memory(), (8, 8, 1), 4, classes=10)
    images = sampler.make(make_state(), sampler.draw(jax.random.key(0), 25), sampler.in_turn(25))
    assert images.shape == (25, 8, 8, 1)
    np.testing.assert_array_equal(images[:5], images[10:15])
    np.testing.assert_array_equal(images[:5], images[20:])
