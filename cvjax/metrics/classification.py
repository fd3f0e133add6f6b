"""The figures of a classifier: accuracies, likelihood, calibration and confusions.

Calibration: Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599), equation 3.
"""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from cvjax.errors import UserError
from cvjax.ops.precision import at_least_float32

Rows = Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]
LISTED = 100  # classes; figures of each class are left out where there are more


def outcomes(
    logits: Float[Array, "batch classes"], labels: Integer[Array, " batch"]
) -> dict[str, Shaped[Array, " batch"]]:
    """Returns the numbers that the figures of a classifier are computed from, for each image.

    `predicted` is the most probable class; `confidence`, its probability; `rank`, the number of classes before the true
    one, 0 if the prediction is right; `nll`, the negative log-probability of the true class in nats.
    """
    logits = at_least_float32(logits)
    classes, true = jnp.arange(logits.shape[-1]), labels[:, None]
    own = jnp.take_along_axis(logits, true, axis=-1)
    # Of equal logits the first class counts as the more probable one, as argmax has it; NaN is never right.
    after = (logits < own) | ((logits == own) & (classes >= true))
    return {
        "predicted": logits.argmax(axis=-1),
        "confidence": jax.nn.softmax(logits).max(axis=-1),
        "rank": (~after).sum(axis=-1),
        "nll": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
    }


def figures(rows: Rows, classes: Sequence[str]) -> dict[str, float]:
    """Measures a classifier.

    Returns top1 and, with more than five classes, top5 accuracy; nll in nats; calibration_error; class_accuracy, the
    mean of the classes' own accuracies, and up to 100 classes also accuracy/<class>, -1 without examples. Raises a
    UserError if a label is not one of the classes.

    Args:
      rows: (batch, outputs): `label` of the batch, and what `outcomes` returns. Padding of batches has been removed.
    """
    rows = list(rows)
    labels = np.concatenate([batch["label"] for batch, _ in rows])
    check_labels(labels, len(classes))
    columns = {name: np.concatenate([outputs[name] for _, outputs in rows]) for name in rows[0][1]}
    right, confidence = columns["rank"] == 0, columns["confidence"]
    found = {"top1": right.mean(), "nll": columns["nll"].mean(dtype=np.float64)}
    if len(classes) > 5:
        found["top5"] = (columns["rank"] < 5).mean()
    found["calibration_error"] = calibration_error(confidence, right)
    matrix = confusion(labels, columns["predicted"], len(classes))
    each = class_accuracies(matrix)
    found["class_accuracy"] = each[each >= 0].mean()
    if len(classes) <= LISTED:
        found |= {f"accuracy/{name}": accuracy for name, accuracy in zip(classes, each, strict=True)}
    return {name: float(value) for name, value in found.items()}


def check_labels(labels: Integer[np.ndarray, " examples"], classes: int) -> None:
    """Raises a UserError if a label is not one of 0, ..., classes - 1."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):  # optax takes -1 for the last class, and makes NaN of 255
        raise UserError(f"The label of an image is {wrong[0]}; there are {classes} classes, 0 to {classes - 1}.")


def confusion(
    labels: Integer[np.ndarray, " examples"], predicted: Integer[np.ndarray, " examples"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Returns a matrix of counts [true class, class found]."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_accuracies(matrix: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Returns the share of each class's examples that are found, -1 without examples; `matrix` is a `confusion`."""
    counts = matrix.sum(axis=1)
    return np.where(counts > 0, np.diag(matrix) / np.maximum(counts, 1), -1.0)


def calibration_error(
    confidence: Float[np.ndarray, " examples"], right: Bool[np.ndarray, " examples"], bins: int = 15
) -> float:
    """Returns the expected calibration error: the mean over the examples of |accuracy - mean confidence| in their bin.

    Args:
      confidence: probability of each predicted class.
      right: whether the prediction is right.
      bins: number of bins of equal width from 0 to 1.
    """
    places = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(right))
