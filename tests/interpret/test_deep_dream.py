"""Dreams: their steps beside torch, their octaves by hand, their zoom beside SciPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.interpret import deep_dream
from cvjax.interpret.deep_dream import Octaves, ascend, dream

KEY = jax.random.key(0)
KERNEL = jax.random.normal(KEY, (3, 3, 3, 4))


class Small(nn.Module):
    """A convolution and a ReLU."""

    @nn.compact
    def __call__(self, images):
        found = nn.relu(nn.Conv(4, (3, 3), padding=1, name="conv")(images - 0.5))
        return found, {"relu": found}


def energy_fn(images):
    found = jax.lax.conv_general_dilated(
        images - 0.5, KERNEL, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return deep_dream.energy({"relu": jax.nn.relu(found)})


def test_energy_is_the_mean_square_averaged_over_layers():
    one, two = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    expected = ((one**2).mean((1, 2, 3)) + (two**2).mean((1, 2, 3))) / 2
    found = deep_dream.energy({"one": jnp.asarray(one), "two": jnp.asarray(two)})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_octaves_grow_to_the_size_of_the_picture():
    assert Octaves(count=4, scale=1.4).sizes(64, 96) == [(23, 35), (33, 49), (46, 69), (64, 96)]
    assert Octaves(count=9, scale=2.0).sizes(40, 70) == [(20, 35), (40, 70)]
    assert Octaves().sizes(8, 8) == [(8, 8)]


@pytest.mark.parity
def test_steps_equal_torchs():
    torch = pytest.importorskip("torch")
    images = jax.random.uniform(KEY, (2, 10, 9, 3))
    found = jax.jit(lambda images: ascend(KEY, energy_fn, images, 5, 0.01, 0))(images)
    x, weight = torch.tensor(np.asarray(images)), torch.tensor(np.asarray(KERNEL)).permute(3, 2, 0, 1)
    for _ in range(5):
        x.requires_grad_()
        units = torch.relu(torch.nn.functional.conv2d((x - 0.5).permute(0, 3, 1, 2), weight))
        (gradient,) = torch.autograd.grad(units.pow(2).mean((1, 2, 3)).sum(), x)
        x = (x + 0.01 * gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).detach().clamp(0, 1)
    np.testing.assert_allclose(found, x, atol=1e-5)  # five steps of float32


def test_detail_of_an_octave_is_enlarged_into_the_next():
    images, octaves = jax.random.uniform(KEY, (1, 32, 40, 3)), Octaves(count=2, scale=2.0, steps=3, jitter=2)
    small = jax.image.resize(images, (1, 16, 20, 3), "linear")
    keys = jax.random.split(KEY, 2)
    rules = (energy_fn, 3, octaves.step_size, 2)
    detail = ascend(keys[0], rules[0], small, *rules[1:]) - small
    begun = jnp.clip(images + jax.image.resize(detail, images.shape, "linear"), 0, 1)
    expected = ascend(keys[1], rules[0], begun, *rules[1:])
    found = jax.jit(lambda images: dream(KEY, energy_fn, images, octaves))(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # gradients of float32, scaled to one size
    assert (energy_fn(found) > energy_fn(images)).all() and found.min() >= 0 and found.max() <= 1


def test_zoom_equals_scipys_and_a_factor_of_one_changes_nothing():
    images = jax.random.uniform(KEY, (1, 12, 10, 1))
    np.testing.assert_allclose(deep_dream.zoom(images, 1.0), images, atol=1e-6)
    found = np.asarray(deep_dream.zoom(images, 1.25))[0, ..., 0]
    places = [(np.arange(size) + 0.5 - size / 2) / 1.25 + size / 2 - 0.5 for size in (12, 10)]
    grid = np.meshgrid(*places, indexing="ij")
    expected = scipy.ndimage.map_coordinates(np.asarray(images)[0, ..., 0], grid, order=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_dream_raises_the_energy_and_noise_of_its_size_does_not_as_much():
    recipe = deep_dream.recipe(Network(Small(), (16, 16, 3)), ("relu",), Octaves(count=1, jitter=2))
    images = jax.image.resize(jax.random.uniform(KEY, (2, 4, 4, 3)), (2, 16, 16, 3), "linear")
    state = jax.jit(recipe.init)(KEY, {"image": images})
    found = recipe.score([({}, jax.device_get(jax.jit(recipe.eval_step)(state, {"image": images}, KEY)))])
    assert found["energy_gain"] > 1.5 and found["energy_gain"] > found["noise_energy_gain"]
    assert found["rms_change"] > 0
    assert recipe.train_step is None and set(state.frozen) == {"net"}


def test_a_dead_layer_gains_nothing():
    recipe = deep_dream.recipe(Network(Small(), (16, 16, 3)), ("relu",), Octaves(count=1, steps=1))
    images = jnp.full((2, 16, 16, 3), 0.5)
    state = jax.tree.map(jnp.zeros_like, recipe.init(KEY, {"image": images}))
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, {"image": images}, KEY))
    assert recipe.score([({}, rows)]) == {"energy_gain": 1, "noise_energy_gain": 1, "rms_change": 0}


class Dense(nn.Module):
    """A layer of pixels."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(len(images), -1))


def test_octaves_of_a_network_that_takes_one_size_are_refused():
    net, batch = Network(Dense(), (32, 32, 3)), {"image": jnp.zeros((1, 32, 32, 3))}
    jax.eval_shape(deep_dream.recipe(net, ("output",), Octaves(count=1)).init, KEY, batch)
    with pytest.raises(UserError, match=r"are \(16, 16, 3\), but .*: set config\.recipe\.octaves\.count to 1"):
        deep_dream.recipe(net, ("output",), Octaves(count=2, scale=2.0)).init(KEY, batch)
