"""Rates count every byte, and gains compare what costs the same."""

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from cvjax.metrics.controls import compression
from cvjax.metrics.controls.compression import Point


@pytest.fixture(scope="module")
def images():
    ramps = np.linspace(0, 1, 8, dtype=np.float32)
    return np.stack([np.outer(ramps, np.roll(ramps, shift)) for shift in range(6)])[..., None]


def adaptive_bits(numbers):
    """-log2 of the probability of the numbers by counts that are updated number by number."""
    size, bits = numbers.max() - numbers.min() + 1, 0.0
    for column in (numbers - numbers.min()).T:
        counts = np.ones(size)
        for symbol in column:
            bits -= np.log2(counts[symbol] / counts.sum())
            counts[symbol] += compression.INCREMENT
    return bits


@pytest.mark.parametrize("rows, columns, low, high", [(300, 4, -3, 4), (50, 1, -100, 100), (1, 1, 7, 8), (40, 3, 0, 1)])
def test_code_length_is_that_of_counts_updated_number_by_number(rows, columns, low, high):
    numbers = np.random.default_rng(rows).integers(low, high, (rows, columns))
    assert compression.code_length(numbers) == pytest.approx(adaptive_bits(numbers), rel=1e-9, abs=1e-6)


def test_code_length_is_within_one_per_cent_of_the_entropy():
    shares = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    numbers = np.random.default_rng(0).choice(5, size=(6000, 1), p=shares)
    entropy = scipy.stats.entropy(np.bincount(numbers[:, 0]) / len(numbers), base=2) * len(numbers)
    # Learning 4 free shares from 6,000 numbers costs about 4 / 2 log2(6,000) = 25 bits, and some more at first.
    assert entropy <= compression.code_length(numbers) <= 1.01 * entropy + 64


def test_code_points_count_streams_with_headers(images):
    levels = np.stack([np.arange(6)[:, None] % 3, np.zeros((6, 1), int)], axis=1)
    decoded = np.stack([images + 0.1 * (images < 0.5), np.zeros_like(images)], axis=1)
    fine, nothing = compression.code_points(images, levels, decoded)
    assert fine.header == nothing.header == nothing.size == 14  # a single number is certain
    assert fine.size == 14 + np.ceil(adaptive_bits(levels[:, 0]) / 8) and fine.psnr > nothing.psnr
    assert nothing.psnr == pytest.approx(-10 * np.log10(np.mean(images.astype(float) ** 2)))


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
