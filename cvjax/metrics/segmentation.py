"""The figures of semantic segmentation: overlaps and accuracies of one confusion matrix, summed over all images.

Pixel accuracy, mean accuracy, mean IoU and frequency-weighted IoU are those of Long et al., Fully Convolutional
Networks for Semantic Segmentation, 2015 (arXiv:1411.4038), section 5. Pixels of the value `void` count nowhere.

A class that is in neither the truth nor the predictions has no IoU and is left out of the mean, as in DeepLab's and
MMSegmentation's evaluation. Elsewhere it counts: 0 in scikit-learn's `jaccard_score`, NaN (and so is the mean) in
torchvision's reference script. A class that is predicted but never true has an IoU of 0 everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Integer

from cvjax.data.class_maps import VOID
from cvjax.errors import UserError
from cvjax.metrics import boundaries
from cvjax.metrics.classification import LISTED, class_accuracies

Rows = Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]


def confusions(
    truth: Integer[Array, "batch height width"],
    predicted: Integer[Array, "batch height width"],
    classes: int,
    void: int = VOID,
    mask: Bool[Array, "batch height width"] | None = None,
) -> Int32[Array, "batch classes classes"]:
    """Returns counts of pixels [image, true class, class found]; a row of an `eval_step`.

    Pixels whose true class is `void`, whose `mask` is False, or whose classes are not among `classes` are left out.
    """
    truth, predicted = truth.astype(jnp.int32), predicted.astype(jnp.int32)
    counted = (truth != void) & (truth >= 0) & (truth < classes) & (predicted >= 0) & (predicted < classes)
    if mask is not None:
        counted &= mask
    cells = jnp.where(counted, truth * classes + predicted, classes**2)  # the last cell is dropped
    counts = jax.vmap(lambda image: jnp.bincount(image.ravel(), length=classes**2 + 1))(cells)
    return counts[:, :-1].reshape(-1, classes, classes).astype(jnp.int32)


def class_ious(matrix: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Returns each class's intersection over union, NaN for classes in neither truth nor predictions."""
    both = np.diag(matrix)
    return _ratio(both, matrix.sum(0) + matrix.sum(1) - both)


def class_dices(matrix: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Returns each class's Dice coefficient, which is its F1, NaN for classes in neither truth nor predictions."""
    return _ratio(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def matrix_figures(matrix: Int[np.ndarray, "classes classes"], classes: Sequence[str]) -> dict[str, float]:
    """Computes the figures of a confusion matrix [true class, class found].

    Returns mean_iou and mean_dice, over the classes in truth or predictions; pixel_accuracy; mean_accuracy, the mean of
    the true classes' accuracies; weighted_iou, IoUs weighted by the classes' true pixels; and up to 100 classes also
    iou/<class>, -1 for those that are in neither. All are 0 without any pixel.
    """
    ious, true = class_ious(matrix), matrix.sum(1)
    accuracies = class_accuracies(matrix)
    found = {
        "mean_iou": _mean(ious[~np.isnan(ious)]),
        "mean_dice": _mean((dices := class_dices(matrix))[~np.isnan(dices)]),
        "pixel_accuracy": np.trace(matrix) / max(matrix.sum(), 1),
        "mean_accuracy": _mean(accuracies[true > 0]),
        "weighted_iou": (true * np.nan_to_num(ious)).sum() / max(true.sum(), 1),
    }
    if len(classes) <= LISTED:
        found |= {f"iou/{name}": iou for name, iou in zip(classes, np.nan_to_num(ious, nan=-1.0), strict=True)}
    return {name: float(value) for name, value in found.items()}


def figures(
    rows: Rows, classes: Sequence[str], truth: str = "class_map", void: int = VOID, tolerance: float | int | None = None
) -> dict[str, float]:
    """Measures a segmentation; `score` of a recipe whose `eval_step` returns `confusions`.

    Returns the figures of `matrix_figures`, and boundary_f where there is `segmentation`: the F-measure of each class's
    boundary, averaged over the images that have one, then over the classes. Raises a UserError if a true map has a
    value that is neither a class nor void.

    Args:
      rows: (batch, outputs): the map `truth` of the batch; `confusions`, and for the boundaries `segmentation`, the map
        of classes found, of the outputs. Padding of batches has been removed. They are read once, batch after batch.
      tolerance: pixels by which boundaries may differ; None: as `boundaries.tolerance_of` the size.
    """
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    contours = boundaries.Tally(len(classes), tolerance, void)
    drawn = False
    for batch, outputs in rows:
        _check(batch[truth], len(classes), void, truth)
        matrix += outputs["confusions"].sum(axis=0, dtype=np.int64)
        if "segmentation" in outputs:
            drawn = True
            contours.add(batch[truth], outputs["segmentation"])
    found = matrix_figures(matrix, classes)
    return found | {"boundary_f": contours.mean()} if drawn else found


def _check(truth: np.ndarray, classes: int, void: int, name: str) -> None:
    wrong = truth[(truth != void) & ((truth < 0) | (truth >= classes))]
    if len(wrong):
        raise UserError(
            f"`{name}` of an image has the value {wrong[0]}; there are {classes} classes, 0 to {classes - 1}, and "
            f"{void} for void. data.class_maps says which values are which class"
        )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
