"""Samples before a judge: how many, of which classes, of which networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cvjax import data, judging, sharding
from cvjax.core import Recipe, start, variables
from cvjax.errors import UserError
from cvjax.metrics import digits, judges
from cvjax.metrics.judges import Judge

MESH = sharding.make_mesh({"data": 1}, jax.devices()[:1])


class Examples(data.Data):
    """Ten examples in two batches, the last padded."""

    def __init__(self):
        pass

    def evaluate(self):
        for offset, valid in ((0, 6), (6, 4)):
            images = np.full((6, 2, 2, 1), 0.5, np.float32)
            yield {"image": images, "label": (offset + np.arange(6)) % 10, "valid": np.arange(6) < valid}


def sample(state, key, inputs):
    """Images as bright as the generator's parameter, the first pixel saying the class."""
    images = jnp.full((inputs["count"], 2, 2, 1), variables(state, "generator")["params"]["w"])
    return {"image": images.at[:, 0, 0, 0].set(jnp.asarray(inputs.get("label", 0)))}


def judged(averaged=(), inputs=("label",), count=600, distance="fid"):
    seen = []

    def measure(samples, real, labels):
        seen.append((samples, real, labels))
        return {distance: float(samples[0, 1, 1, 0])}

    recipe = Recipe({}, *[print] * 5, sample=sample, sample_inputs=inputs)
    state = start({"generator": {"params": {"w": jnp.float32(3.0)}}}, {}, averaged)
    if averaged:
        state = state.replace(average={"generator": {"params": {"w": jnp.float32(1.5)}}})
    config = ConfigDict({"seed": 0, "judge_samples": count})
    return judging.judge_samples(Judge(measure, distance=distance), recipe, state, Examples(), MESH, config), seen


def test_as_many_samples_as_asked_for_of_the_classes_of_the_evaluation_split():
    figures, [(samples, real, labels)] = judged()
    assert figures == {"fid": 3.0} and len(real) == 10  # padding is no image
    np.testing.assert_array_equal(labels, np.resize(np.arange(10), 600))
    np.testing.assert_array_equal(samples[:, 0, 0, 0], labels)
    _, [(samples, _, labels)] = judged(inputs=(), count=5)
    assert labels is None and len(samples) == 5


def test_latest_networks_are_judged_beside_the_average():
    figures, seen = judged(averaged=("generator",))
    assert figures == {"fid": 1.5, "raw_fid": 3.0, "fid_over_raw": 0.5} and len(seen) == 2
    figures, _ = judged(averaged=("generator",), distance="far")
    assert figures == {"far": 1.5, "raw_far": 3.0, "far_over_raw": 0.5}


def test_digits_are_judged_by_the_frozen_classifier_and_only_digits():
    real = digits._test_digits()
    figures = judges.make("digits").measure(real, real, np.arange(500) % 10)
    assert figures["fid"] < 1e-6 and figures["recall"] == 1 and figures["classes_seen"] == 10
    assert figures["class_accuracy"] < 0.3 and 0.9 < figures["sure_share"] <= 1
    with pytest.raises(UserError, match=r'judge="digits" measures 8 x 8 grey images, not \(8, 8, 3\)'):
        judges.make("digits").measure(np.zeros((4, 8, 8, 3), np.float32), np.zeros((4, 8, 8, 3), np.float32), None)
    drawn = judges.make("digits").draw(real[:3])["nearest"]
    np.testing.assert_array_equal(drawn[::2], real[:3])


def test_pixels_judge_any_images_beside_noise():
    images = np.random.default_rng(0).uniform(size=(200, 12, 12, 3)).astype(np.float32) ** 3
    figures = judges.make("pixels").measure(images[:100], images[100:], None)
    assert figures["fid"] < figures["fid"] / figures["fid_over_noise"] and set(figures) >= {
        "kid",
        "precision",
        "recall",
    }
