"""YOLO's network: that of the paper in layers, parameters and operations, and equal to torch's."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import yolo

KEY = jax.random.key(0)

# As PyTorch's summaries of the paper's table print it: 60,155,968 in convolutions, 7 * 7 * 1024 * 4096 + 4096 and
# 4096 * 1470 + 1470 in dense layers. And as the weights of Darknet's yolo-tiny.cfg hold, a file of 180,357,512 bytes
# with a header of 16.
PARAMETERS = {"yolo": 271_703_550, "fast": (180_357_512 - 16) // 4}


@pytest.mark.parametrize(("layers", "bottleneck", "convolutions"), [("yolo", 0, 24), ("fast", 256, 9)])
def test_networks_are_those_of_the_paper(layers, bottleneck, convolutions):
    net = yolo.Yolo(yolo.LAYERS[layers], 30, bottleneck=bottleneck)
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 448, 448, 3)))["params"]
    assert sum(name.startswith("Conv_") for name in shapes) == convolutions
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PARAMETERS[layers]
    outputs = jax.eval_shape(net.apply, {"params": shapes}, jnp.zeros((2, 448, 448, 3)))
    assert outputs.shape == (2, 7, 7, 30)


def test_the_recipes_defaults_are_the_papers():
    defaults = {name: p.default for name, p in inspect.signature(yolo.recipe).parameters.items()}
    paper = dict(predictors=2, dropout=0.5, coordinate_weight=5.0, no_object_weight=0.5, batch_norm=False, shared=False)
    assert {name: defaults[name] for name in paper} == paper
    recipe = yolo.recipe(shape=(448, 448, 3), classes=20)
    params = jax.eval_shape(recipe.init, KEY, {"image": jnp.zeros((1, 448, 448, 3))}).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS["yolo"]


def test_layers_are_those_of_figure_3():
    figure = """
        7x7x64-s2 pool 3x3x192 pool 1x1x128 3x3x256 1x1x256 3x3x512 pool
        1x1x256 3x3x512 1x1x256 3x3x512 1x1x256 3x3x512 1x1x256 3x3x512 1x1x512 3x3x1024 pool
        1x1x512 3x3x1024 1x1x512 3x3x1024 3x3x1024 3x3x1024-s2 3x3x1024 3x3x1024
    """
    said = {"pool": yolo.POOL}
    for name in figure.split():
        size, _, stride = name.partition("-s")
        said[name] = said.get(name) or (int(size.split("x")[2]), int(size[0]), int(stride or 1))
    assert yolo.LAYERS["yolo"] == tuple(said[name] for name in figure.split())


def test_has_as_many_operations_as_darknet_counts():
    """40.19 billion, says its page of yolov1.cfg, whose one dense layer makes 7 * 7 * 35 numbers of 7 * 7 * 256."""
    channels, side, operations = 3, 448, 2 * (7 * 7 * 256) * (7 * 7 * 35)
    for features, kernel, stride in yolo.LAYERS["yolo"]:
        side //= stride
        if features:
            operations += 2 * kernel**2 * channels * features * side**2
            channels = features
    assert operations == pytest.approx(40.19e9, abs=0.005e9)


@pytest.mark.parity
@pytest.mark.parametrize(("layers", "bottleneck", "batch_norm"), [("yolo", 0, False), ("fast", 16, True)])
def test_network_equals_torch_with_the_same_weights(layers, bottleneck, batch_norm):
    torch = pytest.importorskip("torch")
    net = yolo.Yolo(yolo.LAYERS[layers], 8, 1 / 32, bottleneck, 512, batch_norm=batch_norm)
    images = jax.random.uniform(KEY, (2, 128, 192, 3))
    variables = dict(jax.jit(net.init)(KEY, images))
    if batch_norm:
        variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.3, variables["batch_stats"])
    x = torch.from_numpy(np.asarray(2 * images - 1).transpose(0, 3, 1, 2).copy())
    tensor = lambda leaf: torch.from_numpy(np.array(leaf))  # noqa: E731
    number = 0
    for features, kernel, stride in yolo.LAYERS[layers]:
        if not features:
            x = torch.nn.functional.max_pool2d(x, 2)
            continue
        params = variables["params"][f"Conv_{number}"]
        bias = None if batch_norm else tensor(params["bias"])
        x = torch.conv2d(x, tensor(params["kernel"]).permute(3, 2, 0, 1), bias, stride, (kernel - 1) // 2)
        if batch_norm:
            scale, stats = (variables[kind][f"BatchNorm_{number}"] for kind in ("params", "batch_stats"))
            rows = (tensor(part) for part in (stats["mean"], stats["var"], scale["scale"], scale["bias"]))
            x = torch.nn.functional.batch_norm(x, *rows, eps=1e-5)
        x, number = torch.nn.functional.leaky_relu(x, 0.1), number + 1
    x = x.permute(0, 2, 3, 1).flatten(1)
    for name in ["bottleneck"] * bool(bottleneck) + ["hidden", "cells"]:
        params = variables["params"][name]
        x = x @ tensor(params["kernel"]) + tensor(params["bias"])
        x = torch.nn.functional.leaky_relu(x, 0.1) if name == "hidden" else x
    outputs = jax.jit(net.apply)(variables, images)
    assert outputs.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(outputs.reshape(2, -1), x, atol=2e-4)  # up to 26 layers of float32


@pytest.mark.parametrize("shared", [True, False])
def test_shared_dense_layers_treat_all_cells_alike(shared):
    net = yolo.Yolo(((4, 1, 1),), 7, hidden=16, shared=shared)
    images = jax.random.uniform(KEY, (1, 2, 3, 3))
    variables = jax.jit(net.init)(KEY, images)
    outputs, mirrored = (jax.jit(net.apply)(variables, x) for x in (images, images[:, :, ::-1]))
    assert outputs.shape == (1, 2, 3, 7)
    assert np.allclose(mirrored[:, :, ::-1], outputs, atol=1e-5) == shared


def test_drops_the_hidden_layer_only_in_training():
    net = yolo.Yolo(((8, 3, 1), yolo.POOL, (8, 3, 1), yolo.POOL), 7, hidden=4096, dropout=0.5)
    images = jnp.ones((1, 4, 4, 3))
    params = jax.tree.map(jnp.zeros_like, jax.eval_shape(net.init, KEY, images)["params"])
    params["hidden"]["bias"] += 1
    params["cells"]["kernel"] += 1 / 4096
    apply = jax.jit(net.apply, static_argnames="train")
    np.testing.assert_allclose(apply({"params": params}, images), 1.0, rtol=1e-5)
    dropped = apply({"params": params}, images, train=True, rngs={"dropout": KEY})
    # The mean of 4096 draws of 0 or 2 has a deviation of 1/64; all outputs see the same.
    assert 0 < abs(float(dropped[0, 0, 0, 0]) - 1) < 5 / 64 and float(jnp.ptp(dropped)) < 1e-5
