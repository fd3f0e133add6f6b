"""Layers of networks by name: by `capture`, by what is returned, by module, and the output itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.capture import activations_of
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.nets.resnet import ResNet
from cvjax.nets.vgg import VGG

KEY = jax.random.key(0)


class Inner(nn.Module):
    """A module with a module inside."""

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(3, name="dense")(x))


class Plain(nn.Module):
    """A network without `capture`, whose module "twice" is not what it returns by that name."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(2, (3, 3), name="first")(images)
        x = nn.Dense(2, name="twice")(Inner(name="inside")(x))
        return x.mean(axis=(1, 2)), {"twice": 2 * x, "flat": x.reshape(len(x), -1)}


def test_layers_are_found_by_capture():
    images = jax.random.uniform(KEY, (2, 16, 16, 3))
    net = VGG(11, width=2)
    held = net.init(KEY, images)
    found = activations_of(net, ("relu3_2", "output", "relu1_1"))(held, images)
    output, wanted = net.clone(capture=("relu1_1", "relu3_2")).apply(held, images)
    assert list(found) == ["relu3_2", "output", "relu1_1"]
    for name, value in {**wanted, "output": output}.items():
        np.testing.assert_array_equal(found[name], value)
    digits, grey = DigitClassifier(width=2), images[..., :1]
    held = digits.init(KEY, grey)
    found = activations_of(digits, ("conv_1_1", "conv_2_2"))(held, grey)
    assert {name: value.shape for name, value in found.items()} == {
        "conv_1_1": (2, 16, 16, 2),
        "conv_2_2": (2, 8, 8, 4),
    }
    kernel, bias = (held["params"]["conv_1_1"][name] for name in ("kernel", "bias"))
    by_hand = jax.lax.conv_general_dilated(
        2 * grey - 1, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found["conv_1_1"], nn.relu(by_hand + bias), atol=1e-5)


def test_without_capture_they_are_what_is_returned_then_modules():
    images = jax.random.uniform(KEY, (1, 4, 4, 3))
    held = Plain().init(KEY, images)
    found = activations_of(Plain(), ("first", "inside/dense", "twice", "flat", "output"))(held, images)
    kernel = held["params"]["first"]["kernel"]
    by_hand = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(found["first"], by_hand, atol=1e-5)
    output, returned = Plain().apply(held, images)
    for name, value in {**returned, "output": output}.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["inside/dense"].shape == (1, 4, 4, 3)


def test_a_backbone_returns_nothing_but_its_layers():
    images = jax.random.uniform(KEY, (1, 16, 16, 3))
    net = ResNet(18, width=2, stem="small", strides=(1, 2))
    held = net.init(KEY, images)
    found = activations_of(net, ("stem", "c3"))(held, images)
    assert {name: value.shape for name, value in found.items()} == {"stem": (1, 16, 16, 2), "c3": (1, 8, 8, 4)}
    np.testing.assert_array_equal(found["c3"], net.apply(held, images)["c3"])
    with pytest.raises(UserError, match=r"ResNet-18: there is no layer 'c4'"):
        activations_of(net, ["c4"])(held, images)


def test_vectors_are_layers_unless_maps_are_asked_for():
    images = jnp.ones((1, 4, 4, 3))
    held = Plain().init(KEY, images)
    assert activations_of(Plain(), ["flat"])(held, images)["flat"].shape == (1, 32)
    for name in ("flat", "output"):
        with pytest.raises(UserError, match=rf"Plain has no layer '{name}'.*Known: first, inside, inside/dense, twice"):
            activations_of(Plain(), [name], maps=True)(held, images)


def test_an_unknown_layer_is_named():
    images = jnp.zeros((1, 8, 8, 1))
    net = DigitClassifier(width=2)
    with pytest.raises(UserError, match=r"'conv_1_3'.* Known: conv_1_1, conv_1_2, conv_2_1"):
        activations_of(net, ["conv_1_3"])(net.init(KEY, images), images)


def test_activations_are_float32_at_least():
    class Half(nn.Module):
        @nn.compact
        def __call__(self, images):
            return images.astype(jnp.bfloat16)

    assert activations_of(Half(), ["output"])({}, jnp.ones((1, 2, 2, 1)))["output"].dtype == jnp.float32
