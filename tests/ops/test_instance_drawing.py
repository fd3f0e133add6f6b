"""Objects are drawn with what is known of them, and parts of masks are what the whole masks are."""

import numpy as np
import pytest

from cvjax.ops.drawing import colour
from cvjax.ops.instance_drawing import draw_instances, paste_part
from cvjax.ops.instance_masks import threshold_masks

NAMES = ["cat", "dog"]

BOXES = [
    [10.3, 5.2, 50.7, 60.1],
    [-30, -20, 40, 30],  # across a corner
    [80, 50, 300, 140],
    [-40, -40, -10, -5],  # outside
    [20, 20, 20.4, 20.3],  # less than a pixel
    [30, 30, 30, 60],  # empty
    [np.nan, 0, 10, 10],
]


@pytest.mark.parametrize("box", BOXES)
def test_a_part_holds_all_of_a_mask(box):
    mask, box = np.random.default_rng(0).uniform(size=(14, 14)).astype(np.float32), np.float32(box)
    whole = np.zeros((64, 96), bool)
    part, (row, column) = paste_part(mask, box, *whole.shape)
    whole[row : row + part.shape[0], column : column + part.shape[1]] = part
    np.testing.assert_array_equal(whole, threshold_masks(mask[None], box[None], *whole.shape)[0])
    assert part.size <= (1.4 * max(box[2] - box[0], 0) + 6) * (1.4 * max(box[3] - box[1], 0) + 6) or np.isnan(box).any()


def objects(**more):
    return {"boxes": np.float32([[5, 5, 20, 20]]), "labels": np.int32([1])} | more


def test_what_has_a_mask_or_joints_has_a_colour_of_its_own():
    image = np.zeros((40, 40, 3), np.float32)
    plain, masked = (
        draw_instances(image, objects(**more), NAMES) for more in ({}, {"masks": np.ones((1, 40, 40), bool)})
    )
    np.testing.assert_allclose(plain[19, 12], colour(1), atol=0.5 / 255)
    np.testing.assert_allclose(masked[19, 12], colour(0), atol=0.5 / 255)


def test_true_masks_and_pasted_ones_are_drawn_alike_and_enlarged():
    whole = np.zeros((1, 40, 40), bool)
    whole[0, 6:19, 6:19] = True
    image, ones = np.full((40, 40, 1), 0.5, np.float32), np.ones((1, 13, 13), np.float32)
    for scale in (1, 3):
        true = draw_instances(image, objects(masks=whole), NAMES, scale)
        box = np.float32([[6, 6, 19, 19]])
        pasted = draw_instances(image, objects(masks=ones, mask_boxes=box), NAMES, scale)
        assert true.shape == pasted.shape == (40 * scale, 40 * scale, 3)
        # A mask of ones ends half a bin beyond its box.
        assert (true != pasted).any(-1).mean() < 0.06 and (true[12 * scale, 12 * scale] != 0.5).any()


def test_joints_are_drawn_by_their_visibility():
    image, joints = np.zeros((60, 60, 3), np.float32), np.float32([[[30.5, 30.5, 9], [50.5, 50.5, 9]]])
    seen = draw_instances(image, objects(keypoints=joints), NAMES)
    np.testing.assert_allclose(seen[50, 50], colour(0), atol=0.5 / 255)
    hidden = draw_instances(image, objects(keypoints=joints, visibility=np.int32([[1, 0]])), NAMES)
    assert (hidden[30, 30] == 1).all() and not hidden[45:, 45:].any()
