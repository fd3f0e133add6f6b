"""Segmentation networks over a ResNet: published numbers of parameters, and torchvision's with the same weights."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.imagenet import DEVIATION, MEAN
from cvjax.nets.resnet_segmenter import ResNetSegmenter
from cvjax.weights import networks


def shapes(net, size=(65, 47)):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    return variables, jax.eval_shape(net.apply, variables, images)


@pytest.mark.parametrize(("head", "count"), [("fcn", 35_322_218), ("deeplabv3", 42_004_074)])
def test_as_many_parameters_as_torchvision(head, count):
    variables, (logits, activations) = shapes(ResNetSegmenter(head))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert logits.shape == activations["auxiliary"].shape == (1, 65, 47, 21)
    assert activations["c5"].shape == (1, 9, 6, 2048)


def test_refuses_an_unknown_head(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="Did you mean 'deeplabv3'"):
        shapes(ResNetSegmenter("deeplab"))


@pytest.mark.parity
def test_logits_are_torchvisions_through_a_file_of_its_weights(torchvision, tmp_path):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    options = dict(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(**options).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # away from 0 and 1, where mistakes would not show
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.7, 1.3)
    torch.save(theirs.state_dict(), tmp_path / "deeplab.pth")
    net = ResNetSegmenter("deeplabv3", classes=3)
    like = shapes(net)[0]
    images = np.random.default_rng(0).uniform(size=(1, 65, 47, 3)).astype(np.float32)
    logits, activations = jax.jit(net.apply)(networks.load(tmp_path / "deeplab.pth", net, like), images)
    with torch.no_grad():
        x = torch.tensor((images - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
        expected = {name: value.permute(0, 2, 3, 1).numpy() for name, value in theirs(x).items()}
    for found, name in ((logits, "out"), (activations["auxiliary"], "aux")):
        # float32 through 54 layers, relative to the size of the logits
        np.testing.assert_allclose(found, expected[name], atol=1e-4 * np.abs(expected[name]).max(), rtol=0)
