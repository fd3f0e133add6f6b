"""VGG beside torchvision's networks with the same weights, and the published numbers of parameters."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.imagenet import DEVIATION, MEAN
from cvjax.nets.vgg import DEPTHS, VGG, layers
from cvjax.weights import networks


def shapes(net, size=(40, 70)):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    return variables, jax.eval_shape(net.apply, variables, images)


def count(net):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(net)[0]["params"]))


# torchvision's pages; 64 times the paper's table 2 in millions: 133, 133, 138, 144.
@pytest.mark.parametrize(
    ("depth", "plain", "normalised"),
    [
        (11, 132_863_336, 132_868_840),
        (13, 133_047_848, 133_053_736),
        (16, 138_357_544, 138_365_992),
        (19, 143_667_240, 143_678_248),
    ],
)
def test_as_many_parameters_as_published(depth, plain, normalised):
    assert count(VGG(depth, head="classifier")) == plain
    assert count(VGG(depth, head="classifier", batch_norm=True)) == normalised
    assert count(VGG(depth, head="convolutional", head_padding=3)) == plain


def test_a_fully_convolutional_head_has_the_classifiers_variables():
    classifier, (logits, _) = shapes(VGG(16, head="classifier"))
    net = VGG(16, head="convolutional", padding=100, capture=("pool3", "pool4", "fc7"))
    convolutional, (scores, captured) = shapes(net, size=(500, 333))
    assert jax.tree.map(jnp.shape, convolutional) == jax.tree.map(jnp.shape, classifier)
    assert logits.shape == (2, 1000)
    # Long et al.'s Caffe model: 500 + 2 * 99 pixels, and a seventh of the field on every side is lost.
    assert scores.shape == (2, 698 // 32 - 6, 531 // 32 - 6, 1000)
    assert {name: value.shape[1:] for name, value in captured.items()} == {
        "pool3": (698 // 8, 531 // 8, 256),
        "pool4": (698 // 16, 531 // 16, 512),
        "fc7": (15, 10, 4096),
    }
    narrow = VGG(11, head="convolutional", classes=None, width=4, hidden=6, head_padding=3)
    assert shapes(narrow, (64, 96))[1][0].shape == (2, 2, 3, 6)


def test_a_mean_head_classifies_the_mean_of_the_last_features():
    net, images = VGG(11, head="mean", classes=5, width=2, capture=("pool5", "fc8")), jnp.ones((2, 64, 96, 3))
    held = net.init(jax.random.key(0), images)
    logits, captured = net.apply(held, images)
    means, head = np.asarray(captured["pool5"]).mean(axis=(1, 2)), held["params"]["fc8"]
    np.testing.assert_allclose(logits, means @ head["kernel"][0, 0] + head["bias"], rtol=1e-4, atol=1e-6)
    assert captured["fc8"].shape == (2, 1, 1, 5) and layers(11, "mean")[-2:] == ["pool5", "fc8"]
    assert shapes(VGG(11, head="mean", classes=None, width=2))[1][0].shape == (2, 16)


@pytest.mark.parametrize(("depth", "last"), [(11, "conv5_2"), (19, "conv5_4")])
def test_captures_every_layer_by_its_name(depth, last):
    names = layers(depth, "classifier")
    assert last in names and len(names) == 2 * (depth - 3) + 5 + 5 == len(set(names))
    _, (_, captured) = shapes(VGG(depth, head="classifier", width=2, hidden=2, capture=names))
    assert {*captured} == {*names}
    assert captured["conv4_2"].shape == (2, 5, 8, 16)


def test_stages_of_ones_own_take_the_place_of_a_depths():
    captured = ("relu1_1", "relu3_2", "pool3")
    variables, (features, found) = shapes(VGG(stages=(1, 1, 2), width=2, capture=captured))
    assert sorted(variables["params"]) == ["conv1_1", "conv2_1", "conv3_1", "conv3_2"]
    assert found["relu3_2"].shape[3] == 8 and features.shape == found["pool3"].shape
    ours, theirs = (shapes(VGG(13, stages=stages, width=2))[0] for stages in ((2, 2, 2, 2, 2), ()))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    with pytest.raises(UserError, match="no layer 'relu3_3'"):
        shapes(VGG(stages=(1, 1, 2), capture=("relu3_3",)))


def test_refuses_what_no_vgg_has(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="no pooling='mean'"):
        shapes(VGG(pooling="mean"))
    with pytest.raises(UserError, match="no depth=12"):
        shapes(VGG(12))
    with pytest.raises(UserError, match="VGG-16: there is no layer 'conv5_4'"):
        shapes(VGG(16, capture=("conv5_4",)))
    with pytest.raises(UserError, match="there is no layer 'fc6'"):
        shapes(VGG(16, capture=("fc6",)))


def torch_vgg(torch, depth, batch_norm, pooling, width, hidden, classes):
    """torchvision's VGG, module names included, of any width."""
    nn = torch.nn
    features, inputs = [], 3
    for stage, repeats in enumerate(DEPTHS[depth]):
        outputs = width * min(2**stage, 8)
        for _ in range(repeats):
            norms = [nn.BatchNorm2d(outputs)] if batch_norm else []
            features += [nn.Conv2d(inputs, outputs, 3, padding=1), *norms, nn.ReLU()]
            inputs = outputs
        features.append(nn.MaxPool2d(2, 2) if pooling == "max" else nn.AvgPool2d(2, 2))
    head = [nn.Linear(49 * inputs, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()]
    net = nn.Module()
    net.features = nn.Sequential(*features)
    net.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    net.classifier = nn.Sequential(*head, nn.Linear(hidden, classes))
    return net.eval()


def randomise(torch, net):
    """Kernels that keep an image's contrast, and norms away from 0 and 1, where mistakes in them would not show."""
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.7, 1.3)
    return net


@pytest.mark.parity
@pytest.mark.parametrize(
    ("depth", "batch_norm", "pooling", "suffix"), [(11, True, "average", ".safetensors"), (16, False, "max", ".pth")]
)
def test_activations_are_torchs_through_a_file_of_its_weights(tmp_path, depth, batch_norm, pooling, suffix):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    torch.manual_seed(depth)
    torch.set_num_threads(1)
    theirs = randomise(torch, torch_vgg(torch, depth, batch_norm, pooling, 4, 8, 5))
    names = layers(depth, "classifier")
    net = VGG(depth, batch_norm, pooling, "classifier", classes=5, width=4, hidden=8, capture=names)
    file = tmp_path / f"vgg{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), file)
    else:
        safetensors.torch.save_file(theirs.state_dict(), file)
    images = np.random.default_rng(0).uniform(size=(2, 65, 47, 3)).astype(np.float32)
    logits, captured = jax.jit(net.apply)(networks.load(file, net), images)
    x = torch.tensor((images - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
    expected = []
    with torch.no_grad():
        for module in theirs.features:
            x = module(x)
            expected.append((module, x.permute(0, 2, 3, 1).numpy()))
        x = theirs.avgpool(x).flatten(1)
        for module in theirs.classifier:
            x = module(x)
            expected.append((module, x[:, None, None].numpy()))
    skipped = (torch.nn.BatchNorm2d, torch.nn.Dropout)
    expected = [value for module, value in expected if not isinstance(module, skipped)]
    for name, value in zip(names, expected, strict=True):
        # float32 through up to 16 layers, relative to the size of the layer's features
        np.testing.assert_allclose(captured[name], value, atol=1e-5 * np.abs(value).max(), rtol=0, err_msg=name)
    np.testing.assert_allclose(logits, captured["fc8"][:, 0, 0])
