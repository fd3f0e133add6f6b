"""Classical denoisers to compare with: scikit-image's non-local means, and the median filter."""

import numpy as np
import scipy.ndimage
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means

Images = Float[np.ndarray, "batch height width channels"]
STRENGTHS = (0.6, 0.8, 1.0, 1.3)  # of non-local means, in standard deviations of the noise


def psnr(clean: Images, images: Images) -> float:
    """Returns the peak signal-to-noise ratio of all images together, clipped to [0, 1], in dB."""
    clipped = np.clip(images, 0, 1).astype(np.float64)
    with np.errstate(divide="ignore"):  # infinite without an error
        return float(peak_signal_noise_ratio(clean.astype(np.float64), clipped, data_range=1.0))


def nonlocal_means(clean: Images, noisy: Images) -> Images:
    """Returns images denoised by non-local means (Buades et al. 2005) with the true noise level and best strength."""
    sigma = float(np.sqrt(np.mean(np.square(noisy.astype(np.float64) - clean))))
    patches = dict(patch_size=3, patch_distance=max(noisy.shape[1:3]), fast_mode=False, channel_axis=-1, sigma=sigma)
    found = []
    for strength in STRENGTHS:
        h = strength * max(sigma, 1e-6)
        images = np.stack([denoise_nl_means(image, h=h, **patches) for image in noisy.astype(np.float64)])
        found.append(images.reshape(noisy.shape))  # an only channel is lost
    return max(found, key=lambda images: psnr(clean, images))


def median(noisy: Images) -> Images:
    """Returns images denoised by the median of 3 x 3 pixels, a remedy for salt and pepper."""
    return scipy.ndimage.median_filter(noisy, size=(1, 3, 3, 1), mode="nearest")
