import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.errors import UserError
from cvjax.recognition import classifier

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def system():
    """A recipe of a tiny net and its first state."""
    recipe = classifier.recipe(width=4, dropout=0.0, optimiser={"name": "adam", "learning_rate": 1e-2})
    return recipe, jax.jit(recipe.init)(KEY, digit_batch(2))


def digit_batch(count=64):
    train = data.arrays("digits", "train")
    return {"image": jnp.asarray(train["image"][:count]), "label": jnp.asarray(train["label"][:count])}


def test_cross_entropy_of_smoothed_labels_equals_its_definition():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(4)[labels] * 0.8 + 0.2 / 4
    expected = -(targets * log_probabilities).sum(axis=1)
    found = classifier.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_label_that_is_no_class_is_not_a_number(smoothing):
    losses = classifier.cross_entropy(jnp.zeros((4, 3)), jnp.array([0, -1, 3, 2]), smoothing)
    assert np.isnan(losses).tolist() == [False, True, True, False]


def test_a_few_steps_learn_a_batch(system):
    (recipe, state), batch = system, digit_batch()
    train_step = jax.jit(recipe.train_step)
    for _ in range(60):
        state, _ = train_step(state, batch, jax.random.fold_in(KEY, state.step))
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    figures = recipe.score(iter([(jax.device_get(batch), outputs)]))
    assert int(state.step) == 60
    assert figures["accuracy"] > 0.6 and figures["nll"] < 1.2  # .1 and 2.3 by chance
    predicted = recipe.predict(state, {"image": batch["image"]}, KEY)
    assert np.mean(predicted["label"] == batch["label"]) == pytest.approx(figures["accuracy"])


def test_score_counts_rows_of_all_batches():
    recipe = classifier.recipe()
    logits = np.eye(10, dtype=np.float32)
    rows = [
        ({"label": np.arange(10)}, {"logits": logits, "nll": np.full(10, 1.0)}),
        ({"label": np.array([5, 1])}, {"logits": logits[:2], "nll": np.full(2, 4.0)}),
    ]
    assert recipe.score(iter(rows)) == pytest.approx({"accuracy": 11 / 12, "nll": 1.5})


def test_figures_frame_the_wrong_digits_in_red_hardest_first(system):
    (recipe, state), batch = system, digit_batch(70)
    shown = recipe.visualise(state, batch, KEY)
    logits = np.asarray(jax.jit(recipe.eval_step)(state, batch, KEY)["logits"])
    assert shown["hardest"].shape == (64, 36, 36, 3) and shown["augmented"].shape == (64, 8, 8, 1)
    red = np.asarray(shown["hardest"][:, 0, 0, 0] == 1.0)
    wrong = np.count_nonzero(logits.argmax(axis=1) != batch["label"])
    assert red[0] and 0 <= wrong - red.sum() <= 6  # an untrained net is mostly wrong; 6 of 70 are not shown
    assert all(image.min() >= 0 and image.max() <= 1 for image in shown.values())


def test_frame_keeps_the_image_inside():
    images = jax.random.uniform(KEY, (2, 8, 8, 1))
    framed = classifier.frame(images, jnp.array([True, False]))
    np.testing.assert_array_equal(framed[:, 2:-2:4, 2:-2:4], jnp.broadcast_to(images, (2, 8, 8, 3)))
    np.testing.assert_allclose(framed[:, 0, 0], [[1.0, 0.2, 0.2], [0.25, 0.25, 0.25]])


def test_shapes_that_do_not_fit_are_explained():
    with pytest.raises(UserError, match="divisible by 4"):
        classifier.recipe(shape=(10, 8, 1))
    with pytest.raises(UserError, match=r"\(8, 8, 1\).*config.recipe.shape=\(28, 28, 1\)"):
        classifier.recipe(shape=(28, 28, 1)).init(KEY, digit_batch(2))
