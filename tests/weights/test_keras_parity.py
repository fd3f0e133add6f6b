"""A network of Keras' own layers, written to .npz as `cvjax.weights.keras` says, keeps its features when loaded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.xception import Xception
from cvjax.weights import networks

WIDTH, UNITS = 1 / 16, 1
pytestmark = pytest.mark.parity


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # read when Keras is first imported
    return pytest.importorskip("keras")


def build(keras):
    """Xception at output stride 32, of the paper's figure 4 and with the layers' names of the released graph."""
    layers = keras.layers

    def scale(channels):
        return max(1, round(WIDTH * channels))

    def conv(x, name, features, size, stride=1):
        if size > 1:
            x = layers.ZeroPadding2D(size // 2)(x)
        return layers.Conv2D(scale(features), size, stride, "valid", use_bias=False, name=name)(x)

    def norm(x, name):
        return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_BN")(x)

    def separable(x, name, features, stride, inner_relu):
        x = x if inner_relu else layers.ReLU()(x)
        x = layers.ZeroPadding2D(1)(x)
        x = layers.DepthwiseConv2D(3, stride, "valid", use_bias=False, name=f"{name}_depthwise")(x)
        x = norm(x, f"{name}_depthwise")
        x = conv(layers.ReLU()(x) if inner_relu else x, f"{name}_pointwise", features, 1)
        x = norm(x, f"{name}_pointwise")
        return layers.ReLU()(x) if inner_relu else x

    def block(x, name, features, stride=1, shortcut="convolution"):
        y = x
        for index, channels in enumerate(features, start=1):
            y = separable(y, f"{name}_separable_conv{index}", channels, stride if index == 3 else 1, shortcut is None)
        if shortcut == "convolution":
            x = norm(conv(x, f"{name}_shortcut", features[-1], 1, stride), f"{name}_shortcut")
        return y if shortcut is None else layers.Add()([x, y])

    x = images = keras.Input((None, None, 3))
    x = layers.ReLU()(norm(conv(x, "entry_flow_conv1_1", 32, 3, 2), "entry_flow_conv1_1"))
    x = layers.ReLU()(norm(conv(x, "entry_flow_conv1_2", 64, 3), "entry_flow_conv1_2"))
    for index, channels in enumerate((128, 256, 728), start=1):
        x = block(x, f"entry_flow_block{index}", 3 * [channels], 2)
    for unit in range(1, UNITS + 1):
        x = block(x, f"middle_flow_unit_{unit}", 3 * [728], shortcut="identity")
    x = block(x, "exit_flow_block1", (728, 1024, 1024), 2)
    x = block(x, "exit_flow_block2", (1536, 1536, 2048), shortcut=None)
    return keras.Model(images, x)


def test_xception_gives_kerass_features(keras, tmp_path):
    model, random = build(keras), np.random.default_rng(0)
    for weight in model.weights:  # so that kernels keep the contrast and no norm is the identity
        value = random.uniform(0.7, 1.3, weight.shape)
        if "kernel" in weight.path:
            fan = np.prod(weight.shape[:2]) * (1 if "depthwise_kernel" in weight.path else weight.shape[2])
            value = random.normal(size=weight.shape) * np.sqrt(2 / fan)
        weight.assign(value)
    np.savez(tmp_path / "xception.npz", **{weight.path: weight.numpy() for weight in model.weights})
    net = Xception(width=WIDTH, units=UNITS, capture=("c5",))
    images = random.uniform(size=(2, 65, 47, 3)).astype(np.float32)
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.asarray(images))
    ours = jax.jit(net.apply)(networks.load(tmp_path / "xception.npz", net, like), images)["c5"]
    theirs = np.asarray(model(2 * images - 1))
    assert ours.shape == theirs.shape and (theirs > 0).any()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())  # float32 sums of up to 14,000 terms
