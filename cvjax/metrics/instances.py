"""Objects of a segmentation, counted: its connected components, matched to the true objects.

As for cells and nuclei: Caicedo et al., Evaluation of Deep Learning Strategies for Nucleus Segmentation in Fluorescence
Images, 2019; Weigert et al., Star-convex Polyhedra, 2020. An object is found if a component overlaps it by an IoU of at
least the threshold; each component finds one object. Objects that touch and were painted as one are not found.
"""

import dataclasses

import cv2
import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Int32, Integer

from cvjax.data.transforms.borders import find_borders


@dataclasses.dataclass(frozen=True)
class Match:
    """How the components of an image match its objects.

    Attributes:
      found: whether each true object is found.
      false: number of components that find none.
    """

    found: Bool[np.ndarray, " objects"]
    false: int


def components(
    segmentation: Integer[np.ndarray, "height width"], background: int = 0, least: int = 1
) -> Int32[np.ndarray, "height width"]:
    """Returns connected components, numbered from 1 on; pixels that touch by a corner are connected.

    Args:
      segmentation: classes, each with components of its own, or 1 for any object.
      background: a class that is 0 in the result.
      least: components of fewer pixels are 0 too.
    """
    numbered, count = np.zeros(segmentation.shape, np.int32), 0
    for label in np.unique(segmentation).tolist():
        if label == background:
            continue
        _, parts, extents, _ = cv2.connectedComponentsWithStats((segmentation == label).astype(np.uint8))
        kept = extents[:, cv2.CC_STAT_AREA] >= least
        kept[0] = False
        numbers = np.where(kept, count + np.cumsum(kept), 0)
        numbered += numbers[parts].astype(np.int32)
        count += int(kept.sum())
    return numbered


def touching(instances: Integer[np.ndarray, "height width"], gap: int = 0) -> Bool[np.ndarray, " objects"]:
    """Returns which objects, numbered from 1 to the greatest, touch another one, or are nearer to it than a gap.

    `gap` is the most pixels of background in between; 0: neighbouring pixels, by side or corner.
    """
    beside = instances[find_borders(instances, gap + 1)]
    return np.bincount(beside, minlength=int(instances.max(initial=0)) + 1)[1:] > 0


def overlaps(
    truth: Integer[np.ndarray, "height width"], predicted: Integer[np.ndarray, "height width"]
) -> Float[np.ndarray, "objects components"]:
    """Returns the IoU of each object and each component, numbered from 1 to the greatest; an absent one has 0."""
    rows, columns = int(truth.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1
    pairs = truth.astype(np.int64) * columns + predicted
    shared = np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)
    union = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    return (shared / np.maximum(union, 1))[1:, 1:]


def match(
    truth: Integer[np.ndarray, "height width"], predicted: Integer[np.ndarray, "height width"], threshold: float = 0.5
) -> Match:
    """Matches numbered components to numbered objects, by an IoU of at least the threshold, so that most are found.

    Returns the objects in the order of their numbers, and the other components' count.
    """
    there = np.unique(truth[truth > 0])
    parts = np.unique(predicted[predicted > 0])
    enough = overlaps(truth, predicted)[np.ix_(there - 1, parts - 1)] >= threshold
    rows, columns = scipy.optimize.linear_sum_assignment(enough, maximize=True)
    found = np.zeros(len(there), bool)
    found[rows] = enough[rows, columns]
    return Match(found, len(parts) - int(found.sum()))


class Tally:
    """Counts the objects that are found, image after image."""

    def __init__(self, threshold: float = 0.5, gap: int = 0, least: int = 1):
        self.threshold, self.gap, self.least = threshold, gap, least
        self.found = self.missed = self.false = self.beside = self.separated = 0

    def add(
        self,
        truth: Integer[np.ndarray, "batch height width"],
        predicted: Integer[np.ndarray, "batch height width"],
    ) -> None:
        """Counts the objects of some images.

        `truth` has the numbers of the objects, `predicted` the classes found; 0 is background in both.
        """
        for true, classes in zip(np.asarray(truth), np.asarray(predicted), strict=True):
            matched = match(true, components(classes, least=self.least), self.threshold)
            beside = touching(true, self.gap)[np.unique(true[true > 0]) - 1]
            self.found += int(matched.found.sum())
            self.missed += int((~matched.found).sum())
            self.false += matched.false
            self.beside += int(beside.sum())
            self.separated += int((matched.found & beside).sum())

    def figures(self) -> dict[str, float]:
        """Returns instance_f1, and separated: the share of the objects touching another one that are found."""
        every = 2 * self.found + self.missed + self.false
        return {"instance_f1": 2 * self.found / max(every, 1), "separated": self.separated / max(self.beside, 1)}
