"""Self-attention against NumPy, written out over places."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvjax.nets.attention import SelfAttention

CHANNELS = 16


@pytest.fixture(scope="module")
def attended():
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, CHANNELS))
    variables = SelfAttention().init(jax.random.key(1), x)
    return x, variables


def with_gamma(variables, gamma):
    return {"params": {**variables["params"], "gamma": gamma}}


def test_equations_by_loops(attended):
    x, variables = attended
    f, g, h, v = (np.float64(variables["params"][name]["kernel"])[0, 0] for name in "fghv")
    ours = SelfAttention().apply(with_gamma(variables, 0.7), x)
    for image, found in zip(np.asarray(x), ours, strict=True):
        places = image.reshape(-1, CHANNELS)
        result = np.zeros_like(places)
        for j, here in enumerate(places):
            scores = np.exp([(there @ f) @ (here @ g) for there in places])  # s_ij: f of the other place, g of this one
            shares = scores / scores.sum()  # over the places attended to
            result[j] = sum(share * (there @ h) for share, there in zip(shares, places, strict=True)) @ v
        np.testing.assert_allclose(found.reshape(-1, CHANNELS), 0.7 * result + places, atol=1e-5)


def test_it_begins_as_nothing(attended):
    x, variables = attended
    assert variables["params"]["gamma"] == 0
    np.testing.assert_array_equal(SelfAttention().apply(variables, x), x)


def test_an_eighth_of_the_channels_and_no_bias(attended):
    shapes = {name: jax.tree.map(np.shape, layer) for name, layer in attended[1]["params"].items() if name != "gamma"}
    narrow = {"kernel": (1, 1, CHANNELS, CHANNELS // 8)}
    assert shapes == {"f": narrow, "g": narrow, "h": narrow, "v": {"kernel": (1, 1, CHANNELS // 8, CHANNELS)}}
    few = jax.eval_shape(SelfAttention().init, jax.random.key(0), np.zeros((1, 2, 2, 4), np.float32))["params"]
    assert few["f"]["kernel"].shape == (1, 1, 4, 1)  # never none


def test_all_four_kernels_can_be_normalised(attended):
    x, plain = attended
    net = SelfAttention(spectral_norm=True)
    variables = net.init(jax.random.key(1), x)
    kept = nn.meta.unbox(variables["batch_stats"])
    assert sorted(key for norm in kept.values() for key in norm if key.endswith("/u")) == [
        f"{name}/kernel/u" for name in "fghv"
    ]
    variables = {**variables, "params": {**plain["params"], "gamma": 1.0}}
    for _ in range(100):
        _, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        variables |= new
    scaled = {
        name: {"kernel": layer["kernel"] / np.linalg.norm(layer["kernel"][0, 0], 2)}
        for name, layer in plain["params"].items()
        if name != "gamma"
    }
    expected = SelfAttention().apply({"params": {**scaled, "gamma": 1.0}}, x)
    np.testing.assert_allclose(net.apply(variables, x), expected, atol=1e-4)
