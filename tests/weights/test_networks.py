"""Files of whole networks: exact round trips under our own names, and published ones read by `load`."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.vgg import VGG
from cvjax.nets.xception import Xception
from cvjax.weights import networks


def test_round_trips_are_exact(tmp_path):
    random = np.random.default_rng(0)
    tree = {
        "params": {
            "conv": {"kernel": random.normal(size=(4, 3, 2)).astype(np.float32).transpose(2, 0, 1)},
            "half": {"kernel": jnp.asarray(random.normal(size=(3, 2)), jnp.bfloat16)},
            "strided": {"bias": np.arange(6, dtype=np.float32)[::-2]},
        },
        "batch_stats": {"norm": {"count": np.int32(7), "mean": np.float64([0.1, np.nextafter(1, 2)])}},
    }
    networks.save(tmp_path / "a.safetensors", tree)
    found = networks.load(tmp_path / "a.safetensors", nn.Dense(1), tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: np.asarray(leaf).dtype, tree)


def test_a_files_own_names_and_shapes_are_checked(tmp_path):
    net = VGG(11, width=1)
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), like)
    networks.save(tmp_path / "a.safetensors", variables)
    jax.tree.map(np.testing.assert_array_equal, networks.load(tmp_path / "a.safetensors", net), variables)
    params = variables["params"]
    params["conv1_1"]["kernel"] = np.ones((3, 3, 1, 1), np.float32)
    params["conv9_1"] = params.pop("conv2_1")
    networks.save(tmp_path / "b.safetensors", variables)
    with pytest.raises(UserError) as caught:
        networks.load(tmp_path / "b.safetensors", net)
    for words in (
        "b.safetensors does not hold the weights of this VGG: 2 missing: params/conv2_1/bias, params/conv2_1/kernel",
        "2 left over: params/conv9_1/bias, params/conv9_1/kernel",
        "1 of another shape or type: params/conv1_1/kernel is [3, 3, 1, 1] of float32, not [3, 3, 3, 1]",
    ):
        assert words in str(caught.value)


KERAS = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


@pytest.mark.parametrize("version", [2, 3])
def test_xception_is_read_of_a_keras_archive(tmp_path, version):
    net, random = Xception(width=1 / 16, units=1), np.random.default_rng(0)
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    expected, archive = {}, {}
    for path, leaf in flax.traverse_util.flatten_dict(like).items():
        expected[path] = value = random.normal(size=leaf.shape).astype(np.float32)
        layer, leaf = "_".join(path[1:-1]), path[-1]
        if leaf != "kernel":
            layer, leaf = layer.replace("_norm", "_BN"), KERAS[leaf]
        elif layer.endswith("depthwise"):
            leaf, value = "depthwise_kernel" if version == 2 else "kernel", value.reshape(3, 3, -1, 1)
        archive[f"{layer}/{leaf}:0" if version == 2 else f"{layer}/{leaf}"] = value
    assert "middle_flow_unit_1_separable_conv3_depthwise_BN/moving_variance" in {n.removesuffix(":0") for n in archive}
    np.savez(tmp_path / "x.npz", **archive, **{"decoder_conv0_depthwise/kernel": np.zeros((3, 3, 4, 1))})
    found = flax.traverse_util.flatten_dict(networks.load(tmp_path / "x.npz", net, like))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)
    archive.popitem()
    np.savez(tmp_path / "x.npz", **archive, extra=np.zeros(2))
    with pytest.raises(UserError, match=r"1 missing: .*; 1 left over: extra\. .*Keras's Xception"):
        networks.load(tmp_path / "x.npz", net, like)


def test_an_archive_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([print], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npz is no \.npz of arrays of numbers"):
        networks.load(tmp_path / "x.npz", nn.Dense(1), {})
