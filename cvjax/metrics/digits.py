"""Measures of generated digits by the frozen classifier, and what impostors score by the same code.

Every image judged, real, generated or a control's, is first rounded to the 17 grey levels of the real ones, so that
none is told apart by its precision. FID, the Inception Score and class shares are by the classifier of
`cvjax.weights.digit_classifier`. FIDs by two classifiers compare only over that of a control, so `fid_over_control`
divides it by the FID of one Gaussian a class: a model that has the mean and covariance of each class right, no more.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cvjax import data
from cvjax.metrics import generative, neighbours
from cvjax.metrics.controls import density, impostors
from cvjax.weights import digit_classifier

SURE = 0.9  # probability of a class from which on a digit counts as clear
LEVELS = 16  # real pixels are multiples of 1 / LEVELS
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
      kid: the kernel distance of the same features, all at once; unbiased, so around 0 for real digits.
      precision: share of the samples whose features lie among those of the test digits.
      recall: share of the test digits whose features lie among those of the samples.
      inception_score: mean over 10 splits. Never a bar: ten memorised digits score higher than all real ones.
      nearest_distance: mean L2 distance to the nearest training digit, grey levels 0 .. 16. 0 is copied.
      memorisation: nearest_distance over that of the test digits. 0 is copied, 1 as new as unseen digits.
      smallest_class: share of the class that the classifier sees least.
    """
    found, probabilities = features(samples)
    fid = generative.fid(found, _test_features())
    precision, recall = neighbours.precision_recall(found, _test_features())
    grey, (training, _) = quantise(samples), _training_digits()
    return {
        "fid": fid,
        "fid_over_control": fid / control_fid(len(samples)),
        "kid": generative.kernel_distance(found, _test_features()),
        "precision": precision,
        "recall": recall,
        "inception_score": generative.inception_score(probabilities)[0],
        "nearest_distance": generative.nearest_distance(grey, training),
        "memorisation": generative.memorisation(grey, training, _test_digits()),
        "smallest_class": float(generative.class_shares(probabilities).min()),
    }


def sure_share(probabilities: Float[np.ndarray, "images 10"]) -> float:
    """Computes the share of images that the classifier gives one class a probability of .9 or more.

    Args:
      probabilities: the classifier's, of the images.

    Returns:
      The share. A model that draws a single clear digit has a perfect one: read it with a Fréchet distance.
    """
    return float((probabilities.max(axis=1) >= SURE).mean())


def nearest(samples: Float[Array, "samples 8 8 1"]) -> Float[Array, "samples 8 8 1"]:
    """Finds the training digit nearest to each sample by L2 distance over all pixels; it may be traced.

    Args:
      samples: in [0, 1]; they are quantised for the comparison, as `evaluate` does.

    Returns:
      The training digits.
    """
    digits = jnp.asarray(_training_digits()[0])
    levels = jnp.round(jnp.clip(samples, 0, 1) * LEVELS) / LEVELS
    distances = jnp.square(levels[:, None] - digits).sum(axis=(2, 3, 4))
    return digits[distances.argmin(axis=1)]


@functools.cache
def control_fid(count: int = COUNT) -> float:
    """FID of one Gaussian a class, the unit of `fid_over_control`.

    Args:
      count: number of samples; FID depends on it.

    Returns:
      The mean of five draws with fixed seeds.
    """
    return float(np.mean([generative.fid(features(draw)[0], _test_features()) for draw in _gaussian_draws(count)]))


def _gaussian_draws(count: int) -> Iterator[Images]:
    for seed in range(DRAWS):
        yield impostors.draw("Gaussian per class", seed, *_training_digits(), count)


def controls() -> dict[str, dict[str, float]]:
    """Measures real digits and impostors as `evaluate` measures a model's samples.

    Returns:
      {control: figures}: all 1,297 and 500 of the training digits, and 1,000 samples of each impostor. The row of the
      Gaussian a class is the mean over the draws that make `control_fid`.
    """
    images, labels = _training_digits()
    rows = {}
    for count in (len(images), len(_test_features())):
        rows[f"{count} training digits"] = evaluate(impostors.draw("training images", 0, images, labels, count))
    for name in impostors.NAMES[1:]:
        rows[name] = evaluate(impostors.draw(name, 0, images, labels, COUNT))
    draws = [evaluate(samples) for samples in _gaussian_draws(COUNT)]
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
def _test_digits() -> Images:
    return quantise(data.arrays("digits", "test")["image"])


@functools.cache
def _test_features() -> Float[np.ndarray, "images 64"]:
    return features(_test_digits())[0]
