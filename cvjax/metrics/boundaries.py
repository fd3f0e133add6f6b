"""The boundary F-measure of a segmentation: Csurka et al., What is a Good Evaluation Measure for Semantic
Segmentation?, 2013, as Perazzi et al. (DAVIS, 2016) use it for one object.

A class's boundary pixels have a neighbour (left, right, above or below) of another class. The image's border is no
boundary, nor is an edge to void, and predictions count only outside of the truth's void. A boundary pixel is right if
the other map has one of the same class within the tolerance.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer

from cvjax.data.class_maps import VOID

NEAR = 0.0075  # tolerance as a share of the image's diagonal, from the paper


def tolerance_of(height: int, width: int) -> int:
    """Returns the paper's tolerance in pixels for images of a size, at least 1."""
    return max(1, round(NEAR * float(np.hypot(height, width))))


def boundary(
    inside: Bool[np.ndarray, "height width"], counted: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Returns a region's pixels that have a neighbour outside of it; void ones, not `counted`, are in neither."""
    inside = inside & counted
    outside = ~inside & counted
    edge = np.zeros_like(inside)
    edge[1:] |= outside[:-1]
    edge[:-1] |= outside[1:]
    edge[:, 1:] |= outside[:, :-1]
    edge[:, :-1] |= outside[:, 1:]
    return edge & inside


def boundary_f(
    truth: Bool[np.ndarray, "height width"], predicted: Bool[np.ndarray, "height width"], tolerance: float | int
) -> float:
    """Returns the harmonic mean of the shares of either map's boundary pixels that are near the other's.

    Both maps are of boundary pixels, near at a Euclidean distance of at most `tolerance` pixels. The result is 0 if
    only one map has a boundary, NaN if none has.
    """
    if not truth.any() or not predicted.any():
        return float("nan") if not truth.any() and not predicted.any() else 0.0
    precision, recall = _near(predicted, truth, tolerance), _near(truth, predicted, tolerance)
    return 2 * precision * recall / max(precision + recall, 1e-12)


class Tally:
    """Sums the boundary F of each class over images."""

    def __init__(self, classes: int, tolerance: float | int | None = None, void: int = VOID):
        self.classes, self.tolerance, self.void = classes, tolerance, void
        self.sums, self.counts = np.zeros(classes), np.zeros(classes, np.int64)

    def add(
        self,
        truth: Integer[np.ndarray, "batch height width"],
        predicted: Integer[np.ndarray, "batch height width"],
    ) -> None:
        """Compares the maps of some images."""
        tolerance = tolerance_of(*truth.shape[1:]) if self.tolerance is None else self.tolerance
        for true, found in zip(np.asarray(truth), np.asarray(predicted), strict=True):
            counted = true != self.void
            for label in np.union1d(true[counted], found[counted]).tolist():
                f = boundary_f(boundary(true == label, counted), boundary(found == label, counted), tolerance)
                if not np.isnan(f):
                    self.sums[label] += f
                    self.counts[label] += 1

    def each(self) -> Float[np.ndarray, " classes"]:
        """Returns each class's mean over the images in which a boundary of it is true or found, NaN without any."""
        return np.divide(self.sums, self.counts, out=np.full(self.classes, np.nan), where=self.counts > 0)

    def mean(self) -> float:
        """Returns the mean over the classes, 0 without any boundary."""
        return float(np.nanmean(self.each())) if self.counts.any() else 0.0


def _near(these: np.ndarray, others: np.ndarray, tolerance: float | int) -> float:
    """Share of the pixels of one boundary within the tolerance of another."""
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[these] <= tolerance + 1e-4).mean())
