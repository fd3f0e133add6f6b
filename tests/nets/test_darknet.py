"""Darknet-19 beside torch with converted weights, and against what the paper says of its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets import darknet

STAGES = (1, 3, 5)


def randomised(variables, seed=0):
    """Statistics and scales as after some training."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape) * (leaf + 0.1)), variables)


def torch_stage(torch, depth, width, channels, pool):
    """A stage as one writes it in torch."""
    layers = [torch.nn.MaxPool2d(2)] if pool else []
    for index in range(depth):
        features, kernel = (width, 3) if index % 2 == 0 else (width // 2, 1)
        layers.append(torch.nn.Conv2d(channels, features, kernel, padding=kernel // 2, bias=False))
        layers += [torch.nn.BatchNorm2d(features, eps=1e-5, momentum=0.01), torch.nn.LeakyReLU(0.1)]
        channels = features
    return torch.nn.Sequential(*layers)


@pytest.mark.parity
@pytest.mark.parametrize("train", [False, True])
def test_equals_torch(train):
    torch = pytest.importorskip("torch")
    net, images = darknet.Darknet(4, STAGES), np.random.default_rng(1).uniform(size=(3, 16, 24, 3)).astype(np.float32)
    variables = randomised(net.init(jax.random.key(0), jnp.asarray(images)))
    x, features = torch.tensor(images).permute(0, 3, 1, 2), []
    for stage, depth in enumerate(STAGES):
        module = torch_stage(torch, depth, 4 * 2**stage, x.shape[1], stage > 0).train(train)
        norms = [layer for layer in module if isinstance(layer, torch.nn.BatchNorm2d)]
        convs = [layer for layer in module if isinstance(layer, torch.nn.Conv2d)]
        for index, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            block, stats = (variables[kind][f"block_{stage}_{index}"] for kind in ("params", "batch_stats"))
            kernel = np.asarray(block["conv"]["kernel"]).transpose(3, 2, 0, 1)
            conv.weight.data = torch.tensor(kernel)
            norm.weight.data, norm.bias.data = (torch.tensor(np.asarray(block["norm"][k])) for k in ("scale", "bias"))
            norm.running_mean, norm.running_var = (torch.tensor(np.asarray(stats["norm"][k])) for k in ("mean", "var"))
        x = module(x)
        features.append(x.detach().permute(0, 2, 3, 1).numpy())
    ours = net.apply(variables, jnp.asarray(images), train, mutable=["batch_stats"])[0]
    for ours_at, theirs_at in zip(ours, features, strict=True):
        np.testing.assert_allclose(ours_at, theirs_at, rtol=1e-4, atol=1e-4)  # float32 through nine layers


def test_darknet_19_has_the_papers_size():
    net = darknet.Classifier()
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    kernels = [leaf for leaf in jax.tree.leaves(shapes["params"]) if len(leaf.shape) == 4]
    assert len(kernels) == 19
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    stages = jax.eval_shape(darknet.Darknet().init_with_output, jax.random.key(0), images)[0]
    assert [f.shape[1:] for f in stages[-2:]] == [(14, 14, 512), (7, 7, 1024)]
    sides = [224, 112, *[56] * 3, *[28] * 3, *[14] * 5, *[7] * 6]
    blocks = sorted(shapes["params"]["darknet"].items())
    kernels = [block["conv"]["kernel"].shape for _, block in blocks] + [shapes["params"]["logits"]["kernel"].shape]
    operations = sum(2 * np.prod(kernel) * side**2 for kernel, side in zip(kernels, sides, strict=True))
    assert operations == pytest.approx(5.58e9, abs=0.005e9)  # section 3: "5.58 billion operations"


def test_halve_is_a_maximum_over_two_by_two():
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)
    expected = x.reshape(2, 3, 2, 2, 2, 3).max(axis=(2, 4))
    np.testing.assert_array_equal(darknet.halve(jnp.asarray(x)), expected)


def test_reorganise_moves_blocks_into_channels():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    out = np.asarray(darknet.reorganise(jnp.asarray(x)))
    assert out.shape == (2, 2, 3, 12)
    for row, column, y, x_in in np.ndindex(2, 3, 2, 2):
        at = 3 * (2 * y + x_in)
        np.testing.assert_array_equal(out[:, row, column, at : at + 3], x[:, 2 * row + y, 2 * column + x_in])


@pytest.mark.parametrize("stages", [(), (1, 2), (0,)])
def test_refuses_stages(stages):
    with pytest.raises(UserError, match="odd numbers"):
        darknet.check_stages(stages)


def test_computes_the_stride():
    assert darknet.check_stages(darknet.STAGES) == 32
