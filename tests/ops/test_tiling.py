"""Tiles of a large image give what the whole image gives."""

import tracemalloc

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops.tiling import map_tiles, mirrored_indices, predict_tiles


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
    with pytest.raises(UserError, match="16x16 for a tile of 8x8 at scale=3"):
        map_tiles(lambda images: np.zeros((1, 16, 16, 2)), image, 8, 2, scale=3)


def enlarge(images):
    """Twice as large, each pixel of which has the mean of a window of 5 pixels, by three channels."""
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (5, 5), axis=(1, 2)).mean(axis=(-2, -1))
    large = windows.repeat(2, axis=1).repeat(2, axis=2)
    return np.stack([large, -large, np.square(large)], axis=-1)


@pytest.mark.parametrize(("tile", "step", "size"), [(8, None, (30, 21)), (7, 4, (30, 21)), (40, None, (1, 9))])
def test_results_of_another_size_equal_those_of_the_whole(tile, step, size):
    image = np.random.default_rng(0).uniform(size=(*size, 1)).astype(np.float32)
    whole = enlarge(np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")[None])[0]
    found = map_tiles(enlarge, image, tile, 2, scale=2, step=step)
    assert found.shape == (2 * size[0], 2 * size[1], 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_twelve_megapixels_are_never_in_memory(tmp_path):
    image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=(3000, 4000, 3))
    out = np.memmap(tmp_path / "out", np.uint8, "w+", shape=(6000, 8000, 3))
    image[1500:] = 100
    bytes_of = lambda window: (255 * window[:, 8:-8, 8:-8]).astype(np.uint8)  # noqa: E731
    tracemalloc.start()
    found = map_tiles(lambda window: bytes_of(window).repeat(2, 1).repeat(2, 2), image, 256, 8, scale=2, out=out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is out and not out[:3000].any() and (out[3000:] == 100).all()
    assert most < 2**23  # of windows of 0.9 MB; the image has 36 MB and the result 144
