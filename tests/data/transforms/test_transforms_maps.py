"""Class maps move with their image, with void around it; elastic deformations and borders are their definitions."""

import itertools

import cv2
import numpy as np
import pytest
from scipy import ndimage

from cvjax.data import pipeline, transforms
from cvjax.data.transforms import borders
from cvjax.data.transforms.scene import Scene
from cvjax.errors import UserError

HEIGHT, WIDTH = 40, 60
OUTSIDE = 0.5  # grey, the value of nothing in the image
OPS = {
    "resize": lambda g, s: transforms.resize(s, (52, 90), "nearest"),
    "letterbox": lambda g, s: transforms.letterbox(s, 64, "nearest"),
    "crop": lambda g, s: transforms.crop(s, 3, 11, (30, 40)),
    "center_crop": lambda g, s: transforms.center_crop(s, (32, 40)),
    "canvas": lambda g, s: transforms.canvas(s, (52, 64), value=OUTSIDE),
    "canvas that is smaller": lambda g, s: transforms.canvas(s, (64, 32), value=OUTSIDE),
    "pad": lambda g, s: transforms.pad(s, (1, 2, 3, 4), value=OUTSIDE),
    "pad reflected": lambda g, s: transforms.pad(s, 5, "reflect"),
    "flip": lambda g, s: transforms.flip(g, s, 1.0),
    "flip upside down": lambda g, s: transforms.flip(g, s, 1.0, "vertical"),
    "random_crop": lambda g, s: transforms.random_crop(g, s, 32, padding=4),
    "random_resized_crop": lambda g, s: transforms.random_resized_crop(g, s, 48, (0.4, 0.9), method="nearest"),
    "random_shift": lambda g, s: transforms.random_shift(g, s, 5),
    "random_expand": lambda g, s: transforms.random_expand(g, s, (1.0, 2.0)),
    "random_scale": lambda g, s: transforms.random_scale(g, s, (0.6, 1.6), method="nearest"),
    "random_scale_crop": lambda g, s: transforms.random_scale_crop(g, s, 64, method="nearest"),
    "random_quarter_turn": lambda g, s: transforms.random_quarter_turn(g, s),
    "rotate": lambda g, s: transforms.rotate(g, s, 60.0, value=OUTSIDE),
    "elastic": lambda g, s: transforms.elastic(g, s, 4.0, border="constant", value=OUTSIDE),
    "elastic reflected": lambda g, s: transforms.elastic(g, s, 4.0),
}
# Where classes meet, and at the image's border, these mix values, or Pillow rounds a pixel to its other neighbour.
INEXACT = ("rotate", "elastic", "random_scale", "random_scale_crop")


def rng(seed=0):
    return np.random.default_rng(seed)


def blocks(seed):
    """An image of blocks, each with a level of its own, and the map of their levels."""
    numbers = np.kron(rng(seed).integers(8, size=(5, 6)), np.ones((8, 10), int)).astype(np.int32)
    image = (numbers / 7).astype(np.float32)[..., None]
    return Scene(image, maps={"class_map": numbers, "other": numbers}, voids=("class_map",))


def test_every_transform_that_moves_pixels_is_tested_here():
    moving = set(transforms.__all__) - transforms.COLOUR - transforms.TEXT - transforms.TRUTH - {"mosaic"}
    assert moving == {name.split()[0] for name in OPS}


@pytest.mark.parametrize("name", OPS)
def test_a_class_map_is_that_of_its_image_and_void_around_it(name):
    seen = 0
    for seed in range(6):
        after = OPS[name](rng(seed), blocks(seed))
        level, numbers = after.image[..., 0] * 7, after.maps["class_map"]
        assert numbers.shape == after.shape[:2] and numbers.dtype == np.int32
        assert set(np.unique(numbers)) <= {*range(8), 255}  # nothing in between
        np.testing.assert_array_equal(after.maps["other"], np.where(numbers == 255, 0, numbers))
        outside = level == 7 * OUTSIDE
        wrong = np.where(outside, numbers != 255, np.abs(numbers - level) > 1e-3)
        if name.split()[0] in INEXACT:
            wrong &= ndimage.maximum_filter(numbers, 3) == ndimage.minimum_filter(numbers, 3)
        assert wrong.mean() <= (0.04 if name.split()[0] in INEXACT else 0)
        seen += int((numbers == 255).sum())
    padded = ("letterbox", "pad", "random_expand", "random_scale", "random_scale_crop", "rotate", "elastic")
    padded += ("canvas", "canvas that is smaller")
    assert (seen > 0) == (name in padded)


def test_a_mosaic_has_class_maps_with_their_images():
    def boxed(seed):
        scene = blocks(seed)
        empty = np.zeros((0, 4), np.float32)
        return Scene(scene.image, empty, {"area": np.zeros(0, np.float32)}, scene.maps, voids=scene.voids)

    seeds = itertools.count(1)
    joined = transforms.mosaic(rng(), boxed(0), lambda: boxed(next(seeds)), scale=(1.0, 1.0))
    np.testing.assert_allclose(joined.maps["class_map"], joined.image[..., 0] * 7, atol=1e-5)
    assert joined.voids == ("class_map",)


def test_scales_are_those_of_deeplab_and_what_is_missing_lies_below_and_to_the_right():
    scales = set()
    for seed in range(60):
        scene = transforms.random_scale_crop(rng(seed), blocks(0), (90, 130))
        inside = scene.maps["class_map"] != 255
        height, width = inside.any(1).sum(), inside.any(0).sum()
        assert scene.shape[:2] == (90, 130) and inside[:height, :width].all() and inside.sum() == height * width
        if width < 130:
            scales.add(round(width / WIDTH, 2))
    assert scales == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}
    drawn = transforms.random_scale_crop(rng(1), blocks(0), (90, 130), step=0.0)
    assert (drawn.maps["class_map"] != 255).any(0).sum() / WIDTH not in scales


def test_elastic_deformations_are_scipys():
    size, grid, std = (HEIGHT, WIDTH), 3, 4.0
    smooth = ndimage.gaussian_filter(rng(3).random((*size, 2)), (3, 3, 0)).astype(np.float32)
    moves = rng(9).normal(0, std, (2, grid, grid))
    places = np.meshgrid(np.linspace(0, 2, HEIGHT), np.linspace(0, 2, WIDTH), indexing="ij")
    fields = [ndimage.map_coordinates(move, places, order=3, mode="mirror") for move in moves]
    source = [index + field for index, field in zip(np.indices(size), fields, strict=True)]
    expected = [
        ndimage.map_coordinates(channel, source, order=1, mode="mirror") for channel in np.moveaxis(smooth, -1, 0)
    ]
    numbers = blocks(4).maps["class_map"]
    found = transforms.elastic(rng(9), Scene(smooth, maps={"numbers": numbers}), std, grid)
    # OpenCV rounds coordinates to 1/32 of a pixel.
    step = np.abs(np.gradient(smooth, axis=(0, 1))).sum(0).max() / 32
    np.testing.assert_allclose(found.image, np.stack(expected, -1), atol=step)
    nearest = ndimage.map_coordinates(numbers, source, order=0, mode="mirror")
    between = np.minimum(*(np.abs(place % 1 - 0.5) for place in source)) < 1 / 16
    np.testing.assert_array_equal(found.maps["numbers"][~between], nearest[~between])
    assert between.mean() < 0.3 and (found.maps["numbers"] != numbers).mean() > 0.1


def test_elastic_refuses_boxes():
    boxed = Scene(np.zeros((8, 8, 1), np.float32), np.zeros((0, 4), np.float32), {"area": np.zeros(0, np.float32)})
    with pytest.raises(UserError, match="elastic cannot move boxes or points"):
        transforms.elastic(rng(), boxed)


def cells(seed, count=4, size=(20, 24)):
    """Discs, later ones above earlier ones, numbered from 1."""
    rows, columns = np.indices(size)
    numbers = np.zeros(size, np.int32)
    for number in range(1, count + 1):
        row, column = rng((seed, number)).integers(3, (size[0] - 3, size[1] - 3))
        numbers[np.hypot(rows - row, columns - column) < 4] = number
    return numbers


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_border_weights_are_equation_2(count):
    for seed in range(3):
        numbers = cells(seed, count)
        found = borders.weigh_borders(numbers, 7.0, 3.0)
        expected = np.ones(numbers.shape)
        for place in np.argwhere(numbers == 0):
            distances = [
                np.sqrt(((np.argwhere(numbers == number) - place) ** 2).sum(1)).min()
                for number in np.unique(numbers[numbers > 0])
            ]
            if len(distances) > 1:
                expected[tuple(place)] += 7 * np.exp(-(sum(sorted(distances)[:2]) ** 2) / (2 * 3.0**2))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_borders_are_pixels_beside_another_object():
    numbers = cells(0, 5, (16, 16))
    expected = np.zeros_like(numbers, bool)
    for row, column in np.argwhere(numbers > 0):
        around = numbers[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        expected[row, column] = ((around > 0) & (around != numbers[row, column])).any()
    assert expected.any()
    np.testing.assert_array_equal(borders.find_borders(numbers), expected)


def test_touching_objects_are_separated_and_the_gap_is_heavy():
    numbers = np.zeros((12, 16), np.int32)
    numbers[3:9, 3:8], numbers[3:9, 8:13] = 1, 2
    classes = np.where(numbers > 0, 4, 0).astype(np.int32)
    classes[0] = 255
    scene = Scene(np.zeros((12, 16, 1), np.float32), maps={"class_map": classes, "instances": numbers})
    ops = [dict(op="separate"), dict(op="border_weights", class_weights=(0.5, 1, 1, 1, 2))]
    after = pipeline.build(ops)(scene, None)
    assert cv2.connectedComponents((after.maps["class_map"] == 4).astype(np.uint8))[0] == 1 + 2
    weights = after.images["border_weights"]
    assert weights.shape == (12, 16, 1) and weights.dtype == np.float32
    gap = weights[5, 7:9, 0]  # distances 1 and 2, in either order
    np.testing.assert_allclose(gap, 0.5 + 10 * np.exp(-(3**2) / 50), rtol=1e-5)
    assert weights[5, 4, 0] == 2 and 1 <= weights[0, 0, 0] < 1.3  # an object; void, which has weight 1, far from both


@pytest.mark.parametrize("op", ["separate", "border_weights"])
def test_borders_need_the_map_of_instances(op):
    with pytest.raises(UserError, match=r"transforms\[0\].*no map 'instances'; data.keep has to name it"):
        pipeline.build([dict(op=op)]).dry_run((8, 8, 3), "data.transforms", "an image")
