"""PSNR and SSIM of images beside the truth, by a stated convention: channels, border, rounding.

The figures are scikit-image's; Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity,
2004, has SSIM, with the Gaussian window of 11 pixels and biased variances. Published figures of super-resolution are
those of the luma, Y of ITU-R BT.601 from 16 to 235, with a border of the factor's number of pixels cut off.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cvjax.errors import UserError, number_of

Images = Float[np.ndarray, "batch height width channels"]

LUMA = (65.481, 128.553, 24.966)  # of red, green and blue in [0, 1]; the sum, 219, is the range of Y
BLACK, PEAK = 16.0, 255.0
WINDOW = 11  # side of SSIM's Gaussian, whose deviation is 1.5


@dataclasses.dataclass(frozen=True)
class Convention:
    """What of two images is compared.

    Attributes:
      channels: "y", the luma of RGB images, or "rgb", all channels. Grey images are compared as they are.
      border: pixels left out on each side.
      rounded: round to 256 levels first, as a file would.
    """

    channels: Literal["y", "rgb"] = "y"
    border: int = 0
    rounded: bool = True

    def __str__(self) -> str:
        """Says the convention, for titles and messages."""
        channels = "Y of BT.601 (16 to 235)" if self.channels == "y" else "RGB"
        return f"{channels}, border of {self.border} cut off, {'rounded to 8 bits' if self.rounded else 'not rounded'}"

    def prepare(self, images: Images) -> Float[np.ndarray, "batch rows columns bands"]:
        """Returns what is compared of images, clipped to [0, 1], in float64.

        Raises a UserError if the border leaves nothing.
        """
        height, width = images.shape[1:3]
        if min(height, width) <= 2 * self.border:
            raise UserError(
                f"a border of {number_of(self.border, 'pixel')} leaves nothing of an image of {height}x{width}."
            )
        seen = np.clip(images[:, self.border : height - self.border, self.border : width - self.border], 0, 1)
        seen = seen.astype(np.float64)
        seen = np.round(seen * PEAK) / PEAK if self.rounded else seen
        return luma(seen) if self.channels == "y" and images.shape[-1] == 3 else seen


def luma(images: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 1"]:
    """Returns Y of RGB in [0, 1], in units of 255: black is 16 / 255 and white 235 / 255 (ITU-R BT.601)."""
    return (BLACK + images.astype(np.float64) @ np.array(LUMA)[:, None]) / PEAK


def psnr(truth: Images, images: Images, convention: Convention = Convention()) -> Float[np.ndarray, " batch"]:
    """Returns the peak signal-to-noise ratio of each image in dB, for a peak of 255; infinite without an error."""
    pairs = zip(convention.prepare(truth), convention.prepare(images), strict=True)
    with np.errstate(divide="ignore"):
        return np.array([peak_signal_noise_ratio(true, image, data_range=1.0) for true, image in pairs])


def ssim(truth: Images, images: Images, convention: Convention = Convention()) -> Float[np.ndarray, " batch"]:
    """Returns the structural similarity of each image, the mean over places where the window fits, and over channels.

    Raises a UserError if an image, without its border, is smaller than the window of 11 pixels.
    """
    seen, found = convention.prepare(truth), convention.prepare(images)
    if min(seen.shape[1:3]) < WINDOW:
        size = "x".join(map(str, seen.shape[1:3]))
        raise UserError(f"SSIM needs {WINDOW}x{WINDOW} pixels; these images have {size} inside the border.")
    gaussian = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=-1)
    return np.array([structural_similarity(true, image, **gaussian) for true, image in zip(seen, found, strict=True)])
