"""Images are padded by reflections to sides that a network takes, and where they lie is known."""

import jax.numpy as jnp
import numpy as np

from cvjax.ops.padding import pad_to_multiple, reflect


def test_padding_reflects_around_the_image():
    image = np.arange(35.0).reshape(1, 5, 7, 1)
    padded, (rows, columns) = pad_to_multiple(image, 8)
    np.testing.assert_array_equal(padded, np.pad(image, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"))
    np.testing.assert_array_equal(padded[:, rows, columns], image)
    np.testing.assert_array_equal(pad_to_multiple(padded, 8)[0], padded)


def test_reflections_repeat_where_an_image_is_smaller_than_its_margin():
    image = np.arange(2.0).reshape(1, 1, 2, 1)
    padded, (rows, columns) = pad_to_multiple(image, 4, least=7)
    expected = np.pad(image, ((0, 0), (3, 4), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(padded[:, rows, columns], image)


def test_margins_mirror_the_image_without_its_border():
    image = jnp.arange(5.0)[None, :, None, None] * jnp.ones((1, 5, 5, 1))
    np.testing.assert_array_equal(reflect(image, 3)[0, :, 4, 0], [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1])
