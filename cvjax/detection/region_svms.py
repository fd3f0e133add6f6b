"""One-vs-rest linear SVMs with hard negatives, and ridge regression of boxes, fitted on the features of regions.

Girshick, Donahue, Darrell & Malik, Rich Feature Hierarchies for Accurate Object Detection, 2014 (arXiv:1311.2524),
section 2.3 and appendices B and C. What the paper leaves open follows the authors' code.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from cvjax.signature import Count, Natural, NonNegative, Positive, Share

HARD, EASY = -1.0001, -1.2  # margins above which a negative is taken up, and below which it is dropped

Features = Float[np.ndarray, "regions features"]


@dataclasses.dataclass(frozen=True)
class RegionSVMs:
    """How SVMs and box regression are fitted: `config.recipe.svm`.

    Attributes:
      images: number of training images whose regions they are fitted to.
      norm: mean norm to which features are scaled.
      cost: of a violated margin, SVMs' C.
      positive_weight: factor of the cost of positives.
      intercept: of features, the constant one, whose weight is regularised with the others.
      negative_iou: IoU with a class's objects below which a region is one of its negatives.
      refit: number of new hard negatives of a class after which its SVM is fitted again.
      regression_iou: least IoU with an object at which a region is moved onto it.
      ridge: regularisation of box regression.
      regressed: largest number of regions of a class to which its box regression is fitted.
    """

    images: Count = 5000
    norm: Positive = 20.0
    cost: Positive = 1e-3
    positive_weight: Positive = 2.0
    intercept: Positive = 10.0
    negative_iou: Share = 0.3
    refit: Count = 2000
    regression_iou: Share = 0.6
    ridge: NonNegative = 1000.0
    regressed: Natural = 5000


PAPER = RegionSVMs()


class Miner:
    """Fits an SVM for each class to all of its objects and to the negatives that violate its margin so far."""

    def __init__(self, classes: int, features: int, settings: RegionSVMs):
        self.settings = settings
        self.kernel, self.bias = np.zeros((features, classes), np.float32), np.zeros(classes, np.float32)
        none = np.zeros((0, features), np.float32)
        self.positives, self.negatives = [none] * classes, [none] * classes
        self._fresh, self._fitted = [0] * classes, [False] * classes

    def add(
        self,
        features: Features,
        own: Int[np.ndarray, " regions"],
        overlaps: Float[np.ndarray, "regions classes"],
    ) -> None:
        """Takes up regions, and fits again where there are enough hard negatives.

        Args:
          own: class of regions that are true boxes, -1 for all others.
          overlaps: greatest IoU with the objects of each class.
        """
        for label in range(len(self.bias)):
            self.positives[label] = np.concatenate([self.positives[label], features[own == label]])
            candidates = features[overlaps[:, label] < self.settings.negative_iou]
            if self._fitted[label]:
                candidates = candidates[self._margins(candidates, label) > HARD]
            elif not len(self.positives[label]):  # perhaps none will come
                candidates = candidates[: self.settings.refit - len(self.negatives[label])]
            self.negatives[label] = np.concatenate([self.negatives[label], candidates])
            self._fresh[label] += len(candidates)
            if self._fresh[label] >= self.settings.refit:
                self._fit(label)

    def finish(self) -> tuple[Float[np.ndarray, "features classes"], Float[np.ndarray, " classes"]]:
        """Fits all once more; returns (kernel, bias), margins -10 for a class without objects."""
        for label in range(len(self.bias)):
            self._fit(label)
            if not self._fitted[label]:
                self.bias[label] = -10.0
        return self.kernel, self.bias

    def _fit(self, label: int) -> None:
        positives, negatives = self.positives[label], self.negatives[label]
        if not len(positives) or not len(negatives):
            return
        chosen = self.settings
        svm = LinearSVC(
            C=chosen.cost,
            loss="hinge",
            intercept_scaling=chosen.intercept,
            class_weight={1: chosen.positive_weight},
            max_iter=20_000,
            random_state=0,
        )
        svm.fit(np.concatenate([positives, negatives]), np.repeat([1, 0], [len(positives), len(negatives)]))
        self.kernel[:, label], self.bias[label] = svm.coef_[0], svm.intercept_[0]
        self.negatives[label] = negatives[self._margins(negatives, label) >= EASY]
        self._fresh[label], self._fitted[label] = 0, True

    def _margins(self, features: np.ndarray, label: int) -> np.ndarray:
        return features @ self.kernel[:, label] + self.bias[label]


class BoxRegression:
    """Fits a linear map from the features of a region to its offsets from its object, for each class (appendix C)."""

    def __init__(self, classes: int, features: int, settings: RegionSVMs):
        self.settings, self.features = settings, features
        self._kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(classes)]

    def add(
        self,
        features: Features,
        labels: Int[np.ndarray, " regions"],
        offsets: Float[np.ndarray, "regions 4"],
        overlaps: Float[np.ndarray, " regions"],
    ) -> None:
        """Takes up regions with the class of the object nearest to each, the IoU with it and the offsets to it."""
        near = overlaps >= self.settings.regression_iou
        for label, kept in enumerate(self._kept):
            mine = np.flatnonzero(near & (labels == label))
            room = self.settings.regressed - sum(len(rows) for rows, _ in kept)
            kept.append((features[mine[: max(room, 0)]], offsets[mine[: max(room, 0)]]))

    def finish(self) -> tuple[Float[np.ndarray, "features classes 4"], Float[np.ndarray, "classes 4"]]:
        """Returns (kernel, bias); zeros, which move nothing, for a class without regions."""
        classes = len(self._kept)
        kernel, bias = np.zeros((self.features, classes, 4), np.float32), np.zeros((classes, 4), np.float32)
        for label, kept in enumerate(self._kept):
            rows, offsets = (np.concatenate(column) for column in zip(*kept, strict=True)) if kept else ((), ())
            if len(rows):
                ridge = Ridge(alpha=self.settings.ridge).fit(rows, offsets)
                kernel[:, label], bias[label] = ridge.coef_.T, ridge.intercept_
        return kernel, bias
