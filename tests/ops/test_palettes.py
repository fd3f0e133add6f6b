"""VOC's colours, and classes painted over images."""

import numpy as np

from cvjax.ops import palettes

VOC = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 5: (128, 0, 128), 7: (128, 128, 128), 15: (192, 128, 128)}


def test_the_palette_is_vocs_and_void_is_a_grey_that_no_class_has():
    colours = palettes.voc_palette()
    for number, colour in (VOC | {8: (64, 0, 0), 20: (0, 64, 128)}).items():
        assert tuple(colours[number]) == colour
    assert len(np.unique(colours, axis=0)) == 256 and tuple(colours[255]) == palettes.GREY


def test_classes_are_painted_over_an_image_and_the_background_is_not():
    image = np.random.default_rng(0).random((6, 9, 3)).astype(np.float32)
    numbers = np.zeros((6, 9), np.int32)
    numbers[1:5, 2:7], numbers[5] = 15, 255
    painted = palettes.overlay(image, numbers, opacity=0.25)
    assert painted.dtype == np.float32
    colour = np.divide(VOC[15], 255)
    np.testing.assert_allclose(painted[2:5, 3:7], 0.75 * image[2:5, 3:7] + 0.25 * colour, atol=1e-6)
    np.testing.assert_allclose(painted[1, 2:7], np.tile(colour, (5, 1)), atol=1e-6)  # where the class begins
    untouched = (numbers == 0) | (numbers == 255)
    np.testing.assert_array_equal(painted[untouched], image[untouched])
    every = palettes.overlay(image[..., :1], numbers, opacity=1.0, background=None)
    assert (every[numbers == 0] == 0).all()


def test_what_is_no_class_is_void():
    painted = palettes.paint(np.array([[3, -1, 255, 300]]))
    assert (painted[0, 1:] == np.float32(200 / 255)).all()
    np.testing.assert_allclose(painted[0, 0], np.divide((128, 128, 0), 255), atol=1e-6)


def test_a_map_is_painted_from_blue_to_red():
    values = np.zeros((20, 30), np.float32)
    values[3:6, 4:9], values[0, 0] = 2.0, -5
    painted = palettes.heat(np.full((20, 30, 1), 0.5, np.float32), values)
    assert painted.shape == (20, 30, 3) and painted.dtype == np.float32
    assert painted[4, 5, 0] > painted[4, 5, 2] + 0.2 and painted[10, 10, 2] > painted[10, 10, 0]
    np.testing.assert_array_equal(painted[0, 0], painted[10, 10])
    for flat in (values[10:], 0 * values - 1):
        assert np.ptp(palettes.heat(np.zeros((*flat.shape, 3), np.float32), flat), axis=(0, 1)).max() == 0
