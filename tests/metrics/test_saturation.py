"""The distance of saturations is SciPy's earth mover's distance of the pixels' chroma."""

import numpy as np
from scipy.stats import wasserstein_distance
from skimage.color import rgb2lab

from cvjax.metrics.saturation import MOST, chroma_histogram, saturation_distance


def chroma(images):
    lab = rgb2lab(images)
    return np.hypot(lab[..., 1], lab[..., 2]).ravel()


def test_the_distance_is_scipys():
    generator = np.random.default_rng(0)
    vivid, dull = (generator.uniform(low, 1, (2, 8, 9, 3)).astype(np.float32) for low in (0, 0.6))
    found = saturation_distance(chroma_histogram(vivid), chroma_histogram(dull))
    assert abs(found - wasserstein_distance(chroma(vivid), chroma(dull))) < 1  # the width of a bin
    assert saturation_distance(chroma_histogram(vivid), chroma_histogram(vivid)) == 0


def test_the_number_of_pixels_does_not_count():
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    twice = np.concatenate([images, images])
    assert saturation_distance(chroma_histogram(images), chroma_histogram(twice)) < 1e-9


def test_every_colour_of_a_screen_has_a_bin():
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), axis=-1).reshape(1, 8, 1, 3).astype(np.float32)
    assert chroma_histogram(corners).sum() == 8
    assert chroma(corners).max() < MOST
    grey, blue = np.full((1, 4, 4, 3), 0.3, np.float32), np.broadcast_to(np.float32([0, 0, 1]), (1, 4, 4, 3))
    np.testing.assert_allclose(saturation_distance(*map(chroma_histogram, (grey, blue))), 133)
