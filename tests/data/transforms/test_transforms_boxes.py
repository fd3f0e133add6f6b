"""Boxes and maps move with the image: rectangles are drawn, transformed, and found again in what came out."""

import numpy as np
import pytest

from cvjax.data import transforms
from cvjax.data.transforms.scene import Scene, collage
from cvjax.errors import UserError

CHANNELS = 8
HEIGHT, WIDTH = 48, 64


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(seed, labels=range(CHANNELS), height=HEIGHT, width=WIDTH):
    """A scene of filled rectangles, one a cell of a grid, each in a channel of its own: that is its label."""
    generator, labels = rng(seed), list(labels)
    image = np.zeros((height, width, CHANNELS), np.float32)
    instances, boxes = np.zeros((height, width), np.int32), []
    for row, cell in enumerate(generator.permutation(8)[: len(labels)]):
        top, left = (cell // 4) * (height // 2), (cell % 4) * (width // 4)
        y1, x1 = top + generator.integers(1, height // 6), left + generator.integers(1, width // 12)
        y2, x2 = top + height // 2 - generator.integers(1, 5), left + width // 4 - generator.integers(1, 4)
        image[y1:y2, x1:x2, labels[row]] = 1
        instances[y1:y2, x1:x2] = row + 1
        boxes.append((x1, y1, x2, y2))
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    rows = {"labels": np.array(labels, np.int32), "area": area, "difficult": np.array(labels, int) % 2 == 1}
    classes = np.array([0, *(label + 1 for label in labels)], np.int32)[instances]
    return Scene(image, boxes, rows, {"class_map": classes, "instances": instances})


def extent(inside):
    """The box of the pixels that are True; None where there are none."""
    if not inside.any():
        return None
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def agree(scene, tolerance):
    """Each box is where its rectangle is found in the image and in both maps, and each rectangle has its box."""
    labels, classes = scene.rows["labels"].tolist(), scene.maps["class_map"]
    assert len(set(labels)) == len(labels)
    for label in range(CHANNELS):
        found = extent(scene.image[..., label] > 0.5)
        if label not in labels:
            assert found is None or (found[2:] - found[:2]).min() <= 1, (label, found)  # a sliver at the border
            continue
        row = labels.index(label)
        box = scene.boxes[row]
        assert scene.rows["difficult"][row] == (label % 2 == 1)
        np.testing.assert_allclose(scene.rows["area"][row], np.prod(box[2:] - box[:2]), rtol=1e-4)
        assert (box >= 0).all()
        assert (box[2:] <= (scene.shape[1], scene.shape[0])).all()
        if (box[2:] - box[:2]).min() < 2:  # too thin to be found to a fraction of a pixel
            continue
        for seen in (found, extent(classes == label + 1), extent(scene.maps["instances"] == row + 1)):
            np.testing.assert_allclose(seen, box, atol=tolerance)


# An edge between two pixels is found to half a pixel, and half of one in 1e3 of rounding beside it. A shrunk edge is
# spread over several, which leaves it where it is in the image, while a map takes the nearest pixel of the old one.
WHOLE, FRACTION, SHRUNK = 0.0, 0.51, 1.01
OPS = {
    "resize": (lambda g, s: transforms.resize(s, (96, 160)), FRACTION),
    "resize to less": (lambda g, s: transforms.resize(s, (40, 50)), SHRUNK),
    "resize of the shorter side": (lambda g, s: transforms.resize(s, 72, shorter=True), FRACTION),
    "letterbox": (lambda g, s: transforms.letterbox(s, 100), FRACTION),
    "letterbox of a tall one": (lambda g, s: transforms.letterbox(s, (60, 200)), FRACTION),
    "crop": (lambda g, s: transforms.crop(s, 5, 7, (30, 40), keep=0.0), WHOLE),
    "center_crop": (lambda g, s: transforms.center_crop(s, (30, 40), keep=0.0), WHOLE),
    "pad": (lambda g, s: transforms.pad(s, (1, 2, 3, 4)), WHOLE),
    "flip": (lambda g, s: transforms.flip(g, s, 1.0), WHOLE),
    "flip upside down": (lambda g, s: transforms.flip(g, s, 1.0, "vertical"), WHOLE),
    "no flip": (lambda g, s: transforms.flip(g, s, 0.0), WHOLE),
    "random_crop": (lambda g, s: transforms.random_crop(g, s, 40, keep=0.0), WHOLE),
    "random_crop of a padded one": (lambda g, s: transforms.random_crop(g, s, 48, 9, "constant", keep=0.0), WHOLE),
    "random_resized_crop": (lambda g, s: transforms.random_resized_crop(g, s, (90, 70), (0.3, 0.9), keep=0.0), SHRUNK),
    "random_expand": (lambda g, s: transforms.random_expand(g, s, (1.0, 3.0), value=0.0), WHOLE),
    "random_scale up": (lambda g, s: transforms.random_scale(g, s, (1.0, 2.0), value=0.0, keep=0.0), FRACTION),
    "random_scale down": (lambda g, s: transforms.random_scale(g, s, (0.6, 1.0), value=0.0, keep=0.0), SHRUNK),
    "random_scale askew": (
        lambda g, s: transforms.random_scale(g, s, (0.8, 1.25), (0.5, 2.0), value=0.0, keep=0.0),
        SHRUNK,
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_rectangles_are_found_where_their_boxes_went(name):
    transform, tolerance = OPS[name]
    for seed in range(8):
        before = drawn(seed, rng(seed).permutation(CHANNELS)[: 3 + seed % 6])
        after = transform(rng(seed), before)
        agree(after, tolerance)
        # The picture itself is what it would be without boxes.
        np.testing.assert_array_equal(after.image, transform(rng(seed), before.image))


@pytest.mark.parametrize(
    ("size", "top", "left", "height", "width"),
    [((33, 20), 11, 0, 10, 20), ((20, 63), 0, 11, 20, 40), (40, 10, 0, 20, 40)],
)
def test_a_letterbox_has_equal_margins(size, top, left, height, width):
    boxed = transforms.letterbox(np.ones((30, 60, 1), np.float32), size, value=0.25)
    expected = np.full_like(boxed, 0.25)
    expected[top : top + height, left : left + width] = 1
    np.testing.assert_array_equal(boxed, expected)


def test_random_shifts_move_boxes_by_whole_pixels():
    scene = drawn(0)
    for seed in range(8):
        moved = transforms.random_shift(rng(seed), scene, 4, "constant", keep=0.0)
        agree(moved, WHOLE)
        inner = np.isin(moved.rows["labels"], scene.rows["labels"])
        assert inner.all()
    assert len({transforms.random_shift(rng(seed), scene, 4, "constant").boxes.tobytes() for seed in range(20)}) > 10


@pytest.mark.parametrize(("scale", "tolerance"), [((1.0, 1.0), WHOLE), ((1.3, 2.0), FRACTION), ((0.6, 0.9), SHRUNK)])
def test_a_mosaic_has_the_boxes_of_all_four(scale, tolerance):
    middles = []
    for seed in range(12):
        order = rng(seed).permutation(CHANNELS).reshape(4, 2)
        scenes = iter([drawn(10 * seed + k, order[k], 48 + 8 * k, 96 - 8 * k) for k in range(1, 4)])
        before = drawn(seed, order[0])
        joined = transforms.mosaic(rng(seed), before, lambda scenes=scenes: next(scenes), scale=scale, keep=0.0)
        assert joined.shape == before.shape
        assert next(scenes, None) is None
        agree(joined, tolerance)
        middles.append(len(joined.boxes))
    assert max(middles) > 4


def test_a_mosaic_is_made_of_windows_that_meet_in_the_middle_half():
    for seed in range(20):
        greys = iter(np.float32([0.25, 0.5, 0.75]))
        empty = Scene(
            np.zeros((40, 60, 1), np.float32), np.zeros((0, 4), np.float32), {"area": np.zeros(0, np.float32)}
        )

        def another(greys=greys, empty=empty):
            return Scene(np.full((32, 32, 1), next(greys)), empty.boxes, empty.rows)

        image = transforms.mosaic(rng(seed), empty, another).image[..., 0]
        row = 1 + np.flatnonzero(np.diff(image[:, 0]))
        column = 1 + np.flatnonzero(np.diff(image[0]))
        assert row.shape == column.shape == (1,)
        assert 10 <= row[0] <= 30
        assert 15 <= column[0] <= 45
        quarters = [part for half in np.split(image, row) for part in np.split(half, column, axis=1)]
        assert sorted(quarter[0, 0] for quarter in quarters) == [0, 0.25, 0.5, 0.75]
        assert all(np.ptp(quarter) == 0 for quarter in quarters)
    alone = transforms.mosaic(rng(), empty, another, p=0.0)
    assert alone is empty


def test_a_mosaic_shows_all_of_its_images_that_a_small_scale_lets_it():
    """At the least scale, a window is no smaller than what the image was shrunk to."""
    scene = drawn(0, range(8), 40, 40)
    joined = transforms.mosaic(rng(3), scene, lambda: scene, scale=(0.01, 0.01), keep=0.0)
    # Each image only just fills its quarter, so it is cut along one axis at most: at least half of it is seen.
    assert len(joined.boxes) >= 16


BOX = np.float32([[10, 10, 20, 20]])


def cropped(left, keep, boxes=BOX):
    """Boxes left by a crop of 20 x 20 that begins at a column."""
    rows = {"area": np.float32([80] * len(boxes))}
    return transforms.crop(Scene(np.zeros((40, 60, 1), np.float32), boxes, rows), 0, left, 20, keep)


@pytest.mark.parametrize(
    ("left", "keep", "kept"),
    [
        (15, "centre", True),  # the centre, x = 15, is the first that is inside
        (16, "centre", False),
        (12, 0.8, True),  # 8 of 10 columns are inside
        (13, 0.8, False),
        (13, 0.7, True),
        (19, 0.1, True),
        (19, 0.0, True),
        (20, 0.0, False),  # touches from outside
        (10, 1.0, True),
        (11, 1.0, False),
    ],
)
def test_boxes_stay_where_the_centre_or_enough_of_the_area_stays(left, keep, kept):
    after = cropped(left, keep)
    assert len(after.boxes) == kept
    if kept:
        np.testing.assert_array_equal(after.boxes, [[max(10 - left, 0), 10, 20 - left, 20]])
        share = (20 - max(left, 10)) / 10
        np.testing.assert_allclose(after.rows["area"], 80 * share, rtol=1e-6)


def test_boxes_without_area_stay_where_they_are_inside():
    point, line = np.float32([[15, 15, 15, 15]]), np.float32([[0, 5, 60, 5]])
    for keep in ("centre", 0.5):
        assert len(cropped(10, keep, point).boxes) == 1
        assert len(cropped(16, keep, point).boxes) == 0
        assert len(cropped(15, keep, point).boxes) == 1
        assert len(cropped(15, keep, point + 20).boxes) == 0  # on the far edge, which is outside
        np.testing.assert_array_equal(cropped(20, keep, line).boxes, [[0, 5, 20, 5]])


def test_instances_are_numbered_anew_when_boxes_go():
    scene = drawn(2)
    gone = scene.select(np.array([True, False, True, False, False, True, False, True]))
    np.testing.assert_array_equal(gone.rows["labels"], [0, 2, 5, 7])
    for row, label in enumerate((0, 2, 5, 7)):
        np.testing.assert_array_equal(gone.maps["instances"] == row + 1, scene.maps["instances"] == label + 1)
    assert set(np.unique(gone.maps["instances"])) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(gone.maps["class_map"], scene.maps["class_map"])  # its pixels are still there


def test_a_collage_numbers_instances_through():
    first, second = drawn(0, [0, 1], 24, 48), drawn(1, [4, 5, 6], 24, 48)
    joined = collage([(0, 0, first), (24, 8, second)], 48, 56)
    np.testing.assert_array_equal(joined.rows["labels"], [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(joined.boxes[2:], second.boxes + np.float32([8, 24, 8, 24]))
    np.testing.assert_array_equal(
        joined.maps["instances"][24:, 8:], np.where(second.maps["instances"], second.maps["instances"] + 2, 0)
    )


def test_nothing_is_lost_where_there_are_no_boxes():
    empty = drawn(0, [])
    for transform, _ in OPS.values():
        after = transform(rng(), empty)
        assert after.boxes.shape == (0, 4)
        assert after.rows["labels"].shape == (0,)


def test_maps_turn_with_an_image_and_boxes_cannot():
    scene = drawn(0)
    with pytest.raises(UserError, match="rotate cannot move boxes"):
        transforms.rotate(rng(), scene, 10.0)
    turned = transforms.rotate(rng(), Scene(scene.image, maps=scene.maps), (90.0, 90.0))
    np.testing.assert_array_equal(turned.image, transforms.rotate(rng(), scene.image, (90.0, 90.0)))
    for label in range(CHANNELS):
        np.testing.assert_array_equal(turned.maps["class_map"] == label + 1, turned.image[..., label] > 0.5)


@pytest.mark.parametrize("border", ["reflect", "symmetric", "wrap"])
def test_borders_that_copy_objects_are_not_for_boxes(border):
    scene = drawn(0)
    with pytest.raises(UserError, match=f'border=\'{border}\' repeats objects.*"constant" or "edge"'):
        transforms.pad(scene, 4, border)
    agree(transforms.pad(scene, 0, border), WHOLE)
    smeared = transforms.pad(transforms.crop(scene, 9, 9, 30, 0.0), 9, "edge")
    agree(
        Scene(smeared.image * (smeared.maps["class_map"] > 0)[..., None], smeared.boxes, smeared.rows, smeared.maps), 0
    )
    copied = transforms.pad(Scene(scene.image, maps=scene.maps), 9, border)
    for label in range(CHANNELS):  # without boxes, maps are mirrored as the image is
        np.testing.assert_array_equal(copied.maps["class_map"] == label + 1, copied.image[..., label] == 1)


@pytest.mark.parametrize("keep", [-0.1, 1.5])
def test_a_share_is_between_none_and_all(keep):
    with pytest.raises(UserError, match=rf"keep={keep}.*\[0, 1\]"):
        cropped(0, keep)


def test_mistakes_with_boxes_are_named():
    image = drawn(0).image
    with pytest.raises(UserError, match=r"mosaic joins examples with boxes.*data.max_boxes is None"):
        transforms.mosaic(rng(), image, lambda: image)
    with pytest.raises(UserError, match=r"ratio=.* must be at least 1"):
        transforms.random_expand(rng(), image, (0.5, 2.0))


def test_expanded_images_lie_anywhere_on_canvases_of_all_sizes():
    image = np.ones((10, 20, 1), np.float32)
    generator, sizes, corners = rng(), [], []
    for _ in range(300):
        canvas = transforms.random_expand(generator, image, (1.0, 3.0), value=0.25)
        inside = extent(canvas[..., 0] == 1)
        np.testing.assert_array_equal(inside[2:] - inside[:2], (20, 10))
        assert set(np.unique(canvas)) <= {0.25, 1}
        sizes.append(canvas.shape[0] / 10)
        corners.append(inside[1] / max(1, canvas.shape[0] - 10))
    assert 1 <= min(sizes) < 1.1
    assert 2.9 < max(sizes) <= 3
    assert abs(np.mean(sizes) - 2) < 0.14  # four standard errors of a uniform draw
    assert abs(np.mean(corners) - 0.5) < 0.09  # likewise, and a little for whole pixels


def test_random_scale_keeps_the_shape_and_is_even_in_the_logarithm():
    box = np.float32([[28, 28, 36, 36]])
    scene = Scene(np.zeros((64, 64, 1), np.float32), box, {"area": np.float32([64])})
    generator, factors = rng(), []
    for _ in range(400):
        after = transforms.random_scale(generator, scene, (0.5, 2.0), keep=1.0)
        assert after.shape == (64, 64, 1)
        if len(after.boxes):  # else it was cut
            factors.append((after.boxes[0, 2] - after.boxes[0, 0]) / 8)
    assert 0.49 < min(factors) < 0.52
    assert 1.9 < max(factors) < 2.04
    assert abs(np.mean(np.log2(factors)) + 0.05) < 0.15  # uniform on [-1, 1], but for what was cut


def test_random_scale_jitters_the_aspect_evenly_in_the_logarithm_too():
    scene = Scene(np.zeros((64, 64, 1), np.float32), np.float32([[24, 24, 40, 40]]), {"area": np.float32([256])})
    generator, aspects, scales = rng(), [], []
    for _ in range(400):
        after = transforms.random_scale(generator, scene, (0.7, 0.7), (0.5, 2.0), keep=1.0)
        width, height = after.boxes[0, 2:] - after.boxes[0, :2]  # .7 * 2^.5 < 1: nothing is cut
        aspects.append(width / height)
        scales.append(np.sqrt(width * height) / 16)
    assert 0.49 < min(aspects) < 0.52 and 1.92 < max(aspects) < 2.05
    assert abs(np.mean(np.log2(aspects))) < 0.12  # four standard errors of a uniform draw on [-1, 1]
    np.testing.assert_allclose(scales, 0.7, atol=0.01)  # whole pixels
