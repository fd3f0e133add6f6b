"""PSNR against its formula, and classical denoisers on noise that they are good at."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from cvjax.metrics.controls import denoising


@pytest.fixture(scope="module")
def bars():
    images = np.zeros((3, 12, 12, 1), np.float32)
    images[:, :, 4:8] = 0.8
    noise = np.random.default_rng(0).normal(0, 0.1, images.shape)
    return images, (images + noise).astype(np.float32)


def test_psnr_is_the_formula_on_clipped_images(bars):
    clean, noisy = bars
    clipped = np.clip(noisy, 0, 1).astype(np.float64)
    assert denoising.psnr(clean, noisy) == pytest.approx(-10 * np.log10(np.mean((clipped - clean) ** 2)), abs=1e-6)
    expected = peak_signal_noise_ratio(clean.astype(float), clipped, data_range=1)
    assert denoising.psnr(clean, noisy) == pytest.approx(expected, abs=1e-9)
    assert denoising.psnr(clean, noisy) > peak_signal_noise_ratio(clean, noisy, data_range=1)


def test_nonlocal_means_cleans_what_repeats_and_leaves_clean_images(bars):
    clean, noisy = bars
    assert denoising.psnr(clean, denoising.nonlocal_means(clean, noisy)) > denoising.psnr(clean, noisy) + 3
    np.testing.assert_allclose(denoising.nonlocal_means(clean, clean), clean, atol=1e-3)
    black = np.zeros_like(clean)
    assert np.isfinite(denoising.nonlocal_means(black, black)).all()


def test_median_removes_specks_within_each_image_only():
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[1] = 1
    specks = images.copy()
    specks[0, 3, 3], specks[1, 5, 2] = 1, 0
    np.testing.assert_array_equal(denoising.median(specks), images)
