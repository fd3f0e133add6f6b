"""What all autoregressive models keep to: what they see, that they are densities, that samples are drawn from them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from pixel_models import NETS, make, seen_by_definition, seen_by_jacobian

from cvjax import data
from cvjax.generative.autoregressive import pixel_model


def apply_to(net, params, labels=None):
    return jax.jit(lambda images: net.apply({"params": params}, images, labels))


def all_images(shape, levels):
    """Every image that there is."""
    values = itertools.product(range(levels), repeat=math.prod(shape))
    return jnp.asarray(list(values), jnp.float32).reshape(-1, *shape) / (levels - 1)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(5, 6, 1), (3, 5, 3)])
def test_each_value_sees_exactly_what_the_papers_let_it_see(name, shape):
    seen = seen_by_jacobian(*make(name, shape), shape)
    assert not np.triu(seen).any()  # neither itself nor what comes later
    np.testing.assert_array_equal(seen, seen_by_definition(name, shape))


def test_likelihood_is_brute_force():
    images = jnp.asarray(data.arrays("digits", "test")["image"][:3])
    logits = jax.random.normal(jax.random.key(0), (*images.shape, 17))
    ours = pixel_model.log_likelihood(logits, images)
    for index in np.ndindex(images.shape):
        row = np.asarray(logits[index], np.float64)
        expected = row[round(float(images[index]) * 16)] - np.log(np.exp(row).sum())
        np.testing.assert_allclose(ours[index], expected, rtol=1e-5)
    bits = pixel_model.bits_per_dim(logits, images)
    np.testing.assert_allclose(bits, -np.asarray(ours).reshape(3, 64).mean(axis=1) / np.log(2), rtol=1e-5)
    np.testing.assert_allclose(pixel_model.bits_per_dim(0 * logits, images), np.log2(17), rtol=1e-6)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape, levels, classes", [((2, 2, 1), 2, None), ((1, 2, 3), 2, 3)])
def test_the_probabilities_of_all_images_sum_to_one(name, shape, levels, classes):
    net, params = make(name, shape, levels, classes)
    images = all_images(shape, levels)
    every = jax.tree.map(lambda a: jnp.tile(a, (classes or 1, 1, 1, 1)), images)
    labels = None if classes is None else jnp.repeat(jnp.arange(classes), len(images))
    likelihoods = pixel_model.log_likelihood(apply_to(net, params, labels)(every), every).sum(axis=(1, 2, 3))
    table = np.exp(likelihoods).reshape(-1, len(images))  # a row a class
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)  # float32, up to 64 terms
    assert (table.std(axis=1) > 0.001).all() and (table.std(axis=0) > 0).all() == (classes is not None)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape, classes, rows", [((4, 6, 3), 3, 0), ((6, 3, 1), None, 3)])
def test_cached_samples_are_the_naive_ones(name, shape, classes, rows):
    net, params = make(name, shape, levels=5, classes=classes)
    labels = None if classes is None else jnp.arange(7) % classes
    given = jax.random.randint(jax.random.key(5), (7, *shape), 0, 5) / 4
    naively = jax.jit(pixel_model.sample_naively, static_argnums=(1, 3))
    cached = jax.jit(pixel_model.sample, static_argnums=(1, 5))
    expected = naively(jax.random.key(6), apply_to(net, params, labels), given, rows)
    ours = cached(jax.random.key(6), net, params, given, labels, rows)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(ours[:, :rows], given[:, :rows])
    assert len(np.unique(ours)) > 2 and set(np.unique(4 * ours)) <= {0, 1, 2, 3, 4}
    assert (cached(jax.random.key(7), net, params, given, labels, rows) != ours).any()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    "sizes", [dict(first_kernel=1), dict(kernel=1), dict(layers=1), dict(first_kernel=1, kernel=1)]
)
def test_cached_samples_are_the_naive_ones_where_layers_have_nothing_to_keep(name, sizes):
    net, params = make(name, (3, 4, 3), levels=5, **sizes)
    empty = jnp.zeros((5, 3, 4, 3))
    expected = jax.jit(pixel_model.sample_naively, static_argnums=1)(jax.random.key(6), apply_to(net, params), empty)
    ours = jax.jit(pixel_model.sample, static_argnums=1)(jax.random.key(6), net, params, empty)
    np.testing.assert_array_equal(ours, expected)
    assert len(np.unique(ours)) > 2


@pytest.mark.parametrize("name", NETS)
def test_cached_logits_are_those_of_whole_images(name):
    shape = (3, 4, 3)
    net, params = make(name, shape, levels=5)
    images = jax.random.randint(jax.random.key(8), (2, *shape), 0, 5) / 4
    expected = apply_to(net, params)(images)
    _, filled = net.apply({"params": params}, images[:, :1], mutable=["cache"])

    @jax.jit
    def row_by_pixels(cache, row):
        def call(method, cache, *arguments):
            outputs, changed = net.apply(
                {"params": params, "cache": cache}, images, None, *arguments, method=method, mutable=["cache"]
            )
            return outputs, changed["cache"]

        context, cache = call("context", cache, (row,))

        def pixel(cache, column):
            part = jax.tree.map(lambda wide: wide[:, :, column][:, :, None], context)
            logits, cache = call("logits", cache, part, (row, column))
            return cache, logits[:, 0, 0]

        return jax.lax.scan(pixel, cache, jnp.arange(shape[1]))

    cache = jax.tree.map(jnp.zeros_like, filled["cache"])
    for row in range(shape[0]):
        cache, logits = row_by_pixels(cache, row)
        # float32, sums in another order
        np.testing.assert_allclose(logits.swapaxes(0, 1), expected[:, row], atol=1e-5)


@pytest.mark.parametrize("name, rows", [*((name, 0) for name in NETS), ("gated_pixelcnn", 1)])
def test_samples_are_as_frequent_as_they_are_likely(name, rows):
    net, params = make(name, (2, 2, 1), 2, seed=3)
    images = all_images((2, 2, 1), 2)
    likelihoods = np.float64(pixel_model.log_likelihood(apply_to(net, params)(images), images))
    given = jnp.ones((4000, 2, 2, 1))
    samples = jax.jit(pixel_model.sample, static_argnums=(1, 5))(jax.random.key(9), net, params, given, None, rows)
    counts = np.bincount((np.asarray(samples).reshape(-1, 4) @ [8, 4, 2, 1]).astype(int), minlength=16)
    possible = np.asarray(images)[:, :rows].all(axis=(1, 2, 3))
    expected = np.where(possible, np.exp(likelihoods[:, rows:].sum(axis=(1, 2, 3))), 0)
    assert counts[~possible].sum() == 0
    chances = expected[possible] / expected.sum()  # sums to 1 but for rounding, which chisquare does not forgive
    test = scipy.stats.chisquare(counts[possible], 4000 * chances)
    assert test.pvalue > 0.001 and scipy.stats.chisquare(counts[possible]).pvalue < 1e-6  # uniform ones would be told


@pytest.mark.parametrize("rows", [None, 2])
def test_the_likeliest_class_is_bayes(rows):
    net, params = make("pixelcnn", (4, 4, 1), 3, classes=3)
    images = jax.random.randint(jax.random.key(0), (30, 4, 4, 1), 0, 3) / 2
    apply = jax.jit(lambda images, labels: net.apply({"params": params}, images, labels))
    table = []
    for label in range(3):
        logits = np.asarray(apply(images, jnp.full(30, label)), np.float64)
        chosen = np.take_along_axis(
            scipy.special.log_softmax(logits, -1), np.rint(images * 2).astype(int)[..., None], -1
        )
        table.append(chosen[:, :rows].sum(axis=(1, 2, 3, 4)))
    expected = np.argmax(table, axis=0)
    ours = pixel_model.likeliest_class(apply, images, 3, rows)
    np.testing.assert_array_equal(ours, expected)
    assert len(set(expected)) > 1
