"""Extractors of the features that FID, KID, precision and recall compare, and the figures by any of them.

An `Extractor` is any function of images [images, height, width, channels] in [0, 1], all of one size, that returns
(features, class probabilities for the Inception Score or None): float64, a row for each image that does not depend on
the other images. `make` has three: the frozen classifier of digits, thumbnails, and Inception v3, with which figures
are published (Heusel et al., "GANs trained by a two time-scale update rule", 2017), with weights from the user's file.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from cvjax.errors import UserError, suggest
from cvjax.metrics import digits, generative, neighbours
from cvjax.nets.inception import InceptionV3
from cvjax.weights import networks

CHUNK = 32  # images a call of Inception, always padded to that many: one compilation a size
WEIGHTS = (".pth", ".pt", ".safetensors")

Images = Float[np.ndarray, "images height width channels"]
Found = tuple[Float[np.ndarray, "images features"], Float[np.ndarray, "images classes"] | None]
Extractor = Callable[[Images], Found]


def make(features: str) -> Extractor:
    """Returns an extractor by its name.

    Args:
      features: "digits": the frozen classifier of 8 x 8 digits; "pixels": `thumbnails`, a coarse measure of any images;
        else the `.pth` or `.safetensors` file of Inception's weights, for published figures.

    Raises:
      UserError: no such name, or a file that does not hold these weights.
    """
    if Path(features).suffix.lower() in WEIGHTS:
        return inception(features)
    known = {"digits": _digits, "pixels": _pixels}
    if features not in known:
        raise UserError(
            f"there are no features {features!r}. {suggest(features, known)} Or a file of Inception's weights "
            f"({', '.join(WEIGHTS)})."
        )
    return known[features]


def _digits(images: Images) -> Found:
    if images.shape[1:] != (8, 8, 1):
        raise UserError(f'features "digits" are of 8 x 8 grey images, not of {images.shape[1:]}.')
    return digits.features(images)


def _pixels(images: Images) -> Found:
    return generative.thumbnails(images), None


def inception(weights: str | Path) -> Extractor:
    """Returns the extractor of published figures, Inception v3 as in the graph of 2015.

    Images are first rounded to bytes, as image files are. It has 2,048 features and 1,008 probabilities, of the logits
    without their bias, as for the published Inception Score. Raises a UserError if the file cannot be read, or does not
    hold these weights.
    """
    net = InceptionV3("fid")
    variables = jax.device_put(networks.load(weights, net))

    @jax.jit
    def run(variables, images):
        logits, activations = net.apply(variables, images)
        return activations["features"], jax.nn.softmax(logits - variables["params"]["fc"]["bias"])

    def extract(images: Images) -> Found:
        return in_chunks(lambda chunk: run(variables, chunk), np.round(np.clip(images, 0, 1) * 255) / 255)

    return extract


def in_chunks(
    run: Callable[[jax.Array], tuple[jax.Array, ...]],
    images: Real[np.ndarray, "images height width channels"],
    chunk: int = CHUNK,
) -> Found:
    """Returns what a compiled network gives for any number of images, which may be bytes, as float64.

    Args:
      run: (images, always `chunk` of them) -> arrays with a row for each image.
    """
    rows = []
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        padded = np.pad(part, ((0, chunk - len(part)), (0, 0), (0, 0), (0, 0)))
        rows.append([np.asarray(found, np.float64)[: len(part)] for found in run(jnp.asarray(padded, jnp.float32))])
    return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))


def gather(chunks: Iterable[Float[np.ndarray, "_ _ _ _"]], extract: Extractor) -> Found:
    """Returns the (features, probabilities or None) of chunks of images that need not fit into memory together."""
    features, probabilities = zip(*map(extract, chunks), strict=True)
    return np.concatenate(features), None if probabilities[0] is None else np.concatenate(probabilities)


def evaluate(
    samples: Float[np.ndarray, "samples features"],
    reference: Float[np.ndarray, "references features"],
    probabilities: Float[np.ndarray, "samples classes"] | None = None,
) -> dict[str, float]:
    """Measures generated images against real ones by the features of an extractor.

    Returns fid, kid (of all images at once), precision and recall, and with probabilities inception_score. A figure
    compares only with those by the same extractor and the same numbers of images.

    Args:
      samples, reference: features of generated and of real images, more than three of each.
      probabilities: of the samples, in random order, if the extractor has them.
    """
    precision, recall = neighbours.precision_recall(samples, reference)
    figures = {
        "fid": generative.fid(samples, reference),
        "kid": generative.kernel_distance(samples, reference),
        "precision": precision,
        "recall": recall,
    }
    if probabilities is not None:
        splits = min(10, len(probabilities))
        figures["inception_score"] = generative.inception_score(probabilities, splits)[0]
    return figures
