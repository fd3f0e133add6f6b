"""Fast style transfer: the losses by hand, what a step trains, and pictures in a style or a blend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.nets.transform_net import TransformNet
from cvjax.translation import fast_style, stylise
from cvjax.translation.fast_style import first_of_each, nearest_styles, perceptual_losses
from cvjax.translation.style_losses import Objective

KEY = jax.random.key(0)
SMALL = Objective(content=("conv_2_1",), style=("conv_1_1", "conv_2_2"), layer_weights=(1.0, 2.0), beta=10.0)
NETWORK = Network(DigitClassifier(width=4), (16, 16, 1))


def features(seed):
    generator = np.random.default_rng(seed)
    shapes = {"conv_1_1": (16, 16, 4), "conv_2_1": (8, 8, 6), "conv_2_2": (8, 8, 6)}
    return {layer: jnp.float32(generator.normal(size=(3, *shape))) for layer, shape in shapes.items()}


def gram_by_hand(x):
    flat = np.asarray(x, np.float64).reshape(len(x), -1, x.shape[-1])
    return flat.swapaxes(1, 2) @ flat / (flat.shape[1] * flat.shape[2])


def test_losses_are_johnsons_in_float64():
    found, contents, styles = map(features, range(3))
    images = jnp.float32(np.random.default_rng(3).uniform(size=(3, 5, 6, 3)))
    losses = perceptual_losses(found, contents, styles, images, SMALL)
    content = ((np.asarray(found["conv_2_1"], np.float64) - contents["conv_2_1"]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(losses["content"], content, rtol=1e-5)
    style = sum(
        weight * ((gram_by_hand(found[layer]) - gram_by_hand(styles[layer])) ** 2).sum(axis=(1, 2))
        for layer, weight in SMALL.weights.items()
    )
    np.testing.assert_allclose(losses["style"], style, rtol=1e-4)
    steps = (np.diff(images, axis=1) ** 2).sum(axis=(1, 2, 3)) + (np.diff(images, axis=2) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses["variation"], steps / 90, rtol=1e-5)


def test_the_nearest_style_is_found():
    styles = features(0)
    order = jnp.array([2, 0, 1])
    shuffled = {layer: value[order] + 0.01 for layer, value in styles.items()}
    np.testing.assert_array_equal(nearest_styles(shuffled, styles, SMALL), order)


@pytest.fixture(scope="module")
def system():
    recipe = fast_style.recipe(
        NETWORK,
        ("stripes", "spots"),
        SMALL,
        contract=(4, 4, 4),
        blocks=1,
        expand=(4, 4),
        channels=1,
        optimiser={"name": "adam", "learning_rate": 1e-2},
    )
    rows = np.mgrid[:16, :16][0]
    generator = np.random.default_rng(0)
    styles = np.stack([np.sin(2 * rows) / 2 + 0.5, generator.uniform(size=(16, 16))])[..., None]
    batch = {
        "image": generator.uniform(size=(4, 16, 16, 1)),
        "also_image": styles[[1, 0, 1, 0]],
        "also_label": np.array([1, 0, 1, 0]),
    }
    batch = {name: jnp.asarray(value, jnp.int32 if "label" in name else jnp.float32) for name, value in batch.items()}
    state, losses = recipe.init(KEY, batch), []
    step = jax.jit(recipe.train_step)
    for index in range(40):
        state, metrics = step(state, batch, jax.random.key(index))
        losses.append(float(metrics["loss/total"]))
    return recipe, state, batch, losses


def test_steps_descend_and_keep_the_styles_pictures(system):
    recipe, state, batch, losses = system
    assert losses[-1] < 0.8 * losses[0] and state.step == 40
    np.testing.assert_array_equal(state.extra["pictures"], batch["also_image"][jnp.array([1, 0])])
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    figures = recipe.score([(jax.device_get(batch), outputs)])
    ratio = outputs["style"] / outputs["style_of_content"]
    assert figures["gram_over_content"] == pytest.approx(ratio.mean(), rel=1e-5)
    assert figures["own_style"] == outputs["own_style"].mean()
    np.testing.assert_array_equal(outputs["painting"], state.extra["pictures"][jnp.array([0, 1, 0, 1])])
    drawn = recipe.visualise(state, batch, KEY)
    assert drawn["stylised"].ndim == 3 and drawn["styles"].shape == (2, 16, 16, 1)


def test_the_first_picture_of_each_label_in_a_batch_is_kept():
    rows, there = first_of_each(jnp.array([2, 0, 2, 0, 5]), 4)
    np.testing.assert_array_equal(there, [True, False, True, False])
    np.testing.assert_array_equal(rows[there], [1, 0])


def test_styles_that_have_not_been_seen_judge_nothing(system):
    recipe, trained, batch, _ = system
    fresh = recipe.init(KEY, batch)
    outputs = jax.device_get(jax.jit(recipe.eval_step)(fresh, batch, KEY))
    assert recipe.score([(jax.device_get(batch), outputs)]) == {}
    spots = {name: value[jnp.array([0, 0, 2, 2])] for name, value in batch.items()}
    spots["also_image"] = spots["also_image"].at[1:].set(0.0)  # only the first of a label is kept
    state, _ = jax.jit(recipe.train_step)(fresh, spots, KEY)
    np.testing.assert_array_equal(state.extra["seen"], [False, True])
    np.testing.assert_array_equal(state.extra["pictures"][1], batch["also_image"][0])
    assert not state.extra["pictures"][0].any()
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    np.testing.assert_array_equal(outputs["painting"], jnp.repeat(batch["also_image"][:1], 4, axis=0))
    figures = recipe.score([(jax.device_get(batch), outputs)])
    assert figures["own_style"] == 1 and np.isfinite(figures["gram_over_content"])  # it is the only one
    both = jax.device_get(jax.jit(recipe.eval_step)(trained.replace(step=state.step), batch, KEY))
    assert both["seen"].all()


def test_a_style_is_asked_for_by_its_number_or_blended(system):
    recipe, state, batch, _ = system
    images = batch["image"][:2, :14, :11]
    made = [recipe.predict(state, {"image": images, "label": np.array([k, k])}, KEY)["image"] for k in (0, 1)]
    assert made[0].shape == images.shape and jnp.abs(made[0] - made[1]).max() > 1e-3
    np.testing.assert_array_equal(recipe.predict(state, {"image": images}, KEY)["image"], made[0])
    blended = recipe.predict(state, {"image": images, "weights": np.float32([[2, 0], [2, 0]])}, KEY)["image"]
    np.testing.assert_allclose(blended, made[0], atol=1e-6)
    with pytest.raises(UserError, match=r"3 weights for 2 styles.*stripes"):
        recipe.predict(state, {"image": images, "weights": np.ones((2, 3), np.float32)}, KEY)
    assert recipe.shown_classes == ("stripes", "spots") and recipe.any_size


def test_styles_without_labels_are_asked_for(system):
    recipe, _, batch, _ = system
    with pytest.raises(UserError, match=r"a sub-folder for each style"):
        recipe.init(KEY, {"image": batch["image"]})


def test_a_trained_network_is_applied_by_itself(system):
    trained, state, batch, _ = system
    net = trained.networks["transform"]
    recipe = stylise.recipe(Network(net, (16, 16, 1), ("stripes", "spots")))
    held = {"network": {"params": state.params["transform"]}}
    fresh = recipe.init(KEY, batch)
    assert jax.tree.map(jnp.shape, fresh.frozen) == jax.tree.map(jnp.shape, held) and recipe.train_step is None
    inputs = {"image": batch["image"], "label": np.ones(4, np.int32)}
    found, expected = (r.predict(s, inputs, KEY) for r, s in ((recipe, fresh.replace(frozen=held)), (trained, state)))
    np.testing.assert_allclose(found["image"], expected["image"], atol=1e-6)
    rows = jax.eval_shape(recipe.eval_step, fresh, batch, KEY)
    assert {name: value.shape for name, value in rows.items()} == dict.fromkeys(["image", "next_style"], (4, 16, 16, 1))
    with pytest.raises(UserError, match=r"a DigitClassifier has no styles"):
        stylise.recipe(NETWORK)
    assert isinstance(net, TransformNet)
