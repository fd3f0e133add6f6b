"""Minimal perturbations: known distances to linear boundaries, SciPy's L-BFGS-B, foolbox, and the recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from cvjax import data
from cvjax.attacks import minimal as attacks
from cvjax.attacks.carlini_wagner import carlini_wagner
from cvjax.attacks.deepfool import deepfool
from cvjax.attacks.szegedy import gradient_iteration, szegedy
from cvjax.core import Network, start
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.weights import digit_classifier

KEY = jax.random.key(0)
HELD = {"params": digit_classifier.load()}
KERNEL = np.asarray(jax.random.normal(jax.random.key(3), (16, 4)), np.float64)


def judge_of(held):
    return lambda images: digit_classifier.NET.apply(held, images)[0]


def linear(images):
    return images.reshape(len(images), -1) @ jnp.float32(KERNEL)


@pytest.fixture(scope="module")
def examples():
    images = jax.random.uniform(KEY, (8, 4, 4, 1), minval=0.3, maxval=0.7)
    seen = linear(images).argmax(axis=-1)
    return images, seen, attacks.draw_targets(jax.random.key(1), seen, 4)


def distances(images, found):
    return np.linalg.norm((np.float64(found) - np.float64(images)).reshape(len(images), -1), axis=1)


def smallest(images, seen):
    """The distance from each image to the nearest boundary of a linear classifier, far from the box."""
    logits, rows = np.asarray(images, np.float64).reshape(8, -1) @ KERNEL, np.arange(8)
    gaps = logits[rows, seen][:, None] - logits
    lengths = np.linalg.norm(KERNEL[:, np.asarray(seen)].T[:, None] - KERNEL.T, axis=-1)
    return np.divide(gaps, lengths, out=np.full((8, 4), np.inf), where=lengths > 0).min(axis=1)


def nearest_by_scipy(image, target):
    """The nearest point of the box that is of the target, by quadratic programming."""
    flat = np.float64(image).ravel()
    others = [{"type": "ineq", "fun": lambda x, k=k: x @ (KERNEL[:, target] - KERNEL[:, k])} for k in range(4)]
    found = scipy.optimize.minimize(
        lambda x: np.square(x - flat).sum(), flat, jac=lambda x: 2 * (x - flat), bounds=[(0, 1)] * 16,
        constraints=[other for k, other in enumerate(others) if k != target], method="SLSQP",
    )  # fmt: skip
    return np.sqrt(found.fun)


def test_deepfool_goes_to_the_nearest_boundary_of_a_linear_classifier(examples):
    images, seen, _ = examples
    found = jax.jit(lambda: deepfool(linear, images, seen))()
    assert (linear(found).argmax(axis=-1) != seen).all()
    np.testing.assert_allclose(distances(images, found), 1.02 * smallest(images, seen), rtol=1e-3)


def test_targeted_attacks_end_near_the_nearest_point_of_the_target(examples):
    images, _, targets = examples
    best = np.array([nearest_by_scipy(image, int(target)) for image, target in zip(images, targets, strict=True)])

    @jax.jit
    def attack():
        return (
            szegedy(linear, images, targets),  # cross-entropy heeds the other classes too: not quite the nearest point
            carlini_wagner(linear, images, targets, True, steps=200, learning_rate=0.03, constant=0.1),
            gradient_iteration(linear, images, targets, step_size=0.02),
        )

    for found, bound in zip(attack(), (1.1, 1.1, 1.5), strict=True):
        assert (linear(found).argmax(axis=-1) == targets).all()
        assert found.min() >= 0 and found.max() <= 1
        ratio = distances(images, found) / best
        assert ratio.min() > 0.999 and ratio.max() < bound


def test_between_two_classes_lbfgs_finds_the_nearest_point(examples):
    images = examples[0]
    kernel = jnp.float32(KERNEL[:, :2])
    targets = (images.reshape(8, -1) @ kernel).argmin(axis=-1)
    found = jax.jit(lambda: szegedy(lambda x: x.reshape(8, -1) @ kernel, images, targets, search_steps=14))()
    gaps = np.abs(np.asarray(images, np.float64).reshape(8, -1) @ (KERNEL[:, 0] - KERNEL[:, 1]))
    ratio = distances(images, found) / (gaps / np.linalg.norm(KERNEL[:, 0] - KERNEL[:, 1]))
    assert ratio.min() > 1 and ratio.max() < 1.02


def test_what_is_never_reached_stays_as_it_is():
    def stubborn(images):
        return jnp.broadcast_to(jnp.array([1.0, 0.0]), (len(images), 2)) + 0 * images.sum()

    images, targets = jnp.full((2, 2, 2, 1), 0.25), jnp.array([1, 1])
    np.testing.assert_array_equal(szegedy(stubborn, images, targets, steps=2, search_steps=2), images)
    np.testing.assert_array_equal(carlini_wagner(stubborn, images, targets, True, 2, 2), images)


def test_targets_are_all_other_classes():
    labels = jnp.arange(3000) % 3
    drawn = attacks.draw_targets(KEY, labels, 3)
    assert (drawn != labels).all()
    np.testing.assert_allclose(np.bincount((drawn - labels) % 3) / 3000, [0, 0.5, 0.5], atol=0.05)


def test_recipe_measures_each_method_and_applies_the_first(examples):
    images, _, targets = examples
    net, images = DigitClassifier(4, width=2, features=4), jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    methods = ("gradient_iteration", "deepfool")
    recipe = attacks.recipe(Network(net, (8, 8, 1)), methods, gradient_iteration=attacks.GradientIteration(steps=3))
    state = start({}, {}, frozen={"classifier": jax.jit(net.init)(KEY, images)})
    labels = net.apply(state.frozen["classifier"], images)[0].argmax(axis=-1)
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, {"image": images, "label": labels}, KEY))
    figures = recipe.score([({"label": np.asarray(labels)}, rows)])
    assert figures["accuracy"] == 1 and len(figures) == 1 + 2 * 3
    there = rows["deepfool/fooled"]
    assert figures["success/deepfool"] == pytest.approx(there.mean())
    assert there.any()
    assert figures["rms/deepfool"] == pytest.approx(rows["deepfool/norm"][there].mean() / 8)
    distance = np.linalg.norm((rows["deepfool/image"] - images).reshape(len(images), -1), axis=1)
    np.testing.assert_allclose(rows["deepfool/norm"], distance, rtol=1e-4, atol=1e-6)  # float32
    outputs = jax.tree.map(jnp.asarray, rows)
    shown = recipe.visualise(state, {"image": images, "label": labels}, KEY, outputs)
    assert list(shown) == ["adversarial/gradient_iteration", "adversarial/deepfool", "robustness"]
    found = recipe.predict(state, {"image": images, "label": targets}, KEY)
    moved = gradient_iteration(lambda x: net.apply(state.frozen["classifier"], x)[0], images, targets, steps=3)
    np.testing.assert_allclose(found["image"], moved, atol=1e-6)
    with pytest.raises(UserError, match=r"methods=\(\): name each method once, of szegedy"):
        attacks.recipe(Network(net, (8, 8, 1)), ())


@pytest.mark.parity
def test_deepfool_and_carlini_wagner_do_as_well_as_foolboxs():
    foolbox = pytest.importorskip("foolbox")
    test = data.arrays("digits", "test")
    images, labels = jnp.asarray(test["image"][:24]), jnp.asarray(test["label"][:24])
    targets = attacks.draw_targets(KEY, labels, 10)
    model = foolbox.JAXModel(jax.jit(judge_of(HELD)), bounds=(0, 1))
    few = dict(steps=40, binary_search_steps=1, stepsize=0.1, initial_const=3.0, abort_early=False)
    kinds = {
        "deepfool": (foolbox.attacks.L2DeepFoolAttack(steps=20), labels),
        "carlini_wagner": (
            foolbox.attacks.L2CarliniWagnerAttack(**few),
            foolbox.criteria.TargetedMisclassification(targets),
        ),
    }
    options = dict(steps=40, search_steps=1, learning_rate=0.1, constant=3.0)
    ours = jax.jit(
        lambda held: {
            "deepfool": deepfool(judge_of(held), images, labels, steps=20),
            "carlini_wagner": carlini_wagner(judge_of(held), images, targets, True, **options),
        }
    )(HELD)
    for name, (attack, criterion) in kinds.items():
        _, theirs, reached = attack(model, images, criterion, epsilons=None)
        seen = judge_of(HELD)(ours[name]).argmax(axis=-1)
        there = np.asarray(seen != labels if name == "deepfool" else seen == targets)
        reached = np.asarray(reached) & np.asarray(theirs).any(axis=(1, 2, 3))  # black images stand for failures
        assert abs(there.mean() - reached.mean()) < 0.05, name  # one image
        both = there & reached
        lengths = [np.median(distances(images, some)[both]) for some in (ours[name], theirs)]
        assert abs(lengths[0] / lengths[1] - 1) < 0.03, (name, lengths)
