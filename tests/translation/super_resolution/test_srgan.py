"""SRGAN: its losses by hand, which networks a step changes, what begins as SRResNet, and user errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import borrow
from cvjax.core import Network, variables
from cvjax.errors import UserError
from cvjax.nets.capture import activations_of
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.optim import build, learning_rate
from cvjax.translation.super_resolution import srgan, srresnet
from cvjax.translation.super_resolution.degradation import degrade

KEY = jax.random.key(0)
NETWORK = Network(DigitClassifier(width=2), (16, 16, 1))
OPTIMISER = {"name": "sgd", "learning_rate": 1e-2}


def make(**arguments):
    chosen = dict(blocks=1, features=3, discriminator_features=1, discriminator_hidden=4, layer="conv_1_2")
    return srgan.recipe(NETWORK, 4, **(chosen | dict(optimiser=OPTIMISER) | arguments))


@pytest.fixture(scope="module")
def stepped():
    """A recipe, a batch, the states before and after a step, and its metrics."""
    recipe, batch = make(), {"image": jax.random.uniform(KEY, (3, 16, 16, 1))}
    before = recipe.init(KEY, batch)
    return recipe, batch, before, *jax.jit(recipe.train_step)(before, batch, jax.random.key(1))


def entropy(logits, real):
    return np.logaddexp(0, -logits if real else logits).mean()


def test_losses_are_the_papers_by_hand(stepped):
    recipe, batch, before, after, metrics = stepped
    low = degrade(jax.random.key(1), batch["image"], 4)
    generator = {"params": before.params["enlarger"], "batch_stats": before.stats["enlarger"]}
    made, _ = recipe.networks["enlarger"].apply(generator, low, train=True, mutable=["batch_stats"])
    seen = [
        np.float64(
            activations_of(NETWORK.module, ("conv_1_2",), maps=True)(before.frozen["network"], images)["conv_1_2"]
        )
        for images in (made, batch["image"])
    ]
    content = ((seen[0] - seen[1]) ** 2).mean() / 12.75**2  # the divisor counts by its square: .006
    assert float(metrics["loss/content"]) == pytest.approx(content, rel=1e-4)

    def judge(params, images):
        held = {"params": params, "batch_stats": before.stats["discriminator"]}
        logits, _ = recipe.networks["discriminator"].apply(held, images, train=True, mutable=["batch_stats"])
        return np.float64(logits)

    first, then = before.params["discriminator"], after.params["discriminator"]
    expected = entropy(judge(first, batch["image"]), True) + entropy(judge(first, made), False)
    assert float(metrics["loss/discriminator"]) == pytest.approx(expected, rel=1e-4)
    adversarial = entropy(judge(then, made), True)  # -log D(G), by the discriminator after its own step
    assert float(metrics["loss/adversarial"]) == pytest.approx(adversarial, rel=1e-4)
    total = metrics["loss/content"] + 1e-3 * metrics["loss/adversarial"]
    assert float(metrics["loss/total"]) == pytest.approx(float(total), rel=1e-6)


def test_a_step_changes_both_networks_and_their_statistics_but_not_the_borrowed_one(stepped):
    _, _, before, after, _ = stepped
    for held in ("params", "stats"):
        for name in ("enlarger", "discriminator"):
            pairs = zip(*(jax.tree.leaves(getattr(state, held)[name]) for state in (before, after)), strict=True)
            assert any(np.abs(old - new).max() > 0 for old, new in pairs)
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)
    assert after.step == 1


def test_it_begins_as_the_srresnet_that_it_borrows(stepped):
    adversary, batch, before, _, _ = stepped
    residual = srresnet.recipe(4, 1, 3)
    trained = residual.init(jax.random.key(2), batch)
    statistics = jax.tree.map(lambda values: values + 0.5, trained.stats)  # as after some steps
    trained = trained.replace(stats=statistics)
    inputs = {"image": jax.random.uniform(KEY, (1, 4, 5, 1), maxval=0.9)}
    expected = residual.predict(trained, inputs, KEY)["image"]
    assert np.abs(adversary.predict(before, inputs, KEY)["image"] - expected).max() > 1e-2
    first = borrow.insert_networks(before, {"enlarger": variables(trained, "enlarger")})
    np.testing.assert_array_equal(adversary.predict(first, inputs, KEY)["image"], expected)


def test_the_papers_rate_falls_after_half_of_the_steps():
    build(srgan.ADAM)
    rates = [float(learning_rate(srgan.ADAM, step)) for step in (0, 99_999, 100_001, 200_000)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-5, 1e-5], rtol=1e-6)


def test_layers_that_are_not_there_are_named_before_anything_compiles():
    with pytest.raises(UserError, match=r"there is no layer 'relu9_9'"):
        jax.eval_shape(make(layer="relu9_9").init, KEY, {"image": jnp.zeros((1, 16, 16, 1))})


def test_the_averaged_generator_is_the_one_that_enlarges(stepped):
    _, batch, before, after, _ = stepped
    recipe = make(ema=0.9)
    first = borrow.insert_networks(recipe.init(KEY, batch), {"enlarger": variables(before, "enlarger")})
    then, _ = jax.jit(recipe.train_step)(first, batch, jax.random.key(1))
    expected = jax.tree.map(  # the first step keeps a tenth, not nine
        lambda old, new: 0.1 * old + 0.9 * new, variables(before, "enlarger"), variables(after, "enlarger")
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), variables(then, "enlarger"), expected)
    inputs = {"image": jax.random.uniform(KEY, (1, 4, 5, 1), maxval=0.9)}
    enlarged = [recipe.predict(state, inputs, KEY)["image"] for state in (then, then.replace(average={}))]
    assert np.abs(enlarged[0] - enlarged[1]).max() > 0
