"""Adversarial training lowers the loss under attack, keeps statistics, and makes a network that others borrow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvjax.attacks import adversarial_training as attacks
from cvjax.attacks.adversarial_training import apply_training
from cvjax.attacks.pgd import pgd
from cvjax.core import Network, variables
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.recognition.image_classifier import ResNetClassifier

KEY = jax.random.key(0)
SGD = {"name": "sgd", "learning_rate": 0.1}


@pytest.fixture(scope="module")
def system():
    network = Network(DigitClassifier(4, width=2, features=8), (8, 8, 1), tuple("abcd"))
    options = dict(steps=3, clean_share=0.5, evaluated=(0.1,), evaluation_steps=3, ema=0.05, optimiser=SGD)
    recipe = attacks.recipe(network, 0.1, **options)
    batch = {"image": jax.random.uniform(KEY, (16, 8, 8, 1)), "label": jnp.arange(16) % 4}
    state = jax.jit(recipe.init)(KEY, batch)
    other = jax.tree.map(lambda leaf: -leaf, state.average)  # an average that sees other classes than the network
    return network.module, recipe, state.replace(average=other), batch


def test_a_step_is_gradient_descent_on_attacked_and_clean_images(system):
    net, recipe, state, batch = system
    after, metrics = jax.jit(recipe.train_step)(state, batch, KEY)
    attack_key, clean_key, _ = jax.random.split(KEY, 3)

    def loss(params, images):
        logits = net.apply({"params": params}, images)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    params = state.params["classifier"]
    attacked = jax.jit(lambda p: pgd(attack_key, lambda x: net.apply({"params": p}, x)[0], *batch.values(), 0.1, 3))(
        params
    )
    clean = np.asarray(jax.random.uniform(clean_key, (16,)) < 0.5)
    assert 4 <= clean.sum() <= 12
    shown = jnp.where(clean.reshape(16, 1, 1, 1), batch["image"], attacked)
    value, gradient = jax.jit(jax.value_and_grad(loss))(params, shown)
    assert float(loss(params, attacked)) > float(value) > float(loss(params, batch["image"]))
    right = net.apply({"params": params}, shown)[0].argmax(axis=-1) == batch["label"]
    assert set(metrics) == {"loss/cross_entropy", "training_accuracy"}
    np.testing.assert_allclose(metrics["loss/cross_entropy"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["training_accuracy"], right.mean())
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params["classifier"], expected)
    before, average = (some.average["classifier"]["params"] for some in (state, after))
    mixed = jax.tree.map(lambda old, new: 0.05 * old + 0.95 * new, before, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), average, mixed)


def test_figures_are_of_the_averaged_network_under_attack(system):
    net, recipe, state, batch = system
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    found = recipe.score([({"label": np.asarray(batch["label"])}, rows)])
    assert set(found) == {"accuracy", "robust_accuracy_0_1"} and found["robust_accuracy_0_1"] <= found["accuracy"]
    average, images, labels = state.average["classifier"], batch["image"], batch["label"]
    logits = net.apply(average, images)[0]
    latest = net.apply(variables(state, "classifier", averaged=False), images)[0]
    assert (latest.argmax(-1) != logits.argmax(-1)).any()
    np.testing.assert_array_equal(rows["clean"], logits.argmax(-1) == labels)
    attacked = jax.jit(lambda held: pgd(KEY, lambda x: net.apply(held, x)[0], images, labels, 0.1, 3))(average)
    np.testing.assert_array_equal(rows["attacked"][:, 0], net.apply(average, attacked)[0].argmax(-1) == labels)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == batch["label"]).mean()))
    predicted = recipe.predict(state, {"image": batch["image"]}, KEY)
    np.testing.assert_array_equal(predicted["label"], logits.argmax(-1))


def test_batch_statistics_and_dropout_are_those_of_training():
    net = ResNetClassifier(3, depth=18, width=2, stem="small", strides=(2,), dropout=0.5)
    images = jax.random.uniform(KEY, (4, 8, 8, 3))
    held = jax.jit(net.init)(KEY, images)
    apply = jax.jit(lambda held, key: apply_training(key, net, held, images))
    (one, stats), (two, _) = (apply(held, key) for key in jax.random.split(KEY))
    assert (one != two).any()
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), stats, held["batch_stats"])
    assert all(jax.tree.leaves(changed))
