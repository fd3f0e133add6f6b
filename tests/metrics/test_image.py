"""PSNR and SSIM by a stated convention agree with scikit-image and with the formulas, and refuse what has no pixels."""

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cvjax.errors import UserError
from cvjax.metrics.image import Convention, luma, psnr, ssim


def _pair(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.random((2, 24, 31, channels)).astype(np.float32)
    return truth, truth + generator.normal(0, 0.05, truth.shape).astype(np.float32)


def test_luma_is_scikit_images_and_runs_from_16_to_235():
    images, _ = _pair()
    np.testing.assert_allclose(luma(images)[..., 0] * 255, rgb2ycbcr(images.astype(float))[..., 0], rtol=1e-12)
    np.testing.assert_allclose(luma(np.stack([np.zeros(3), np.ones(3)])).ravel() * 255, [16, 235])


@pytest.mark.parametrize("channels", ["y", "rgb"])
def test_figures_are_scikit_images_of_what_the_convention_leaves(channels):
    truth, images = _pair()
    convention = Convention(channels, border=2)
    levels = [np.round(np.clip(x[:, 2:-2, 2:-2], 0, 1) * 255).astype(np.uint8) for x in (truth, images)]
    seen = [np.stack([rgb2ycbcr(x)[..., :1] for x in pictures]) if channels == "y" else pictures for pictures in levels]
    options = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1)
    for index in range(2):
        true, image = (np.float64(x[index]) for x in seen)
        found = psnr(truth, images, convention)[index]
        np.testing.assert_allclose(found, peak_signal_noise_ratio(true, image, data_range=255), rtol=1e-9)
        np.testing.assert_allclose(found, 10 * np.log10(255**2 / np.mean((true - image) ** 2)), rtol=1e-9)
        found = ssim(truth, images, convention)[index]
        np.testing.assert_allclose(found, structural_similarity(true, image, **options), rtol=1e-9)


def test_the_border_is_outside_and_rounding_is_that_of_a_file():
    truth, _ = _pair()
    framed = truth.copy()
    framed[:, :2] = framed[:, -2:] = framed[:, :, :2] = framed[:, :, -2:] = 0
    assert np.isinf(psnr(truth, framed, Convention(border=2))).all() and np.isfinite(psnr(truth, framed)).all()
    assert (ssim(truth, framed, Convention(border=2)) == 1).all()
    levels = np.round(truth * 255) / 255
    assert np.isinf(psnr(levels, levels + 0.4 / 255, Convention("rgb"))).all()  # half a level is not seen
    assert np.isfinite(psnr(levels, levels + 0.4 / 255, Convention("rgb", rounded=False))).all()
    grey, noisy = _pair(channels=1)
    np.testing.assert_array_equal(psnr(grey, noisy, Convention("y")), psnr(grey, noisy, Convention("rgb")))


def test_images_without_pixels_are_refused():
    truth, images = _pair()
    with pytest.raises(UserError, match="border of 12 pixels leaves nothing of an image of 24x31"):
        psnr(truth, images, Convention(border=12))
    with pytest.raises(UserError, match=r"SSIM needs 11x11 pixels; these images have 10x17"):
        ssim(truth, images, Convention(border=7))
    assert str(Convention("y", 2)) == "Y of BT.601 (16 to 235), border of 2 cut off, rounded to 8 bits"
