"""Anchors by their definitions, in loops; k-means against a search of all partitions and against hand-picked sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops import anchors
from cvjax.ops.boxes import iou


def test_grid_lies_cell_by_cell_as_a_head_is_reshaped():
    sizes = jnp.array([[8.0, 4], [2, 6]])
    found = np.asarray(anchors.grid((2, 3), 16, sizes)).reshape(2, 3, 2, 4)
    for row, column, k in np.ndindex(2, 3, 2):
        x, y, (width, height) = (column + 0.5) * 16, (row + 0.5) * 16, sizes[k]
        expected = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        np.testing.assert_array_equal(found[row, column, k], expected)


def test_cell_anchors_keep_their_area_whatever_their_ratio():
    scales, ratios = [1, 2 ** (1 / 3), 2 ** (2 / 3)], [0.5, 1, 2]
    sizes = np.asarray(anchors.cell_anchors(32, scales, ratios))
    np.testing.assert_allclose(sizes.prod(1), np.tile([(32 * s) ** 2 for s in scales], 3), rtol=1e-6)
    np.testing.assert_allclose(sizes[:, 1] / sizes[:, 0], np.repeat(ratios, 3), rtol=1e-6)  # height by width
    np.testing.assert_allclose(sizes[3], [32, 32])


def test_pyramid_covers_maps_whose_sides_do_not_divide():
    levels = anchors.pyramid((65, 100), (8, 16, 32), (32, 64, 128), (1, 1.26), (0.5, 1, 2))
    assert [len(level) for level in levels] == [9 * 13 * 6, 5 * 7 * 6, 3 * 4 * 6]
    np.testing.assert_allclose(levels[2][2], [16 - 64, 16 - 64, 16 + 64, 16 + 64])


def test_shape_iou_is_the_iou_of_centred_boxes():
    sizes = jnp.asarray(np.random.default_rng(0).uniform(0, 9, (20, 2)), jnp.float32)
    centred = jnp.concatenate([-sizes / 2, sizes / 2], -1)
    np.testing.assert_allclose(anchors.shape_iou(sizes, sizes), iou(centred, centred), atol=1e-6)  # float32


@jax.jit
def fit(sizes, centres):
    return anchors.shape_iou(jnp.asarray(sizes), jnp.asarray(centres)).max(-1).mean()


kmeans = jax.jit(anchors.kmeans, static_argnames="k")


def test_kmeans_finds_the_best_partition_of_few_boxes():
    sizes = np.random.default_rng(1).uniform(2, 30, (8, 2)).astype(np.float32)
    found = kmeans(jax.random.key(0), sizes, 3)
    partitions = np.array([p for p in itertools.product(range(3), repeat=8) if set(p) == {0, 1, 2}])
    members = np.eye(3, dtype=np.float32)[partitions]
    means = np.einsum("pnk,nd->pkd", members, sizes) / members.sum(1)[..., None]
    fits = jax.vmap(fit, (None, 0))(sizes, means)
    assert len(fits) == 5796 and fits.std() > 0.01
    assert fit(sizes, found) >= fits.max() - 1e-6


def test_kmeans_recovers_clusters_sorted_by_area():
    random = np.random.default_rng(2)
    centres = np.array([[6, 6], [10, 30], [40, 12], [60, 60]], np.float32)
    sizes = np.repeat(centres, (400, 90, 50, 10), axis=0) * np.exp(random.normal(0, 0.05, (550, 2)))
    found = kmeans(jax.random.key(3), jnp.asarray(sizes, jnp.float32), 4)
    np.testing.assert_allclose(found, centres, rtol=0.05)  # the mean of ten boxes of 5 % spread, and four sigmas
    # Euclidean distance would spend its centres on the few large boxes: 1 - IoU does not (the paper's point).
    assert fit(sizes, found) > fit(sizes, np.array([[8, 8], [16, 16], [32, 32], [64, 64]], np.float32)) + 0.05


def test_kmeans_of_equal_boxes_and_of_too_few():
    same = jnp.tile(jnp.array([[5.0, 7]]), (10, 1))
    np.testing.assert_array_equal(kmeans(jax.random.key(0), same, 3), same[:3])
    with pytest.raises(UserError, match="3 clusters cannot be made of 2 boxes"):
        anchors.kmeans(jax.random.key(0), same[:2], 3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_anchors_in_half_precision_are_those_in_float32(dtype):
    sizes = jnp.array([[512.0, 300], [64, 64], [320, 512]], dtype)  # areas beyond 65,504, where float16 ends
    exact = sizes.astype(jnp.float32)
    np.testing.assert_array_equal(anchors.grid((3, 70), 16, sizes), anchors.grid((3, 70), 16, exact))
    np.testing.assert_array_equal(anchors.shape_iou(sizes, sizes), anchors.shape_iou(exact, exact))


def test_kmeans_takes_numpy_arrays_of_any_kind():
    sizes = np.random.default_rng(3).integers(3, 90, (40, 2))
    expected = anchors.kmeans(jax.random.key(0), jnp.asarray(sizes, jnp.float32), 3, iterations=5, restarts=2)
    for kind in (np.float64, np.float32, np.int64):
        found = anchors.kmeans(jax.random.key(0), sizes.astype(kind), 3, iterations=5, restarts=2)
        np.testing.assert_array_equal(found, expected)
