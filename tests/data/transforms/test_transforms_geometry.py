"""Transforms that move pixels, against PIL, SciPy and their own definitions."""

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from cvjax.data import transforms
from cvjax.data.transforms.scene import Scene
from cvjax.errors import UserError

PIXELS = skimage.data.astronaut()[100:228, 150:250]  # 128 x 100
IMAGE = PIXELS.astype(np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("size", [(32, 40), (200, 150), 50])
def test_resize_is_pils(method, size):
    pixels = (60 + PIXELS * 0.5).astype(np.uint8)  # of grey levels, PIL would clip what overshoots in its first pass
    ours = transforms.resize(pixels.astype(np.float32) / 255, size, method)
    height, width = (size, size) if isinstance(size, int) else size
    reference = Image.fromarray(pixels).resize((width, height), Image.Resampling[method.upper()])
    assert ours.dtype == np.float32
    # and rounds to grey levels after each of two.
    np.testing.assert_allclose(ours * 255, np.asarray(reference, np.float32), atol=2)


def test_resize_is_antialiased_and_stays_in_range():
    board = np.indices((64, 64)).sum(0)[..., None].astype(np.float32) % 2
    np.testing.assert_allclose(transforms.resize(board, 16)[1:-1, 1:-1], 0.5, atol=1e-6)
    edge = np.repeat(np.arange(2, dtype=np.float32), 8)[None, :, None].repeat(16, 0)
    bigger = transforms.resize(edge, 50, "lanczos")
    assert bigger.min() == 0
    assert bigger.max() == 1


def test_resize_of_the_shorter_side_keeps_the_aspect():
    assert transforms.resize(IMAGE, 50, shorter=True).shape == (64, 50, 3)
    assert transforms.resize(IMAGE.transpose(1, 0, 2), 50, shorter=True).shape == (50, 64, 3)
    with pytest.raises(UserError, match="one number"):
        transforms.resize(IMAGE, (50, 60), shorter=True)


def test_crops_are_slices():
    np.testing.assert_array_equal(transforms.crop(IMAGE, 3, 5, (20, 30)), IMAGE[3:23, 5:35])
    np.testing.assert_array_equal(transforms.center_crop(IMAGE, (20, 30)), IMAGE[54:74, 35:65])
    np.testing.assert_array_equal(transforms.center_crop(IMAGE[:5, :5], 2), IMAGE[1:3, 1:3])
    for top, left in ((-1, 0), (120, 0), (0, 90)):
        with pytest.raises(UserError, match="does not lie within an image of 128x100"):
            transforms.crop(IMAGE, top, left, 20)


@pytest.mark.parametrize(("size", "rows", "columns"), [((150, 120), 128, 100), ((40, 120), 40, 100), (50, 50, 50)])
def test_a_canvas_has_its_image_at_the_upper_left_and_says_so(size, rows, columns):
    scene = transforms.canvas(IMAGE, size, value=0.25)
    inside = scene.images["inside"]
    assert scene.shape == (*((size, size) if isinstance(size, int) else size), 3) == (*inside.shape[:2], 3)
    np.testing.assert_array_equal(scene.image[:rows, :columns], transforms.center_crop(IMAGE, (rows, columns)))
    np.testing.assert_array_equal(scene.image[inside[..., 0] == 0], 0.25)
    np.testing.assert_array_equal(np.argwhere(inside)[-1], [rows - 1, columns - 1, 0])
    assert inside.sum() == rows * columns
    further = transforms.canvas(Scene(IMAGE, images={"target": IMAGE}), size, name="there", value=0.25)
    np.testing.assert_array_equal(further.images["target"], scene.image)
    assert further.images.keys() == {"target", "there"}


def test_pad_puts_the_right_number_on_each_side():
    padded = transforms.pad(IMAGE, (1, 2, 3, 4), value=0.25)
    assert padded.shape == (131, 107, 3)
    np.testing.assert_array_equal(padded[1:-2, 3:-4], IMAGE)
    assert (padded[0] == 0.25).all()
    assert (padded[:, -4:] == 0.25).all()
    assert transforms.pad(IMAGE, (5, 7)).shape == (138, 114, 3)
    np.testing.assert_array_equal(transforms.pad(IMAGE, 2, "reflect")[:2, 2:-2], IMAGE[2:0:-1])
    with pytest.raises(UserError, match="one, two or four"):
        transforms.pad(IMAGE, (1, 2, 3))


@pytest.mark.parametrize("border", ["constant", "edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("channels", [1, 3, 5, 150])
def test_borders_are_numpys(border, channels):
    image = np.resize(IMAGE.T, (channels, 40, 50)).T
    expected = np.pad(image, ((7, 7), (9, 9), (0, 0)), border)
    np.testing.assert_array_equal(transforms.pad(image, (7, 9), border), expected)


def test_random_crops_are_everywhere_and_equally_often():
    image = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
    generator = rng()
    corners = [int(transforms.random_crop(generator, image, (3, 3))[0, 0, 0]) for _ in range(3000)]
    values, counts = np.unique(corners, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 5, 6, 7])  # all windows of 3x3 in 4x5
    assert (abs(counts - 500) < 5 * np.sqrt(500)).all()  # five standard deviations
    window = transforms.random_crop(rng(1), image, (2, 2), padding=2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (2, 2)).reshape(-1, 4)
    assert (windows == window.ravel()).all(1).any()
    with pytest.raises(UserError, match="9x9 is larger than the image, 4x5"):
        transforms.random_crop(rng(), image, 9)


def test_random_resized_crops_keep_to_the_area_and_aspect():
    # In a picture of its own coordinates the corners of a crop tell where it was.
    rows, columns = np.indices((200, 200), dtype=np.float32)
    image = np.stack([rows, columns], -1)
    generator, areas, aspects = rng(), [], []
    for _ in range(300):
        crop = transforms.random_resized_crop(generator, image, 8, scale=(0.2, 0.5), ratio=(0.5, 2.0), method="box")
        height, width = (np.ptp(crop[..., axis]) * 8 / 7 for axis in (0, 1))
        areas.append(height * width / 200**2)
        aspects.append(width / height)
    assert min(areas) > 0.19
    assert max(areas) < 0.51
    assert abs(np.mean(areas) - 0.35) < 0.02  # 4 standard errors of a uniform draw
    assert min(aspects) > 0.48
    assert max(aspects) < 2.1
    assert abs(np.median(np.log(aspects))) < 0.15


def test_random_resized_crop_of_a_narrow_image_falls_back_to_its_middle():
    image = np.zeros((300, 10, 1), np.float32)
    image[143:157] = 1  # the largest middle part of aspect 3/4 has 13 rows
    crop = transforms.random_resized_crop(rng(), image, 8, scale=(0.9, 1.0))
    assert crop.shape == (8, 8, 1)
    np.testing.assert_array_equal(crop, 1)


def test_flips():
    np.testing.assert_array_equal(transforms.flip(rng(), IMAGE, 1.0), IMAGE[:, ::-1])
    np.testing.assert_array_equal(transforms.flip(rng(), IMAGE, 1.0, "vertical"), IMAGE[::-1])
    np.testing.assert_array_equal(transforms.flip(rng(), IMAGE, 0.0), IMAGE)
    generator = rng()
    flipped = np.mean([transforms.flip(generator, IMAGE, 0.3)[0, 0, 0] != IMAGE[0, 0, 0] for _ in range(1000)])
    assert abs(flipped - 0.3) < 0.06  # four standard deviations


@pytest.mark.parametrize("degrees", [30.0, -75.0, 90.0])
def test_rotation_is_scipys_away_from_the_border(degrees):
    ours = transforms.rotate(rng(), IMAGE[:100], (degrees, degrees))
    reference = ndimage.rotate(IMAGE[:100], degrees, reshape=False, order=1)
    # OpenCV before 5 interpolates at steps of 1/32 of a pixel.
    np.testing.assert_allclose(ours[25:75, 25:75], reference[25:75, 25:75], atol=0.03)
    assert abs(ours - reference)[25:75, 25:75].mean() < 1e-3


def test_rotation_draws_from_its_range_and_fills_the_corners():
    turned = transforms.rotate(rng(), IMAGE, (45.0, 45.0), value=0.75)
    np.testing.assert_allclose(turned[0, 0], 0.75)
    same = transforms.rotate(rng(), IMAGE[..., :1], 0.0)
    np.testing.assert_allclose(same, IMAGE[..., :1], atol=1e-6)
    for count in (2, 6, 150):  # OpenCV 5 interpolates these at steps of 1/32 of a pixel, and one or three exactly
        channels = np.arange(count) % 3
        many = transforms.rotate(rng(), IMAGE[..., channels], (45.0, 45.0), value=0.75)
        np.testing.assert_array_equal(many, turned[..., channels])
    drawn = [transforms.rotate(rng(seed), IMAGE[:64, :64], 20.0) for seed in range(2)]
    assert not np.array_equal(*drawn)


def test_shifts_are_whole_pixels_in_both_directions():
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 4] = 1
    generator = rng()
    places = {tuple(np.argwhere(transforms.random_shift(generator, image, 2))[0][:2].tolist()) for _ in range(400)}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
