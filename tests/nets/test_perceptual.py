"""LPIPS as a network is LPIPS as a function of the network, its variables and its heads."""

import flax.linen as nn
import jax
import numpy as np

from cvjax.metrics import lpips
from cvjax.nets.perceptual import LPIPS


class Small(nn.Module):
    """Two layers of features."""

    @nn.compact
    def __call__(self, images):
        first = nn.relu(nn.Dense(5)(images))
        second = nn.relu(nn.Dense(7)(first[:, ::2, ::2]))
        return second, {"a": first, "b": second}


def test_is_the_function_of_its_variables():
    random = np.random.default_rng(0)
    images, others = random.uniform(size=(2, 3, 4, 6, 3)).astype(np.float32)
    net = LPIPS(Small())
    params = net.init(jax.random.key(0), images)["params"]
    heads = {"a": random.uniform(size=5).astype(np.float32), "b": random.uniform(size=7).astype(np.float32)}
    params = {**params, **{f"head_{layer}": weights for layer, weights in heads.items()}}
    wanted = lpips.lpips(Small(), {"params": params["network"]}, heads, images, others)
    np.testing.assert_allclose(net.apply({"params": params}, images, others), wanted, rtol=1e-5)
    np.testing.assert_array_equal(net.apply({"params": params}, images), 0)
    assert wanted.min() > 1e-4
