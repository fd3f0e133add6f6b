"""Joints as bins of their boxes, and heat maps read as joints, beside torchvision's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops import keypoint_heatmaps

HEIGHT, WIDTH, JOINTS = 90, 70, 5


def draw_boxes(seed, count):
    random = np.random.default_rng(seed)
    near = random.uniform(0, 50, (count, 2))
    far = np.minimum(near + random.exponential(20, near.shape) + 0.05, (WIDTH, HEIGHT))
    hard = [[0, 0, WIDTH, HEIGHT], [10.2, 10.3, 10.5, 10.9], [0, 0, 1, 1], [3, 5, 59, 61], [20, 20, 21.01, 76.5]]
    return np.concatenate([hard, np.concatenate([near, far], 1)]).astype(np.float32)


@pytest.mark.parity
def test_bins_are_torchvisions(torchvision):
    import torch

    encode = torchvision.models.detection.roi_heads.keypoints_to_heatmap
    random, boxes = np.random.default_rng(0), draw_boxes(1, 40)
    positions = random.uniform(-5, 95, (len(boxes), JOINTS, 2)).astype(np.float32)
    inside = random.uniform(0, 1, (len(boxes), 3, 2)).astype(np.float32)
    positions[:, :3] = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
    positions[::2, 0] = boxes[::2, 2:]  # on the far edges
    positions[1::2, 0, 0] = boxes[1::2, 0]  # and on a near one
    visibility = random.integers(0, 3, (len(boxes), JOINTS)).astype(np.float32)
    keypoints = torch.tensor(np.concatenate([positions, visibility[..., None]], -1))
    theirs = encode(keypoints, torch.tensor(boxes), 56)
    ours = keypoint_heatmaps.encode_keypoints(jnp.asarray(positions), jnp.asarray(visibility > 0), jnp.asarray(boxes))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our, their.numpy())
    assert 50 < ours[1].sum() < 200


def test_bins_of_what_torchvision_stumbles_over():
    """A region without area has no bin, though its joint is on its far edge; rubbish in padding is no bin either."""
    boxes = jnp.array([[4.0, 4, 4, 9], [9, 9, 2, 2], [0, 0, 8, 8]])
    positions = jnp.array([[[4.0, 9]], [[2, 2]], [[np.nan, np.inf]]])
    bins, valid = keypoint_heatmaps.encode_keypoints(positions, jnp.array([[True], [True], [False]]), boxes)
    assert not valid.any() and not bins.any()


@pytest.mark.parity
def test_joints_are_torchvisions(torchvision):
    import torch

    boxes = draw_boxes(2, 12)
    maps = np.random.default_rng(3).normal(size=(len(boxes), 56, 56, JOINTS)).astype(np.float32)
    maps[:, 20:23, 30:33, 0] += 5
    maps[:, 0, 55, 1] += 9  # in a corner
    theirs = torchvision.models.detection.roi_heads.heatmaps_to_keypoints(
        torch.tensor(maps).permute(0, 3, 1, 2), torch.tensor(boxes)
    )
    decode = jax.jit(keypoint_heatmaps.decode_keypoints, static_argnums=(2, 3))
    places, values = decode(jnp.asarray(maps), jnp.asarray(boxes), HEIGHT, WIDTH)
    np.testing.assert_allclose(values, theirs[1].numpy(), atol=1e-4)  # float32 sums of 16 values of up to 10
    np.testing.assert_allclose(places, theirs[0][..., :2].numpy(), atol=1e-4)


def test_joints_come_back_from_their_bins():
    boxes = jnp.array([[10.0, 20, 66, 76], [5, 5, 33, 61]])
    positions = jnp.array([[[12.5, 70.5], [40.5, 41.5]], [[6.5, 60.5], [20.5, 30.5]]])
    bins, valid = keypoint_heatmaps.encode_keypoints(positions, jnp.ones((2, 2), bool), boxes)
    maps = jnp.moveaxis(jax.nn.one_hot(bins, 56 * 56).reshape(2, 2, 56, 56), 1, -1)
    places, _ = keypoint_heatmaps.decode_keypoints(maps, boxes, 90, 70)
    assert valid.all()
    np.testing.assert_allclose(places, positions, atol=0.51)
    np.testing.assert_allclose(places[0], positions[0], atol=1e-4)  # a bin per pixel


def test_no_joints_of_no_regions():
    places, values = keypoint_heatmaps.decode_keypoints(jnp.zeros((0, 56, 56, 3)), jnp.zeros((0, 4)), 8, 8)
    assert places.shape == (0, 3, 2) and values.shape == (0, 3)
