"""The keys of `config.data` that choose what is read with an image, as one value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cvjax.data.class_maps import ClassMap
from cvjax.data.derive import Derived
from cvjax.data.keypoints import Keypoints
from cvjax.data.landmarks import Landmarks
from cvjax.errors import UserError

# Keys of a batch that are not free for further images, maps or tokens.
RESERVED = ("image", "label", "valid", "mask", "boxes", "labels", "difficult", "crowd", "area")
RESERVED += ("points", "visible", "points_mask", "masks", "keypoints", "visibility")


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What moves with an example's image; `cvjax.data.settings.Settings` describes the keys of the same names."""

    max_boxes: int | None = None
    keep: tuple[str, ...] = ()
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    points: Landmarks | None = None
    masks: str | None = None
    keypoints: Keypoints | None = None
    derive: tuple[Derived, ...] = ()
    class_maps: tuple[ClassMap, ...] = ()

    @classmethod
    def of(cls, config_data: Mapping[str, Any]) -> "Annotations":
        """Reads them from a config's `data`; raises a UserError if values contradict each other, or a name is taken."""
        given = {field.name: config_data[field.name] for field in dataclasses.fields(cls) if field.name in config_data}
        given["keep"] = tuple(given.get("keep", ()))
        if given.get("max_boxes") is not None and given["max_boxes"] < 1:
            raise UserError(f"data.max_boxes={given['max_boxes']} must be at least 1; None leaves boxes out")
        if given.get("masks") is not None and given.get("max_boxes") is None:
            raise UserError(f"data.masks={given['masks']!r}: masks belong to boxes, so set data.max_boxes too")
        if given.get("keypoints") is not None:
            if given.get("max_boxes") is None:
                raise UserError("data.keypoints belong to boxes, so set data.max_boxes too")
            given["keypoints"] = Keypoints.of(given["keypoints"])
        for name, source in given.get("images", {}).items():
            if name in (*RESERVED, *given["keep"]):
                raise UserError(f"data.images: {name!r} is taken in a batch; choose another name, such as 'target'")
            if not isinstance(source, str) or not source:
                raise UserError(f"data.images.{name}={source!r} must be text: where the image comes from")
        if given.get("points") is not None:
            given["points"] = Landmarks.of(given["points"])
        given["class_maps"] = tuple(ClassMap.of(name, entry) for name, entry in given.get("class_maps", {}).items())
        maps = [asked.feature for asked in given["class_maps"]]
        for name in maps:
            if name in (*RESERVED, *given["keep"], *given.get("images", {})):
                raise UserError(f"data.class_maps: {name!r} is taken in a batch; choose another name")
        given["derive"] = tuple(Derived.of(name, entry) for name, entry in given.get("derive", {}).items())
        for name in (derived.feature for derived in given["derive"]):
            if name in (*RESERVED, *given["keep"], *given.get("images", {}), *maps):
                raise UserError(f"data.derive: {name!r} is taken in a batch; choose another name, such as 'proposals'")
        return cls(**given)

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of all maps, derived ones included."""
        derived = (derived.feature for derived in self.derive if derived.kind == "map")
        return (*self.keep, *self.class_map_names, *derived)

    @property
    def class_map_names(self) -> tuple[str, ...]:
        """Names of the maps of classes."""
        return tuple(asked.feature for asked in self.class_maps)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of all further images, derived ones included."""
        return (*self.images, *(derived.feature for derived in self.derive if derived.kind == "image"))

    @property
    def regions(self) -> dict[str, int]:
        """The rows to which each feature of derived boxes is padded."""
        return {derived.feature: derived.max_boxes for derived in self.derive if derived.kind == "boxes"}


NONE = Annotations()
