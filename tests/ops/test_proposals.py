"""Selective search finds what stands out, and is a function of the image."""

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops.proposals import selective_search


def squares():
    """Makes a grey image with a dark square and a bright one, and their boxes."""
    image = np.full((60, 80, 3), 0.5, np.float32)
    image[10:30, 8:28] = 0.05
    image[25:50, 45:72] = (0.95, 0.9, 0.2)
    return image, np.float32([[8, 10, 28, 30], [45, 25, 72, 50]])


def overlap(one, others):
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    both = np.prod(np.clip(sides, 0, None), -1)
    return both / (np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - both)


@pytest.mark.parametrize("quality", [False, True])
def test_it_finds_two_squares(quality):
    image, boxes = squares()
    proposals = selective_search(image, quality)
    assert len(np.unique(proposals, axis=0)) == len(proposals)
    for box in boxes:
        assert overlap(box, proposals).max() > 0.8


def test_boxes_lie_in_the_image_and_the_largest_come_first():
    image = np.random.default_rng(0).uniform(size=(40, 50, 3)).astype(np.float32)
    proposals = selective_search(image, smallest=6)
    assert (proposals >= 0).all() and (proposals[:, 2:] <= (50, 40)).all()
    sides = proposals[:, 2:] - proposals[:, :2]
    assert sides.min() >= 6
    assert (np.diff(np.prod(sides, axis=1)) <= 0).all()
    np.testing.assert_array_equal(selective_search(image, smallest=6, most=5), proposals[:5])


def test_it_is_a_function_of_the_image():
    image, _ = squares()
    image += np.random.default_rng(0).normal(0, 0.05, image.shape).astype(np.float32)
    first = selective_search(image)
    for _ in range(3):
        np.testing.assert_array_equal(selective_search(image), first)


def test_grey_images_are_searched_too():
    grey = squares()[0].mean(-1, keepdims=True)
    np.testing.assert_array_equal(selective_search(grey), selective_search(np.repeat(grey, 3, axis=-1)))
    with pytest.raises(UserError, match="one channel or three, not 2"):
        selective_search(np.zeros((20, 20, 2), np.float32))
