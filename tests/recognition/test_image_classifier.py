"""The image classifier: its parts, what a step changes, and a batch that is learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import variables
from cvjax.errors import UserError
from cvjax.nets.resnet import ResNet
from cvjax.recognition import image_classifier
from cvjax.recognition.image_classifier import ResNetClassifier

KEY = jax.random.key(0)
NET = dict(depth=18, width=4, stem="small", strides=(2, 2))


def make(**options):
    return image_classifier.recipe((8, 12, 3), **{"classes": tuple("abcdefg"), **NET, **options})


def batch_of(count=16):
    """Images whose colour says their class."""
    labels = jnp.arange(count) % 7
    colours = jax.random.uniform(jax.random.key(1), (7, 3))
    noise = 0.1 * jax.random.normal(KEY, (count, 8, 12, 3))
    return {"image": jnp.clip(colours[labels][:, None, None] + noise, 0, 1), "label": labels}


@pytest.fixture(scope="module")
def trained():
    """A recipe, its first state, and the state after some steps on one batch."""
    recipe = make(ema=0.9, optimiser={"name": "sgd", "learning_rate": 0.1, "momentum": 0.9})
    first = jax.jit(recipe.init)(KEY, batch_of())
    step, state = jax.jit(recipe.train_step), first
    for _ in range(40):
        state, metrics = step(state, batch_of(), jax.random.fold_in(KEY, state.step))
    return recipe, first, state, metrics


def test_the_head_reads_the_mean_of_the_backbones_last_stage():
    net, images = ResNetClassifier(5, **NET), batch_of(3)["image"]
    held = net.init(KEY, images)
    logits, activations = net.apply(held, images)
    backbone = {kind: tree["resnet"] for kind, tree in held.items()}  # what a detector borrows
    stages = ResNet(**NET).apply(backbone, images)
    assert list(activations) == [*stages, "features"]
    for name, stage in stages.items():
        np.testing.assert_allclose(activations[name], stage, rtol=1e-5, atol=1e-6)
    head = held["params"]["head"]
    features = np.asarray(stages["c3"], np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(activations["features"], features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, features @ np.asarray(head["kernel"]) + head["bias"], rtol=1e-4, atol=1e-5)


def test_features_of_bfloat16_are_means_in_full(monkeypatch):
    """A sum of a thousand bfloat16 ones stops at 256."""
    monkeypatch.setattr(ResNet, "__call__", lambda net, images, train: {"c2": jnp.ones((1, 32, 32, 4), "bfloat16")})
    net = ResNetClassifier(5, **NET)
    _, activations = net.apply(net.init(KEY, jnp.ones((1, 8, 8, 3))), jnp.ones((1, 8, 8, 3)))
    np.testing.assert_array_equal(activations["features"], 1)


def test_dropout_drops_features_while_training_only():
    net, images = ResNetClassifier(5, **NET, dropout=0.9), batch_of(4)["image"]
    held = net.init(KEY, images)
    options = dict(train=True, mutable=["batch_stats"])
    one, two = (net.apply(held, images, rngs={"dropout": jax.random.key(seed)}, **options)[0][0] for seed in (1, 2))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(net.apply(held, images)[0], net.apply(held, images)[0])


def test_a_few_steps_learn_a_batch(trained):
    recipe, first, state, metrics = trained
    assert int(state.step) == 40 and metrics["top1"] == 1.0
    before, after = (
        recipe.score([(jax.device_get(batch_of()), jax.device_get(recipe.eval_step(each, batch_of(), KEY)))])
        for each in (first, state)
    )
    assert after["top1"] > 0.9 > before["top1"] and after["nll"] < before["nll"] / 2
    predicted = recipe.predict(state, {"image": batch_of()["image"]}, KEY)
    assert np.mean(predicted["label"] == batch_of()["label"]) == pytest.approx(after["top1"])
    np.testing.assert_allclose(predicted["probability"].sum(axis=-1), 1, rtol=1e-5)


def test_a_step_moves_the_statistics_and_the_average_with_them(trained):
    recipe, first, state, _ = trained
    latest, average = variables(state, "classifier", averaged=False), variables(state, "classifier")
    assert list(state.average) == list(state.stats) == ["classifier"]
    for kind in ("params", "batch_stats"):
        start, end, between = (
            jax.tree.leaves(held[kind])[0] for held in (variables(first, "classifier"), latest, average)
        )
        assert not np.allclose(start, end) and not np.allclose(between, end) and not np.allclose(between, start)
    logits, _ = recipe.networks["classifier"].apply(average, batch_of()["image"])
    probabilities = recipe.predict(state, {"image": batch_of()["image"]}, KEY)["probability"]
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-3, atol=1e-5)


def test_smoothed_labels_raise_the_loss_of_what_is_learnt(trained):
    _, _, state, metrics = trained
    smooth = make(ema=0.9, label_smoothing=0.2, optimiser={"name": "sgd", "learning_rate": 0.1, "momentum": 0.9})
    _, smoothed = jax.jit(smooth.train_step)(state, batch_of(), KEY)
    assert smoothed["loss/cross_entropy"] > metrics["loss/cross_entropy"] + 0.2


def test_pictures_show_the_hardest_images_and_the_confusions(trained, monkeypatch):
    recipe, first, _, _ = trained
    drawn = {}
    for name in ("draw_gallery", "draw_confusion"):
        draw = getattr(image_classifier.plots, name)
        monkeypatch.setattr(
            image_classifier.plots, name, lambda *a, n=name, d=draw, **k: (drawn.update({n: (a, k)}), d(*a, **k))[1]
        )
    batch = batch_of(40)
    shown = recipe.visualise(first, batch, KEY)
    assert set(shown) == {"hardest", "confusion"}
    assert all(picture.ndim == 3 and 0 <= picture.min() < picture.max() <= 1 for picture in shown.values())
    nll = np.asarray(recipe.eval_step(first, batch, KEY)["nll"])
    (images, captions), options = drawn["draw_gallery"]
    np.testing.assert_array_equal(images[0], batch["image"][nll.argmax()])
    true, guess = captions[0].split("\n")
    assert true == "abcdefg"[batch["label"][nll.argmax()]] and options["marked"][0] == (guess[0] != true)
    matrix = drawn["draw_confusion"][0][0]
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(batch["label"], minlength=7))


def test_what_does_not_fit_is_explained():
    with pytest.raises(UserError, match="one to four stages"):
        make(strides=(2,) * 5)
    with pytest.raises(UserError, match=r"\(8, 8, 3\).*config.recipe.shape=\(8, 12, 3\)"):
        make().init(KEY, {"image": jnp.zeros((1, 8, 8, 3))})
