"""A small convolutional classifier with random weights, and its copy in torch."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvjax.nets.capture import Capture
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import max_pool


class Net(nn.Module):
    """Two convolutions with a maximum between them, and two dense layers; `capture` as in our networks.

    The maximum comes before the ReLU: of equal values, such as zeros, torch chooses one and our pooling all.
    """

    capture: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, images):
        keep = Capture("Net", self.capture, ("conv1", "relu1", "conv2", "relu2"))
        x = keep("relu1", nn.relu(max_pool(keep("conv1", Conv(4, 3, padding=1, name="conv1")(images)))))
        x = keep("relu2", nn.relu(keep("conv2", Conv(5, 3, padding=1, name="conv2")(x))))
        x = nn.relu(nn.Dense(6, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="out")(x), keep.activations


@dataclasses.dataclass
class Classifier:
    """Variables with random biases, and two images."""

    held: Any
    images: Any

    def logits(self, images):
        return Net().apply(self.held, images)[0]

    def activations(self, images):
        return Net(capture=("all",)).apply(self.held, images)


def make():
    keys = iter(jax.random.split(jax.random.key(0), 20))
    images = jax.random.uniform(next(keys), (2, 8, 10, 3))
    held = jax.eval_shape(Net().init, next(keys), images)
    scale = lambda shape: 1 / np.sqrt(np.prod(shape[:-1]) or 1)  # noqa: E731
    draw = lambda leaf: 2 * scale(leaf.shape) * jax.random.normal(next(keys), leaf.shape)  # noqa: E731
    held = jax.tree.map(lambda leaf: draw(leaf) if leaf.ndim > 1 else 0.1 * draw(leaf), held)
    return Classifier(held, images)


def torch_copy(classifier):
    """Returns (torch, the copy, the images as it takes them)."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    layers = [
        *(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.ReLU()),
        *(torch.nn.Conv2d(4, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()),
        *(torch.nn.Linear(100, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)),
    ]
    params = jax.tree.map(np.asarray, classifier.held["params"])
    kernels = {layers[0]: params["conv1"], layers[3]: params["conv2"], layers[6]: params["hidden"]}
    for layer, held in (kernels | {layers[8]: params["out"]}).items():
        kernel = held["kernel"]
        if layer is layers[6]:  # torch flattens channels first
            kernel = kernel.reshape(4, 5, 5, 6).transpose(2, 0, 1, 3).reshape(100, 6)
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        layer.weight.data = torch.tensor(np.ascontiguousarray(kernel.transpose(axes)))
        layer.bias.data = torch.tensor(held["bias"])
    x = torch.tensor(np.ascontiguousarray(np.asarray(classifier.images).transpose(0, 3, 1, 2)), requires_grad=True)
    copy = torch.nn.Sequential(*layers)
    np.testing.assert_allclose(copy(x).detach(), classifier.logits(classifier.images), atol=1e-5)
    return torch, copy, x
