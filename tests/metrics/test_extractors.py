"""Features of images by name, chunk by chunk; Inception's with random weights, whose arithmetic its own test checks."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from cvjax import data
from cvjax.errors import UserError
from cvjax.metrics import digits, extractors, generative, neighbours
from cvjax.nets.inception import InceptionV3
from cvjax.weights import networks


def test_digits_are_the_frozen_classifiers():
    images = data.arrays("digits", "test")["image"][:40]
    for ours, expected in zip(extractors.make("digits")(images), digits.features(images), strict=True):
        np.testing.assert_array_equal(ours, expected)
    with pytest.raises(UserError, match=r"8 x 8 grey images, not of \(16, 16, 1\)"):
        extractors.make("digits")(np.zeros((2, 16, 16, 1), np.float32))


def test_pixels_are_thumbnails():
    images = np.random.default_rng(0).random((3, 16, 24, 3), np.float32)
    features, probabilities = extractors.make("pixels")(images)
    np.testing.assert_array_equal(features, generative.thumbnails(images))
    assert probabilities is None


def test_other_names_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"Did you mean 'pixels'\?.*\.safetensors"):
        extractors.make("pixel")
    with pytest.raises(UserError, match=r"weights\.pth: No such file"):
        extractors.make(str(tmp_path / "weights.pth"))
    (tmp_path / "weights.PTH").write_bytes(b"nothing")
    with pytest.raises(UserError, match="neither"):
        extractors.make(str(tmp_path / "weights.PTH"))


def random_inception(rng):
    """Variables that keep an image's contrast through the network, with a bias of the logits."""
    shapes = jax.eval_shape(InceptionV3("fid").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables = {}
    for path, leaf in flax.traverse_util.flatten_dict(shapes).items():
        if path[-1] == "kernel":
            value = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-2] == "fc":
            value = rng.normal(size=leaf.shape)
        else:
            value = np.full(leaf.shape, path[-1] in ("scale", "var"))
        variables[path] = value.astype(np.float32)
    return flax.traverse_util.unflatten_dict(variables)


def test_inception_rounds_to_bytes_and_takes_any_number_of_images(monkeypatch):
    rng = np.random.default_rng(1)
    weights, asked = random_inception(rng), []
    monkeypatch.setattr(networks, "load", lambda *arguments: asked.append(arguments) or weights)
    monkeypatch.setattr(extractors, "CHUNK", 2)
    extract = extractors.make("weights.pth")
    assert asked == [("weights.pth", InceptionV3("fid"))]
    images = rng.integers(256, size=(3, 9, 12, 3)).astype(np.float32) / 255
    features, probabilities = extract(images)
    assert features.shape == (3, 2048) and probabilities.shape == (3, 1008) and features.dtype == np.float64
    assert np.std(features, axis=0).max() > 1e-3 * features.max()  # they are of the images
    blurred = images + rng.uniform(-0.4, 0.4, images.shape).astype(np.float32) / 255  # less than half a level
    again, _ = extract(np.clip(blurred, 0, None)[1:])
    np.testing.assert_allclose(again, features[1:], atol=1e-5 * features.max())  # float32, other neighbours
    kernel = weights["params"]["fc"]["kernel"].astype(np.float64)
    expected = scipy.special.softmax(features @ kernel, axis=1)  # without the bias
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3)


def test_features_are_gathered_in_order():
    images = data.arrays("digits", "test")["image"][:70]
    features, probabilities = extractors.gather((images[start : start + 30] for start in (0, 30, 60)), digits.features)
    expected = digits.features(images)
    np.testing.assert_allclose(features, expected[0], atol=1e-5)  # float32 sums
    np.testing.assert_allclose(probabilities, expected[1], atol=1e-5)
    assert extractors.gather([np.zeros((2, 8, 8, 1), np.float32)] * 2, extractors.make("pixels"))[1] is None


def test_evaluate_gives_each_measure():
    rng = np.random.default_rng(2)
    x, y, p = rng.normal(size=(50, 4)), 0.5 + rng.normal(size=(40, 4)), rng.dirichlet(np.ones(5), size=50)
    figures = extractors.evaluate(x, y, p)
    assert figures == {
        "fid": generative.fid(x, y),
        "kid": generative.kernel_distance(x, y),
        "precision": neighbours.precision_recall(x, y)[0],
        "recall": neighbours.precision_recall(x, y)[1],
        "inception_score": generative.inception_score(p)[0],
    }
    del figures["inception_score"]
    assert extractors.evaluate(x, y) == figures
    assert extractors.evaluate(x[:5], y, p[:5])["inception_score"] == pytest.approx(1.0)  # an image a split
