"""EDSR, WDSR, SRResNet and SRGAN's discriminator equal torch's layers with the same weights; sizes are the papers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.layers import Conv
from cvjax.translation.super_resolution.edsr import EDSR
from cvjax.translation.super_resolution.srgan import Discriminator
from cvjax.translation.super_resolution.srresnet import SRResNet
from cvjax.translation.super_resolution.upscaling import pixel_shuffle
from cvjax.translation.super_resolution.wdsr import WDSR, WeightNormConv

KEY = jax.random.key(0)
DIV2K = np.float32([0.4488, 0.4371, 0.4040])


def parameters(net, shape=(1, 8, 8, 3)):
    held = jax.eval_shape(net.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(held["params"])), held


def test_sizes_are_the_papers():
    counts = {
        EDSR(2): 1_369_859,  # 1.37 M, 1.55 M and 1.52 M; 40.7 M and 43 M
        EDSR(3): 1_554_499,
        EDSR(4): 1_517_571,
        EDSR(2, blocks=32, features=256, residual_scale=0.1): 40_729_603,
        EDSR(4, blocks=32, features=256, residual_scale=0.1): 43_089_923,
        WDSR(2): 1_190_100,  # 1.19 M, lengths of directions included
        WDSR(4): 1_203_312,
        WDSR(2, "b"): 303_604,
        SRResNet(4): 1_549_462,
    }
    for net, count in counts.items():
        found, held = parameters(net)
        assert found == count
        assert ("batch_stats" in held) == isinstance(net, SRResNet)  # EDSR and WDSR have no batch normalisation
    assert parameters(Discriminator(), (1, 96, 96, 3))[0] == 23_565_505
    widths = {layer["direction"].shape[-1] for layer in parameters(WDSR(2, "b"))[1]["params"].values()}
    assert widths == {32, 6 * 32, int(0.8 * 32), 12}


@pytest.mark.parametrize("factor", [2, 3])
def test_a_pixel_shuffle_makes_squares_of_channels(factor):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5 * factor**2)).astype(np.float32)
    found = np.asarray(pixel_shuffle(jnp.asarray(x), factor))
    for row, column, channel in np.ndindex(3 * factor, 4 * factor, 5):
        inner = channel * factor**2 + row % factor * factor + column % factor
        np.testing.assert_array_equal(found[:, row, column, channel], x[:, row // factor, column // factor, inner])


def test_weights_are_normalised_by_their_length_and_begin_as_they_were_drawn():
    images = jax.random.normal(KEY, (1, 5, 6, 3))
    net = WeightNormConv(4, 3)
    held = net.init(KEY, images)["params"]
    norm = np.linalg.norm(held["direction"].reshape(-1, 4), axis=0)
    np.testing.assert_allclose(held["length"], norm, rtol=1e-6)  # not 1
    plain = Conv(4, 3, padding=1).apply({"params": {"kernel": held["direction"], "bias": held["bias"]}}, images)
    np.testing.assert_allclose(net.apply({"params": held}, images), plain, atol=1e-5)
    longer = {**held, "direction": 7 * held["direction"]}  # the length of the direction itself does not matter
    np.testing.assert_allclose(net.apply({"params": longer}, images), plain, atol=1e-5)
    doubled = {**held, "length": 2 * held["length"]}
    np.testing.assert_allclose(net.apply({"params": doubled}, images), 2 * plain, atol=1e-5)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


class Layers:
    """Torch's functions of layers, NCHW, with the random weights of one of our networks."""

    def __init__(self, torch, net, images):
        self.torch, self.f = torch, torch.nn.functional
        generator = np.random.default_rng(0)
        held = jax.eval_shape(net.init, KEY, images)

        def draw(path, leaf):
            scale, kind = 1.0 / np.sqrt(np.prod(leaf.shape[:-1])), jax.tree_util.keystr(path)
            drawn = generator.normal(size=leaf.shape) * (scale if len(leaf.shape) > 1 else 0.3)
            return jnp.asarray(np.abs(drawn) + 0.5 if "var" in kind or "scale" in kind else drawn, jnp.float32)

        self.held = jax.tree_util.tree_map_with_path(draw, held)

    def weight(self, name, kind="params"):
        layer = self.held[kind]
        for part in name.split("/"):
            layer = layer[part]
        return {key: self.torch.tensor(np.asarray(value)) for key, value in layer.items()}

    def conv(self, x, name, stride=1):
        own = self.weight(name)
        if "direction" in own:
            v = own["direction"].permute(3, 2, 0, 1)
            weight = self.torch._weight_norm(v, own["length"][:, None, None, None], 0)
        else:
            weight = own["kernel"].permute(3, 2, 0, 1)
        return self.f.conv2d(x, weight, own["bias"], stride, weight.shape[-1] // 2)

    def norm(self, x, name):
        own, moments = self.weight(name), self.weight(name, "batch_stats")
        return self.f.batch_norm(x, moments["mean"], moments["var"], own["scale"], own["bias"], eps=1e-5)

    def prelu(self, x, name):
        return self.f.prelu(x, self.weight(name)["negative_slope"].reshape(1))

    def upscale(self, x, scale, prelu=False):
        for stage, factor in enumerate((2, 2) if scale == 4 else (scale,)):
            x = self.f.pixel_shuffle(self.conv(x, f"upscale/conv_{stage}"), factor)
            x = self.prelu(x, f"upscale/prelu_{stage}") if prelu else x
        return x


def edsr(layers, x, net, mean):
    x = first = layers.conv(255 * x - 255 * mean, "head")
    for block in range(net.blocks):
        inner = layers.conv(x, f"block_{block}_0").relu()
        x = x + net.residual_scale * layers.conv(inner, f"block_{block}_1")
    x = layers.upscale(first + layers.conv(x, "body"), net.scale)
    return (layers.conv(x, "tail") + 255 * mean) / 255


def wdsr(layers, x, net, mean):
    inputs = (255 * x - 255 * mean) / 127.5
    x = layers.conv(inputs, "head")
    for block in range(net.blocks):
        inner = layers.conv(x, f"block_{block}_0").relu()
        for index in range(1, 2 if net.variant == "a" else 3):
            inner = layers.conv(inner, f"block_{block}_{index}")
        x = x + inner
    shuffled = (layers.f.pixel_shuffle(layers.conv(y, name), net.scale) for y, name in ((x, "tail"), (inputs, "skip")))
    return (127.5 * sum(shuffled) + 255 * mean) / 255


def srresnet(layers, x, net, mean):
    x = first = layers.prelu(layers.conv(x, "head"), "head_prelu")
    for block in range(net.blocks):
        name = f"block_{block}"
        inner = layers.prelu(layers.norm(layers.conv(x, f"{name}_0"), f"{name}_norm_0"), f"{name}_prelu")
        x = x + layers.norm(layers.conv(inner, f"{name}_1"), f"{name}_norm_1")
    x = first + layers.norm(layers.conv(x, "body"), "body_norm")
    return (layers.conv(layers.upscale(x, net.scale, prelu=True), "tail") + 1) / 2


@pytest.mark.parity
@pytest.mark.parametrize(
    ("net", "copy"),
    [
        (EDSR(2, 2, 6, residual_scale=0.1), edsr),
        (EDSR(3, 1, 5), edsr),
        (EDSR(4, 1, 5), edsr),
        (WDSR(2, "a", 2, 5), wdsr),
        (WDSR(3, "b", 2, 5), wdsr),
        (SRResNet(4, 2, 5), srresnet),
        (SRResNet(3, 1, 5), srresnet),
    ],
    ids=lambda value: f"{type(value).__name__}_x{value.scale}" if hasattr(value, "scale") else "",
)
def test_networks_equal_torch(torch, net, copy):
    images = jax.random.uniform(KEY, (2, 7, 9, 3))
    layers = Layers(torch, net, images)
    x = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    expected = copy(layers, x, net, torch.tensor(DIV2K)[:, None, None]).permute(0, 2, 3, 1)
    found = jax.jit(net.apply)(layers.held, images)
    assert found.shape == (2, 7 * net.scale, 9 * net.scale, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parity
def test_the_discriminator_equals_torch(torch):
    net, images = Discriminator(2, 8), jax.random.uniform(KEY, (2, 17, 31, 3))
    layers = Layers(torch, net, images)
    x = 2 * torch.tensor(np.asarray(images)).permute(0, 3, 1, 2) - 1
    for layer in range(8):
        x = layers.conv(x, f"conv_{layer}", 1 + layer % 2)
        x = layers.f.leaky_relu(layers.norm(x, f"norm_{layer}") if layer else x, 0.2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    for name in ("dense", "logit"):
        own = layers.weight(name)
        x = x @ own["kernel"] + own["bias"]
        x = layers.f.leaky_relu(x, 0.2) if name == "dense" else x
    np.testing.assert_allclose(jax.jit(net.apply)(layers.held, images), x[:, 0], atol=1e-4)
