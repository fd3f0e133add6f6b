"""Masked convolutions against loops and torch, and piece by piece against whole images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.generative.autoregressive.masked import ClassBias, MaskedConv, kernel_mask

RNG = np.random.default_rng(0)


def group_of(index, count, channels):
    """The channel whose group a feature is in, where groups are of the same size."""
    return index // (count // channels)


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("channels, inputs, outputs, parts", [(1, 2, 3, 1), (3, 3, 6, 1), (3, 6, 12, 2), (3, 6, 12, 4)])
def test_weights_that_count_come_from_before(mask, channels, inputs, outputs, parts):
    shape = (3, 5, inputs, outputs)
    ours = kernel_mask(shape, channels, mask, parts)
    for row, column, i, o in np.ndindex(shape):
        block = outputs // parts
        source, target = group_of(i, inputs, channels), group_of(o % block, block, channels)
        before = row < 2 or column < 2 or (column == 2 and (source < target or (mask == "B" and source == target)))
        assert ours[row, column, i, o] == before, (row, column, i, o)


@pytest.mark.parity
@pytest.mark.parametrize("mask", ["A", "B"])
def test_equals_torchs_convolution_by_the_whole_masked_kernel(mask):
    torch = pytest.importorskip("torch")
    layer, x = MaskedConv(6, (5, 3), mask, channels=3), RNG.normal(size=(2, 6, 7, 9)).astype(np.float32)
    params = layer.init(jax.random.key(0), jnp.asarray(x))["params"]
    params["bias"] = jnp.asarray(RNG.normal(size=6), jnp.float32)
    weight = RNG.normal(size=(6, 9, 5, 3)).astype(np.float32)  # what is masked is not 0
    weight[:, :, :3] = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
    allowed = np.ones_like(weight)
    allowed[:, :, 2, 2:] = allowed[:, :, 3:] = 0
    for target in range(3):
        seen = 3 * (target + (mask == "B"))
        allowed[2 * target : 2 * target + 2, seen:, 2, 1] = 0
    arrays = [torch.tensor(np.asarray(a)) for a in (x.transpose(0, 3, 1, 2), weight * allowed, params["bias"])]
    theirs = torch.nn.functional.conv2d(*arrays, padding=(2, 1)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        layer.apply({"params": params}, jnp.asarray(x)), theirs, atol=1e-5
    )  # float32, sums of 72 products


def test_sees_itself_by_mask_b_only_and_red_before_green_before_blue():
    x = jnp.asarray(RNG.normal(size=(1, 3, 3, 3)), jnp.float32)
    for mask, own in [("A", 0), ("B", 1)]:
        layer = MaskedConv(3, (3, 3), mask, channels=3)
        variables = layer.init(jax.random.key(1), x)
        middle = jax.jacobian(lambda x: layer.apply(variables, x)[0, 1, 1])(x)[:, 0]  # noqa: B023
        seen = np.asarray(middle != 0)
        assert seen[:, 0].all() and seen[:, 1, 0].all() and not seen[:, 1, 2].any() and not seen[:, 2].any()
        np.testing.assert_array_equal(seen[:, 1, 1], np.tri(3, k=own - 1))


@pytest.mark.parametrize(
    "mask, first, by",
    [("A", True, "pixel"), ("B", False, "pixel"), (None, True, "row"), (None, False, "row"), ("B", False, "row")],
)
@pytest.mark.parametrize("known", [0, 1, 3])
def test_pieces_are_those_of_the_whole(mask, first, by, known):
    x = jnp.asarray(RNG.normal(size=(2, 4, 5, 3)), jnp.float32)
    layer = MaskedConv(4, (5, 3), mask, channels=3, first=first)
    whole, filled = layer.init_with_output(jax.random.key(2), x)
    variables = {"params": filled["params"]}
    _, cache = layer.apply(variables, x[:, : max(known, 1)], mutable=["cache"])
    if not known:  # nothing is above the first row
        cache = jax.tree.map(jnp.zeros_like, cache)
    piece = jax.jit(lambda cache, x, place: layer.apply(variables | cache, x, place, mutable=["cache"]))
    for place in np.ndindex((4, 5) if by == "pixel" else (4,)):
        there = (slice(None), *(slice(at, at + 1) for at in place))
        if place[0] < known:
            continue
        ours, cache = piece(cache, x if first else x[there], place)
        np.testing.assert_allclose(ours, whole[there], atol=1e-6)  # float32, sums of 45 products


def test_an_even_kernel_is_refused():
    with pytest.raises(UserError, match=r"odd, not \(4, 3\)"):
        MaskedConv(2, (4, 3)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))


def test_a_class_adds_its_own_bias():
    labels = jnp.array([2, 0, 2])
    bias = ClassBias(3, 4)
    params = bias.init(jax.random.key(0), labels)["params"]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(params))  # at first, no class differs from another
    table = RNG.normal(size=(3, 4)).astype(np.float32)
    params = jax.tree.map(lambda _: jnp.asarray(table), params)
    np.testing.assert_array_equal(bias.apply({"params": params}, labels)[:, 0, 0], table[np.array(labels)])
    assert ClassBias(None, 4).apply({}, None) == 0
