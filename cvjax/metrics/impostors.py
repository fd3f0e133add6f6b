"""Impostors: samples by models too simple or too broken to count, which show what a measure of generation sees.

All have one signature, (rng, images, labels, count) -> samples: training images [n, height, width, channels] in [0, 1],
their classes [n], and how many samples to draw. Gaussian samples leave [0, 1]; whoever measures them clips.
"""

import numpy as np
from jaxtyping import Float, Int

Images = Float[np.ndarray, "_ height width channels"]
Labels = Int[np.ndarray, " _"]


def real(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Draws training images, each at most once and as many as there are: the best that a copy can do."""
    return rng.permutation(images)[:count]


def gaussian_per_class(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Draws from a Gaussian of each class's mean and covariance, the classes equally often."""
    classes = np.arange(count) % (labels.max() + 1)
    samples = np.empty((count, *images.shape[1:]), np.float32)
    for index in range(labels.max() + 1):
        samples[classes == index] = one_gaussian(rng, images[labels == index], labels, np.sum(classes == index))
    return rng.permutation(samples)


def one_gaussian(rng: np.random.Generator, images: Images, labels: Labels, count: int | np.integer) -> Images:
    """Draws from the Gaussian of the images' mean and covariance."""
    # Random combinations of the images have their covariance. An eigendecomposition would choose signs, and so samples,
    # differently on different machines.
    mean = images.mean(axis=0)
    weights = rng.normal(size=(count, len(images))) / np.sqrt(len(images) - 1)
    return (mean + np.tensordot(weights, images - mean, axes=1)).astype(np.float32)


def class_means(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Repeats the mean image of each class."""
    means = np.stack([images[labels == index].mean(axis=0) for index in range(labels.max() + 1)])
    return means[rng.permutation(np.arange(count) % len(means))]


def exemplars(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Repeats one training image of each class: a memory, and a collapse of all variety within a class."""
    chosen = np.array([rng.choice(np.flatnonzero(labels == index)) for index in range(labels.max() + 1)])
    return images[chosen[rng.permutation(np.arange(count) % len(chosen))]]


def independent_pixels(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Draws each pixel from a training image of its own: right histograms everywhere and no structure."""
    rows = rng.integers(len(images), size=(count, *images.shape[1:]))
    return np.take_along_axis(images, rows, axis=0)


def uniform_noise(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Draws every pixel uniformly from [0, 1]."""
    return rng.random((count, *images.shape[1:]), np.float32)


def half_of_the_classes(rng: np.random.Generator, images: Images, labels: Labels, count: int) -> Images:
    """Draws training images of the first half of the classes, with replacement: perfect, and blind to the rest."""
    return images[rng.choice(np.flatnonzero(labels < (labels.max() + 1) // 2), count)]
