"""What belongs to an image moves with it: further images exactly, points as their spots, masks as their pixels."""

import numpy as np
import pytest

from cvjax.data import transforms
from cvjax.data.transforms.scene import Points, Scene, collage
from cvjax.errors import UserError

HEIGHT, WIDTH = 40, 60
OPS = {
    "resize": lambda g, s: transforms.resize(s, (52, 90)),
    "letterbox": lambda g, s: transforms.letterbox(s, 64),
    "crop": lambda g, s: transforms.crop(s, 3, 11, (30, 40)),
    "center_crop": lambda g, s: transforms.center_crop(s, (32, 40)),
    "pad": lambda g, s: transforms.pad(s, (1, 2, 3, 4), "reflect"),
    "flip": lambda g, s: transforms.flip(g, s, 1.0),
    "flip upside down": lambda g, s: transforms.flip(g, s, 1.0, "vertical"),
    "random_crop": lambda g, s: transforms.random_crop(g, s, 32, padding=4),
    "random_resized_crop": lambda g, s: transforms.random_resized_crop(g, s, 48, (0.4, 0.9)),
    "random_shift": lambda g, s: transforms.random_shift(g, s, 5),
    "random_expand": lambda g, s: transforms.random_expand(g, s, (1.0, 2.0)),
    "random_scale": lambda g, s: transforms.random_scale(g, s, (0.6, 1.6)),
    "rotate": lambda g, s: transforms.rotate(g, s, 60.0),
    "rotate by a right angle": lambda g, s: transforms.rotate(g, s, (90.0, 90.0)),
    "random_quarter_turn": lambda g, s: transforms.random_quarter_turn(g, s),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", OPS)
def test_further_images_move_exactly_as_the_first(name):
    image = rng(5).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    for seed in range(4):
        scene = OPS[name](rng(seed), Scene(image, images={"target": image, "grey": image[..., :1]}))
        alone = OPS[name](rng(seed), image)
        np.testing.assert_array_equal(scene.image, alone)
        np.testing.assert_array_equal(scene.images["target"], alone)
        np.testing.assert_array_equal(scene.images["grey"], alone[..., :1])


def test_a_mosaic_joins_further_images_at_the_same_places():
    boxes, rows = np.zeros((0, 4), np.float32), {"area": np.zeros(0, np.float32)}
    generator = rng(1)

    def another():
        image = generator.random((HEIGHT, WIDTH, 1)).astype(np.float32)
        return Scene(image, boxes, rows, images={"negative": 1 - image})

    joined = transforms.mosaic(rng(2), another(), another)
    np.testing.assert_allclose(joined.images["negative"], 1 - joined.image, atol=1e-6)


EYES = (1, 2)  # the left and the right one, of five points


def spotted(seed, visible=None):
    """Points at whole pixels, 8 at least from the border; each is the middle of a round spot in its own channel."""
    places = rng(seed).integers(8, (WIDTH - 8, HEIGHT - 8), (5, 2))
    rows, columns = np.indices((HEIGHT, WIDTH))[..., None]
    distance = (columns - places[:, 0]) ** 2 + (rows - places[:, 1]) ** 2
    there = np.ones(5, bool)
    points = Points(np.float32(places + 0.5), there if visible is None else visible, there, (EYES,))
    return Scene(np.where(distance <= 16, np.exp(-distance / 4), 0).astype(np.float32), points=points)


def middle(spot):
    """The middle of a spot, x and y in continuous coordinates."""
    rows, columns = np.indices(spot.shape) + 0.5
    return [(axis * spot).sum() / spot.sum() for axis in (columns, rows)]


@pytest.mark.parametrize("name", OPS)
def test_points_are_where_their_spots_are_found(name):
    seen = 0
    for seed in range(6):
        before = spotted(seed)
        after = OPS[name](rng(seed), before)
        image = np.where(after.image == 0.5, 0, after.image)  # grey borders
        order = [0, 2, 1, 3, 4] if "flip" in name else range(5)
        height, width = after.shape[:2]
        for point, channel in zip(after.points.positions, order, strict=True):
            if np.append(point, (width, height) - point).min() > 7.5:  # the whole spot is there
                np.testing.assert_allclose(point, middle(image[..., channel]), atol=0.08)
                seen += 1
        inside = ((after.points.positions >= 0) & (after.points.positions <= (width, height))).all(1)
        np.testing.assert_array_equal(after.points.visible, inside)
    assert seen > 5


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact(turns):
    scene = spotted(0)
    turned = transforms.random_quarter_turn(rng(), scene, (turns,))
    np.testing.assert_array_equal(turned.image, np.rot90(scene.image, turns))
    for point, (x, y) in enumerate(turned.points.positions):
        assert turned.image[int(y), int(x), point] == 1  # turning exchanges nothing
    boxed = Scene(np.zeros((10, 20, 1), np.float32), np.float32([[1, 2, 5, 9]]), {"area": np.float32([28])})
    boxed.image[2:9, 1:5] = 1
    after = transforms.random_quarter_turn(rng(), boxed, (turns,))
    left, top, right, bottom = after.boxes[0].astype(int)
    assert after.image[top:bottom, left:right].all()
    assert after.image.sum() == (bottom - top) * (right - left) == after.rows["area"][0]


def test_quarter_turns_are_as_likely_as_each_other():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    generator = rng()
    corners = [int(transforms.random_quarter_turn(generator, image)[0, 0, 0]) for _ in range(400)]
    values, counts = np.unique(corners, return_counts=True)
    np.testing.assert_array_equal(values, [0, 2, 3, 5])
    assert (abs(counts - 100) < 45).all()  # five standard deviations


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_a_mirror_exchanges_left_and_right_with_all_that_is_known_of_them(axis):
    scene = spotted(1, visible=np.array([True, False, True, True, True]))
    once = transforms.flip(rng(), scene, 1.0, axis)
    assert once.points.visible.tolist() == [True, True, False, True, True]
    x, y = once.points.positions[1]  # the left eye is where the right one's spot went
    assert once.image[int(y), int(x), 2] == 1
    twice = transforms.flip(rng(), once, 1.0, axis)
    np.testing.assert_array_equal(twice.points.positions, scene.points.positions)
    np.testing.assert_array_equal(twice.points.visible, scene.points.visible)


def test_what_a_crop_cuts_off_is_not_seen_again():
    scene = spotted(2)
    cropped = transforms.crop(scene, 0, 0, (HEIGHT, 20))
    expected = scene.points.positions[:, 0] <= 20
    assert 0 < expected.sum() < 5
    np.testing.assert_array_equal(cropped.points.visible, expected)
    np.testing.assert_array_equal(transforms.pad(cropped, (0, 40)).points.visible, expected)


def test_padding_stays_at_the_origin():
    there = np.array([True, False])
    points = Points(np.float32([[3.5, 4.5], [0, 0]]), there, there, ((0, 1),))
    after = transforms.flip(rng(), Scene(np.zeros((8, 10, 1), np.float32), points=points), 1.0)
    np.testing.assert_array_equal(after.points.positions, [[0, 0], [6.5, 4.5]])
    assert after.points.mask.tolist() == after.points.visible.tolist() == [False, True]


def test_a_mosaic_of_landmarks_is_refused():
    boxed = Scene(
        np.zeros((8, 8, 1), np.float32),
        np.zeros((0, 4), np.float32),
        {"area": np.zeros(0, np.float32)},
        points=spotted(0).points,
    )
    with pytest.raises(UserError, match=r"mosaic cannot join the points.*data.points"):
        transforms.mosaic(rng(), boxed, lambda: boxed)


def discs(seed, count=6):
    """Discs that overlap, each in a channel of the image, with its box and mask."""
    generator = rng(seed)
    rows, columns = np.indices((HEIGHT, WIDTH))
    middles, radii = (
        generator.integers(10, (WIDTH - 10, HEIGHT - 10), (count, 2)),
        generator.integers(5, 10, (count, 1)),
    )
    distance = np.hypot(columns[..., None] - middles[:, 0], rows[..., None] - middles[:, 1])
    masks = np.moveaxis(distance < radii[:, 0], -1, 0)
    boxes = np.concatenate([middles - radii + 1, middles + radii], 1).astype(np.float32)
    rows = {"area": masks.sum((1, 2)).astype(np.float32), "labels": np.arange(count, dtype=np.int32)}
    assert count == 1 or (masks.sum(0) > 1).any()
    return Scene(np.moveaxis(masks, 0, -1).astype(np.float32), boxes, rows, masks=masks)


# A new pixel is the nearest old one in a mask, and a mixture in an image: at the border of a disc they may differ.
EXACT = ("crop", "center_crop", "flip", "flip upside down", "random_quarter_turn", "random_expand")


@pytest.mark.parametrize("name", [name for name in OPS if "rotate" not in name and name != "pad"])
def test_masks_hold_the_pixels_of_their_objects_and_go_with_their_boxes(name):
    transform = OPS[name]
    if name == "random_crop":
        transform = lambda g, s: transforms.random_crop(g, s, 32, padding=4, border="constant")  # noqa: E731
    kept = 0
    for seed in range(4):
        after = transform(rng(seed), discs(seed))
        kept += len(after.boxes)
        assert after.masks.dtype == bool
        assert after.masks.shape == (len(after.boxes), *after.shape[:2])
        image = np.where(after.image == 0.5, 0, after.image)  # grey borders
        for row, label in enumerate(after.rows["labels"]):
            differing = (after.masks[row] != (image[..., label] > 0.5)).sum()
            assert differing <= (0 if name in EXACT else 0.15 * after.masks[row].sum())
    assert kept > 4


def test_masks_go_when_their_boxes_go():
    scene = discs(0)
    chosen = np.array([False, True, True, False, True, False])
    np.testing.assert_array_equal(scene.select(chosen).masks, scene.masks[[1, 2, 4]])
    nothing = transforms.flip(rng(), transforms.resize(scene.select(np.zeros(6, bool)), (7, 9)), 1.0)
    assert nothing.masks.shape == (0, 7, 9)


def test_a_mosaic_joins_masks_and_hides_what_lies_below():
    scenes = iter([discs(seed) for seed in range(1, 4)])
    joined = transforms.mosaic(rng(), discs(0), lambda: next(scenes), scale=(1.0, 1.0), keep=0.0)
    assert len(joined.masks) == len(joined.boxes) > 6
    for row, label in enumerate(joined.rows["labels"]):
        assert joined.image[joined.masks[row], label].all()
    below, above = discs(5, 1), discs(6, 1)
    both = collage([(0, 0, below), (0, 20, above)], HEIGHT, WIDTH + 20)
    np.testing.assert_array_equal(both.masks[1, :, 20:], above.masks[0])
    np.testing.assert_array_equal(both.masks[0, :, :20], below.masks[0, :, :20])
    assert not both.masks[0, :, 20:].any()
