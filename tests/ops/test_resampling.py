"""Resizing is the formula of the kernels in float64, PIL's inside the borders, and mirrors at them."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvjax.ops import resampling
from cvjax.ops.resampling import magnify, resize, resize_matrix, symmetric_indices


def keys(x):
    """Keys' kernel with a = -1/2, of a number, as the paper writes it."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def by_hand(line, new):
    """A line resized, pixel by pixel: MATLAB's kernel, widened where the line shrinks, over a mirrored line."""
    old = len(line)
    wide = max(1, old / new)
    mirrored = np.pad(line, 8 * old, mode="symmetric")
    found = []
    for index in range(new):
        middle = (index + 0.5) * old / new - 0.5
        weights = np.array([keys((middle - place) / wide) for place in range(-8 * old, 9 * old)])
        found.append(weights @ mirrored / weights.sum())
    return np.array(found)


@pytest.mark.parametrize(("old", "new"), [(12, 6), (12, 4), (12, 3), (7, 14), (5, 15), (13, 9), (2, 1), (1, 3)])
def test_lines_are_the_formula_in_float64(old, new):
    line = np.random.default_rng(old).uniform(size=old)
    np.testing.assert_allclose(resize_matrix(old, new) @ line, by_hand(line, new), atol=1e-12)


@pytest.mark.parametrize(("size", "border"), [((20, 30), 3), ((10, 15), 3), ((13, 44), 4), ((80, 120), 8)])
def test_images_are_pils_inside_the_borders(size, border):
    image = np.random.default_rng(0).uniform(size=(40, 60)).astype(np.float32)
    for kernel, method in {"bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "bilinear": Image.BILINEAR}.items():
        ours = np.asarray(resize(jnp.asarray(image)[None, ..., None], size, kernel))[0, ..., 0]
        expected = np.asarray(Image.fromarray(image).resize(size[::-1], method))
        inside = (slice(border, -border),) * 2  # at the borders PIL cuts the kernel off, where MATLAB mirrors the image
        np.testing.assert_allclose(ours[inside], expected[inside], atol=2e-6)  # float32, in two passes
        assert kernel == "bilinear" or np.abs(ours - expected).max() > 1e-3


def test_axes_are_not_mixed_up_and_a_wider_kernel_is_not_that_of_opencv():
    image = np.random.default_rng(1).uniform(size=(2, 12, 18, 3)).astype(np.float32)
    ours = np.asarray(resize(jnp.asarray(image), (6, 9)))
    down, across = resize_matrix(12, 6), resize_matrix(18, 9)
    np.testing.assert_allclose(ours, np.einsum("yh,xw,nhwc->nyxc", down, across, image), atol=1e-6)
    assert np.count_nonzero(resize_matrix(40, 20)[10]) == 8  # four taps, were it not widened
    waves = np.tile(np.float32([0, 1]), 20)  # of the highest frequency: nothing but an alias is left without widening
    np.testing.assert_allclose((resize_matrix(40, 20) @ waves)[2:-2], 0.5, atol=1e-12)


def test_a_parabola_is_interpolated_exactly_as_only_one_constant_does():
    places = (np.arange(40) + 0.5) * 0.5 - 0.5  # twice as large
    found = resize_matrix(20, 40) @ (np.arange(20.0) ** 2)
    np.testing.assert_allclose(found[4:-4], places[4:-4] ** 2, atol=1e-10)
    assert resampling.A == -0.5


@pytest.mark.parametrize("size", [1, 2, 5])
def test_indices_are_those_of_symmetric_padding(size):
    places, expected = np.arange(-7, size + 9), np.pad(np.arange(size), (7, 9), mode="symmetric")
    np.testing.assert_array_equal(symmetric_indices(places, size), expected)
    np.testing.assert_array_equal(symmetric_indices(jnp.asarray(places), size), expected)


def test_magnified_pixels_are_squares():
    image = np.random.default_rng(0).uniform(size=(2, 3, 4, 2)).astype(np.float32)
    expected = np.kron(image.transpose(0, 3, 1, 2), np.ones((1, 1, 3, 3))).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(magnify(jnp.asarray(image), 3), expected)
