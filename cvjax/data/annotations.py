"""What of an example is read beside its image and its numbers: the keys of `config.data` that say so, in one value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cvjax.data.derive import Derived
from cvjax.data.landmarks import Landmarks
from cvjax.errors import UserError

# Names in a batch that mean something else than a further image.
RESERVED = ("image", "label", "valid", "mask", "boxes", "labels", "difficult", "crowd", "area")
RESERVED += ("points", "visible", "points_mask", "masks")


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What moves with an example's image. Each attribute is the key of `config.data` of that name.

    Attributes:
      max_boxes: rows to which objects are padded; None: they are not read.
      keep: names of maps, which give each pixel a number.
      images: further images: their names in a batch, and where they come from.
      points: landmarks.
      masks: the feature of each object that holds its mask.
      derive: features computed from the image.
    """

    max_boxes: int | None = None
    keep: tuple[str, ...] = ()
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    points: Landmarks | None = None
    masks: str | None = None
    derive: tuple[Derived, ...] = ()

    @classmethod
    def of(cls, config_data: Mapping[str, Any]) -> "Annotations":
        """Picks them out of a config's `data`.

        Raises:
          UserError: no dataset could have them.
        """
        given = {field.name: config_data[field.name] for field in dataclasses.fields(cls) if field.name in config_data}
        given["keep"] = tuple(given.get("keep", ()))
        if given.get("max_boxes") is not None and given["max_boxes"] < 1:
            raise UserError(f"data.max_boxes={given['max_boxes']} must be at least 1; None leaves boxes out")
        if given.get("masks") is not None and given.get("max_boxes") is None:
            raise UserError(f"data.masks={given['masks']!r}: masks belong to boxes, so set data.max_boxes too")
        for name, source in given.get("images", {}).items():
            if name in (*RESERVED, *given["keep"]):
                raise UserError(f"data.images: {name!r} is taken in a batch; choose another name, such as 'target'")
            if not isinstance(source, str) or not source:
                raise UserError(f"data.images.{name}={source!r} must be text: where the image comes from")
        if given.get("points") is not None:
            given["points"] = Landmarks.of(given["points"])
        given["derive"] = tuple(Derived.of(name, entry) for name, entry in given.get("derive", {}).items())
        for name in (derived.feature for derived in given["derive"]):
            if name in (*RESERVED, *given["keep"], *given.get("images", {})):
                raise UserError(f"data.derive: {name!r} is taken in a batch; choose another name, such as 'proposals'")
        return cls(**given)

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of all maps."""
        return (*self.keep, *(derived.feature for derived in self.derive if derived.kind == "map"))

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of all further images."""
        return (*self.images, *(derived.feature for derived in self.derive if derived.kind == "image"))

    @property
    def regions(self) -> dict[str, int]:
        """Names of derived boxes, and the rows to which they are padded."""
        return {derived.feature: derived.max_boxes for derived in self.derive if derived.kind == "boxes"}


NONE = Annotations()
