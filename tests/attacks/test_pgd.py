"""Iterated gradient attacks keep to ball and box, are as strong as they should be, and agree with foolbox."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.attacks import pgd as attacks
from cvjax.attacks.fgsm import fgsm
from cvjax.attacks.pgd import bim, draw_in_ball, pgd
from cvjax.core import Network, start
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.weights import digit_classifier

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def digits():
    test = data.arrays("digits", "test")
    return jnp.asarray(test["image"][:100]), jnp.asarray(test["label"][:100])


HELD = {"params": digit_classifier.load()}


def judge_of(held):
    return lambda images: digit_classifier.NET.apply(held, images)[0]


def accuracy(images, labels):
    return float((judge_of(HELD)(images).argmax(axis=-1) == labels).mean())


def linear(seed=0, classes=5, pixels=27):
    kernel = jax.random.normal(jax.random.key(seed), (pixels, classes))
    return lambda images: images.reshape(len(images), -1) @ kernel


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_results_keep_to_ball_and_box_exactly(norm, targeted):
    logits_fn, epsilons = linear(), jnp.array([0.01, 0.3, 1.0])
    images = jnp.round(4 * jax.random.uniform(KEY, (16, 3, 3, 3))) / 4
    labels = jnp.arange(16) % 5
    options = dict(norm=norm, targeted=targeted)

    @jax.jit
    @jax.vmap
    def attack(epsilon):
        several = pgd(KEY, logits_fn, images, labels, epsilon, steps=5, restarts=2, **options)
        return several, bim(logits_fn, images, labels, epsilon, steps=5, **options)

    for found in attack(epsilons):
        assert found.min() >= 0 and found.max() <= 1
        change = np.float64(found) - np.float64(images)
        flat = change.reshape(3, 16, -1)
        lengths = np.abs(flat).max(-1) if norm == "linf" else np.linalg.norm(flat, axis=-1)
        assert (lengths <= np.float64(epsilons)[:, None]).all() and lengths[0].min() > 0.005
        before, after = (np.asarray(jax.nn.log_softmax(logits_fn(x))) for x in (images, found[0]))
        rows = np.arange(16)
        rise = after[rows, labels] - before[rows, labels]
        assert ((rise if targeted else -rise) > 0).all()


def test_the_best_direction_in_a_euclidean_ball_is_the_gradients():
    """Between two classes of a linear classifier every step has the same direction, so the end is known."""
    kernel = jax.random.normal(KEY, (27, 2))
    way = np.asarray(kernel[:, 1] - kernel[:, 0])
    found = bim(linear_of(kernel), jnp.full((1, 3, 3, 3), 0.5), jnp.array([0]), 0.3, steps=3, norm="l2")
    np.testing.assert_allclose(np.ravel(found), 0.5 + 0.3 * way / np.linalg.norm(way), atol=1e-5)


def linear_of(kernel):
    return lambda images: images.reshape(len(images), -1) @ kernel


def test_points_of_the_ball_are_drawn_evenly():
    images = jnp.zeros((4000, 2, 2, 1))
    radii = jnp.linalg.norm(draw_in_ball(KEY, images, 0.5, "l2").reshape(4000, 4), axis=1)
    assert float(radii.max()) <= 0.5
    np.testing.assert_allclose((radii / 0.5 < 0.8).mean(), 0.8**4, atol=0.03)  # four standard errors
    square = np.abs(draw_in_ball(KEY, images, 0.5, "linf"))
    assert square.max() <= 0.5
    np.testing.assert_allclose((square < 0.25).mean(), 0.5, atol=0.02)


def test_more_steps_and_more_starts_are_stronger(digits):
    images, labels = digits

    @jax.jit
    def attack(held, key):
        logits_fn = judge_of(held)
        one = pgd(key, logits_fn, images, labels, 0.1, steps=10)
        return fgsm(logits_fn, images, labels, 0.1), one, pgd(key, logits_fn, images, labels, 0.1, 10, restarts=3)

    step, one, three = (accuracy(found, labels) for found in attack(HELD, KEY))
    assert three <= one < step < accuracy(images, labels) - 0.15


def test_recipe_has_controls_and_figures(digits):
    images, labels = digits
    net = DigitClassifier(width=2, features=4)
    for norm in ("linf", "l2"):
        recipe = attacks.recipe(Network(net, (8, 8, 1)), (0.1, 0.2), norm, steps=2)
        state = start({}, {}, frozen={"classifier": jax.jit(net.init)(KEY, images)})
        batch = {"image": images, "label": labels}
        rows = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
        found = recipe.score([({"label": np.asarray(labels)}, rows)])
        gain = found["one_step_accuracy_0_2"] - found["robust_accuracy_0_2"]
        assert found["gain_over_one_step_0_2"] == pytest.approx(gain)
        assert {"accuracy", "random_accuracy_0_1", "robust_accuracy_0_1"} <= found.keys() and len(found) == 9


def test_images_of_other_classes_are_attacked_away_from_what_is_seen_in_them(digits):
    images, _ = digits
    recipe = attacks.recipe(Network(digit_classifier.NET, (8, 8, 1)), (0.05, 0.2), steps=5, labels="seen")
    state = start({}, {}, frozen={"classifier": HELD})
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, {"image": images}, KEY))  # without labels
    found = recipe.score([({"label": np.full(len(images), 99)}, rows)])  # or with those of another dataset
    seen = judge_of(HELD)(images).argmax(axis=-1)
    for epsilon, size in ((0.05, "0_05"), (0.2, "0_2")):
        attacked = pgd(KEY, judge_of(HELD), images, seen, epsilon, steps=5)
        assert found[f"changed_{size}"] == pytest.approx(1 - accuracy(attacked, seen))
        gain = found[f"changed_{size}"] - found[f"one_step_changed_{size}"]
        assert found[f"gain_over_one_step_{size}"] == pytest.approx(gain)
        assert found[f"random_changed_{size}"] <= found[f"changed_{size}"]
    assert len(found) == 8 and found["changed_0_2"] > 0.9 > found["changed_0_05"]
    pictures = recipe.visualise(state, {"image": images[:12]}, KEY)
    assert set(pictures) == {"adversarial_0_05", "adversarial_0_2", "robustness"}


@pytest.mark.parity
def test_fgsm_and_pgd_leave_the_accuracy_that_foolboxs_leave(digits):
    foolbox = pytest.importorskip("foolbox")
    images, labels = digits
    model = foolbox.JAXModel(jax.jit(judge_of(HELD)), bounds=(0, 1))
    single = jax.jit(lambda held, epsilon: fgsm(judge_of(held), images, labels, epsilon))
    for epsilon in (0.1, 0.2):
        _, theirs, _ = foolbox.attacks.FGSM(random_start=False)(model, images, labels, epsilons=epsilon)
        assert abs(accuracy(single(HELD, epsilon), labels) - accuracy(theirs, labels)) <= 0.01
    options = dict(rel_stepsize=2.5 / 40, steps=40, random_start=False)
    for norm, epsilon, kind in (("linf", 0.1, foolbox.attacks.LinfPGD), ("l2", 0.7, foolbox.attacks.L2PGD)):
        _, theirs, _ = kind(**options)(model, images, labels, epsilons=epsilon)
        ours = jax.jit(
            lambda held, norm=norm, epsilon=epsilon: pgd(
                KEY, judge_of(held), images, labels, epsilon, norm=norm, random_start=False
            )
        )(HELD)
        assert abs(accuracy(ours, labels) - accuracy(theirs, labels)) <= 0.01
        assert float(jnp.median(jnp.abs(ours - theirs))) < 1e-3
