"""What all segmenters share, shown on U-Net: inference at several scales, steps, void, and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import State
from cvjax.errors import UserError
from cvjax.losses.segmentation import MapLoss
from cvjax.segmentation import unet
from cvjax.segmentation.segmenter import Inference, average_probabilities

KEY = jax.random.key(0)
NET = dict(width=4, depth=1, padding="same", dropout=0.0, batch_norm=True)


def make(**options):
    optimiser = {"name": "adam", "learning_rate": 0.02}
    return unet.recipe((8, 12, 3), **{"classes": ("a", "b", "c"), "optimiser": optimiser, **NET, **options})


def batch_of(count=4):
    """Images of noise whose colour says the class of each pixel; class 2 has none, and some pixels are void."""
    labels = jax.random.bernoulli(jax.random.key(1), 0.4, (count, 8, 12)).astype(jnp.int32)
    colours = jnp.array([[0.2, 0.4, 0.6], [0.6, 0.3, 0.2]])
    images = jnp.clip(colours[labels] + 0.1 * jax.random.normal(KEY, (count, 8, 12, 3)), 0, 1)
    return {"image": images, "class_map": labels.at[:, :2].set(255).at[0].set(255)}


@pytest.fixture(scope="module")
def trained():
    """A recipe and its state after some steps on one batch."""
    recipe = make(ema=0.5)
    step, state = jax.jit(recipe.train_step), jax.jit(recipe.init)(KEY, batch_of())
    for _ in range(60):
        state, metrics = step(state, batch_of(), KEY)
    return recipe, step, state, metrics


def test_a_few_steps_learn_a_batch_with_void(trained):
    recipe, _, state, metrics = trained
    assert metrics["pixel_accuracy"] > 0.97 and metrics["loss/total"] == metrics["loss/cross_entropy"]
    batch = jax.device_get(batch_of())
    rows = jax.device_get(recipe.eval_step(state, batch_of(), KEY))
    known = batch["class_map"] != 255
    np.testing.assert_array_equal(rows["confusions"].sum((1, 2)), known.sum((1, 2)))
    found = recipe.score([(batch, rows)])
    right = (rows["segmentation"] == batch["class_map"])[known].mean()
    assert found["pixel_accuracy"] == pytest.approx(right) and found["mean_iou"] > 0.9 and found["iou/c"] == -1
    np.testing.assert_array_equal(recipe.predict(state, batch_of(), KEY)["segmentation"], rows["segmentation"])
    assert rows["segmentation"].dtype == np.int32
    picture = recipe.visualise(state, batch_of(), KEY)["segmentations"]
    assert picture.ndim == 3 and 0 <= picture.min() < picture.max() <= 1


def test_a_void_batch_changes_nothing_but_the_statistics(trained):
    _, step, state, _ = trained
    batch = batch_of()
    state = state.replace(opt=jax.tree.map(jnp.zeros_like, state.opt))  # without momentum
    after, metrics = step(state, {**batch, "class_map": jnp.full_like(batch["class_map"], 255)}, KEY)
    assert metrics["loss/total"] == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.stats))


def test_pixel_weights_and_all_parts_reach_the_loss():
    loss = MapLoss(cross_entropy=1.0, focal=0.5, dice=1.0, lovasz=1.0, class_weights=(1.0, 2.0, 1.0))
    recipe = make(weights="border_weights", loss=loss)
    batch = {**batch_of(), "border_weights": jnp.ones((4, 8, 12, 1))}
    state = jax.eval_shape(recipe.init, KEY, batch)
    _, metrics = jax.eval_shape(recipe.train_step, state, batch, KEY)
    assert {f"loss/{name}" for name in ("cross_entropy", "focal", "dice", "lovasz", "total")} < metrics.keys()
    with pytest.raises(UserError, match=r"recipe\.weights='border_weights': the examples have no such map"):
        recipe.init(KEY, batch_of())


def test_probabilities_are_averaged_over_scales_and_mirror_images():
    images = jax.random.uniform(KEY, (2, 8, 10, 3))
    shapes = []

    def segment(x):
        """Depends on the place, so that the mirror image matters."""
        shapes.append(x.shape[1:3])
        return x * (1 + jnp.arange(x.shape[2])[:, None])

    found = average_probabilities(segment, images, Inference((1.0, 0.5), flip=True))
    assert shapes == [(8, 10)] * 2 + [(4, 5)] * 2
    # At half the size, bilinear interpolation averages two by two pixels.
    small = images.reshape(2, 4, 2, 5, 2, 3).mean(axis=(2, 4))
    expected = 0
    for x in (images, small):
        mirrored = x * (x.shape[2] - jnp.arange(x.shape[2])[:, None])
        for logits in (segment(x), mirrored):
            logits = jax.image.resize(logits, images.shape, "bilinear")
            expected += jax.nn.softmax(logits) / 4
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_objects_are_scored_where_the_batch_has_instances():
    found = np.zeros((1, 8, 12), np.int32)
    found[0, 2:6, 1:5] = 1
    found[0, 2:6, 6:9] = 1
    batch = {"class_map": found, "instances": found * np.where(np.arange(12) < 5, 1, 2)}
    outputs = {"segmentation": found, "confusions": np.diag([68, 28, 0])[None]}
    assert make().score([(batch, outputs)])["separated"] == 1
    merged = {**outputs, "segmentation": np.maximum(found, (np.arange(12) == 5) & (found[:, :, :1] * 0 + 1 > 0))}
    figures = make().score([(batch, merged)])
    assert figures["separated"] == 0.0 and 0 <= figures["instance_f1"] < 1
    assert "separated" not in make().score([({"class_map": found}, outputs)])


def test_what_does_not_fit_is_explained():
    with pytest.raises(UserError, match="class_weights has 2 numbers, and there are 3"):
        make(loss=MapLoss(class_weights=(1.0, 2.0)))
    with pytest.raises(UserError, match="all weights are 0"):
        make(loss=MapLoss(cross_entropy=0.0))
    with pytest.raises(UserError, match=r"recipe.truth='map'.*data.class_maps"):
        make(truth="map").init(KEY, batch_of())
    assert isinstance(jax.eval_shape(make().init, KEY, batch_of()), State)
