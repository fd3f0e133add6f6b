"""A judge of generated images of any dataset: a classifier of one's own, beside real images and impostors.

Its figures are named for what they are. FID and KID are those of Inception v3; the features of another classifier give
other numbers, which compare only by the same classifier, and for the same numbers of images. Over the distance of a
control they tell something without it: `frechet_distance_over_control` divides by that of a Gaussian for each class.

Images are compared as bytes, as files hold them, so that the precision of samples does not give them away.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from cvjax.core import Network, Variables
from cvjax.errors import UserError, number_of
from cvjax.metrics import extractors, generative, neighbours
from cvjax.metrics.controls import impostors
from cvjax.metrics.judges import Images, Judge, Labels, Samples

CHUNK = 100  # images a call of the classifier
PART = 10_000  # training images that samples are compared with at a time
LEARNT = 10_000  # the most training images that impostors are made of
COUNT = 1000  # samples of an impostor, and held-out images whose nearest training images are looked up
DRAWS = 5  # of the control, averaged: its distance varies by a few per cent from draw to draw
FEWEST = 4  # samples, or held-out images: each has three neighbours
KNOWN = 0.25  # of the images that are not of the commonest class: the least that a classifier gets right beyond it
UNLABELLED = ("training images", "one Gaussian", "independent pixels", "uniform noise")  # impostors without classes

Bytes = UInt8[np.ndarray, "images height width channels"]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Real images as bytes, with their labels or None."""

    images: Bytes
    labels: Int[np.ndarray, " images"] | None


def to_bytes(images: Float[np.ndarray, "images height width channels"]) -> Bytes:
    """Returns images of [0, 1], clipped and rounded to the 256 levels of a file."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierJudge:
    """The functions of a `Judge`.

    Attributes:
      network: a classifier, which returns (logits, activations) or logits; the activation called "features" is
        compared, or else the logits.
      variables: of the network.
      held_out: the real images that samples are compared with.
      read_training: () -> the images that the judged model was trained on; called once, when they are needed.
    """

    network: Network
    variables: Variables
    held_out: Examples
    read_training: Callable[[], Examples]
    known_controls: dict[int, float] = dataclasses.field(default_factory=dict)  # by the number of samples

    def check(self) -> None:
        """Raises a UserError unless the network is a classifier that knows the held-out images."""
        shape, labels = self.held_out.images.shape[1:], self.held_out.labels
        if shape != tuple(self.network.shape):
            raise UserError(
                f"config.judge: that network was trained on images of {tuple(self.network.shape)}, and here they are "
                f"{shape}: resize them by data.transforms and data.eval_transforms, or give another classifier."
            )
        if len(self.held_out.images) < FEWEST:
            raise UserError(
                f"config.judge: there are {number_of(len(self.held_out.images), 'held-out image')} to compare samples "
                f"with, config.data.eval_split; it takes at least {FEWEST}."
            )
        _check_outputs(self.network, self.variables)
        if labels is None:
            return
        right, commonest = self.accuracy, np.unique(labels, return_counts=True)[1].max() / len(labels)
        if not right >= commonest + KNOWN * (1 - commonest):
            raise UserError(
                f"config.judge: that classifier is right about {right:.1%} of the {len(labels):,} held-out images, of "
                f"which the commonest class has {commonest:.1%}: train it first, on these classes in this order."
            )

    def extract(self, images: Bytes) -> extractors.Found:
        """Returns the features and the class probabilities of images."""
        return extractors.in_chunks(functools.partial(self._run, self.variables), images, CHUNK)

    @functools.cached_property
    def _run(self) -> Callable[[Variables, Array], tuple[Array, Array]]:
        module = self.network.module

        @jax.jit
        def run(variables, images):
            with jax.default_matmul_precision("highest"):  # on a GPU the default rounds, and figures with it
                features, logits = read_outputs(module.apply(variables, images / 255))
            return features, jax.nn.softmax(logits)

        return run

    @functools.cached_property
    def reference(self) -> extractors.Found:
        """What `extract` returns of the held-out images."""
        return self.extract(self.held_out.images)

    @functools.cached_property
    def accuracy(self) -> float:
        """Share of the held-out images whose class the classifier gets right."""
        return float((self.reference[1].argmax(axis=1) == self.held_out.labels).mean())

    @functools.cached_property
    def training(self) -> Examples:
        """The training images."""
        return self.read_training()

    @functools.cached_property
    def learnt(self) -> tuple[Float32[np.ndarray, "images height width channels"], Int[np.ndarray, " images"]]:
        """The images that impostors are made of, and their labels, those that occur from 0 on; all 0 without labels."""
        images, labels = self.training.images, self.training.labels
        labels = np.zeros(len(images), int) if labels is None else labels
        chosen = np.random.default_rng(0).permutation(len(images))[:LEARNT]
        return images[chosen].astype(np.float32) / 255, np.unique(labels[chosen], return_inverse=True)[1]

    def impostor(self, name: str, seed: int, count: int) -> Bytes:
        """Returns samples of an impostor."""
        return to_bytes(impostors.draw(name, seed, *self.learnt, count))

    def control(self, count: int) -> float:
        """Returns the Fréchet distance of `count` samples of a Gaussian for each class, or of one without labels."""
        if count not in self.known_controls:
            name = "one Gaussian" if self.training.labels is None else "Gaussian per class"
            draws = (self.extract(self.impostor(name, seed, count))[0] for seed in range(DRAWS))
            self.known_controls[count] = float(np.mean([generative.fid(draw, self.reference[0]) for draw in draws]))
        return self.known_controls[count]

    def nearest(self, images: Bytes) -> tuple[Float[np.ndarray, " images"], Int[np.ndarray, " images"]]:
        """Returns each image's distance to the nearest training image, in grey levels 0 .. 16, and that one's index."""
        found, images = [], images / 255
        for start in range(0, len(self.training.images), PART):
            distances, indices = generative.nearest_neighbours(images, self.training.images[start : start + PART] / 255)
            found.append((distances, indices + start))
        distances, indices = (np.stack(parts) for parts in zip(*found, strict=True))
        best = distances.argmin(axis=0)[None]
        return tuple(np.take_along_axis(rows, best, axis=0)[0] for rows in (distances, indices))

    @functools.cached_property
    def held_out_distance(self) -> float:
        """Mean distance of held-out images to their nearest training image."""
        return float(self.nearest(self.held_out.images[:COUNT])[0].mean())

    def memorisation(self, distance: float) -> dict[str, float]:
        """Returns {"memorisation": a distance over that of held-out images}, {} where these are training images."""
        return {"memorisation": distance / self.held_out_distance} if self.held_out_distance else {}

    def figures(self, samples: Bytes, labels: Labels | None = None) -> dict[str, float]:
        """Computes the figures of `from_network`."""
        features, probabilities = self.extract(samples)
        precision, recall = neighbours.precision_recall(features, self.reference[0])
        distance, nearest = generative.fid(features, self.reference[0]), float(self.nearest(samples)[0].mean())
        return {
            "frechet_distance": distance,
            "frechet_distance_over_control": distance / self.control(len(samples)),
            "kernel_distance": generative.kernel_distance(features, self.reference[0]),
            "precision": precision,
            "recall": recall,
            "nearest_distance": nearest,
            **self.memorisation(nearest),
            "smallest_class": float(generative.class_shares(probabilities).min()),
            **generative.class_figures(probabilities, labels),
        }

    def measure(self, samples: Samples, real: Images, labels: Labels | None) -> dict[str, float]:
        """Measures samples against `held_out`; `real` is not used."""
        if samples.shape[1:] != tuple(self.network.shape):
            raise UserError(
                f"config.judge: its network takes images of {tuple(self.network.shape)}, not {samples.shape[1:]}."
            )
        return self.figures(to_bytes(samples), labels)

    def draw(self, samples: Samples) -> dict[str, Float[np.ndarray, "pictures height width channels"]]:
        """Returns {"nearest": each sample, followed by the training image nearest to it}."""
        nearest = self.training.images[self.nearest(to_bytes(samples))[1]].astype(np.float32) / 255
        return {"nearest": np.stack([samples, nearest], axis=1).reshape(-1, *samples.shape[1:])}

    def controls(self) -> dict[str, dict[str, float]]:
        """Measures impostors as samples are; of held-out images, what a model's samples would have at best."""
        real = {"nearest_distance": self.held_out_distance} | self.memorisation(self.held_out_distance)
        if self.held_out.labels is not None:
            real["class_accuracy"] = self.accuracy
        names = UNLABELLED if self.training.labels is None else impostors.NAMES
        return {"held-out images": real} | {name: self.figures(self.impostor(name, 0, COUNT)) for name in names}


def from_network(
    network: Network, variables: Variables, held_out: Examples, read_training: Callable[[], Examples]
) -> Judge:
    """Returns a judge by another run's classifier; the arguments are those of `ClassifierJudge`.

    Its figures compare samples with the held-out images by the classifier's features: frechet_distance,
    frechet_distance_over_control, kernel_distance, precision and recall; with the training images by their pixels:
    nearest_distance and, unless the held-out images are training images, memorisation; and by classes: smallest_class,
    the share of the class that the classifier sees least, and those of `generative.class_figures`.

    Raises:
      UserError: a network that is no classifier of images of this shape, or one that does not know their classes.
    """
    judge = ClassifierJudge(network, variables, held_out, read_training)
    judge.check()
    return Judge(judge.measure, judge.draw, judge.controls, network.shape[-1], "frechet_distance")


def read_outputs(
    outputs: Float[Array, "images ..."] | tuple[Float[Array, "images ..."], Mapping[str, Float[Array, "..."]]],
) -> tuple[Float[Array, "images ..."], Float[Array, "images ..."]]:
    """Returns (features, logits) of what a classifier returns."""
    logits, activations = outputs if isinstance(outputs, tuple) else (outputs, {})
    return activations.get("features", logits), logits


def _check_outputs(network: Network, variables: Variables) -> None:
    """Traces a network, which may be of any kind and fail in any way."""
    images = jax.ShapeDtypeStruct((2, *network.shape), np.float32)
    try:
        found = jax.eval_shape(lambda images: read_outputs(network.module.apply(variables, images)), images)
    except Exception as error:
        raise UserError(
            f"config.judge: that network is no classifier of images: {type(error).__name__}: {error}"
        ) from error
    if any(array.ndim != 2 for array in found):
        raise UserError(
            f"config.judge: that network is no classifier: it returns {found[1].shape[1:]} for an image, not the "
            "logits of classes."
        )
