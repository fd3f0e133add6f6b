"""The recipe of autoregressive networks: whose figures, samples, completions and pictures it gives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.generative.autoregressive import pixel_model, pixelcnn

ARCHITECTURE = pixel_model.Architecture(layers=1, width=8, first_kernel=3, head=8, dropout=0.1)
SMALL = dict(shape=(8, 8, 1), levels=17, architecture=ARCHITECTURE, ema=0.5)


@pytest.fixture(scope="module")
def batch():
    digits = data.arrays("digits", "test")
    images = jnp.round(16 * digits["image"][:8]) / 16  # bytes are not quite multiples of 1 / 16
    return {"image": images, "label": jnp.asarray(digits["label"][:8])}


@pytest.fixture(scope="module")
def system(batch):
    """(recipe, states after 0 .. 20 steps, losses, compiled train step) of a class-conditional PixelCNN."""
    fast = dict(name="adam", learning_rate=1e-2)
    recipe = pixelcnn.recipe(**SMALL, classes=10, optimiser=fast)
    states, losses = [jax.jit(recipe.init)(jax.random.key(0), batch)], []
    step = jax.jit(recipe.train_step)
    for index in range(20):
        state, metrics = step(states[-1], batch, jax.random.key(index))
        states.append(state)
        losses.append(float(metrics["loss/bits_per_dim"]))
    return recipe, states, losses, step


@pytest.fixture(scope="module")
def evaluate(system):
    """The last state's compiled evaluation."""
    recipe, states, *_ = system
    step = jax.jit(recipe.eval_step)
    return lambda batch: step(states[-1], batch, jax.random.key(1))


def test_training_lowers_bits(system):
    _, states, losses, _ = system
    assert int(states[-1].step) == 20
    assert losses[0] == pytest.approx(math.log2(17), abs=0.7) and losses[-1] < losses[0] - 0.7


def test_figures_are_of_the_averaged_network_and_its_own_samples(system, batch, evaluate):
    recipe, states, *_ = system
    average = states[0].params["pixelcnn"]
    for index, state in enumerate(states[1:]):
        keep = min(0.5, (1 + index) / (10 + index))
        average = jax.tree.map(lambda a, p, keep=keep: keep * a + (1 - keep) * p, average, state.params["pixelcnn"])
    found = states[-1].average["pixelcnn"]["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, average)
    outputs = evaluate(batch)
    net = pixelcnn.PixelCNN(17, 10, 1, 8, 3, 3, 8)
    apply = jax.jit(lambda images, labels: net.apply({"params": average}, images, labels))
    bits = pixel_model.bits_per_dim(apply(batch["image"], batch["label"]), batch["image"])
    np.testing.assert_allclose(outputs["bits"], bits, atol=1e-4)  # averages of 20 steps, in another order
    samples = pixel_model.sample(jax.random.key(1), net, average, jnp.zeros((8, 8, 8, 1)), batch["label"])
    sample_bits = pixel_model.bits_per_dim(apply(samples, batch["label"]), samples)
    np.testing.assert_allclose(outputs["sample_bits"], sample_bits, atol=1e-4)
    figures = recipe.score([(batch, jax.device_get(outputs))])
    assert figures["bits_per_dim"] == pytest.approx(float(bits.mean()), abs=1e-4)
    gap = abs(figures["sample_bits_per_dim"] - figures["bits_per_dim"])
    assert figures["sample_gap"] == pytest.approx(gap, abs=1e-6)


def test_predict_keeps_the_upper_half_and_draws_the_lower(system, batch):
    recipe, states, *_ = system
    finer = {"image": batch["image"] + 0.02}
    ours = recipe.predict(states[-1], finer, jax.random.key(4))["image"]  # off the levels by a third of one
    np.testing.assert_allclose(ours[:, :4], batch["image"][:, :4], atol=1e-6)
    assert (np.abs(ours[:, 4:] - batch["image"][:, 4:]) > 0.1).any()
    np.testing.assert_array_equal(ours, recipe.predict(states[-1], batch, jax.random.key(4))["image"])
    assert (ours != recipe.predict(states[-1], batch, jax.random.key(5))["image"]).any()


def test_pictures_and_samples_by_class(system, batch):
    recipe, states, *_ = system
    pictures = recipe.visualise(states[-1], batch, jax.random.key(2))
    assert pictures["samples"].shape == (100, 8, 8, 1) and pictures["completions"].shape == (64, 8, 8, 1)
    rows = pictures["completions"].reshape(8, 8, 8, 8, 1)
    np.testing.assert_array_equal(rows[:, 0], batch["image"])
    np.testing.assert_allclose(
        rows[:, 2:, :4], np.broadcast_to(batch["image"][:, None, :4], (8, 6, 4, 8, 1)), atol=1e-6
    )
    assert (rows[:, 1, 4:] == 0.5).all() and (rows[:, 2, 4:] != rows[:, 3, 4:]).any()
    samples = recipe.sample(states[-1], jax.random.key(3), {"count": 12})["image"]
    net, params = pixelcnn.PixelCNN(17, 10, 1, 8, 3, 3, 8), states[-1].average["pixelcnn"]["params"]
    labels = jnp.arange(12) % 10
    expected = pixel_model.sample(jax.random.key(3), net, params, jnp.zeros((12, 8, 8, 1)), labels)
    np.testing.assert_array_equal(samples, expected)
    of_class = recipe.sample(states[-1], jax.random.key(3), {"count": 12, "label": np.arange(12) % 10})["image"]
    np.testing.assert_array_equal(of_class, expected)
    sevens = recipe.sample(states[-1], jax.random.key(3), {"count": 12, "label": np.full(12, 7)})["image"]
    expected = pixel_model.sample(jax.random.key(3), net, params, jnp.zeros((12, 8, 8, 1)), jnp.full(12, 7))
    np.testing.assert_array_equal(sevens, expected)


def test_inputs_are_no_finer_than_the_levels(system, batch, evaluate):
    _, states, _, step = system
    finer = batch | {"image": batch["image"] + 0.02}
    losses = [step(states[0], rows, jax.random.key(1))[1]["loss/bits_per_dim"] for rows in (batch, finer)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(evaluate(batch)["bits"], evaluate(finer)["bits"])
