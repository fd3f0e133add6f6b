"""Tiles of a large image give what the whole image gives."""

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops.tiling import mirrored_indices, predict_tiles


def blur(side):
    """A predictor of two classes: whether the mean of a window of 2 side + 1 pixels is above that of all images."""

    def segment(images):
        windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (2 * side + 1,) * 2, axis=(1, 2))
        score = windows.mean(axis=(-2, -1)) - 0.5
        return np.stack([-score, score], axis=-1)

    return segment


@pytest.mark.parametrize(("tile", "step", "size"), [(8, None, (30, 21)), (8, 5, (30, 21)), (40, None, (13, 9))])
def test_tiles_equal_the_whole_mirrored_image(tile, step, size):
    image, side = np.random.default_rng(0).uniform(size=(*size, 1)).astype(np.float32), 3
    whole = blur(side)(np.pad(image, ((side, side), (side, side), (0, 0)), mode="reflect")[None])[0].argmax(-1)
    np.testing.assert_array_equal(predict_tiles(blur(side), image, tile, side, step), whole)
    assert 0 < whole.mean() < 1


def test_bytes_are_read_where_they_lie_and_the_result_goes_where_it_is_wanted(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 17, 1), dtype=np.uint8)
    image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=pixels.shape)
    image[:] = pixels
    out = np.memmap(tmp_path / "classes", np.uint8, "w+", shape=pixels.shape[:2])
    assert predict_tiles(blur(2), image, 8, 2, out=out) is out
    np.testing.assert_array_equal(out, predict_tiles(blur(2), np.float32(pixels) / 255, 8, 2))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_indices_are_those_of_reflection(size):
    expected = np.pad(np.arange(size), (7, 9), mode="reflect")
    np.testing.assert_array_equal(mirrored_indices(-7, size + 16, size), expected)


def test_what_leaves_gaps_is_refused():
    image = np.zeros((9, 9, 1), np.float32)
    with pytest.raises(UserError, match="step=9"):
        predict_tiles(blur(1), image, 8, 1, 9)
    with pytest.raises(UserError, match="12x12 for a tile of 8x8"):
        predict_tiles(lambda images: np.zeros((1, 12, 12, 2)), image, 8, 2)
