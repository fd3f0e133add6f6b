"""Images made ready for the network, and detections brought back from its image to the user's."""

import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Recipe, State
from cvjax.errors import UserError
from cvjax.predictor import Predictor


def test_detections_in_the_margin_of_a_letterbox_are_dropped():
    """An image of 64 x 32 in a network of 64 x 64 has 16 black rows above and below."""
    boxes = [[10, 2, 30, 12], [10, 20, 30, 30], [10, 50, 30, 60], [10, 8, 30, 20], [0, 0, 0, 0]]
    found = {
        "boxes": jnp.array([boxes], jnp.float32),
        "scores": jnp.array([[0.9, 0.8, 0.7, 0.6, 0.0]]),
        "labels": jnp.array([[0, 1, 0, 1, 0]]),
        "detected": jnp.array([[True, True, True, True, False]]),
    }
    recipe = Recipe({}, *[print] * 5, predict=lambda state, inputs, key: found)
    description = {"config": {"data": {"eval_transforms": [], "max_boxes": 4}, "recipe": {"classes": ["a", "b"]}}}
    description |= {"batch": {"image": [[1, 64, 64, 3], "float32"]}}
    predictor = Predictor(description, recipe, State(jnp.int32(0), {}, {}), batch=1)
    [(_, back)] = predictor([predictor.prepare(np.zeros((32, 64, 3), np.float32))])
    np.testing.assert_allclose(back["boxes"], [[10, 4, 30, 14], [10, 0, 30, 4]], atol=1e-4)
    np.testing.assert_allclose(back["scores"], [0.8, 0.6])
    assert back["labels"].tolist() == [1, 1] and "detected" not in back


def test_the_deviation_of_noise_is_refused_where_resizing_would_change_it():
    description = {"config": {"data": {"eval_transforms": []}, "recipe": {}}, "batch": {"image": [[1, 8, 8, 1], "f"]}}
    made = Recipe({}, *[print] * 5), State(jnp.int32(0), {}, {})
    predictor = Predictor(description, *made, batch=1, inputs={"noise": np.float32(0.1)})
    assert predictor.prepare(np.zeros((8, 8, 1), np.float32)).image.shape == (8, 8, 1)
    with pytest.raises(UserError, match=r"from 16 x 8 to the network's 8 x 8 pixels .* --noise would be wrong"):
        predictor.prepare(np.zeros((16, 8, 1), np.float32))
    Predictor(description, *made, batch=1).prepare(np.zeros((16, 8, 1), np.float32))


def test_a_system_that_takes_any_size_gets_pictures_as_they_are_one_by_one():
    seen = []
    predict = lambda state, inputs, key: seen.append(inputs["image"]) or {"image": inputs["image"]}  # noqa: E731
    recipe = Recipe({}, *[print] * 5, predict=predict, any_size=True)
    crop = [{"op": "center_crop", "size": 8}]
    description = {"config": {"data": {"eval_transforms": crop}, "recipe": {}}}
    description |= {"batch": {"image": [[4, 8, 8, 1], "float32"]}}
    predictor = Predictor(description, recipe, State(jnp.int32(0), {}, {}), batch=4)
    pictures = [np.random.default_rng(0).random(shape, np.float32) for shape in ((9, 7, 1), (20, 30, 3))]
    outputs = [found["image"] for _, found in predictor(map(predictor.prepare, pictures))]
    assert [image.shape for image in seen] == [(1, 9, 7, 1), (1, 20, 30, 1)]  # the network's are grey
    np.testing.assert_array_equal(outputs[0], pictures[0])
