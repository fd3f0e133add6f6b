"""Measures of generated images, in float64 on the host: moments, kernels, class probabilities, nearest training images.

None of them stands alone. Ten memorised images, one of each class, score higher on the Inception Score than all real
ones do, and a copy of the training set has a perfect Fréchet distance; `cvjax.metrics.digits.controls` shows each
measure on such impostors. Precision and recall are in `cvjax.metrics.neighbours`.

`samples` are generated images or their features, `reference` real ones; images are in [0, 1], `probabilities` p(y|x) of
samples by a classifier. Figures with a `seed` are the same each time.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from cvjax.errors import UserError
from cvjax.metrics.neighbours import distance_tables

SEEN = 0.01  # share of the samples from which on a class counts as generated


def frechet_distance(
    mean_a: Float[np.ndarray, " features"],
    cov_a: Float[np.ndarray, "features features"],
    mean_b: Float[np.ndarray, " features"],
    cov_b: Float[np.ndarray, "features features"],
) -> float:
    """Returns the squared Fréchet distance of two Gaussians, |m_a - m_b|^2 + tr(A + B - 2 (AB)^(1/2)), at least 0.

    tr (AB)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2). That stays real and exact to rounding where
    `scipy.linalg.sqrtm(A @ B)` turns complex or loses half of its digits: covariances near or below full rank. These
    are symmetric and positive semi-definite. The distance is nan where an argument is not finite.

    Source: Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982), eq. 4.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(array, np.float64) for array in (mean_a, cov_a, mean_b, cov_b))
    if not all(np.isfinite(array).all() for array in (mean_a, cov_a, mean_b, cov_b)):
        return float("nan")
    overlap = np.linalg.svd(_square_root(cov_a) @ _square_root(cov_b), compute_uv=False).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(0.0, float(distance))


def _square_root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Symmetric square root of a positive semi-definite matrix; eigenvalues within rounding of 0 count as 0."""
    values, vectors = np.linalg.eigh(matrix)
    rounding = np.finfo(np.float64).eps * len(values) * np.abs(values).max()
    return (vectors * np.sqrt(np.where(values > rounding, values, 0.0))) @ vectors.T


def moments(
    chunks: Iterable[Float[np.ndarray, "_ features"]],
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, "features features"]]:
    """Returns the mean and the unbiased covariance of features that need not fit into memory together.

    `frechet_distance(*moments(a), *moments(b))` is the `fid` of two streams of chunks, which may be empty. Raises a
    UserError for fewer than two rows.
    """
    count, mean, scatter = 0, np.float64(0), np.float64(0)
    for chunk in chunks:
        chunk = np.asarray(chunk, np.float64)
        if not len(chunk):
            continue
        centre = chunk.mean(axis=0)
        residual, shift = chunk - centre, centre - mean
        total = count + len(chunk)
        scatter = scatter + residual.T @ residual + np.outer(shift, shift) * (count * len(chunk) / total)
        mean, count = mean + shift * (len(chunk) / total), total
    if count < 2:
        raise UserError(f"a covariance takes at least two images, not {count}.")
    return mean, scatter / (count - 1)


def fid(
    features_a: Float[np.ndarray, "samples_a features"],
    features_b: Float[np.ndarray, "samples_b features"],
) -> float:
    """Returns the Fréchet distance of two sets of features, each summarised by its mean and unbiased covariance.

    It is biased upwards by O(1 / samples): compare only figures taken with the same numbers of samples, or
    `fid_infinity`. Source: Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. 6.
    """
    return frechet_distance(*moments([features_a]), *moments([features_b]))


def fid_interval(
    samples: Float[np.ndarray, "samples features"],
    reference: Float[np.ndarray, "references features"],
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the confidence interval of `fid` under other draws of the samples, by the bootstrap.

    A resample, drawn with replacement, repeats images and leaves others out, so that its FID is biased once more; the
    interval has the resamples' deviations from their mean about the FID of all samples. `level` is the share of such
    intervals that contain the mean FID of sets of this size. Source: Efron and Tibshirani, "An introduction to the
    bootstrap" (1993), chapters 12 and 13.
    """
    rng, count, real = np.random.default_rng(seed), len(samples), moments([reference])
    draws = [frechet_distance(*moments([samples[rng.integers(count, size=count)]]), *real) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - np.mean(draws)
    centre = frechet_distance(*moments([samples]), *real)
    return max(0.0, float(centre + low)), float(centre + high)


def fid_infinity(
    samples: Float[np.ndarray, "samples features"],
    reference: Float[np.ndarray, "references features"],
    points: int = 15,
    smallest: float = 0.1,
    seed: int = 0,
) -> float:
    """Returns the FID extrapolated to infinitely many samples: the intercept of a line through FID against 1 / samples.

    It removes only the bias by the samples, not that by the number of references. Around 0 it may be negative.

    Args:
      points: numbers of samples, evenly spaced, at each of which FID is measured on a random subset.
      smallest: the least of them, as a share of the samples. With fewer than about twice as many samples as features
        FID is no longer a line.

    Source: Chong and Forsyth, "Effectively unbiased FID and Inception Score and where to find them" (2020), section 4.
    """
    rng, real = np.random.default_rng(seed), moments([reference])
    sizes = np.linspace(max(2, smallest * len(samples)), len(samples), points).astype(int)
    subsets = (rng.permutation(len(samples))[:size] for size in sizes)
    fids = [frechet_distance(*moments([samples[subset]]), *real) for subset in subsets]
    return float(np.polynomial.Polynomial.fit(1 / sizes, fids, 1)(0.0))


def kernel_distance(
    samples: Float[np.ndarray, "samples features"], reference: Float[np.ndarray, "references features"]
) -> float:
    """Returns the unbiased squared maximum mean discrepancy by the kernel (x.y / features + 1)^3: KID of all images.

    For equal distributions it is 0 on average, and so it may be negative. Source: Gretton et al., "A kernel two-sample
    test" (2012), lemma 6.
    """
    within = 0.0
    samples, reference = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    for features in (samples, reference):
        pairs = len(features) * (len(features) - 1)
        itself = np.sum((np.sum(features**2, axis=1) / features.shape[1] + 1) ** 3)
        within += (_kernel_sum(features, features) - itself) / pairs
    return float(within - 2 * _kernel_sum(samples, reference) / (len(samples) * len(reference)))


def _kernel_sum(a: Float[np.ndarray, "rows_a features"], b: Float[np.ndarray, "rows_b features"]) -> float:
    parts = (a[start : start + 1024] @ b.T for start in range(0, len(a), 1024))
    return sum(np.sum((part / a.shape[1] + 1) ** 3) for part in parts)


def kid(
    samples: Float[np.ndarray, "samples features"],
    reference: Float[np.ndarray, "references features"],
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the Kernel Inception Distance: `kernel_distance` over random subsets, which unlike FID has no bias.

    Returns (mean, standard deviation) over pairs of subsets, each of `size` images drawn without replacement. Raises a
    UserError for fewer images than that. Source: Binkowski et al., "Demystifying MMD GANs" (2018), section 4.
    """
    if size > min(len(samples), len(reference)):
        raise UserError(f"KID by subsets of {size} needs {size} images of each kind: {len(samples)}, {len(reference)}.")
    rng = np.random.default_rng(seed)
    distances = [
        kernel_distance(
            *(features[rng.choice(len(features), size, replace=False)] for features in (samples, reference))
        )
        for _ in range(subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def inception_score(probabilities: Float[np.ndarray, "samples classes"], splits: int = 10) -> tuple[float, float]:
    """Returns the mean and standard deviation of exp E_x KL(p(y|x) || p(y)) over parts of the samples in random order.

    It is between 1 and the number of classes; higher is better. Parts are cut as by the published code, at multiples of
    samples / splits rounded down; with fewer samples than splits, each is a part. Source: Salimans et al., "Improved
    techniques for training GANs" (2016), section 4.
    """
    splits, scores = min(splits, len(probabilities)), []
    bounds = np.arange(1, splits) * len(probabilities) // splits
    for part in np.split(np.asarray(probabilities, np.float64), bounds):
        ratio = np.divide(part, part.mean(axis=0), out=np.ones_like(part), where=part > 0)  # 0 log 0 = 0
        scores.append(np.exp(np.mean(np.sum(part * np.log(ratio), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))


def nearest_neighbours(
    samples: Float[np.ndarray, "samples height width channels"],
    reference: Float[np.ndarray, "references height width channels"],
    scale: float = 16.0,
) -> tuple[Float[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Returns each sample's L2 distance to the nearest reference image over all pixels, and the index of that image.

    Distances are between images in [0, scale]; 0 is a copy.
    """
    tables = distance_tables(samples.reshape(len(samples), -1), reference.reshape(len(reference), -1))
    nearest = [(scale * table.min(axis=1), table.argmin(axis=1)) for table in tables]
    distances, indices = (np.concatenate(parts) for parts in zip(*nearest, strict=True))
    return distances, indices


def nearest_distance(
    samples: Float[np.ndarray, "samples height width channels"],
    reference: Float[np.ndarray, "references height width channels"],
    scale: float = 16.0,
) -> float:
    """Returns the mean distance of `nearest_neighbours`; a small one means that samples are memorised."""
    return float(nearest_neighbours(samples, reference, scale)[0].mean())


def memorisation(
    samples: Float[np.ndarray, "samples height width channels"],
    training: Float[np.ndarray, "examples height width channels"],
    held_out: Float[np.ndarray, "references height width channels"],
) -> float:
    """Returns how far samples are from the training images, relative to how far held-out real images are from them.

    0 for copies, 1 for images as new as unseen real ones, more for unlikely ones. It is a mean: half copies and half
    noise may reach 1, but then not the `precision_recall` of real images.
    """
    return nearest_distance(samples, training) / nearest_distance(held_out, training)


def class_shares(probabilities: Float[np.ndarray, "samples classes"]) -> Float[np.ndarray, " classes"]:
    """Returns the share of the samples that the classifier takes for each class; a share near 0 is a dropped mode."""
    classes = probabilities.shape[1]
    return np.bincount(np.argmax(probabilities, axis=1), minlength=classes) / len(probabilities)


def class_figures(
    probabilities: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"] | None = None
) -> dict[str, float]:
    """Measures which classes the samples show, according to a classifier.

    Returns classes_seen, the number of classes with at least 1 % of the samples; with `labels`, the classes that
    samples were made of, also class_accuracy, the share of samples that the classifier takes for their class.
    """
    figures = {"classes_seen": float((class_shares(probabilities) >= SEEN).sum())}
    if labels is not None:
        figures["class_accuracy"] = float((probabilities.argmax(axis=1) == labels).mean())
    return figures


def thumbnails(
    images: Float[np.ndarray, "samples height width channels"], size: int = 8
) -> Float[np.ndarray, "samples features"]:
    """Returns images averaged down to `size` x `size` pixels: features for a coarse `fid` without a trained network.

    A pixel shared by two pixels of the thumbnail counts in each by its part.
    """
    _, height, width, _ = images.shape
    small = np.einsum("ih,nhwc,jw->nijc", _areas(height, size), np.asarray(images, np.float64), _areas(width, size))
    return small.reshape(len(images), -1)


def _areas(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """Weights of the pixels of a line in each of the equal parts that it is cut into; rows sum to 1."""
    edges, pixels = np.arange(size + 1) * length / size, np.arange(length)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(shared, 0) * size / length
