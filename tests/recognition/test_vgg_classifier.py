"""The VGG classifier is the network it says, with statistics and without, and learns a batch."""

import jax
import jax.numpy as jnp
import pytest

from cvjax.nets.vgg import VGG
from cvjax.recognition import vgg_classifier

KEY = jax.random.key(0)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_step_changes_parameters_and_statistics_if_there_are_any(batch_norm):
    recipe = vgg_classifier.recipe((32, 32, 3), 4, 11, 2, "mean", batch_norm, ema=0.9)
    batch = {"image": jnp.zeros((4, 32, 32, 3)), "label": jnp.arange(4)}
    state = jax.eval_shape(recipe.init, KEY, batch)
    after, metrics = jax.eval_shape(recipe.train_step, state, batch, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(state) and set(metrics) == {"loss/cross_entropy", "top1"}
    assert set(state.stats) == ({"classifier"} if batch_norm else set())
    assert recipe.networks["classifier"] == VGG(11, batch_norm, head="mean", classes=4, width=2)


def test_a_batch_is_learnt():
    recipe = vgg_classifier.recipe(
        (32, 32, 3),
        ("dark", "light"),
        11,
        4,
        "mean",
        True,
        dropout=0.0,
        optimiser={"name": "adam", "learning_rate": 3e-3},
    )
    labels = jnp.arange(8) % 2
    noise = 0.05 * jax.random.normal(KEY, (8, 32, 32, 3))
    batch = {"image": jnp.clip(0.3 + 0.4 * labels[:, None, None, None] + noise, 0, 1), "label": labels}
    state, step = jax.jit(recipe.init)(KEY, batch), jax.jit(recipe.train_step)
    for _ in range(25):
        state, metrics = step(state, batch, KEY)
    assert metrics["top1"] == 1 and metrics["loss/cross_entropy"] < 0.2
