"""Polynomial mutation has its distribution, CPPNs draw what NumPy draws, MAP-Elites keeps the best of each class."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from matplotlib.colors import hsv_to_rgb

from cvjax.attacks import cppn
from cvjax.attacks import fooling as attacks
from cvjax.attacks.fooling import Direct, direct_encoding, evolve, new_archive, polynomial_mutation
from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier

KEY = jax.random.key(0)
SETTINGS = cppn.CPPN(capacity=12)


def test_polynomial_mutation_has_the_papers_distribution():
    values = jnp.full(40_000, 0.5)
    found = np.asarray(polynomial_mutation(KEY, values, 0.1, strength=15.0)) - 0.5
    changed = found[found != 0]
    assert abs(len(changed) / 40_000 - 0.1) < 0.006  # four standard errors

    def distribution(share):
        return np.where(share < 0, (1 + share) ** 16 / 2, 1 - (1 - share) ** 16 / 2)

    assert scipy.stats.kstest(changed, distribution).pvalue > 0.01
    wide = polynomial_mutation(KEY, jnp.full(1000, -3.0), 1.0, 0.5, -4.0, 4.0)
    assert wide.min() >= -4 and wide.max() <= 4 and wide.max() > 1  # shares of the whole range


def test_the_rate_is_halved_every_thousand_generations():
    encoding = direct_encoding((100, 100, 1), Direct())
    image = encoding.begin(KEY)
    assert image.min() >= 0 and image.max() <= 1 and abs(float(image.mean()) - 0.5) < 0.02
    for generation, rate in ((0, 0.1), (999, 0.1), (1000, 0.05), (3500, 0.0125)):
        changed = (encoding.mutate(jax.random.key(1), image, jnp.int32(generation)) != image).mean()
        np.testing.assert_allclose(changed, rate, atol=0.015)


def drawn(genome, size, channels):
    """A network in NumPy, each node from those that lead to it, by recursion."""
    ys, xs = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    inputs = [xs, ys, np.hypot(xs, ys), np.ones_like(xs)]
    activations = [
        np.sin,
        lambda v: 1 / (1 + np.exp(-v)),
        lambda v: np.exp(-v * v),
        lambda v: v,
        np.tanh,
        np.abs,
        np.cos,
    ]

    def value(node):
        if node < cppn.INPUTS:
            return inputs[node]
        sources = np.flatnonzero(genome.connected[:, node])
        summed = sum((genome.weight[source, node] * value(source) for source in sources), np.zeros_like(xs))
        return activations[genome.activation[node]](summed)

    image = np.stack([value(cppn.INPUTS + channel) for channel in range(channels)], axis=-1)
    image = np.clip(np.abs(image), 0, 1)
    return hsv_to_rgb(image) if channels == 3 else image


def test_evolved_networks_stay_whole_and_draw_what_numpy_draws(channels=3):
    """Sixty rounds of frequent changes: feed-forward, within the capacity, without connections of missing nodes."""
    busy = cppn.CPPN(12, 0.5, 0.3, 0.5, 0.2, 0.5, 0.5)

    @jax.jit
    def evolve(key):
        def change(genome, key):
            new = cppn.mutate(key, genome, busy, channels)
            return new, new

        first = cppn.begin(key, busy, channels)
        return jax.lax.scan(change, first, jax.random.split(key, 60))[1]

    genomes = jax.device_get(evolve(KEY))
    express = jax.jit(lambda genome: cppn.express(genome, 5, 5, channels))
    hidden = genomes.there.sum(axis=-1) - cppn.INPUTS - channels
    assert hidden.min() >= 0 and hidden.max() >= 3
    for index in range(60):
        genome = jax.tree.map(lambda leaf, index=index: leaf[index], genomes)
        source, target = np.nonzero(genome.connected)
        assert (genome.depth[source] < genome.depth[target]).all() and (target >= cppn.INPUTS).all()
        assert genome.there[source].all() and genome.there[target].all()
        assert genome.there[: cppn.INPUTS + channels].all()
        if index % 10 == 9:
            np.testing.assert_allclose(express(genome), drawn(genome, 5, channels), atol=2e-5)  # float32


def test_colours_are_dm_pixs():
    """Ours spares users the package for a function of five lines."""
    image = np.random.default_rng(0).random((20, 20, 3), np.float32)
    image[:2] = np.round(image[:2])
    image[2, :13, 0] = np.linspace(0, 1, 13)  # at the seams of the sectors
    image = jnp.asarray(image)
    np.testing.assert_allclose(cppn.hsv_to_rgb(image), dm_pix.hsv_to_rgb(image), atol=1e-5)  # float32


def test_a_new_node_takes_the_place_of_a_connection():
    first = cppn.begin(KEY, SETTINGS, 1)
    new = cppn._add_node(KEY, first, cppn.INPUTS + 1)
    (node,) = np.flatnonzero(new.there & ~first.there)
    (source,), (target,) = np.flatnonzero(new.connected[:, node]), np.flatnonzero(new.connected[node])
    assert first.connected[source, target] and not new.connected[source, target]
    assert new.weight[source, node] == 1 and new.weight[node, target] == first.weight[source, target]
    assert new.connected.sum() == first.connected.sum() + 1


def test_champions_only_improve_and_are_the_best_of_their_class():
    kernel = jax.random.normal(KEY, (16, 3))

    def logits_fn(images):
        return images.reshape(len(images), -1) @ kernel

    encoding = direct_encoding((4, 4, 1), Direct())
    begun = new_archive(KEY, encoding, 3)
    archive, history = jax.jit(lambda: evolve(KEY, logits_fn, encoding, begun, generations=40, offspring=20))()
    assert (jnp.diff(history, axis=0) >= 0).all() and archive["generation"] == 40
    again = jax.nn.softmax(logits_fn(archive["genomes"]))
    np.testing.assert_allclose(jnp.diagonal(again), archive["confidences"], rtol=1e-5)
    best = jax.nn.softmax(logits_fn(jnp.float32(kernel.T.reshape(3, 4, 4, 1) > kernel.mean(1).reshape(4, 4, 1))))
    assert (archive["confidences"] > 0.8 * jnp.diagonal(best)).all()  # of nearly the best image there is


def test_recipe_evolves_samples_and_scores():
    net = DigitClassifier(3, width=2, features=4)
    network = Network(net, (8, 8, 1), ("a", "b", "c"))
    recipe = attacks.recipe(network, "cppn", generations=2, offspring=6, cppn=SETTINGS)
    batch = {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.zeros(4, jnp.int32)}
    state = jax.jit(recipe.init)(KEY, batch)
    step = jax.jit(recipe.train_step)
    for key in jax.random.split(KEY, 2):
        state, metrics = step(state, batch, key)
    assert state.extra["archive"]["generation"] == 4 and 0 < metrics["confidence/mean"] <= 1
    evaluate = jax.jit(recipe.eval_step)
    rows = jax.device_get(evaluate(state, batch, KEY))
    figures = recipe.score([({"label": np.zeros(4, int)}, rows)])
    np.testing.assert_allclose(figures["fooling_confidence"], metrics["confidence/mean"], rtol=1e-5)
    known = state.replace(extra={"archive": state.extra["archive"] | {"confidences": jnp.array([0.25, 0.5, 0.75])}})
    rows = jax.device_get(evaluate(known, batch, KEY))
    np.testing.assert_array_equal(rows["fooling"], [[0.25, 0.5, 0.75]] * 4)  # no batch looks at the champions again
    images = recipe.sample(state, KEY, {"count": 4})["image"]
    np.testing.assert_array_equal(images[3], images[0])
    chosen = recipe.sample(state, KEY, {"count": 2, "label": jnp.array([2, 2])})["image"]
    np.testing.assert_array_equal(chosen, images[jnp.array([2, 2])])


def test_networks_without_room_or_colours_are_refused():
    with pytest.raises(UserError, match="capacity=5: at least 6"):
        attacks.recipe(Network(DigitClassifier(), (8, 8, 1)), "cppn", cppn=cppn.CPPN(capacity=5))
    with pytest.raises(UserError, match="not 2 channels"):
        attacks.recipe(Network(DigitClassifier(), (8, 8, 2)), "cppn")
