"""Rates count every byte, and gains compare what costs the same."""

import io

import numpy as np
import pytest
from PIL import Image

from cvjax.metrics.controls import compression
from cvjax.metrics.controls.compression import Point


@pytest.fixture(scope="module")
def images():
    ramps = np.linspace(0, 1, 8, dtype=np.float32)
    return np.stack([np.outer(ramps, np.roll(ramps, shift)) for shift in range(6)])[..., None]


def test_code_points_count_streams_with_headers(images):
    levels = np.stack([np.arange(6)[:, None] % 3, np.zeros((6, 1), int)], axis=1)
    decoded = np.stack([images + 0.1 * (images < 0.5), np.zeros_like(images)], axis=1)
    fine, nothing = compression.code_points(images, levels, decoded)
    assert fine.header == nothing.header == 14
    assert nothing.size == 15 or nothing.size == 14 + 1
    assert fine.size > nothing.size and fine.psnr > nothing.psnr
    assert nothing.psnr == pytest.approx(-10 * np.log10(np.mean(images.astype(float) ** 2)))


def test_a_stream_that_does_not_come_back_is_refused(images, monkeypatch):
    monkeypatch.setattr(compression.arithmetic_coding, "decompress", lambda stream: np.zeros((6, 1), int))
    with pytest.raises(RuntimeError, match="does not decode"):
        compression.code_points(images, np.ones((6, 1, 1), int), images[:, None])


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_one_sheet_and_its_header_is_what_precedes_the_scan(images, channels):
    coloured = np.repeat(images, channels, axis=-1)
    low, high = compression.jpeg_points(coloured, (5, 90))
    assert low.size < high.size and low.psnr < high.psnr and low.header < low.size
    stream = io.BytesIO()
    Image.fromarray((255 * images[0, ..., 0]).astype(np.uint8)).save(stream, "jpeg", quality=50)
    found = stream.getvalue()
    scan = found.index(b"\xff\xda")
    assert compression.jpeg_header(found) == scan + 2 + int.from_bytes(found[scan + 2 : scan + 4], "big") + 2


def test_a_sheet_has_every_image_whole(images):
    sheet = compression.lay_out(images)
    assert sheet.shape == (16, 24, 1)
    np.testing.assert_array_equal(sheet[8:, 16:], images[5])
    np.testing.assert_array_equal(sheet[:8, 8:16], images[1])
    assert compression.lay_out(images[:5]).shape == (8, 40, 1)


def test_gain_is_at_the_same_bytes():
    mine = [Point(100, 0, 20.0), Point(200, 0, 30.0), Point(150, 0, 31.0)]
    rivals = [Point(120, 0, 18.0), Point(1000, 0, 32.0)]
    assert compression.gain(mine, rivals) == pytest.approx(((20 - 18) + (31 - 32)) / 2)
    assert compression.gain(mine, [Point(50, 0, 25.0)]) == pytest.approx(-5)  # the cheapest, where all cost more
