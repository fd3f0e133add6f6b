"""Measures of generated images, in float64 on the host: Fréchet distance, Inception Score, nearest neighbours.

None of them stands alone. Ten memorised images, one a class, score higher on the Inception Score than all real ones
do, and a copy of the training set has a perfect Fréchet distance; `cvjax.metrics.digits.controls` shows each measure
on such impostors.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist


def frechet_distance(
    mean_a: Float[np.ndarray, " features"],
    cov_a: Float[np.ndarray, "features features"],
    mean_b: Float[np.ndarray, " features"],
    cov_b: Float[np.ndarray, "features features"],
) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, |m_a - m_b|^2 + tr(A + B - 2 (AB)^(1/2)).

    tr (AB)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2). That stays real and exact to rounding where
    `scipy.linalg.sqrtm(A @ B)` turns complex or loses half of its digits: covariances near or below full rank.

    Args:
      mean_a: mean of the first.
      cov_a: covariance of the first, symmetric and positive semi-definite.
      mean_b: mean of the second.
      cov_b: covariance of the second.

    Returns:
      The distance, at least 0.

    Source: Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982), eq. 4.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(array, np.float64) for array in (mean_a, cov_a, mean_b, cov_b))
    overlap = np.linalg.svd(_square_root(cov_a) @ _square_root(cov_b), compute_uv=False).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(0.0, float(distance))


def _square_root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Symmetric square root of a positive semi-definite matrix; eigenvalues within rounding of 0 count as 0."""
    values, vectors = np.linalg.eigh(matrix)
    rounding = np.finfo(np.float64).eps * len(values) * np.abs(values).max()
    return (vectors * np.sqrt(np.where(values > rounding, values, 0.0))) @ vectors.T


def fid(
    features_a: Float[np.ndarray, "samples_a features"],
    features_b: Float[np.ndarray, "samples_b features"],
) -> float:
    """Fréchet distance of two sets of features, each summarised by its mean and unbiased covariance.

    It is biased upwards by O(1 / samples): compare only figures taken with the same numbers of samples.

    Args:
      features_a: features of one set of images, at least two.
      features_b: features of the other.

    Returns:
      The distance, in squared units of the features.

    Source: Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. 6.
    """
    summaries = []
    for features in (features_a, features_b):
        features = np.asarray(features, np.float64)
        summaries += [features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False, ddof=1))]
    return frechet_distance(*summaries)


def inception_score(probabilities: Float[np.ndarray, "samples classes"], splits: int = 10) -> tuple[float, float]:
    """exp E_x KL(p(y|x) || p(y)), within each of `splits` consecutive parts of the samples.

    Args:
      probabilities: p(y|x) by a classifier; rows sum to 1. Samples should be in random order.
      splits: number of parts.

    Returns:
      (mean, standard deviation) over the parts; between 1 and the number of classes, higher is better.

    Source: Salimans et al., "Improved techniques for training GANs" (2016), section 4.
    """
    scores = []
    for part in np.array_split(np.asarray(probabilities, np.float64), splits):
        ratio = np.divide(part, part.mean(axis=0), out=np.ones_like(part), where=part > 0)  # 0 log 0 = 0
        scores.append(np.exp(np.mean(np.sum(part * np.log(ratio), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))


def nearest_neighbours(
    samples: Float[np.ndarray, "samples height width channels"],
    reference: Float[np.ndarray, "references height width channels"],
    scale: float = 16.0,
) -> tuple[Float[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Finds for each sample the nearest reference image by L2 distance over all pixels.

    Args:
      samples: images in [0, 1].
      reference: images in [0, 1], usually the training set.
      scale: the distance is measured between images in [0, scale].

    Returns:
      (distance, index into `reference`) of each sample. A distance of 0 is a copy.
    """
    reference = np.asarray(reference, np.float64).reshape(len(reference), -1)
    distances, indices = [], []
    for start in range(0, len(samples), 256):  # bounds the memory of the table of distances
        part = np.asarray(samples[start : start + 256], np.float64)
        table = cdist(part.reshape(len(part), -1), reference)
        indices.append(table.argmin(axis=1))
        distances.append(scale * table.min(axis=1))
    return np.concatenate(distances), np.concatenate(indices)


def nearest_distance(
    samples: Float[np.ndarray, "samples height width channels"],
    reference: Float[np.ndarray, "references height width channels"],
    scale: float = 16.0,
) -> float:
    """Mean L2 distance of the samples to their nearest reference image; small means memorised.

    Args:
      samples: images in [0, 1].
      reference: images in [0, 1], usually the training set.
      scale: the distance is measured between images in [0, scale].

    Returns:
      The mean over the samples of `nearest_neighbours`' distances.
    """
    return float(nearest_neighbours(samples, reference, scale)[0].mean())


def class_shares(probabilities: Float[np.ndarray, "samples classes"]) -> Float[np.ndarray, " classes"]:
    """Share of the samples that the classifier takes for each class; a share near 0 is a dropped mode.

    Args:
      probabilities: p(y|x) by a classifier, one column a class.

    Returns:
      The share of each class, by arg max; they sum to 1.
    """
    classes = probabilities.shape[1]
    return np.bincount(np.argmax(probabilities, axis=1), minlength=classes) / len(probabilities)


def thumbnails(
    images: Float[np.ndarray, "samples height width channels"], size: int = 8
) -> Float[np.ndarray, "samples features"]:
    """Averages images down to `size` x `size` pixels: features for a coarse `fid` that needs no trained network.

    Args:
      images: in [0, 1]; height and width multiples of `size`.
      size: of the thumbnails.

    Returns:
      size * size * channels features an image.
    """
    count, height, width, channels = images.shape
    blocks = np.asarray(images, np.float64).reshape(count, size, height // size, size, width // size, channels)
    return blocks.mean(axis=(2, 4)).reshape(count, -1)
