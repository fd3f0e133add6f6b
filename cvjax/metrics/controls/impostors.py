"""Impostors: samples by models too simple or too broken to count, to show what a measure of generation sees."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from cvjax.errors import UserError, suggest


def draw(
    name: str,
    seed: int,
    images: Float[np.ndarray, "examples height width channels"],
    labels: Int[np.ndarray, " examples"],
    count: int,
) -> Float[np.ndarray, "count height width channels"]:
    """Returns the float32 samples of an impostor, in random order.

    Gaussian samples leave [0, 1] and have to be clipped. Raises a UserError for an unknown name.

    Args:
      name: one of `NAMES`.
      images, labels: of training; labels are 0 .. classes - 1.
      count: number of samples; of real images, at most all training images.
    """
    if name not in _IMPOSTORS:
        raise UserError(f"there is no impostor {name!r}. {suggest(name, _IMPOSTORS)}")
    return _IMPOSTORS[name](np.random.default_rng(seed), images, labels, count).astype(np.float32)


def _training_images(rng, images, labels, count):
    """Training images, each once: the best that a copy can do."""
    return rng.permutation(images)[:count]


def _gaussian_per_class(rng, images, labels, count):
    """Gaussians of each class's mean and covariance, the classes equally often."""
    groups = [images[labels == index] for index in range(labels.max() + 1)]
    sizes = [len(part) for part in np.array_split(np.arange(count), len(groups))]
    return rng.permutation(np.concatenate([_gaussian(rng, *pair) for pair in zip(groups, sizes, strict=True)]))


def _one_gaussian(rng, images, labels, count):
    """A Gaussian of all images' mean and covariance."""
    return _gaussian(rng, images, count)


def _gaussian(rng, images, count):
    # Random combinations of images have the covariance of the images. An eigendecomposition would choose signs, and so
    # samples, differently on different machines.
    mean = images.mean(axis=0)
    spread = np.tensordot(rng.normal(size=(count, len(images))), images - mean, axes=1)
    return mean + spread / np.sqrt(max(len(images) - 1, 1))  # a single image has no spread


def _class_means(rng, images, labels, count):
    """The mean image of each class, repeated."""
    means = np.stack([images[labels == index].mean(axis=0) for index in range(labels.max() + 1)])
    return means[rng.permutation(np.arange(count) % len(means))]


def _exemplars(rng, images, labels, count):
    """One training image of each class, repeated: a memory, and a collapse of all variety within a class."""
    chosen = np.array([rng.choice(np.flatnonzero(labels == index)) for index in range(labels.max() + 1)])
    return images[chosen[rng.permutation(np.arange(count) % len(chosen))]]


def _independent_pixels(rng, images, labels, count):
    """Each pixel from a training image of its own: right histograms everywhere and no structure."""
    return np.take_along_axis(images, rng.integers(len(images), size=(count, *images.shape[1:])), axis=0)


def _uniform_noise(rng, images, labels, count):
    """Every pixel uniform in [0, 1]."""
    return rng.random((count, *images.shape[1:]))


def _half_of_the_classes(rng, images, labels, count):
    """Training images of the first half of the classes, with replacement: perfect, and blind to the rest."""
    return images[rng.choice(np.flatnonzero(labels < (labels.max() + 1) // 2), count)]


_IMPOSTORS: dict[str, Callable] = {
    "training images": _training_images,
    "Gaussian per class": _gaussian_per_class,
    "one Gaussian": _one_gaussian,
    "class means": _class_means,
    "one exemplar per class": _exemplars,
    "independent pixels": _independent_pixels,
    "uniform noise": _uniform_noise,
    "half of the classes": _half_of_the_classes,
}
NAMES = tuple(_IMPOSTORS)
