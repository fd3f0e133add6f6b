"""The fast gradient sign method on a linear classifier, whose gradient is known in closed form, and beside foolbox."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cvjax import data
from cvjax.attacks import fgsm as attacks
from cvjax.attacks.fgsm import fgsm, random_sign
from cvjax.core import Network, start
from cvjax.errors import UserError
from cvjax.metrics import plots
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.recognition.image_classifier import ResNetClassifier

KEY = jax.random.key(0)
EPSILONS = (0.05, 0.2)


class Linear(nn.Module):
    """Softmax regression."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10, name="logits")(images.reshape(len(images), -1))


@pytest.fixture(scope="module")
def digits():
    train, test = (data.arrays("digits", split) for split in ("train", "test"))
    fitted = LogisticRegression(max_iter=200).fit(train["image"].reshape(-1, 64), train["label"])
    layer = {"kernel": jnp.float32(fitted.coef_.T), "bias": jnp.float32(fitted.intercept_)}
    batch = {"image": jnp.asarray(test["image"]), "label": jnp.asarray(test["label"])}
    return fitted, {"params": {"logits": layer}}, batch


def by_hand(fitted, images, labels, epsilon):
    """The attack on a softmax regression in NumPy: the gradient is W (p - y)."""
    flat = np.asarray(images).reshape(-1, 64)
    gradient = (fitted.predict_proba(flat) - np.eye(10)[labels]) @ fitted.coef_
    return np.clip(flat + epsilon * np.sign(gradient), 0, 1).reshape(images.shape)


def logits_of(held):
    return lambda images: Linear().apply(held, images)


def test_the_step_follows_the_gradient_of_a_softmax_regression(digits):
    fitted, held, batch = digits
    for epsilon in EPSILONS:
        found = fgsm(logits_of(held), batch["image"], batch["label"], epsilon)
        np.testing.assert_allclose(found, by_hand(fitted, batch["image"], batch["label"], epsilon), atol=1e-6)


def test_a_target_is_approached_by_the_opposite_step(digits):
    _, held, batch = digits
    images, target = jnp.clip(batch["image"], 0.2, 0.8), jnp.full(500, 3)
    away, towards = (fgsm(logits_of(held), images, target, 0.1, targeted) - images for targeted in (False, True))
    np.testing.assert_allclose(towards, -away, atol=1e-6)
    before, after = (jax.nn.log_softmax(logits_of(held)(x))[:, 3] for x in (images, images + towards))
    assert (after > before).all()


def test_images_stay_in_the_ball_and_in_the_box(digits):
    _, held, batch = digits
    for lower, upper in ((0.0, 1.0), (-1.0, 1.0)):
        images = jax.random.uniform(KEY, (20, 8, 8, 1), minval=lower, maxval=upper).at[:, :2].set(upper)
        for found in (
            fgsm(logits_of(held), images, batch["label"][:20], 0.3, lower=lower, upper=upper),
            random_sign(jax.random.key(1), images, 0.3, lower, upper),
        ):
            assert np.abs(found - images).max() <= 0.3 + 1e-6
            assert lower <= found.min() < lower + 0.01 and found.max() == upper


def test_compiled_and_mapped_over_epsilons(digits):
    _, held, batch = digits
    images, labels = batch["image"][:8], batch["label"][:8]
    mapped = jax.jit(jax.vmap(lambda epsilon: fgsm(logits_of(held), images, labels, epsilon)))(jnp.array(EPSILONS))
    alone = jnp.stack([fgsm(logits_of(held), images, labels, epsilon) for epsilon in EPSILONS])
    np.testing.assert_allclose(mapped, alone, atol=1e-6)


def test_gradients_pass_the_step_as_if_it_were_constant(digits):
    """Adversarial training needs them to be finite, and to cost no second derivative."""
    _, held, batch = digits
    images, labels = batch["image"][:8], batch["label"][:8]
    gradient = jax.grad(lambda x: fgsm(logits_of(held), x, labels, 0.1).sum())(jnp.clip(images, 0.2, 0.8))
    np.testing.assert_array_equal(gradient, 1)
    parameters = jax.grad(lambda p: fgsm(logits_of(p), images, labels, 0.1).sum())(held)
    assert all(not leaf.any() for leaf in jax.tree.leaves(parameters))


def test_random_signs_are_of_both_kinds_and_of_full_length():
    images = jnp.full((10, 8, 8, 1), 0.5)
    change = random_sign(KEY, images, 0.1) - images
    np.testing.assert_allclose(jnp.abs(change), 0.1, atol=1e-6)
    assert abs(float(change.mean())) < 0.02  # of 640 signs
    assert (random_sign(jax.random.key(1), images, 0.1) - images != change).any()


@pytest.fixture(scope="module")
def system(digits):
    _, held, _ = digits
    recipe = attacks.recipe(Network(Linear(), (8, 8, 1), tuple("abcdefghij")), EPSILONS)
    return recipe, start({}, {}, frozen={"classifier": held})


def test_figures_are_those_of_the_attack_by_hand(digits, system):
    (fitted, _, batch), (recipe, state) = digits, system
    parts = [{name: value[some] for name, value in batch.items()} for some in (slice(0, 300), slice(300, None))]
    eval_step = jax.jit(recipe.eval_step)
    found = recipe.score([(part, jax.device_get(eval_step(state, part, KEY))) for part in parts])
    flat, labels = np.asarray(batch["image"]).reshape(-1, 64), np.asarray(batch["label"])
    assert set(found) == {
        "accuracy",
        *(f"{kind}_accuracy_{size}" for kind in ("robust", "random_sign") for size in ("0_05", "0_2")),
    }
    assert found["accuracy"] == pytest.approx(fitted.score(flat, labels))
    for epsilon, size in zip(EPSILONS, ("0_05", "0_2"), strict=True):
        attacked = by_hand(fitted, batch["image"], labels, epsilon).reshape(-1, 64)
        assert found[f"robust_accuracy_{size}"] == pytest.approx(fitted.score(attacked, labels), abs=0.004)  # two ties
        assert found[f"random_sign_accuracy_{size}"] > found[f"robust_accuracy_{size}"] + 0.05


def test_labels_of_another_dataset_are_refused(system):
    row = {name: np.zeros((1, 2), bool) for name in ("adversarial", "random_sign")} | {"clean": np.zeros(1, bool)}
    with pytest.raises(UserError, match=r"label of an image is 12; there are 10 classes, 0 to 9"):
        system[0].score([({"label": np.array([12])}, row)])


def test_nothing_is_trained_and_the_classifier_is_frozen(system):
    recipe, state = system
    first = jax.eval_shape(recipe.init, KEY, {"image": jnp.zeros((2, 8, 8, 1))})
    assert recipe.train_step is None and not first.params and not first.opt
    assert jax.tree.structure(first) == jax.tree.structure(state)
    with pytest.raises(UserError, match=r"\(9, 8, 1\), but the classifier was trained on \(8, 8, 1\)"):
        recipe.init(KEY, {"image": jnp.zeros((2, 9, 8, 1))})


def test_predictions_are_attacked_away_from_the_label_that_is_given_or_found(digits, system):
    (_, held, batch), (recipe, state) = digits, system
    images, labels = batch["image"][:20], (batch["label"][:20] + 1) % 10
    seen = logits_of(held)(images).argmax(axis=-1)
    for inputs, away in (({"image": images}, seen), ({"image": images, "label": labels}, labels)):
        found = recipe.predict(state, inputs, KEY)
        np.testing.assert_allclose(found["image"], fgsm(logits_of(held), images, away, 0.2), atol=1e-6)
        np.testing.assert_array_equal(found["clean_label"], seen)
        probabilities = jax.nn.softmax(logits_of(held)(found["image"]))
        np.testing.assert_array_equal(found["label"], probabilities.argmax(axis=-1))
        np.testing.assert_allclose(found["probability"], probabilities.max(axis=-1), rtol=1e-5)
    assert recipe.predict_inputs == ("label",)


def test_pictures_have_a_row_each_for_images_changes_and_what_they_become(digits, system, monkeypatch):
    (_, held, batch), (recipe, state) = digits, system
    drawn = []
    monkeypatch.setattr(plots, "draw_gallery", lambda *arguments: drawn.append(arguments) or np.ones((2, 2, 3)))
    assert list(recipe.visualise(state, batch, KEY)) == ["adversarial_0_05", "adversarial_0_2"]
    for epsilon, (images, captions, columns, wrong) in zip(EPSILONS, drawn, strict=True):
        clean, change, adversarial = images.reshape(3, 10, 8, 8, 1)
        np.testing.assert_array_equal(clean, batch["image"][:10])
        found = fgsm(logits_of(held), batch["image"][:10], batch["label"][:10], epsilon)
        np.testing.assert_allclose(adversarial, found, atol=1e-6)
        np.testing.assert_allclose(clean + (change - 0.5) * 2 * epsilon, adversarial, atol=1e-6)
        guesses = logits_of(held)(found).argmax(axis=-1)
        assert columns == 10 and [caption[:1] for caption in captions[20:]] == ["abcdefghij"[i] for i in guesses]
        assert captions[10:20] == [""] * 10
        np.testing.assert_array_equal(wrong[20:], guesses != batch["label"][:10])


def test_a_network_that_returns_activations_and_has_statistics_is_attacked_as_well():
    module = ResNetClassifier(10, depth=18, width=4, stem="small", strides=(2,))
    recipe = attacks.recipe(Network(module, (8, 8, 3)))
    batch = {"image": jnp.zeros((2, 8, 8, 3)), "label": jnp.zeros(2, jnp.int32)}
    state = jax.eval_shape(recipe.init, KEY, batch)
    assert set(state.frozen["classifier"]) == {"params", "batch_stats"}
    rows = jax.eval_shape(recipe.eval_step, state, batch, KEY)
    assert {name: value.shape for name, value in rows.items()} == {
        "clean": (2,),
        "adversarial": (2, 2),
        "random_sign": (2, 2),
    }


@pytest.mark.parity
@pytest.mark.parametrize("targeted", [False, True])
def test_the_attack_on_a_convolutional_network_is_foolboxs(targeted):
    foolbox = pytest.importorskip("foolbox")
    net, rng = DigitClassifier(width=4), np.random.default_rng(0)
    images = jnp.float32(rng.uniform(size=(16, 8, 8, 1)))
    held, labels = net.init(KEY, images), jnp.asarray(rng.integers(10, size=16))
    criterion = foolbox.criteria.TargetedMisclassification(labels) if targeted else labels
    model = foolbox.JAXModel(lambda x: net.apply(held, x)[0], bounds=(0, 1))
    one_step = dict(rel_stepsize=1.0, steps=1, random_start=False)  # its fast attack takes no targets
    attack = foolbox.attacks.LinfPGD(**one_step) if targeted else foolbox.attacks.FGSM()
    _, expected, _ = attack(model, images, criterion, epsilons=0.1)
    found = fgsm(lambda x: net.apply(held, x)[0], images, labels, 0.1, targeted)
    np.testing.assert_allclose(found, expected, atol=1e-6)
