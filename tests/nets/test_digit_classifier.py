import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.digit_classifier import DigitClassifier


def initialised(**attributes):
    net = DigitClassifier(**attributes)
    images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    return net, net.init(jax.random.key(0), images)["params"], images


def test_size_and_shapes():
    net, params, images = initialised()
    logits, activations = net.apply({"params": params}, images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 81_898
    assert (logits.shape, activations["features"].shape) == ((3, 10), (3, 64))
    assert activations["features"].min() == 0  # after the ReLU


def test_logits_are_linear_in_the_features_and_dropout_is_for_training():
    net, params, images = initialised(dropout=0.5)
    logits, activations = net.apply({"params": params}, images)
    linear = activations["features"] @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(logits, linear, atol=1e-5)
    dropped, _ = net.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(2)})
    assert jnp.abs(dropped - logits).max() > 1e-3


@pytest.mark.parity
def test_forward_equals_torch():
    torch = pytest.importorskip("torch")
    net, params, images = initialised()

    def conv(x, name):
        kernel = torch.from_numpy(np.array(params[name]["kernel"])).permute(3, 2, 0, 1)
        return torch.relu(
            torch.nn.functional.conv2d(x, kernel, torch.from_numpy(np.array(params[name]["bias"])), padding=1)
        )

    x = 2 * torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) - 1
    for stage in (1, 2):
        x = torch.nn.functional.avg_pool2d(conv(conv(x, f"conv_{stage}_1"), f"conv_{stage}_2"), 2)
    x = x.permute(0, 2, 3, 1).reshape(3, -1) @ torch.from_numpy(np.array(params["features"]["kernel"]))
    _, activations = net.apply({"params": params}, images)
    np.testing.assert_allclose(activations["features"], torch.relu(x).numpy(), atol=1e-5)  # biases start at 0
