"""Inception v3 beside torch-fidelity's network, which is FID's, and torchvision's, through files of their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.inception import BLOCKS, CLASSES, InceptionV3, resize_as_tensorflow_1
from cvjax.weights import networks


@pytest.fixture
def torch(torchvision):
    return pytest.importorskip("torch")


def fidelity_network(torch, monkeypatch):
    """torch-fidelity's, which otherwise loads its weights as it is made, with random ones."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    kind = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        return randomise(torch, kind("inception", ["2048", "logits"]))


def torchvision_network(torch):
    import torchvision

    return randomise(torch, torchvision.models.inception_v3(weights=None, init_weights=False))


def activations_of(net, inputs):
    """What each block gives, the features before the last layer, and the logits."""
    found = {}
    for name in BLOCKS:
        module = getattr(net, name)
        module.register_forward_hook(lambda _, __, value, name=name: found.update({name: value.permute(0, 2, 3, 1)}))
    net.fc.register_forward_hook(lambda _, given, value: found.update(features=given[0], logits=value))
    net(inputs)
    return found


def randomise(torch, net):
    """Kernels that keep an image's contrast through 94 layers, and statistics away from 0 and 1."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.7, 1.3)
    return net.eval()


def resized(images, size=299):
    """Bilinear interpolation at i * input / output, pixel by pixel."""
    places = np.arange(size, dtype=np.float32) * np.float32(images.shape[1] / size)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, images.shape[1] - 1), places - low
    rows = images[:, low] * (1 - share)[:, None, None] + images[:, high] * share[:, None, None]
    return rows[:, :, low] * (1 - share)[:, None] + rows[:, :, high] * share[:, None]


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["fid", "torchvision"])
def test_network_is_the_published_one_through_a_file_of_its_weights(torch, monkeypatch, tmp_path, variant):
    torch.manual_seed(0)
    fid = variant == "fid"
    theirs = fidelity_network(torch, monkeypatch) if fid else torchvision_network(torch)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=not fid)
    variables = networks.load(tmp_path / "weights.pth", InceptionV3(variant))
    levels = np.random.default_rng(0).integers(256, size=(2, 20, 20, 3), dtype=np.uint8)
    levels[1] = levels[1].mean(axis=-1, keepdims=True) / 2
    images = levels.astype(np.float32) / 255
    logits, activations = jax.jit(InceptionV3(variant).apply)(variables, images)
    inputs = torch.tensor(levels).permute(0, 3, 1, 2)  # which torch-fidelity resizes and scales by itself
    if not fid:
        inputs = 2 * torch.nn.functional.interpolate(inputs / 255, (299, 299), mode="bilinear") - 1
    with torch.no_grad():
        expected = activations_of(theirs, inputs)
    ours = activations | {"logits": logits}
    assert ours.keys() == expected.keys() and logits.shape == (2, CLASSES[variant])
    for name, value in expected.items():
        # float32 through 94 layers, relative to the size of the layer's features
        np.testing.assert_allclose(ours[name], value, atol=1e-4 * np.abs(value.numpy()).max(), rtol=0, err_msg=name)
    features = np.asarray(activations["features"])
    assert np.abs(features[0] - features[1]).max() > 0.1 * features.max()  # the images have not been lost on the way


# torchvision's page: 27,161,264 parameters, of which the auxiliary logits have 3,326,696. One channel stands for three.
@pytest.mark.parametrize(("variant", "channels", "more"), [("torchvision", 3, 0), ("fid", 1, 8 * 2049)])
def test_as_many_parameters_as_published(variant, channels, more):
    image = jax.ShapeDtypeStruct((1, 20, 30, channels), jnp.float32)
    params = jax.eval_shape(InceptionV3(variant).init, jax.random.key(0), image)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 27_161_264 - 3_326_696 + more


@pytest.mark.parametrize("size", [5, 20, 299, 400])
def test_images_are_resized_as_tensorflow_1_did(size):
    images = np.random.default_rng(1).uniform(size=(2, size, size, 3)).astype(np.float32)
    ours = resize_as_tensorflow_1(jnp.asarray(images), 299)
    np.testing.assert_allclose(ours, resized(images), atol=1e-6)  # float32
    if size == 299:
        np.testing.assert_array_equal(ours, images)


def test_resizing_leaves_corners_and_centres_unaligned():
    row = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    # Output pixels at 0, 1/2, 1, 3/2 of the input, the last of which has nothing to its right.
    np.testing.assert_allclose(resize_as_tensorflow_1(row, 4)[0, 0, :, 0], [0, 0.5, 1, 1], atol=1e-7)
