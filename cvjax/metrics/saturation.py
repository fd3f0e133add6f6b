"""How saturated pictures are, as a distribution: pictures that average several right answers are too grey.

Chroma is the distance from the grey axis in CIE 1976 L*a*b*, white being D65. Isola et al., Image-to-Image Translation
with Conditional Adversarial Networks, 2017 (arXiv:1611.07004), section 4.2, compares distributions of colours for the
same end.
"""

import numpy as np
from jaxtyping import Float
from skimage.color import rgb2lab

MOST = 134.0  # the largest chroma of sRGB, that of blue, is 133.8
BINS = 134  # of a unit each


def chroma_histogram(images: Float[np.ndarray, "batch height width 3"]) -> Float[np.ndarray, " bins"]:
    """Counts pixels of RGB images in [0, 1] by their chroma. Returns the counts, of bins of one unit."""
    lab = rgb2lab(np.clip(images, 0, 1).astype(np.float64))
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return np.histogram(np.minimum(chroma, MOST), BINS, (0, MOST))[0].astype(np.float64)


def saturation_distance(first: Float[np.ndarray, " bins"], second: Float[np.ndarray, " bins"]) -> float:
    """Returns how far pixels of one histogram have to move to make the other, on average, in units of chroma.

    The earth mover's distance, which in one dimension is that between the cumulative distributions.
    """
    cumulated = np.cumsum(first) / np.sum(first) - np.cumsum(second) / np.sum(second)
    return float(np.abs(cumulated).sum() * MOST / BINS)
