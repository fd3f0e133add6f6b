"""The recipe on a classifier whose right map is known: the sum of a digit's own pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from cvjax.core import Network, start
from cvjax.errors import UserError
from cvjax.interpret import attribution, maps
from cvjax.interpret.attribution import Questions
from cvjax.nets.digit_classifier import DigitClassifier

KEY = jax.random.key(0)


class Colours(nn.Module):
    """Tells red from green from blue by how much of each there is: a map's truth is where the colour is."""

    capture: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, images):
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3))
        features = nn.relu(images @ kernel)
        return 20 * features.mean((1, 2)), {"features": features}


@pytest.fixture(scope="module")
def scenes():
    """A red and a green square in one image, and one of two squares of a colour, which is not asked about."""
    images = np.full((2, 8, 12, 3), 0.02, np.float32)
    images[:, 1:4, 1:5, 0], images[:, 4:7, 7:11, 1] = 0.9, 0.8
    boxes = np.float32([[[1, 1, 5, 4], [7, 4, 11, 7]]] * 2)
    labels = np.int32([[0, 1], [1, 1]])
    return {"image": images, "boxes": boxes, "labels": labels, "mask": np.ones((2, 2), bool)}


@pytest.fixture(scope="module")
def system():
    recipe = attribution.recipe(
        Network(Colours(), (8, 12, 3), ("red", "green", "blue")), ("gradcam", "saliency"), points=8
    )
    held, random = ({"params": {"kernel": kernel}} for kernel in (jnp.eye(3), jnp.eye(3)[::-1] - 0.5))
    return recipe, start({}, {}, frozen={"classifier": held}, extra={"random": random})


def figures(recipe, state, batch):
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    assert all(len(row) == len(batch["image"]) for row in rows.values())
    return recipe.score([(batch, rows)])


def test_maps_of_two_objects_point_at_the_one_that_is_asked_for(system, scenes):
    found = figures(*system, scenes)
    assert found["questions"] == 2 and found["pointing/gradcam"] == found["pointing_exactly/gradcam"] == 1
    assert found["mass/gradcam"] > 0.8 and found["mass/saliency"] == pytest.approx(12 / 96, abs=1e-5)  # even
    assert found["deletion/gradcam"] < min(found["deletion/random"], found["deletion/edges"])
    gain = min(found["deletion/random"], found["deletion/edges"]) - found["deletion/gradcam"]
    assert found["deletion_gain/gradcam"] == pytest.approx(gain) and gain > 0.05
    gain = found["insertion/gradcam"] - max(found["insertion/random"], found["insertion/edges"])
    assert found["insertion_gain/gradcam"] == pytest.approx(gain) and gain > 0


def test_the_pointing_game_may_miss_by_a_share_of_the_longer_side(system, scenes):
    _, state = system
    boxes = scenes["boxes"].copy()
    boxes[0, 0] = [6, 1, 9, 4]  # beside the red square, whose highest pixel is its first: x = 1
    network = Network(Colours(), (8, 12, 3))
    for tolerance, expected in ((0.3, 0.5), (0.5, 1)):
        recipe = attribution.recipe(network, ("gradcam",), points=1, tolerance=tolerance)
        found = figures(recipe, state, scenes | {"boxes": boxes})
        assert found["pointing/gradcam"] == expected and found["pointing_exactly/gradcam"] == 0.5


def test_maps_are_compared_with_those_of_random_weights_as_scipy_does():
    images = np.asarray(jax.random.uniform(jax.random.key(1), (2, 8, 12, 3)))
    kernels = np.asarray(jax.random.normal(jax.random.key(2), (2, 3, 3))) + np.float32(0.2)
    held, random = ({"params": {"kernel": kernel}} for kernel in kernels)
    state, labels = start({}, {}, frozen={"classifier": held}, extra={"random": random}), np.int32([2, 0])
    recipe = attribution.recipe(Network(Colours(), (8, 12, 3)), ("gradcam", "input_x_gradient"), points=1)
    found = figures(recipe, state, {"image": images, "label": labels})
    expected = {"gradcam": [], "input_x_gradient": []}
    for image, label in zip(images, labels, strict=True):
        # The logit is 20 times the mean of max(0, image @ kernel[:, label]).
        weights = kernels[:, None, None, :, label]
        active = np.maximum((image * weights).sum(-1), 0)
        pairs = {"gradcam": active, "input_x_gradient": np.abs(image * weights).max(-1) * (active > 0)}
        for method, (before, after) in pairs.items():
            expected[method].append(spearmanr(before.ravel(), after.ravel()).statistic)
    for method, values in expected.items():
        assert 0.05 < abs(np.mean(values)) < 0.95  # neither the same map nor an unrelated one
        assert found[f"randomised_correlation/{method}"] == pytest.approx(np.mean(values), abs=1e-4)  # float32
        # Summed over channels, input times gradient is what Grad-CAM shows here.
        signed = found[f"signed_randomised_correlation/{method}"]
        assert signed == pytest.approx(np.mean(expected["gradcam"]), abs=1e-4)


def test_methods_and_the_random_control_have_noise_of_their_own(system, scenes, monkeypatch):
    noise = lambda key, classifier, images, labels, **options: jax.random.uniform(key, images.shape[:3])  # noqa: E731
    for method in ("smoothgrad", "integrated"):
        monkeypatch.setitem(maps.METHODS, method, noise)
    recipe = attribution.recipe(Network(Colours(), (8, 12, 3)), ("smoothgrad", "integrated"), points=4)
    found = figures(recipe, system[1], scenes)
    assert len({found[f"deletion/{name}"] for name in ("smoothgrad", "integrated", "random")}) == 3


def test_labelled_images_are_asked_for_their_label(system, scenes):
    recipe, state = system
    batch = {"image": scenes["image"], "label": np.int32([1, -1])}
    found = figures(recipe, state, batch)
    assert found["questions"] == 1 and "pointing/gradcam" not in found
    probability = jax.nn.softmax(Colours().apply(state.frozen["classifier"], scenes["image"])[0])[0, 1]
    assert found["asked_probability"] == pytest.approx(float(probability), abs=1e-6)
    unnamed = attribution.recipe(Network(Colours(), (8, 12, 3)))
    for wrong in ({"label": np.int32([7, 0])}, {**scenes, "labels": np.int32([[0, 7], [1, 1]])}):
        for each in (recipe, unnamed):
            with pytest.raises(UserError, match="The label of an image is 7; there are 3 classes"):
                each.score([({"image": batch["image"], **wrong}, {"counted": np.ones((2, 1), bool)})])
    with pytest.raises(UserError, match="no image can be asked about"):
        recipe.score([(batch | {"label": np.int32([0, 0])}, {"counted": np.zeros((2, 1), bool)})])


def test_questions_leave_out_scenes_of_one_object_or_of_one_class(scenes):
    alone = scenes | {"mask": np.array([[True, False], [True, True]])}
    assert Questions.of(scenes).counted.tolist() == [True, True, False, False]
    assert not Questions.of(alone).counted.any()
    assert Questions.of(scenes).labels.tolist() == [0, 1, 1, 1]


def test_pictures_and_predictions(system, scenes):
    recipe, state = system
    assert recipe.visualise(state, scenes, KEY)["attributions"].ndim == 3
    found = recipe.predict(state, {"image": scenes["image"], "label": np.int32([1, 1])}, KEY)
    assert np.unravel_index(found["map"][0, ..., 0].argmax(), (8, 12))[1] >= 7 and found["map"].max() == 1
    assert found["image"].shape == (2, 8, 12, 3) and found["label"].tolist() == [1, 1]
    assert recipe.predict(state, {"image": scenes["image"]}, KEY)["label"].tolist() == [0, 0]


def test_predictions_compute_the_first_method_alone(system, scenes, monkeypatch):
    recipe = attribution.recipe(Network(Colours(), (8, 12, 3)), ("saliency", "gradcam"))
    monkeypatch.delitem(maps.METHODS, "gradcam")
    assert recipe.predict(system[1], {"image": scenes["image"]}, KEY)["map"].shape == (2, 8, 12, 1)
    with pytest.raises(UserError, match="there is no method 'gradcam'"):
        recipe.visualise(system[1], scenes, KEY)


def test_what_cannot_be_explained_is_refused_before_anything_compiles(scenes):
    network = Network(DigitClassifier(width=2, features=3), (8, 8, 1))
    init = lambda batch, **options: jax.eval_shape(attribution.recipe(network, **options).init, KEY, batch)  # noqa: E731
    images = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(UserError, match=r"classifier was trained on \(8, 8, 1\) and takes no other size"):
        init({"image": np.zeros((1, 12, 8, 1), np.float32), "label": np.zeros(1, np.int32)})
    with pytest.raises(UserError, match="neither a class nor 2 boxes"):
        init({"image": images})
    with pytest.raises(UserError, match="DigitClassifier has no layer 'c4'"):
        init({"image": images, "label": np.zeros(1, np.int32)}, layer="c4")
    with pytest.raises(UserError, match="methods is empty"):
        attribution.recipe(network, ())
    wide = Network(Colours(), (4, 4, 3))
    jax.eval_shape(attribution.recipe(wide).init, KEY, scenes)  # takes any size
