"""The layers have torch's sizes and values, Flax's initialisation, and the parameters that checkpoints expect.

Tolerance against torch: 1e-5 on outputs of order one, a few hundred float32 roundings.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cvjax.errors import UserError
from cvjax.nets.layers import Conv, ConvTranspose

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 6, 4), np.float32))


def shapes(layer, x=X):
    """Shapes of the output and of the parameters, with nothing computed."""
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.eval_shape(layer.apply, variables, x).shape, jax.tree.map(jnp.shape, variables["params"])


@pytest.mark.parametrize(
    ("layer", "output", "kernel"),
    [
        (Conv(5, 3), (2, 6, 4, 5), (3, 3, 4, 5)),
        (Conv(5, 3, padding=1), (2, 8, 6, 5), (3, 3, 4, 5)),
        (Conv(5, 4, stride=2, padding=1), (2, 4, 3, 5), (4, 4, 4, 5)),
        (Conv(5, (3, 1), stride=(2, 1), padding=(1, 0)), (2, 4, 6, 5), (3, 1, 4, 5)),
        (Conv(5, 3, stride=2, padding="SAME"), (2, 4, 3, 5), (3, 3, 4, 5)),
        (Conv(5, 3, padding=((2, 0), (0, 1)), dilation=2), (2, 6, 3, 5), (3, 3, 4, 5)),
        (Conv(8, 3, padding=1, groups=4), (2, 8, 6, 8), (3, 3, 1, 8)),
        (ConvTranspose(5, 4), (2, 11, 9, 5), (4, 4, 4, 5)),
        (ConvTranspose(5, 4, stride=2, padding=1), (2, 16, 12, 5), (4, 4, 4, 5)),
        (ConvTranspose(5, 3, stride=2, padding=1, output_padding=1), (2, 16, 12, 5), (3, 3, 4, 5)),
        (ConvTranspose(6, (2, 3), stride=(2, 1), padding=(0, 1), groups=2), (2, 16, 6, 6), (2, 3, 2, 6)),
    ],
)
def test_shapes(layer, output, kernel):
    assert shapes(layer) == (output, {"kernel": kernel, "bias": (layer.features,)})
    assert shapes(layer.clone(use_bias=False)) == (output, {"kernel": kernel})


@pytest.mark.parametrize("layer", [Conv(64, 3, groups=2), ConvTranspose(64, 3, groups=2), ConvTranspose(64, 3)])
def test_kernels_are_drawn_as_flax_draws_them(layer):
    params = layer.init(jax.random.key(0), jnp.ones((1, 4, 4, 32)))["params"]
    inputs = 9 * 32 / layer.groups
    # 9,216 draws or more: their variance is known to 1.5 %, four of whose deviations are 6 %.
    assert params["kernel"].var() * inputs == pytest.approx(1, abs=0.06)
    assert abs(params["kernel"]).max() < 2.3 / np.sqrt(inputs)  # lecun_normal cuts at two deviations before it rescales
    assert not params["bias"].any()


def test_same_as_flax():
    ours, theirs = Conv(6, 3, padding=1, groups=2), nn.Conv(6, (3, 3), padding=1, feature_group_count=2)
    variables = ours.init(jax.random.key(3), X)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, theirs.init(jax.random.key(3), X)))
    np.testing.assert_allclose(ours.apply(variables, X), theirs.apply(variables, X), atol=1e-5)


def test_initialisers_can_be_given():
    layer = Conv(2, 1, kernel_init=nn.initializers.ones, bias_init=nn.initializers.constant(3.0))
    y, _ = layer.init_with_output(jax.random.key(0), X)
    np.testing.assert_allclose(y, jnp.repeat(X.sum(-1, keepdims=True), 2, -1) + 3, atol=1e-5)


@pytest.mark.parametrize("layer", [Conv(3, 3, padding=1), ConvTranspose(3, 4, stride=2, padding=1)])
def test_dtypes(layer):
    half = layer.clone(dtype=jnp.bfloat16)
    variables = half.init(jax.random.key(0), X)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    y = half.apply(variables, X)
    assert y.dtype == jnp.bfloat16
    # 36 or 64 products of numbers rounded to 8 binary digits.
    np.testing.assert_allclose(y.astype(jnp.float32), layer.apply(variables, X), atol=0.05)
    gradients = jax.grad(lambda v: half.apply(v, X).astype(jnp.float32).sum())(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    assert layer.apply(variables, X.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("groups", [3, 5, 0])
def test_groups_that_do_not_divide_the_channels(groups):
    with pytest.raises(UserError, match=f"{groups} groups do not divide 4 channels"):
        Conv(15, 3, groups=groups).init(jax.random.key(0), X)


@pytest.mark.parity
def test_dcgan_generator_equals_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(4, 8, 4),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 6, 4, 2, 1),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(6, 5, 3, 2, 1, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(5, 3, 4, 2, 1),
    )
    up = [ConvTranspose(8, 4), ConvTranspose(6, 4, stride=2, padding=1)]
    up += [ConvTranspose(5, 3, stride=2, padding=1, output_padding=1)]
    ours = nn.Sequential([up[0], nn.relu, up[1], nn.relu, up[2], nn.relu, Conv(3, 4, stride=2, padding=1)])
    params = {}
    for name, module in theirs.named_children():
        if hasattr(module, "weight"):
            axes = (2, 3, 1, 0) if isinstance(module, torch.nn.Conv2d) else (2, 3, 0, 1)
            kernel, bias = module.weight.detach().permute(axes).numpy(), module.bias.detach().numpy()
            params[f"layers_{name}"] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    z = torch.randn(2, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    y = jax.jit(ours.apply)({"params": params}, jnp.asarray(z.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(y, theirs(z).detach().permute(0, 2, 3, 1), atol=1e-5)
