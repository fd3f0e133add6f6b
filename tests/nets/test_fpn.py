"""The feature pyramid beside torch modules with the same weights, at sizes that do not halve evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.fpn import FPN, upsample

SIZES = {"c2": (26, 37, 3), "c3": (13, 19, 4), "c4": (7, 10, 5), "c5": (4, 5, 6)}


@pytest.fixture(scope="module")
def stages():
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=(2, *size)), jnp.float32) for name, size in SIZES.items()}


def randomised(net, stages):
    rng = np.random.default_rng(1)
    leaves = jax.eval_shape(net.init, jax.random.key(0), stages)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), leaves)


@pytest.mark.parity
@pytest.mark.parametrize("levels", [(3, 4, 5, 6, 7), (2, 3), (4,)])
def test_levels_are_torchs(stages, levels):
    torch = pytest.importorskip("torch")
    net = FPN(7, levels)
    variables = randomised(net, stages)
    ours = jax.jit(net.apply)(variables, stages)

    def conv(x, name, **options):
        weight, bias = (torch.tensor(np.asarray(variables["params"][name][kind])) for kind in ("kernel", "bias"))
        return torch.nn.functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, **options)

    theirs, merged = {}, None
    inputs = {name: torch.tensor(np.asarray(value)).permute(0, 3, 1, 2) for name, value in stages.items()}
    for level in range(5, levels[0] - 1, -1):
        lateral = conv(inputs[f"c{level}"], f"lateral_{level}")
        if merged is not None:
            lateral += torch.nn.functional.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
        merged = lateral
        if level in levels:
            theirs[f"p{level}"] = conv(merged, f"smooth_{level}", padding=1)
    if 6 in levels:
        theirs["p6"] = conv(inputs["c5"], "coarse_6", padding=1, stride=2)
        theirs["p7"] = conv(torch.relu(theirs["p6"]), "coarse_7", padding=1, stride=2)
    assert list(ours) == [f"p{level}" for level in levels]
    for name in ours:  # float32 sums of 63 products or fewer
        np.testing.assert_allclose(ours[name], theirs[name].permute(0, 2, 3, 1), atol=1e-5, err_msg=name)


def test_upsampling_to_the_same_size_changes_nothing(stages):
    np.testing.assert_array_equal(upsample(stages["c4"], (7, 10)), stages["c4"])


@pytest.mark.parametrize("levels", [(3, 5), (1, 2), (6, 7), (4, 3), ()])
def test_refuses_levels_that_do_not_fit(stages, levels):
    with pytest.raises(UserError, match="start at one of c2, c3, c4, c5"):
        FPN(7, levels).init(jax.random.key(0), stages)
