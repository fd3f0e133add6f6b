"""Measures of generated digits by the frozen classifier, and the scores of impostors by the same code.

Every image judged, real, generated or a control's, is first rounded to the 17 grey levels of the real ones, so that
its precision does not give it away. FID, the Inception Score and class shares are by the classifier of
`cvjax.weights.digit_classifier`. FIDs by two classifiers compare only over that of a control, so `fid_over_control`
divides it by the FID of a Gaussian for each class: a model with the mean and covariance of each class, no more.
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
    """Returns images clipped to [0, 1] and rounded to the grey levels of the real digits, multiples of 1 / 16."""
    return (np.round(np.clip(images, 0, 1) * LEVELS) / LEVELS).astype(np.float32)


def features(images: Images) -> tuple[Float[np.ndarray, "images 64"], Float[np.ndarray, "images 10"]]:
    """Returns the 64 features and the class probabilities of quantised images by the frozen classifier, float64."""
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
      samples: in [0, 1], in random order; figures compare only with the same number of them, usually 1,000.

    Returns:
      fid: Fréchet distance of the features to those of the test digits.
      fid_over_control: fid over that of the same number of samples of a Gaussian for each class.
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
    """Returns the share of images that the classifier gives one class a probability of .9 or more.

    A model that draws a single clear digit has a perfect one: read it together with a Fréchet distance.
    """
    return float((probabilities.max(axis=1) >= SURE).mean())


def nearest(samples: Float[Array, "samples 8 8 1"]) -> Float[Array, "samples 8 8 1"]:
    """Returns the training digit nearest to each (quantised) sample by L2 distance over all pixels; may be traced."""
    digits = jnp.asarray(_training_digits()[0])
    levels = jnp.round(jnp.clip(samples, 0, 1) * LEVELS) / LEVELS
    distances = jnp.square(levels[:, None] - digits).sum(axis=(2, 3, 4))
    return digits[distances.argmin(axis=1)]


@functools.cache
def control_fid(count: int = COUNT) -> float:
    """Returns the FID of a Gaussian for each class, the unit of `fid_over_control`: the mean of five draws."""
    return float(np.mean([generative.fid(features(draw)[0], _test_features()) for draw in _gaussian_draws(count)]))


def _gaussian_draws(count: int) -> Iterator[Images]:
    for seed in range(DRAWS):
        yield impostors.draw("Gaussian per class", seed, *_training_digits(), count)


def controls() -> dict[str, dict[str, float]]:
    """Measures real digits and impostors as `evaluate` measures a model's samples.

    Returns {control: figures}: all 1,297 and 500 of the training digits, and 1,000 samples of each impostor. The row of
    the Gaussians is the mean over the draws of `control_fid`.
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
    """Returns {density: {"bits_per_dim": bits}} of simple densities of training digits, measured on the test digits."""
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
