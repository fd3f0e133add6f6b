"""The names of Inception's tensors in torch, and what is said of files that hold others."""

import flax
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from cvjax.errors import UserError
from cvjax.nets.inception import InceptionV3
from cvjax.weights import networks


@pytest.fixture(scope="module")
def wanted():
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    return flax.traverse_util.flatten_dict(jax.eval_shape(InceptionV3().init, jax.random.key(0), image), sep="/")


@pytest.fixture(scope="module")
def tensors(wanted):
    """A state dict of torch's names and axes, written by hand: one number a tensor, all of them different."""
    state = {}
    for number, (path, leaf) in enumerate(wanted.items()):
        _, *modules, kind = path.split("/")
        name = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        shape = leaf.shape
        if kind == "kernel":
            shape = shape[::-1] if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])
        state[".".join([*modules, name[kind]])] = np.broadcast_to(np.float32(number), shape)
    return state


def test_names_are_those_of_the_published_file(tensors):
    # 94 convolutions, each with four tensors of its normalisation, and the head's two.
    assert len(tensors) == 94 * 5 + 2
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.bn.running_var": (64,),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }.items():
        assert tensors[name].shape == shape, name


def test_every_tensor_goes_to_its_place(wanted, tensors, tmp_path):
    state = {name: np.ascontiguousarray(tensor, np.float16) for name, tensor in tensors.items()}
    state["Mixed_5b.branch1x1.bn.num_batches_tracked"] = np.array(7)
    safetensors.numpy.save_file(state, tmp_path / "x.safetensors")
    found = flax.traverse_util.flatten_dict(networks.load(tmp_path / "x.safetensors", InceptionV3()), sep="/")
    assert found.keys() == wanted.keys()
    for number, path in enumerate(wanted):
        assert found[path].shape == wanted[path].shape and found[path].dtype == np.float32
        assert (found[path] == number).all(), path


def test_what_does_not_fit_is_named(monkeypatch, wanted, tensors, tmp_path):
    like = flax.traverse_util.unflatten_dict(wanted, sep="/")
    without = {name: value for name, value in tensors.items() if not name.startswith("Mixed_7c.branch1x1")}
    with pytest.raises(UserError, match=r"5 missing: Mixed_7c\.branch1x1\.bn\.bias, .*\.\.\..*Inception v3 \(fid\)"):
        networks.convert(without, like)
    with pytest.raises(UserError, match=r"1 left over: layer1\.weight"):
        networks.convert({**tensors, "layer1.weight": np.zeros(3)}, like)
    name = "Mixed_6c.branch7x7_2.conv.weight"
    with pytest.raises(UserError, match=rf"{name} is \[160, 160, 7, 1\] .*not \[160, 160, 1, 7\]"):
        networks.convert({**tensors, name: tensors[name].transpose(0, 1, 3, 2)}, like)
    with pytest.raises(UserError, match=r"fc\.bias is \[1008\] of int64"):
        networks.convert({**tensors, "fc.bias": np.zeros(1008, np.int64)}, like)
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"x\.safetensors does not hold .* InceptionV3: 472 missing: .*1 left over: a"):
        networks.load(tmp_path / "x.safetensors", InceptionV3(), like)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="Did you mean 'torchvision'"):
        networks.load(tmp_path / "x.safetensors", InceptionV3("torchvison"))


def test_the_other_variant_is_recognised(wanted, tensors):
    like = flax.traverse_util.unflatten_dict(wanted, sep="/")
    other = {**tensors, "fc.weight": tensors["fc.weight"][:1000], "fc.bias": tensors["fc.bias"][:1000]}
    with pytest.raises(UserError, match=r"2 of another shape .*fc\..*: Inception v3 \(torchvision\)"):
        networks.convert(other, like)
    like["params"]["fc"] = {"kernel": np.zeros((2048, 1000)), "bias": np.zeros(1000)}
    found = networks.convert({**other, "AuxLogits.fc.bias": np.zeros(1000)}, like)
    assert found["params"]["fc"]["kernel"].shape == (2048, 1000)
