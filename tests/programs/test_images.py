"""Images become bytes strip by strip, and are what they would be at once."""

import numpy as np
from PIL import Image

from cvjax.programs import images


def test_strips_leave_no_seams():
    picture = np.random.default_rng(0).uniform(-0.1, 1.1, size=(2 * images.STRIP + 3, 2, 3)).astype(np.float32)
    levels = images.to_bytes(picture)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, np.round(np.clip(picture, 0, 1) * 255))
    np.testing.assert_array_equal(images.to_bytes(picture[..., :1]), np.repeat(levels[..., :1], 3, axis=2))
    assert images.to_bytes(picture[..., :2]).shape[2] == 2  # with opacity


def test_bytes_are_written_as_they_are(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    for channels in (1, 3, 4):
        picture = np.concatenate([levels, levels[::-1], levels.swapaxes(0, 1), levels], axis=2)[..., :channels]
        images.save_image(tmp_path / "picture.png", picture)
        expected = picture if channels > 1 else np.repeat(picture, 3, axis=2)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), expected)
