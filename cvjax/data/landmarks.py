"""Points of an example, such as the landmarks of a face: which feature has them, and how they are read and padded."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.errors import UserError, suggest
from cvjax.signature import Count, cast, describe_type


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """What `data.points` says.

    Attributes:
      feature: the dataset's feature that has them: [points, 2] of x and y, or [points, 3] with visibility, where more
        than 0 is visible; or scalars called `NAME_x` and `NAME_y`, of which the points are in the order of the names.
      exchange: pairs of points that a mirror exchanges, such as the left and the right eye.
      count: points to which an example's are padded; None: the feature has a fixed number.
      normalised: whether x and y are fractions of the image's width and height, and not pixels.
    """

    feature: str
    exchange: tuple[tuple[int, int], ...] = ()
    count: Count | None = None
    normalised: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Landmarks":
        """Makes them of a config's `data.points`.

        Raises:
          UserError: a key that is not there, or a value that is not right.
        """
        hints, values = typing.get_type_hints(cls, include_extras=True), {}
        for key, value in given.items():
            if key not in hints:
                raise UserError(f"data.points has no key {key!r}. {suggest(key, hints)}")
            try:
                values[key] = cast(value, hints[key])
            except TypeError:
                raise UserError(f"data.points.{key}={value!r} is not {describe_type(hints[key])}") from None
        if "feature" not in values:
            raise UserError('data.points needs the key `feature`: dict(feature="landmarks", exchange=((0, 1),))')
        named = [point for pair in values.get("exchange", ()) for point in pair]
        if len(set(named)) < len(named) or min(named, default=0) < 0:
            raise UserError(f"data.points.exchange={values['exchange']} must name points from 0 on, each of them once")
        return cls(**values)

    def resolved(self, name: str, features: Mapping[str, Any]) -> "Landmarks":
        """Returns them with their number, as the dataset declares it where `count` does not.

        Args:
          name: the dataset's, for messages.
          features: all that it has.

        Raises:
          UserError: it has no such points, or not as many as `exchange` names.
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
        """Makes a feature's value ours.

        Args:
          value: as TFDS decodes the feature.
          height: of the image.
          width: of the image.

        Returns:
          `points` float32 [count, 2], x and y in pixels, of which (0.5, 0.5) is the middle of the first; `visible` and
          `points_mask` bool [count]. Integers are taken to number pixels, and become their middles.

        Raises:
          ValueError: there are more points than `count`.
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
    """How many points a feature has, 0 where that differs between examples, and None where it has none."""
    if isinstance(feature, tfds.features.Sequence) or not isinstance(feature, tfds.features.FeaturesDict):
        info = feature.get_tensor_info()
        shape = info.shape if isinstance(info, tfds.features.TensorInfo) else ()
        numbers = len(shape) == 2 and shape[1] in (2, 3) and np.dtype(info.np_dtype).kind in "iuf"
        return (shape[0] or 0) if numbers else None
    return len(_names(dict(feature.items()))) or None


def _names(scalars: Mapping[str, Any]) -> list[str]:
    """Names of the points of which there are x and y."""
    return sorted(key[:-2] for key in scalars if key.endswith("_x") and f"{key[:-2]}_y" in scalars)
