"""The strongest patches beside a search by hand, and their projections beside torch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.interpret import gates, top_patches
from cvjax.interpret.receptive_field import receptive_fields
from cvjax.ops.pooling import max_pool

KEY = jax.random.key(0)


class Small(nn.Module):
    """Two convolutions with a ReLU each and a maximum between them."""

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(4, (3, 3), padding=1, name="first")(images))
        x = nn.Conv(5, (3, 3), padding=1, name="second")(max_pool(x))
        return {"second": nn.relu(x)}


@pytest.fixture(scope="module")
def small():
    images = jax.random.uniform(KEY, (6, 12, 10, 3))
    held = Small().init(jax.random.key(1), images)
    held["params"]["first"]["bias"] += 3  # no ties of zeros for the maximum, of which torch takes the first
    return images, held, lambda images: Small().apply(held, images)


@pytest.mark.parametrize("shape", [(7, 3, 4, 5), (7, 5)])
def test_the_strongest_units_are_those_of_a_search(shape):
    activations = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    maxima = top_patches.spatial_maxima(jnp.asarray(activations))
    found = jax.tree.map(np.asarray, top_patches.strongest(*maxima, 3))
    boxed = activations.reshape(7, *(shape[1:3] if len(shape) == 4 else (1, 1)), 5)
    every = [(y, x) for y in range(boxed.shape[1]) for x in range(boxed.shape[2])]
    for channel in range(5):
        best = [max((boxed[i, y, x, channel], i, y, x) for y, x in every) for i in range(7)]
        places = (found.value, found.image, found.row, found.column)
        assert list(zip(*(leaf[channel] for leaf in places), strict=True)) == sorted(best, reverse=True)[:3]
    more = top_patches.strongest(*(leaf[:3] for leaf in maxima), 5)
    assert more.value.shape == more.image.shape == more.row.shape == (5, 5)
    assert (more.value[:, 3:] == -np.inf).all() and np.isfinite(more.value[:, :3]).all()
    assert not more.image[:, 3:].any() and (np.sort(more.image[:, :3], axis=1) == [0, 1, 2]).all()


def test_the_first_of_equal_units_counts():
    value, row, column = top_patches.spatial_maxima(jnp.zeros((2, 3, 4, 1)))
    assert not value.any() and not row.any() and not column.any()


def test_projections_are_of_one_unit_and_lie_in_its_receptive_field(small):
    images, _, read = small
    rows, columns = receptive_fields(read, (12, 10, 3))["second"]
    unit = [jnp.array(values) for values in ([0, 1, 2, 3, 4, 0], [0, 5, 2, 3, 0, 4], [0, 4, 1, 0, 4, 2])]
    found = np.asarray(
        jax.jit(lambda images: top_patches.projections(gates.deconvnet(read), images, "second", *unit))(images)
    )
    assert np.count_nonzero(np.abs(found).max(axis=(1, 2, 3))) >= 4
    for gradient, i, j in zip(found, unit[1], unit[2], strict=True):
        outside = gradient.copy()
        outside[rows[i, 0] : rows[i, 1], columns[j, 0] : columns[j, 1]] = 0
        assert not outside.any()


@pytest.mark.parity
def test_projections_equal_torchs(small):
    torch = pytest.importorskip("torch")
    images, held, read = small

    class Deconvnet(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, gradient):
            return gradient.clamp(min=0)

    x = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2), requires_grad=True)
    layers = []
    for name in ("first", "second"):
        kernel, bias = (torch.tensor(np.asarray(held["params"][name][kind])) for kind in ("kernel", "bias"))
        layers.append((kernel.permute(3, 2, 0, 1), bias))
    y = torch.nn.functional.max_pool2d(Deconvnet.apply(torch.nn.functional.conv2d(x, *layers[0], padding=1)), 2)
    y = Deconvnet.apply(torch.nn.functional.conv2d(y, *layers[1], padding=1))
    channel, row, column = np.array([0, 1, 2, 3, 4, 0]), np.array([0, 5, 2, 3, 0, 4]), np.array([0, 4, 1, 0, 4, 2])
    y[np.arange(6), channel, row, column].sum().backward()
    unit = (jnp.asarray(values) for values in (channel, row, column))
    found = top_patches.projections(gates.deconvnet(read), images, "second", *unit)
    np.testing.assert_allclose(found, x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)  # float32


def test_patches_are_cut_where_the_unit_sees_and_grey_beyond_the_border():
    images = np.arange(2 * 6 * 7).astype(np.float32).reshape(2, 6, 7, 1)
    spans = (np.array([[0, 2], [0, 3], [4, 6]]), np.array([[0, 3], [5, 7]]))
    found = top_patches.cut(images, spans, np.array([0, 2]), np.array([0, 1]), fill=-1.0)
    assert found.shape == (2, 3, 3, 1)
    np.testing.assert_array_equal(found[0, ..., 0], [[-1, -1, -1], [0, 1, 2], [7, 8, 9]])
    np.testing.assert_array_equal(found[1, ..., 0], [[75, 76, -1], [82, 83, -1], [-1, -1, -1]])


def test_gradients_become_legible():
    found = top_patches.legible(np.array([[[[0.0, 2.0, -1.0]]], [[[0.0, 0.0, 0.0]]]]))
    np.testing.assert_allclose(found, [[[[0.5, 1.0, 0.25]]], [[[0.5, 0.5, 0.5]]]])


def test_a_sheet_has_a_row_for_each_channel():
    one, two = np.zeros((2, 1, 3, 4, 3)), np.full((2, 2, 3, 4, 3), 0.5)
    found = top_patches.sheet({"one": one, "two": two}, gap=1)
    assert found.shape == (2 * 4 - 1, 5 + 3 + 10 + 3 - 4, 3)
    assert (found[4:7, :4] == 0).all() and (found[:3, 8:12] == 0.5).all() and (found[3] == 1).all()
