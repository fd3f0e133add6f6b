"""AlexNet beside torchvision's with the same weights, and the published number of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.alexnet import FEATURES, HEAD, AlexNet
from cvjax.nets.imagenet import DEVIATION, MEAN


def shapes(net):
    return jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, 70, 99, 1)))


def test_as_many_parameters_as_published():
    count = lambda net: sum(leaf.size for leaf in jax.tree.leaves(shapes(net)[1]))  # noqa: E731
    assert count(AlexNet(head="classifier")) == 61_100_840  # torchvision's page
    assert count(AlexNet()) == 2_469_696


def test_refuses_what_it_has_not():
    with pytest.raises(UserError, match="AlexNet: there is no layer 'fc6' to capture"):
        shapes(AlexNet(capture=("fc6",)))


def torch_alexnet(nn, hidden, classes):
    """torchvision's layers, in their order."""
    features = [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
    ]
    head = [nn.Linear(9216, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return features, head


@pytest.mark.parity
def test_activations_are_torchs():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features, head = torch_alexnet(torch.nn, 8, 5)
    layers = [module for module in [*features, *head] if hasattr(module, "weight")]
    params = {}
    for number, module in enumerate(layers, start=1):
        weight = module.weight.detach().numpy()
        side = 6 if number == 6 else 1
        weight = weight if weight.ndim == 4 else weight.reshape(len(weight), -1, side, side)
        name = f"conv{number}" if number < 6 else f"fc{number}"
        params[name] = {"kernel": weight.transpose(2, 3, 1, 0), "bias": module.bias.detach().numpy()}
    images = np.random.default_rng(0).uniform(size=(1, 67, 95, 3)).astype(np.float32)
    net = AlexNet("classifier", classes=5, hidden=8, capture=FEATURES + HEAD)
    logits, captured = jax.jit(net.apply)({"params": params}, images)
    x = torch.tensor((images - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
    expected = []
    with torch.no_grad():
        for module in features:
            x = module(x)
            expected.append(x.permute(0, 2, 3, 1).numpy())
        x = torch.nn.AdaptiveAvgPool2d(6)(x).flatten(1)
        for module in head:
            x = module(x)
            expected.append(x[:, None, None].numpy())
    for name, value in zip(FEATURES + HEAD, expected, strict=True):
        # float32 through 8 layers, relative to the size of the layer's features
        np.testing.assert_allclose(captured[name], value, atol=1e-5 * np.abs(value).max(), rtol=0, err_msg=name)
    np.testing.assert_array_equal(logits, captured["fc8"][:, 0, 0])
