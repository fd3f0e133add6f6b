"""Judges of generated images: what `config.judge` names, built once and shown samples of any system.

A judge turns images into features (`cvjax.metrics.extractors`), compares those of samples with those of real images,
and knows what simple or broken competitors score by the same measures. A classifier of one's own makes one too, in
`cvjax.metrics.classifier_judge`. The figures are those of Heusel et al., GANs
Trained by a Two Time-Scale Update Rule, 2017 (arXiv:1706.08500), and of their successors.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cvjax.errors import UserError
from cvjax.metrics import digits, extractors, generative

Images = Float[np.ndarray, "images height width channels"]
Samples = Float[np.ndarray, "samples height width channels"]
Labels = Int[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Measures samples of a generative system.

    Attributes:
      measure: (samples, real images, classes that the samples were made of or None) -> figures. Images in [0, 1].
      draw: samples -> {name: images} that a person judges by, such as each sample beside its nearest training image.
      controls: () -> {competitor: figures}.
      channels: of the images that it takes; 0: any.
      distance: the figure that says how far samples are from real images.
    """

    measure: Callable[[Samples, Images, Labels | None], dict[str, float]]
    draw: Callable[[Images], dict[str, Images]] = lambda samples: {}
    controls: Callable[[], dict[str, dict[str, float]]] = dict
    channels: int = 0
    distance: str = "fid"


def make(name: str) -> Judge:
    """Returns the judge of a name or a file that `cvjax.metrics.extractors.make` knows, which needs no run.

    All give fid, kid, precision and recall; see `measure_digits`, `measure_pixels` and `from_extractor`. Those of
    "pixels" are not comparable with published figures. Raises a UserError as `extractors.make` does.
    """
    if name == "digits":
        return Judge(measure_digits, draw_nearest_digits, _digit_controls, channels=1)
    if name == "pixels":
        return Judge(measure_pixels)
    return from_extractor(extractors.make(name), channels=3)


def from_extractor(extract: extractors.Extractor, channels: int = 0) -> Judge:
    """Returns a judge by an extractor's features, of images with `channels` (0: any).

    Its figures are fid, kid, precision and recall and, with probabilities, inception_score.
    """

    def measure(samples: Samples, real: Images, labels: Labels | None) -> dict[str, float]:
        features, probabilities = extract(samples)
        return extractors.evaluate(features, extract(real)[0], probabilities)

    return Judge(measure, channels=channels)


def measure_digits(samples: Samples, real: Images, labels: Labels | None) -> dict[str, float]:
    """Measures generated digits, 8 x 8 grey images.

    Returns the figures of `digits.evaluate`, which compares with the test digits and not with `real`; sure_share, the
    share that the classifier is sure of; classes_seen and, with the labels that the samples were made of,
    class_accuracy. Raises a UserError for images of another shape.
    """
    if samples.shape[1:] != (8, 8, 1):
        raise UserError(f'config.judge="digits" measures 8 x 8 grey images, not {samples.shape[1:]}.')
    probabilities = digits.features(samples)[1]
    sure = {"sure_share": digits.sure_share(probabilities)}
    return digits.evaluate(samples) | sure | generative.class_figures(probabilities, labels)


def measure_pixels(samples: Samples, real: Images, labels: Labels | None) -> dict[str, float]:
    """Measures any images against held-out real ones by thumbnails of 8 x 8 pixels; `labels` are not used.

    Returns fid, kid, precision and recall, and fid_over_noise, the share of the FID of uniform noise.
    """
    reference = generative.thumbnails(real)
    figures = extractors.evaluate(generative.thumbnails(samples), reference)
    noise = np.random.default_rng(0).uniform(size=samples.shape)
    return {**figures, "fid_over_noise": figures["fid"] / generative.fid(generative.thumbnails(noise), reference)}


def draw_nearest_digits(samples: Samples) -> dict[str, Float[np.ndarray, "pictures height width channels"]]:
    """Returns {"nearest": each 8 x 8 grey sample, followed by the training digit nearest to it}."""
    pairs = np.stack([samples, np.asarray(digits.nearest(jnp.asarray(samples)))], axis=1)
    return {"nearest": pairs.reshape(-1, *samples.shape[1:])}


def _digit_controls() -> dict[str, dict[str, float]]:
    return digits.controls() | digits.density_controls()
