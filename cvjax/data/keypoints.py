"""Keypoints of an example's objects, such as the joints of people: where they come from, and how they are read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, Int32

from cvjax.data import people
from cvjax.errors import UserError, suggest
from cvjax.signature import arguments_of, match

Positions = Float32[np.ndarray, "objects joints 2"]
Visibility = Int32[np.ndarray, "objects joints"]


@dataclasses.dataclass(frozen=True)
class Keypoints:
    """The keys of `data.keypoints`.

    Attributes:
      feature: of each object: [joints, 3] of x, y and visibility, which is 0 where a joint is not labelled, 1 where it
        is labelled but hidden, and 2 where it is visible. In a folder it is "keypoints", as COCO's json calls them.
      exchange: pairs of joints that a mirror exchanges; None: those of COCO's people.
      normalised: whether x and y are fractions of the image's width and height instead of pixels.
    """

    feature: str = "keypoints"
    exchange: tuple[tuple[int, int], ...] | None = None
    normalised: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Keypoints":
        """Reads a config's `data.keypoints`; raises a UserError for an unknown key or a wrong value."""
        values = match(given, arguments_of(cls), "data.keypoints")
        named = [joint for pair in values.get("exchange") or () for joint in pair]
        if len(set(named)) < len(named) or min(named, default=0) < 0:
            given = values["exchange"]
            raise UserError(f"data.keypoints.exchange={given} must name joints from 0 on, each of them once")
        return cls(**values)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pairs of joints that a mirror exchanges."""
        return people.EXCHANGE if self.exchange is None else self.exchange

    @property
    def least(self) -> int:
        """The least number of joints that an object has, one more than the last that is exchanged."""
        return 1 + max((joint for pair in self.pairs for joint in pair), default=0)

    def check_count(self, count: int, names: Sequence[str] = ()) -> None:
        """Raises a UserError if `exchange` does not suit joints of this number and, where they are known, names."""
        pairs = mirrored_pairs(names)
        hint = f". By their names, set data.keypoints.exchange={pairs}" if pairs else ""
        if count < self.least:
            last = self.least - 1
            raise UserError(f"data.keypoints.exchange names joint {last}, but there are {count}, numbered from 0{hint}")
        if names and self.exchange is None and _sorted(pairs) != _sorted(people.EXCHANGE):
            hint = hint if pairs else ": set data.keypoints.exchange to the pairs that a mirror exchanges, () for none"
            raise UserError(f"data.keypoints has the pairs of COCO's people, and these are others{hint}")

    def resolved(self, name: str, features: Mapping[str, Any]) -> int:
        """Returns the number of joints that a dataset declares in the features of its objects.

        Raises a UserError if it has no such keypoints, or fewer than `exchange` names.
        """
        known = {key: feature.shape[0] for key, feature in features.items() if _are_keypoints(feature)}
        if self.feature not in known:
            there_is = suggest(self.feature, known) if known else "None of their features is any"
            raise UserError(f"data.keypoints: the objects of {name} have no keypoints {self.feature!r}. {there_is}")
        self.check_count(known[self.feature])
        return known[self.feature]

    def read(self, value: Any, count: int, height: int, width: int) -> dict[str, np.ndarray]:
        """Converts keypoints [objects, count, 3] of an image of this size.

        Returns `keypoints` float32 [objects, count, 2], x and y in pixels, where (0.5, 0.5) is the middle of the first,
        and `visibility` int32 [objects, count]. Integers number pixels and become their middles. What is outside of the
        image is not labelled, and what is not labelled is 0. Raises a ValueError for another visibility than 0, 1, 2.
        """
        value = np.asarray(value)
        middle = 0.5 if value.dtype.kind in "iu" else 0.0
        value = value.reshape(-1, count, 3)
        visibility = value[..., 2].astype(np.int32)
        if not np.isin(value[..., 2], (people.ABSENT, people.HIDDEN, people.VISIBLE)).all():
            raise ValueError(f"the visibility of a joint is 0, 1 or 2, and not {value[..., 2].ravel().tolist()}")
        positions = (value[..., :2] * ((width, height) if self.normalised else 1) + middle).astype(np.float32)
        return dict(zip(("keypoints", "visibility"), within(positions, visibility, height, width), strict=True))


def within(positions: Positions, visibility: Visibility, height: int, width: int) -> tuple[Positions, Visibility]:
    """Returns keypoints of which those outside of an image of this size are not labelled, and 0."""
    inside = ((positions >= 0) & (positions <= (width, height))).all(axis=-1)
    visibility = np.where(inside, visibility, np.int32(people.ABSENT))
    return np.where(visibility[..., None] > people.ABSENT, positions, np.float32(0)), visibility


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of names that differ in `left` and `right` alone."""
    folded = [name.lower() for name in names]
    places = {name: place for place, name in enumerate(folded)}
    found = ((place, places.get(name.replace("left", "right"))) for place, name in enumerate(folded) if "left" in name)
    return tuple((left, right) for left, right in found if right is not None)


def _sorted(pairs: Sequence[Sequence[int]]) -> list[list[int]]:
    return sorted(sorted(pair) for pair in pairs)


def _are_keypoints(feature: Any) -> bool:
    """Whether a feature of an object is [joints, 3], of a fixed number of joints."""
    info = feature.get_tensor_info() if isinstance(feature, tfds.features.Tensor) else None
    return (
        info is not None
        and len(info.shape) == 2
        and info.shape[1] == 3
        and bool(info.shape[0])
        and np.dtype(info.np_dtype).kind in "iuf"
    )
