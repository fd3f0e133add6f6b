"""Random shifts, turns and zooms beside SciPy's."""

import jax
import numpy as np
import scipy.ndimage

from cvjax.ops.affine import jitter

KEY = jax.random.key(0)


def test_jitter_of_nothing_changes_nothing_and_a_draw_equals_scipy():
    images = jax.random.uniform(KEY, (4, 8, 6, 2))
    np.testing.assert_allclose(jitter(KEY, images, 0.0, 0.0, 0.0), images, atol=1e-5)
    found = jitter(KEY, images, 1.5, 0.4, 0.2)
    shift_key, angle_key, zoom_key = jax.random.split(KEY, 3)
    moves = jax.random.uniform(shift_key, (4, 2, 1, 1), minval=-1.5, maxval=1.5)
    angles = np.asarray(jax.random.uniform(angle_key, (4,), minval=-0.4, maxval=0.4), np.float64)
    scales = np.asarray(jax.random.uniform(zoom_key, (4,), minval=0.8, maxval=1.2), np.float64)
    centre = np.array([3.5, 2.5])
    for index in range(4):
        c, s = np.cos(angles[index]), np.sin(angles[index])
        turn = scales[index] * np.array([[c, -s], [s, c]])
        offset = centre - turn @ centre + np.asarray(moves)[index, :, 0, 0]
        for channel in range(2):
            image = np.asarray(images)[index, :, :, channel]
            expected = scipy.ndimage.affine_transform(image, turn, offset, order=1, mode="grid-constant")
            np.testing.assert_allclose(found[index, :, :, channel], expected, atol=1e-5)


def test_beyond_the_border_an_image_is_mirrored_where_asked():
    image = jax.random.uniform(KEY, (1, 6, 5, 1))
    found = np.asarray(jitter(KEY, image, 3.0, 0.0, 0.0, "mirror"))[0, ..., 0]
    move = jax.random.uniform(jax.random.split(KEY, 3)[0], (1, 2, 1, 1), minval=-3, maxval=3)[0, :, 0, 0]
    expected = scipy.ndimage.shift(np.asarray(image)[0, ..., 0], -np.asarray(move), order=1, mode="mirror")
    np.testing.assert_allclose(found, expected, atol=1e-5)
