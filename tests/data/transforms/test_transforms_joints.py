"""Joints of objects move as their spots in the image, are exchanged by mirrors, and go with their boxes."""

import numpy as np
import pytest
from test_transforms_scene import HEIGHT, OPS, WIDTH, middle, rng

from cvjax.data import transforms
from cvjax.data.transforms.scene import Joints, Scene, collage
from cvjax.errors import UserError

OBJECTS, COUNT = 2, 4
KNEES = (1, 2)
BOXED = [name for name in OPS if name not in ("rotate", "rotate by a right angle", "pad", "random_crop")]


def spotted(seed, visibility=None):
    """Two objects of four joints, each joint the middle of a round spot in its own channel; boxes hold the joints."""
    places = rng(seed).integers(6, (WIDTH - 6, HEIGHT - 6), (OBJECTS, COUNT, 2))
    rows, columns = np.indices((HEIGHT, WIDTH))[..., None, None]
    distance = (columns - places[..., 0]) ** 2 + (rows - places[..., 1]) ** 2
    image = np.where(distance <= 16, np.exp(-distance / 4), 0).reshape(HEIGHT, WIDTH, -1).astype(np.float32)
    boxes = np.concatenate([places.min(1) - 4, places.max(1) + 5], 1).astype(np.float32)
    visibility = np.full((OBJECTS, COUNT), 2) if visibility is None else visibility
    joints = Joints(np.float32(places + 0.5), np.int32(visibility), (KNEES,))
    rows = {"area": np.zeros(OBJECTS, np.float32), "labels": np.arange(OBJECTS, dtype=np.int32)}
    return Scene(image, boxes, rows, joints=joints)


@pytest.mark.parametrize("name", BOXED)
def test_joints_are_where_their_spots_are_found(name):
    seen = 0
    for seed in range(6):
        after = OPS[name](rng(seed), spotted(seed))
        image = np.where(after.image == 0.5, 0, after.image)  # grey borders
        order = [0, 2, 1, 3] if "flip" in name else range(COUNT)
        height, width = after.shape[:2]
        assert len(after.joints.positions) == len(after.boxes) == len(after.rows["labels"])
        for row, label in enumerate(after.rows["labels"]):
            for joint, channel in enumerate(order):
                point, spot = after.joints.positions[row, joint], image[..., label * COUNT + channel]
                if after.joints.visibility[row, joint] and np.append(point, (width, height) - point).min() > 7.5:
                    np.testing.assert_allclose(point, middle(spot), atol=0.08)
                    seen += 1
                elif not after.joints.visibility[row, joint]:
                    assert point.tolist() == [0, 0] and spot.max() < 0.8  # the middle of the spot is outside
    assert seen > 5


def test_a_mirror_exchanges_joints_with_their_visibility_and_leaves_absent_ones_at_the_origin():
    before = spotted(1, visibility=[[2, 1, 2, 2], [2, 0, 2, 1]])
    before.joints.positions[1, 1] = 0
    once = transforms.flip(rng(), before, 1.0)
    assert once.joints.visibility.tolist() == [[2, 2, 1, 2], [2, 2, 0, 1]]
    assert once.joints.positions[1, 2].tolist() == [0, 0]
    np.testing.assert_array_equal(once.joints.positions[0, 2], [WIDTH, 0] + before.joints.positions[0, 1] * [-1, 1])
    twice = transforms.flip(rng(), once, 1.0)
    np.testing.assert_array_equal(twice.joints.positions, before.joints.positions)
    np.testing.assert_array_equal(twice.joints.visibility, before.joints.visibility)
    turned = transforms.random_quarter_turn(rng(), before, (2,))  # no mirror
    assert turned.joints.visibility.tolist() == before.joints.visibility.tolist()


def test_what_a_crop_cuts_off_stays_away():
    before = spotted(2)
    cropped = transforms.crop(before, 0, 0, (HEIGHT, 30), keep=0.0)
    expected = np.where(before.joints.positions[..., 0] <= 30, 2, 0)
    assert 0 < np.count_nonzero(expected) < expected.size and len(cropped.boxes) == OBJECTS
    for after in (cropped, transforms.pad(cropped, (0, 40))):
        np.testing.assert_array_equal(after.joints.visibility, expected)
        assert (after.joints.positions[expected == 0] == 0).all()


def test_joints_go_when_their_boxes_go():
    before = spotted(3)
    chosen = before.select(np.array([False, True]))
    np.testing.assert_array_equal(chosen.joints.positions, before.joints.positions[1:])
    nothing = transforms.flip(rng(), before.select(np.zeros(2, bool)), 1.0)
    assert nothing.joints.positions.shape == (0, COUNT, 2) and nothing.joints.visibility.shape == (0, COUNT)


def test_a_mosaic_joins_joints():
    scenes = iter([spotted(seed) for seed in range(5, 8)])
    joined = transforms.mosaic(rng(), spotted(4), lambda: next(scenes), scale=(1.0, 1.0), keep=0.0)
    seen = 0
    for row, label in enumerate(joined.rows["labels"]):
        for joint in np.flatnonzero(joined.joints.visibility[row]):
            x, y = joined.joints.positions[row, joint]
            column, line = min(int(x), WIDTH - 1), min(int(y), HEIGHT - 1)
            seen += joined.image[line, column, label * COUNT + joint] > 0.7
    assert seen == np.count_nonzero(joined.joints.visibility) > 6


def test_joints_below_another_picture_are_hidden():
    both = collage([(0, 0, spotted(5)), (0, 20, spotted(6))], HEIGHT, WIDTH + 20)
    covered = spotted(5).joints.positions[..., 0] >= 20
    assert 0 < covered.sum() < covered.size
    np.testing.assert_array_equal(both.joints.visibility[:2], np.where(covered, 1, 2))
    np.testing.assert_array_equal(both.joints.positions[2:], spotted(6).joints.positions + np.float32([20, 0]))
    assert (both.joints.visibility[2:] == 2).all()


@pytest.mark.parametrize("op", [transforms.rotate, transforms.elastic])
def test_what_cannot_move_boxes_refuses_joints_too(op):
    with pytest.raises(UserError, match="cannot move boxes"):
        op(rng(), spotted(0))
