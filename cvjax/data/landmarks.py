"""Points of an example, such as the landmarks of a face: where they come from, and how they are read and padded."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.errors import UserError, suggest
from cvjax.signature import Count, arguments_of, match


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """The keys of `data.points`.

    Attributes:
      feature: the dataset's feature: [points, 2] of x and y, or [points, 3] with visibility, where more than 0 is
        visible; or scalars called `NAME_x` and `NAME_y`, sorted by name.
      exchange: pairs of points that a mirror exchanges, such as the left and the right eye.
      count: number to which points are padded; None: the feature has a fixed number.
      normalised: whether x and y are fractions of the image's width and height instead of pixels.
    """

    feature: str
    exchange: tuple[tuple[int, int], ...] = ()
    count: Count | None = None
    normalised: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Landmarks":
        """Reads a config's `data.points`; raises a UserError for an unknown key or a wrong value."""
        values = match(given, arguments_of(cls), "data.points")
        named = [point for pair in values.get("exchange", ()) for point in pair]
        if len(set(named)) < len(named) or min(named, default=0) < 0:
            raise UserError(f"data.points.exchange={values['exchange']} must name points from 0 on, each of them once")
        return cls(**values)

    def resolved(self, name: str, features: Mapping[str, Any]) -> "Landmarks":
        """Fills in the number of points that the dataset declares, if `count` is None.

        Raises a UserError if it has no such points, or fewer than `exchange` names.
        """
        known = [key for key, feature in features.items() if _declared(feature) is not None]
        if self.feature not in known:
            raise UserError(f"data.points: {name} has no points {self.feature!r}. {suggest(self.feature, known)}")
        count = self.count or _declared(features[self.feature])
        if not count:
            raise UserError(f"data.points: {self.feature!r} of {name} has any number of points; set `count`")
        last = max((point for pair in self.exchange for point in pair), default=0)
        if last >= count:
            raise UserError(f"data.points.exchange names point {last}, but there are {count}, numbered from 0")
        return dataclasses.replace(self, count=count)

    def read(self, value: Any, height: int, width: int) -> dict[str, np.ndarray]:
        """Converts a feature that TFDS decoded; raises a ValueError if there are more points than `count`.

        Returns `points` float32 [count, 2], x and y in pixels, where (0.5, 0.5) is the middle of the first; `visible`
        and `points_mask` bool [count]. Integers number pixels and become their middles.
        """
        if isinstance(value, Mapping):
            value = [[value[f"{name}_x"], value[f"{name}_y"]] for name in _names(value)]
        value = np.asarray(value)
        present = len(value)
        if present > self.count:
            raise ValueError(f"it has {present} points; data.points.count={self.count} has to be {present} or more")
        points, visible = np.zeros((self.count, 2), np.float32), np.zeros(self.count, bool)
        if present:
            middle = 0.5 if value.dtype.kind in "iu" else 0.0
            points[:present] = value[:, :2] * ((width, height) if self.normalised else 1) + middle
            seen = value[:, 2] > 0 if value.shape[1] == 3 else True
            inside = (points[:present] >= 0) & (points[:present] <= (width, height))
            visible[:present] = seen & inside.all(axis=1)
        return {"points": points, "visible": visible, "points_mask": np.arange(self.count) < present}


def _declared(feature: Any) -> int | None:
    """Number of points of a feature, 0 if it differs between examples, None if the feature is no points."""
    if isinstance(feature, tfds.features.Sequence) or not isinstance(feature, tfds.features.FeaturesDict):
        info = feature.get_tensor_info()
        shape = info.shape if isinstance(info, tfds.features.TensorInfo) else ()
        numbers = len(shape) == 2 and shape[1] in (2, 3) and np.dtype(info.np_dtype).kind in "iuf"
        return (shape[0] or 0) if numbers else None
    return len(_names(dict(feature.items()))) or None


def _names(scalars: Mapping[str, Any]) -> list[str]:
    """Names of the points that have both x and y."""
    return sorted(key[:-2] for key in scalars if key.endswith("_x") and f"{key[:-2]}_y" in scalars)
