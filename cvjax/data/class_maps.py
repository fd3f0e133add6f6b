"""Maps of classes, the truth of semantic segmentation: `data.class_maps`.

    data.class_maps = {"class_map": "segmentation_mask"}                        a map of a TFDS dataset
    data.class_maps = {"class_map": dict(source="photos/masks", classes="voc")} a folder of masks
    data.class_maps = {"class_map": "photos/annotations.json"}                  COCO's polygons and run lengths

A batch then has the int32 map `class_map` [batch, height, width] of the classes 0, 1, ... in the order of the table,
and `VOID`, 255, for pixels without a class, such as those that transforms put around an image. The classes of the first
map are the dataset's.

A table says which values are which class: {"background": 2, "pet": 1, "void": 3}. A class may have several values;
those of the name `void` are of none, nor is 255 unless a class claims it. Values that the table lacks are an error.
`classes` is a table or the name of one in `KNOWN`; `colours` one of red, green and blue instead, for masks in colours.
Without them, the table is that of the dataset, or of the folder: see `cvjax.data.mask_files`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

from cvjax.errors import UserError, number_of, suggest
from cvjax.signature import arguments_of, match

VOID = 255  # in a map, a pixel of no class: no loss and no figure counts it
NOTHING = "void"  # name of the values that are no class
SHOWN = 3  # unknown values in a message

VOC = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
)
VOC += ("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
CITYSCAPES = {  # the 19 classes of the benchmark, by the ids of its annotations
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
    NOTHING: (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30),
}
KNOWN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cityscapes": CITYSCAPES,
        "digit_scenes": {"background": 0} | {str(digit): digit + 1 for digit in range(10)},
        "oxford_iiit_pet": {"background": 2, "pet": 1, NOTHING: 3},  # 3: the border, not classified
        "voc": {name: index for index, name in enumerate(VOC)},
    }
)
MAPS = MappingProxyType(  # the map of a dataset that has the classes of its table
    {"cityscapes": "segmentation_label", "digit_scenes": "class_map", "oxford_iiit_pet": "segmentation_mask"}
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Which values of a map are which class.

    `entries` are pairs of a value and its class, or `VOID`. If `coloured`, a value is 65536 red + 256 green + blue.
    """

    names: tuple[str, ...]
    entries: tuple[tuple[int, int], ...]
    coloured: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str, coloured: bool = False) -> "Table":
        """Reads a table {name: value or values}; `where` names it in messages.

        Raises a UserError if a value is of the wrong type, or of two classes.
        """
        names = tuple(name for name in given if name != NOTHING)
        if not 0 < len(names) <= VOID:
            raise UserError(f"{where} has {number_of(len(names), 'class')}; there must be 1 to {VOID}")
        found = {}
        for name, values in given.items():
            for value in _several(values, coloured, f"{where}.{name}"):
                if value in found:
                    raise UserError(f"{where}: {_shown(value, coloured)} is of two classes, of {name!r} for one")
                found[value] = names.index(name) if name != NOTHING else VOID
        if not coloured:
            found.setdefault(VOID, VOID)
        return cls(names, tuple(sorted(found.items())), coloured)

    def classes(self, values: Integer[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
        """Returns the class of each value; raises a ValueError if one is not in the table."""
        known, classes = self._columns
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        right = known[place] == values
        if not right.all():
            raise ValueError(self._unknown(values[~right]))
        return classes[place]

    @functools.cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        known, classes = zip(*self.entries, strict=True)
        return np.array(known, np.int32), np.array(classes, np.int32)

    def _unknown(self, values: np.ndarray) -> str:
        """Names values that are not in the table, the most frequent first."""
        unknown, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shown = [
            f"{_shown(int(unknown[i]), self.coloured)} in {number_of(int(counts[i]), 'pixel')}" for i in order[:SHOWN]
        ]
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        known = (
            number_of(len(self.entries), "colour") if self.coloured else _ranges([value for value, _ in self.entries])
        )
        kind = "colour" if self.coloured else "value"
        return f"no class has the {kind} {', '.join(shown)}{more}; the table has {known}"


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """An entry of `data.class_maps`.

    Attributes:
      feature: name in a batch.
      source: a map of the dataset, a folder of masks or a json file in COCO's format.
    """

    feature: str
    source: str
    table: Table | None = None

    @classmethod
    def of(cls, feature: str, entry: Any) -> "ClassMap":
        """Checks an entry of the config; raises a UserError if a key or a value is wrong."""
        where = f"data.class_maps.{feature}"
        given = {"source": entry} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping):
            raise UserError(f"{where} must be text, or a dict of `source` and `classes` or `colours`, not {entry!r}")
        chosen = _Entry(**match(given, arguments_of(_Entry), where))
        if not chosen.source:
            raise UserError(f"{where}: `source` must be a map of the dataset, a folder or a json file")
        if chosen.classes and chosen.colours:
            raise UserError(f"{where}: give `classes` for masks of numbers or `colours` for masks in colours, not both")
        if isinstance(chosen.classes, str):
            if chosen.classes not in KNOWN:
                known = suggest(chosen.classes, KNOWN)
                raise UserError(f"{where}.classes={chosen.classes!r}: there is no table of this name. {known}")
            return cls(feature, chosen.source, Table.of(KNOWN[chosen.classes], where))
        if chosen.colours:
            return cls(feature, chosen.source, Table.of(chosen.colours, f"{where}.colours", coloured=True))
        return cls(feature, chosen.source, Table.of(chosen.classes, f"{where}.classes") if chosen.classes else None)


@dataclasses.dataclass(frozen=True)
class _Entry:
    source: str
    classes: str | Mapping[str, Any] | None = None
    colours: Mapping[str, Any] | None = None


def dataset_table(name: str, feature: str, names: Sequence[str] = ()) -> Table | None:
    """Returns the table of a dataset's map, None if unknown; `names` are those that the dataset declares for values."""
    base = name.partition("/")[0]
    if MAPS.get(base) == feature:
        return Table.of(KNOWN[base], base)
    return Table.of({known: index for index, known in enumerate(names)}, feature) if names else None


def pack(colours: Integer[np.ndarray, "*shape 3"]) -> Int32[np.ndarray, "*shape"]:
    """Returns red, green and blue as one number, as a `Table` has it."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _several(values: Any, coloured: bool, where: str) -> Iterable[int]:
    """Returns the values of a class, which are one or several."""
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    one = not listed or (coloured and values and not isinstance(values[0], Sequence))
    for value in [values] if one else values:
        if coloured:
            parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
            if len(parts) != 3 or not all(_is_byte(part) for part in parts):
                raise UserError(f"{where}={values!r} must be red, green and blue from 0 to 255, or a list of these")
            yield parts[0] << 16 | parts[1] << 8 | parts[2]
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            yield value
        else:
            raise UserError(f"{where}={values!r} must be a number from 0 on, or a list of numbers")


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _shown(value: int, coloured: bool) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if coloured else str(value)


def _ranges(values: Sequence[int]) -> str:
    """Lists rising numbers: "0 to 20, 255"."""
    first = [value for value in values if value - 1 not in values]
    last = [value for value in values if value + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(first, last, strict=True))
