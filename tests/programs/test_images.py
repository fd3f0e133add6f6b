"""Images become bytes strip by strip, and are what they would be at once."""

import numpy as np

from cvjax.programs import images


def test_strips_leave_no_seams():
    picture = np.random.default_rng(0).uniform(-0.1, 1.1, size=(2 * images.STRIP + 3, 2, 3)).astype(np.float32)
    levels = images.to_bytes(picture)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, np.round(np.clip(picture, 0, 1) * 255))
    np.testing.assert_array_equal(images.to_bytes(picture[..., :1]), np.repeat(levels[..., :1], 3, axis=2))
    assert images.to_bytes(picture[..., :2]).shape[2] == 2  # with opacity
