"""Torch's segmenters and backbones have as many parameters as ours, and outputs of the same shape."""

import jax
import numpy as np
import pytest

from cvjax import config as experiments

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import segmentation

    return segmentation


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("index", [0, 1])
def test_the_papers_segmenters_are_those_of_the_recipe(benchmark, index):
    import torch

    config = benchmark.experiment([*benchmark.CASES][index])
    net, shape = benchmark.torch_network(config), config["recipe"]["shape"]
    image = jax.ShapeDtypeStruct((2, *shape), np.float32)
    maps = jax.ShapeDtypeStruct((2, *shape[:2]), np.int32)
    recipe, batch = experiments.build(config), {"image": image, "class_map": maps}
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == count(net)
    net, image = net.to("meta"), torch.zeros(2, 3, *shape[:2], device="meta")  # which computes nothing
    assert net(image).shape == (2, config["recipe"]["classes"], *shape[:2])


@pytest.mark.parametrize("index", [2, 3])
def test_the_papers_backbones_are_ours(benchmark, index):
    config = benchmark.experiment([*benchmark.CASES][index])
    net, apply = benchmark.network(config)
    images = benchmark.random_images(config)
    held = jax.eval_shape(net.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(held["params"])) == count(benchmark.torch_backbone(config))
    features = jax.eval_shape(apply, held, images)
    assert features.shape[0] == config["batch"] and features.shape[1:3] == (7, 7)
    assert benchmark.inference_flops(config) > 1e9 * config["batch"]


def test_contestants_work_and_memory_is_told(benchmark):
    small = benchmark.steps.experiment(
        "unet_pet",
        benchmark.RANDOM | {"recipe.shape": (20, 20, 3), "recipe.depth": 1, "recipe.width": 2, "data.batch": 2},
    )
    backbone = dict(system="", precision="float32", network="vgg", width=2, size=32, batch=2)
    for config in (small, backbone):
        for make in benchmark.makers(config).values():
            work = make()
            work()
            work()
    assert benchmark.peak_memory("ours") > 2**20
    line, met = benchmark.row("U-Net", {"ours": [3.0], "torch": [2.0]}, {"ours": 2**30, "torch": 2**31})
    assert "| 1.50 (1.50 to 1.50) | 3.00 | 2.00 | 1.00 / 2.00 GiB |" in line and not met
