import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.digit_classifier import DigitClassifier


def randomised(**attributes):
    """A net, random parameters (biases too) and images; initialising it would compile for seconds."""
    net = DigitClassifier(**attributes)
    images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.05 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    return net, params, images


def test_size_and_shapes():
    net, params, images = randomised()
    logits, activations = net.apply({"params": params}, images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 82_090
    assert (logits.shape, activations["features"].shape) == ((3, 10), (3, 64))
    assert activations["features"].min() == 0  # after the ReLU


def test_convolutions_are_captured_after_their_relu():
    net, params, images = randomised()
    _, captured = net.clone(capture=("conv_1_1", "conv_2_2")).apply({"params": params}, images)
    assert {name: value.shape[1:] for name, value in captured.items()} == {
        "conv_1_1": (8, 8, 32),
        "conv_2_2": (4, 4, 64),
        "features": (64,),
    }
    pooled = captured["conv_2_2"].reshape(3, 2, 2, 2, 2, 64).mean((2, 4)).reshape(3, -1)
    features = np.maximum(pooled @ params["features"]["kernel"] + params["features"]["bias"], 0)
    np.testing.assert_allclose(captured["features"], features, atol=1e-5)


def test_logits_are_linear_in_the_features_and_dropout_is_for_training():
    net, params, images = randomised(dropout=0.5)
    logits, activations = net.apply({"params": params}, images)
    linear = activations["features"] @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(logits, linear, atol=1e-5)
    dropped, _ = net.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(2)})
    assert jnp.abs(dropped - logits).max() > 1e-3


@pytest.mark.parity
def test_forward_equals_torch():
    torch = pytest.importorskip("torch")
    net, params, images = randomised()

    def conv(x, name):
        kernel = torch.from_numpy(np.array(params[name]["kernel"])).permute(3, 2, 0, 1)
        return torch.relu(
            torch.nn.functional.conv2d(x, kernel, torch.from_numpy(np.array(params[name]["bias"])), padding=1)
        )

    x = 2 * torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) - 1
    for stage in (1, 2):
        x = torch.nn.functional.avg_pool2d(conv(conv(x, f"conv_{stage}_1"), f"conv_{stage}_2"), 2)
    kernel, bias = (torch.from_numpy(np.array(params["features"][name])) for name in ("kernel", "bias"))
    x = torch.relu(x.permute(0, 2, 3, 1).reshape(3, -1) @ kernel + bias)
    _, activations = net.apply({"params": params}, images)
    np.testing.assert_allclose(activations["features"], x.numpy(), atol=1e-5)
