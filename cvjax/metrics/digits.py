"""Measures of generated digits by the frozen classifier, and what impostors score by the same code.

Every image judged, real, generated or a control's, is first rounded to the 17 grey levels of the real ones, so that
none is told apart by its precision. FID, the Inception Score and class shares are by the classifier of
`cvjax.weights.digit_classifier`. FIDs by two classifiers compare only over that of a control, so `fid_over_control`
divides it by the FID of one Gaussian a class: a model that has the mean and covariance of each class right, no more.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from cvjax import data
from cvjax.metrics import density, generative
from cvjax.weights import digit_classifier

LEVELS = 16  # real pixels are multiples of 1 / LEVELS
CLASSES = 10
COUNT = 1000  # samples of a control, and the usual number of a model's
CHUNK = 256  # images a call of the classifier, always padded to that many: one compilation
DRAWS = 5  # of the Gaussian control, averaged: its FID varies by a few per cent from draw to draw

Images = Float[np.ndarray, "images 8 8 1"]


def quantise(images: Images) -> Images:
    """Rounds images to the grey levels of the real digits.

    Args:
      images: any range; clipped to [0, 1].

    Returns:
      Multiples of 1 / 16 in [0, 1], float32.
    """
    return (np.round(np.clip(images, 0, 1) * LEVELS) / LEVELS).astype(np.float32)


def features(images: Images) -> tuple[Float[np.ndarray, "images 64"], Float[np.ndarray, "images 10"]]:
    """Runs the frozen classifier on quantised images.

    Args:
      images: in [0, 1].

    Returns:
      (its 64 features, class probabilities), float64.
    """
    chunks = []
    for start in range(0, len(images), CHUNK):
        chunk = quantise(images[start : start + CHUNK])
        padded = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0), (0, 0), (0, 0)))
        chunks.append([np.asarray(rows, np.float64)[: len(chunk)] for rows in _classify(padded)])
    found, probabilities = (np.concatenate(rows) for rows in zip(*chunks, strict=True))
    return found, probabilities


@jax.jit
def _classify(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, activations = digit_classifier.NET.apply({"params": digit_classifier.load()}, images)
    return activations["features"], jax.nn.softmax(logits)


def evaluate(samples: Images) -> dict[str, float]:
    """Measures samples against the 500 test digits and the 1,297 training ones.

    Args:
      samples: in [0, 1], in random order; 1,000 of them where figures are to be compared.

    Returns:
      fid: Fréchet distance of the features to those of the test digits.
      fid_over_control: fid over that of as many samples of one Gaussian a class.
      inception_score: mean over 10 splits. Never a bar: ten memorised digits score higher than all real ones.
      nearest_distance: mean L2 distance to the nearest training digit, grey levels 0 .. 16. 0 is copied.
      smallest_class: share of the class that the classifier sees least.
    """
    found, probabilities = features(samples)
    fid = generative.fid(found, _test_features())
    return {
        "fid": fid,
        "fid_over_control": fid / control_fid(len(samples)),
        "inception_score": generative.inception_score(probabilities)[0],
        "nearest_distance": generative.nearest_distance(quantise(samples), _training_digits()[0], LEVELS),
        "smallest_class": float(generative.class_shares(probabilities).min()),
    }


@functools.cache
def control_fid(count: int = COUNT) -> float:
    """FID of one Gaussian a class, the unit of `fid_over_control`.

    Args:
      count: number of samples; FID depends on it.

    Returns:
      The mean of five draws with fixed seeds.
    """
    draws = (gaussian_per_class(np.random.default_rng(seed), count) for seed in range(DRAWS))
    return float(np.mean([generative.fid(features(draw)[0], _test_features()) for draw in draws]))


def controls() -> dict[str, dict[str, float]]:
    """Measures real digits and impostors as `evaluate` measures a model's samples.

    Returns:
      {control: figures}. The row of the Gaussian a class is the mean over the draws that make `control_fid`.
    """
    draws = [evaluate(gaussian_per_class(np.random.default_rng(seed), COUNT)) for seed in range(DRAWS)]
    rows = {name: evaluate(draw(np.random.default_rng(0), COUNT)) for name, draw in CONTROLS.items()}
    rows["Gaussian per class"] = {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
    return rows


def density_controls() -> dict[str, dict[str, float]]:
    """Measures simple densities of the digits, for likelihood models to be held against.

    Returns:
      {density: {"bits_per_dim": bits}}, counted on the training digits, measured on the test digits.
    """
    train, test = (
        np.round(data.arrays("digits", split)["image"][..., 0] * LEVELS).astype(np.int32) for split in ("train", "test")
    )
    return density.controls(train, test, LEVELS + 1)


@functools.cache
def _training_digits() -> tuple[Images, Int[np.ndarray, " images"]]:
    train = data.arrays("digits", "train")
    return quantise(train["image"]), train["label"]


@functools.cache
def _test_features() -> Float[np.ndarray, "images 64"]:
    return features(data.arrays("digits", "test")["image"])[0]


def all_training_digits(rng: np.random.Generator, count: int) -> Images:
    """The 1,297 training digits in random order, whatever the count: the best that there is.

    Args:
      rng: draws the order.
      count: not used.
    """
    return rng.permutation(_training_digits()[0])


def some_training_digits(rng: np.random.Generator, count: int) -> Images:
    """Half as many training digits as asked for, each once: what small samples alone cost.

    Args:
      rng: draws them.
      count: twice their number.
    """
    return rng.permutation(_training_digits()[0])[: count // 2]


def gaussian_per_class(rng: np.random.Generator, count: int) -> Images:
    """Samples of a Gaussian of each class's mean and covariance, the classes equally often.

    Args:
      rng: draws them.
      count: number of samples.
    """
    images, labels = _training_digits()
    classes = np.arange(count) % CLASSES
    samples = np.empty((count, *images.shape[1:]), np.float32)
    for digit in range(CLASSES):
        samples[classes == digit] = _gaussian(rng, images[labels == digit], np.sum(classes == digit))
    return rng.permutation(samples)


def one_gaussian(rng: np.random.Generator, count: int) -> Images:
    """Samples of one Gaussian of the mean and covariance of all training digits.

    Args:
      rng: draws them.
      count: number of samples.
    """
    return _gaussian(rng, _training_digits()[0], count)


def _gaussian(rng: np.random.Generator, images: Images, count: int) -> Images:
    """Samples with the mean and covariance of `images`: random combinations of the images themselves.

    No matrix is factorised: the signs of eigenvectors, and so the samples, would differ between machines.
    """
    mean = images.mean(axis=0)
    weights = rng.normal(size=(count, len(images))) / np.sqrt(len(images) - 1)
    return quantise(mean + np.tensordot(weights, images - mean, axes=1))


def class_means(rng: np.random.Generator, count: int) -> Images:
    """The ten mean images, repeated: a collapse onto what the classifier is surest of.

    Args:
      rng: draws the order.
      count: number of samples.
    """
    images, labels = _training_digits()
    means = np.stack([images[labels == digit].mean(axis=0) for digit in range(CLASSES)])
    return quantise(means[rng.permutation(np.arange(count) % CLASSES)])


def exemplars(rng: np.random.Generator, count: int) -> Images:
    """One training digit of each class, repeated: a memory of ten images.

    Args:
      rng: draws the digits and the order.
      count: number of samples.
    """
    images, labels = _training_digits()
    chosen = [rng.choice(np.flatnonzero(labels == digit)) for digit in range(CLASSES)]
    return images[np.asarray(chosen)[rng.permutation(np.arange(count) % CLASSES)]]


def independent_pixels(rng: np.random.Generator, count: int) -> Images:
    """Images whose pixels are drawn each from a random training digit.

    Args:
      rng: draws them.
      count: number of samples.
    """
    images = _training_digits()[0]
    rows = rng.integers(len(images), size=(count, *images.shape[1:]))
    return np.take_along_axis(images, rows, axis=0)


def uniform_noise(rng: np.random.Generator, count: int) -> Images:
    """Images of uniform grey levels.

    Args:
      rng: draws them.
      count: number of samples.
    """
    return rng.integers(LEVELS + 1, size=(count, 8, 8, 1)).astype(np.float32) / LEVELS


def half_of_the_classes(rng: np.random.Generator, count: int) -> Images:
    """Training digits 0 to 4, drawn with replacement: perfect images of half of what there is.

    Args:
      rng: draws them.
      count: number of samples.
    """
    images, labels = _training_digits()
    return images[rng.choice(np.flatnonzero(labels < CLASSES // 2), count)]


CONTROLS: dict[str, Callable[[np.random.Generator, int], Images]] = {
    "training digits, all": all_training_digits,
    "training digits, 500": some_training_digits,
    "Gaussian per class": gaussian_per_class,
    "one Gaussian": one_gaussian,
    "class means": class_means,
    "one exemplar a class": exemplars,
    "independent pixels": independent_pixels,
    "uniform noise": uniform_noise,
    "5 of the 10 classes": half_of_the_classes,
}
