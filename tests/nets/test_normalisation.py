"""Spectral normalisation beside torch's and beside the exact singular value; batch normalisation by class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.layers import Conv
from cvjax.nets.normalisation import ConditionalBatchNorm, spectral


class Normalised(nn.Module):
    """One layer under spectral normalisation."""

    kind: str

    @nn.compact
    def __call__(self, x, train=False):
        layers = {
            "conv": lambda: Conv(6, 3, padding=1, name="layer"),
            "dense": lambda: nn.Dense(6, name="layer"),
            "embedding": lambda: nn.Embed(5, 6, name="layer"),
        }
        return spectral(layers[self.kind](), train)(x)


def inputs(kind):
    x = jax.random.normal(jax.random.key(0), {"conv": (2, 4, 4, 3), "dense": (2, 7), "embedding": (1,)}[kind])
    return jnp.arange(5) if kind == "embedding" else x


def estimate(variables, name):
    """What is kept between calls: the vector `u` or the singular value `sigma`."""
    (kept,) = [v for key, v in variables["batch_stats"]["SpectralNorm_0"].items() if key.endswith(name)]
    return kept


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["conv", "dense", "embedding"])
def test_one_power_iteration_a_call_is_torchs(kind):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    net, x = Normalised(kind), inputs(kind)
    variables = net.init(jax.random.key(1), x)
    layer, side, order = {
        "conv": (lambda: torch.nn.Conv2d(3, 6, 3, padding=1), 0, (3, 2, 0, 1)),
        "dense": (lambda: torch.nn.Linear(7, 6), 0, (1, 0)),
        "embedding": (lambda: torch.nn.Embedding(5, 6), 1, (0, 1)),  # u on the side of the features, as ours
    }[kind]
    layer = torch.nn.utils.spectral_norm(layer(), dim=side)
    kernel = variables["params"]["layer"]["embedding" if kind == "embedding" else "kernel"]
    with torch.no_grad():
        layer.weight_orig.copy_(torch.tensor(np.asarray(kernel).transpose(order)))
        layer.weight_u.copy_(torch.tensor(np.asarray(estimate(variables, "u"))[0]))
        if kind != "embedding":
            layer.bias.zero_()
    given = torch.tensor(np.asarray(x))
    given = given.permute(0, 3, 1, 2) if kind == "conv" else given
    for _ in range(3):
        ours, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **new}
        theirs = layer(given).detach().numpy()
        np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1) if kind == "conv" else theirs, atol=1e-5)
        np.testing.assert_allclose(estimate(variables, "u")[0], layer.weight_u, atol=1e-5)

    # The derivative goes through the estimate of the norm too, u and v held.
    def loss(params):
        return jnp.sin(net.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])[0]).sum()

    gradient = jax.tree.leaves(jax.grad(loss)(variables["params"])["layer"])[-1]
    torch.sin(layer(given)).sum().backward()
    np.testing.assert_allclose(np.asarray(gradient).transpose(order), layer.weight_orig.grad, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv", "dense", "embedding"])
def test_the_estimate_comes_to_the_largest_singular_value(kind):
    net, x = Normalised(kind), inputs(kind)
    variables = net.init(jax.random.key(1), x)
    step = jax.jit(lambda variables: net.apply(variables, x, train=True, mutable=["batch_stats"])[1])
    for _ in range(200):
        variables = {**variables, **step(variables)}
    kernel = jax.tree.leaves(variables["params"]["layer"])[-1]
    exact = np.linalg.svd(np.float64(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    np.testing.assert_allclose(estimate(variables, "sigma"), exact, rtol=1e-3)  # 200 iterations from anywhere


def test_only_training_keeps_the_estimate():
    net, x = Normalised("dense"), inputs("dense")
    variables = net.init(jax.random.key(1), x)
    for train, changes in [(False, False), (True, True)]:
        _, new = net.apply(variables, x, train=train, mutable=["batch_stats"])
        assert (np.abs(estimate(new, "u") - estimate(variables, "u")).max() > 1e-6) == changes


def test_scale_and_shift_are_those_of_the_class():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 3, 3, 2))
    labels = jnp.array([0, 2, 2, 1])
    net = ConditionalBatchNorm(3)
    variables = net.init(jax.random.key(1), x, labels, False)
    table = variables["params"]
    assert (table["scale"]["embedding"] == 1).all() and (table["shift"]["embedding"] == 0).all()
    tables = {name: jax.random.normal(jax.random.key(n), (3, 2)) for n, name in enumerate(("scale", "shift"))}
    variables = {**variables, "params": {name: {"embedding": value} for name, value in tables.items()}}
    ours, new = net.apply(variables, x, labels, True, mutable=["batch_stats"])
    mean, variance = (getattr(np.asarray(x), name)(axis=(0, 1, 2)) for name in ("mean", "var"))
    for image, label, found in zip(np.asarray(x), labels, ours, strict=True):
        expected = (image - mean) / np.sqrt(variance + 1e-5) * tables["scale"][label] + tables["shift"][label]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    running = new["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(running["mean"], 0.1 * mean, rtol=1e-5)  # nine tenths of 0 are kept
    ours = net.apply({**variables, **new}, x, labels, False)
    expected = (x[3] - running["mean"]) / np.sqrt(running["var"] + 1e-5) * tables["scale"][1] + tables["shift"][1]
    np.testing.assert_allclose(ours[3], expected, atol=1e-5)


def test_without_classes_it_is_plain():
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 2))
    ours, variables = ConditionalBatchNorm(None).init_with_output(jax.random.key(1), x, None, True)
    expected = nn.BatchNorm(use_running_average=False, epsilon=1e-5).init_with_output(jax.random.key(1), x)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert set(variables["params"]["BatchNorm_0"]) == {"scale", "bias"}
