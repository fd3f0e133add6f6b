"""The systems of embeddings: what a step learns, what the figures go by, and what is refused."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import config, fit
from cvjax.core import variables
from cvjax.errors import UserError
from cvjax.metrics import verification
from cvjax.recognition import arcface, pixel_distance, siamese, softmax_features, supcon, triplet, unseen
from cvjax.recognition.embedding import Backbone, Embedder

KEY = jax.random.key(0)
SMALL = Backbone(width=4, stem="small", strides=(2,), size=6)
SHAPE = (8, 8, 3)
ADAM = {"name": "adam", "learning_rate": 1e-2}
SYSTEMS = {
    "triplet": lambda: triplet.recipe(SHAPE, backbone=SMALL, optimiser=ADAM),
    "siamese": lambda: siamese.recipe(SHAPE, backbone=SMALL, optimiser=ADAM),
    "arcface": lambda: arcface.recipe(SHAPE, 4, scale=8.0, backbone=SMALL, optimiser=ADAM),
    "supcon": lambda: supcon.recipe(SHAPE, projection=8, backbone=SMALL, optimiser=ADAM),
}


def batch_of(people=4, views=4, seed=0):
    """Pictures whose colour says who it is."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), views)
    images = rng.uniform(size=(people, 1, 1, 3))[labels] + 0.1 * rng.normal(size=(len(labels), *SHAPE))
    return {"image": jnp.asarray(np.clip(images, 0, 1), jnp.float32), "label": jnp.asarray(labels)}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_few_steps_bring_the_pictures_of_a_person_together(name):
    recipe, batch = SYSTEMS[name](), batch_of()
    state = first = jax.jit(recipe.init)(KEY, batch)
    step, losses = jax.jit(recipe.train_step), []
    for _ in range(25):
        state, metrics = step(state, batch, KEY)  # the same pairs and triplets in each step
        losses.append(float(metrics["loss/total"]))
    assert losses[-1] < 0.7 * losses[0] and int(state.step) == 25
    if name == "triplet":  # all of them predict alike
        embeddings = recipe.predict(state, {"image": batch["image"]}, KEY)["embedding"]
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    changed = jax.tree.map(lambda one, two: not np.array_equal(one, two), first.params, state.params)
    assert set(changed) == ({"embedder"} if name == "triplet" else {"embedder", "head"})
    assert jax.tree.all(jax.tree.map(lambda one, two: (one != two).any(), first.stats, state.stats))
    assert all(any(jax.tree.leaves(network)) for network in changed.values())


def test_an_embedding_is_a_dense_layer_on_the_mean_of_the_last_stage_divided_by_its_length():
    net, images = Embedder(dataclasses.replace(SMALL, norm=False)), batch_of()["image"]
    held = net.init(KEY, images)
    embeddings, activations = net.apply(held, images)
    assert list(activations) == ["c2", "features"]
    dense = held["params"]["embedding"]
    plain = np.asarray(activations["c2"], np.float64).mean(axis=(1, 2)) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(embeddings, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_embeddings_of_a_batch_lie_around_the_origin_even_if_the_layer_has_one_answer():
    net, images = Embedder(SMALL), batch_of()["image"]
    held = net.init(KEY, images)
    held["params"]["embedding"]["kernel"] += 100.0  # pictures differ by a hundredth of what they have in common
    embeddings, _ = net.apply(held, images, train=True, mutable=["batch_stats"])[0]
    assert np.linalg.norm(np.mean(embeddings, axis=0)) < 0.5


def many(recipe, state, people=24, views=3):
    batch = batch_of(people, views, seed=1)
    return jax.device_get((batch, jax.jit(recipe.eval_step)(state, batch, KEY)))


def test_the_logistic_head_decides_in_the_figures_of_a_siamese_network():
    recipe = SYSTEMS["siamese"]()
    state = jax.jit(recipe.init)(KEY, batch_of())
    kernel = jnp.array([3.0, -2, 0.5, -1, 0, -4])[:, None]  # not all of a sign: no distance
    state.params["head"]["logit"].update(kernel=kernel, bias=jnp.array([0.7]))
    batch, outputs = many(recipe, state)
    left, right = outputs["embedding"][:5], outputs["embedding"][5:10]
    logits = recipe.networks["head"].apply({"params": state.params["head"]}, jnp.abs(left - right))
    np.testing.assert_allclose(siamese.logits_of(outputs["head"][0], left, right), logits, rtol=1e-4, atol=1e-5)
    pairs = verification.draw_pairs(batch["label"])
    logits = siamese.logits_of(outputs["head"][0], *(outputs["embedding"][each] for each in pairs[:2]))
    figures = recipe.score([(batch, outputs)])
    assert figures["verification"] == verification.ten_fold_accuracy(-logits, pairs.same, pairs.fold).mean
    by_distance = verification.figures(outputs["embedding"], batch["label"])
    assert figures["verification_by_distance"] == by_distance["verification"] != figures["verification"]


def test_the_logistic_head_begins_undecided_between_unrelated_pictures_and_equal_ones():
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(500, 128)) for _ in range(2))
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    gaps = jnp.asarray(np.abs(left - right), jnp.float32)
    head = siamese.LogisticHead()
    held = head.init(KEY, gaps)
    far, near = (float(head.apply(held, x).mean()) for x in (gaps, 0 * gaps))
    assert far < 0 < near
    np.testing.assert_allclose(-far, near, rtol=0.02)


def test_few_people_have_figures_of_retrieval_alone():
    labels = np.repeat(np.arange(24), 2)
    embeddings = np.random.default_rng(0).normal(size=(48, 4))
    assert {"verification", "rank1", "recall_at_1"} <= unseen.figures(embeddings, labels).keys()
    assert unseen.figures(embeddings[:38], labels[:38]).keys() == {"recall_at_1", "r_precision"}


def test_pictures_show_the_nearest_of_two_people_and_the_furthest_of_one(monkeypatch):
    drawn = {}

    def draw_gallery(images, captions, columns, marked):
        drawn.update(captions=captions, marked=marked)
        return np.zeros((8, 8, 3), np.float32)

    monkeypatch.setattr(unseen.plots, "draw_gallery", draw_gallery)
    embeddings = np.array([[0.0], [3], [4], [9]])
    shown = unseen.pictures(np.zeros((4, 8, 8, 1), np.float32), embeddings, np.array([0, 0, 1, 1]))
    assert drawn["captions"] == ["two, 1.00", "two, 4.00", "two, 6.00", "two, 9.00", "one, 5.00", "one, 3.00"]
    assert drawn["marked"].tolist() == [True] * 4 + [False] * 2
    assert shown.keys() == {"hardest_pairs", "distances", "roc"}  # no map of four points
    assert unseen.pictures(np.zeros((4, 8, 8, 1), np.float32), embeddings, np.arange(4)) == {}


def test_a_map_has_the_points_of_ten_people():
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(12), 3)
    shown = unseen.embedding_map(rng.normal(size=(36, 4)), labels)
    assert shown["embedding_map"].ndim == 3
    assert unseen.embedding_map(rng.normal(size=(5, 4)), labels[:5]) == {}


def test_pixels_are_compared_as_they_are():
    recipe, batch = pixel_distance.recipe(SHAPE), batch_of()
    assert recipe.train_step is None
    state = recipe.init(KEY, batch)
    outputs = recipe.eval_step(state, batch, KEY)
    np.testing.assert_array_equal(outputs["embedding"], batch["image"].reshape(16, -1))


def test_a_softmax_gives_new_people_known_names():
    recipe = softmax_features.recipe(SHAPE, 4, backbone=SMALL, optimiser=ADAM)
    state = jax.jit(recipe.init)(KEY, batch_of())
    state.params["classifier"] = jax.tree.map(
        lambda leaf: leaf * (8 if leaf.shape[-1] == 4 and leaf.ndim == 2 else 1), state.params["classifier"]
    )
    batch, outputs = many(recipe, state)
    logits, _ = recipe.networks["classifier"].apply(variables(state, "classifier"), jnp.asarray(batch["image"]))
    likely = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    likely = likely.max(axis=1) / likely.sum(axis=1)
    figures = recipe.score([(batch, outputs)])
    np.testing.assert_allclose(outputs["confidence"], likely, rtol=1e-3)
    assert figures["called_known"] == (likely > 0.5).mean() and "verification" in figures
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), 1, rtol=1e-5)
    with pytest.raises(UserError, match=r"recipe.layer='c3': .*c2, features"):
        softmax_features.recipe(SHAPE, 4, layer="c3", backbone=SMALL)


@pytest.mark.parametrize("per_class", [None, 1, 128])
def test_a_batch_without_pairs_is_refused_before_anything_compiles(per_class):
    experiment = config.load("configs/triplet_faces.py")
    with experiment.ignore_type():
        experiment.data.per_class = per_class
    with pytest.raises(UserError, match=r"per_class=\w+: .*from 2 to 64, such as 4 pictures of 32 classes"):
        fit.check_steps(experiment, config.build(experiment))


def test_a_batch_with_pairs_is_accepted():
    experiment = config.load("configs/triplet_faces.py")
    fit.check_steps(experiment, config.build(experiment))


@pytest.mark.parametrize(
    ("batch", "advice"),
    [(30, "from 2 to 15, such as 3 pictures of 10 classes"), (7, "set that to 8"), (2, "set that to 4")],
)
def test_the_advice_for_a_batch_without_pairs_is_one_that_is_accepted(batch, advice):
    experiment = config.load("configs/triplet_faces.py")
    with experiment.ignore_type():
        experiment.data.per_class, experiment.data.batch = None, batch
    with pytest.raises(UserError, match=advice):
        fit.check_steps(experiment, config.build(experiment))


def test_the_first_steps_of_a_hard_choice_are_semi_hard():
    found = {}
    vectors = np.random.default_rng(0).normal(size=(16, 6)) + 2 * np.eye(6)[0]
    embeddings = jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), jnp.float32)
    for choice, easy_steps in (("semi_hard", 0), ("batch_hard", 0), ("batch_hard", 3)):
        system = triplet.recipe(SHAPE, choice, easy_steps=easy_steps, backbone=SMALL).train_step.__self__
        loss = jax.jit(system.loss)  # one compilation for both steps
        found[choice, easy_steps] = [
            jax.tree.map(float, loss(KEY, jnp.int32(step), {}, embeddings, batch_of()["label"])) for step in (2, 3)
        ]
    (early, early_metrics), (late, late_metrics) = found["batch_hard", 3]
    semi, hard = found["semi_hard", 0][0], found["batch_hard", 0][0]
    assert (early, late) == pytest.approx((semi[0], hard[0]), rel=1e-5)
    assert early_metrics == pytest.approx(semi[1], rel=1e-5) and late_metrics == pytest.approx(hard[1], rel=1e-5)
    assert semi[0] != hard[0] and semi[1]["triplets"] != hard[1]["triplets"]


@pytest.mark.parametrize("make", [triplet.recipe, siamese.recipe, partial(softmax_features.recipe, classes=4)])
def test_with_the_mirrored_test_an_image_and_its_mirror_image_are_one(make):
    batch = batch_of()
    plain, mirrored = (make(shape=SHAPE, backbone=SMALL, flip_test=flip) for flip in (False, True))
    state, images = plain.init(KEY, batch), batch["image"]

    def embed(recipe, images):
        found = recipe.predict(state, {"image": images}, KEY)["embedding"]
        np.testing.assert_allclose(recipe.eval_step(state, {"image": images}, KEY)["embedding"], found, atol=1e-5)
        return np.asarray(found)

    total = embed(plain, images) + embed(plain, images[:, :, ::-1])
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(mirrored, images), expected, atol=1e-5)
    np.testing.assert_allclose(embed(mirrored, images[:, :, ::-1]), expected, atol=1e-5)
    assert np.abs(embed(plain, images) - expected).max() > 1e-3
