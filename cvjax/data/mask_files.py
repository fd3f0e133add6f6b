"""Maps of classes from files beside a folder's images: masks as images, or COCO's json.

A mask has the relative name of its image, and any suffix of an image. Its numbers are those that the file stores: the
indices of a PNG with a palette, the levels of a grey one; of a mask in colours, its colours. The table of classes, as
`cvjax.data.class_maps` describes it, is given in the config or lies in the folder of the masks or of the images:

    labels.txt       a name in each line, the first for the number 0; or a name and its red, green and blue
    classes.json     {name: number or numbers}
    colours.json     {name: [red, green, blue]}

COCO's polygons and run lengths are drawn as COCO draws them. Pixels without an object are the class `background`, and
those of objects of different classes are void.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer
from PIL import ImageOps

from cvjax.data import folder
from cvjax.data.class_maps import VOID, ClassMap, Table, pack
from cvjax.data.coco_entries import unique
from cvjax.data.segmentations import rasterise
from cvjax.data.sources import CorruptExample, read_text, readable
from cvjax.errors import UserError

BACKGROUND = "background"
TABLES = ("labels.txt", "classes.json", "colours.json")


@dataclasses.dataclass(frozen=True)
class MaskFiles:
    """The masks of a split's images; `feature` is the name of the maps in a batch."""

    feature: str
    files: tuple[Path, ...]
    table: Table

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.table.names

    def size(self, index: int) -> tuple[int, int]:
        """Reads height and width of a mask from the file's header."""
        return folder.read_size(self.files[index])

    def read(self, index: int) -> Int32[np.ndarray, "height width"]:
        """Reads the classes of an image's pixels."""
        return read_classes(self.files[index], self.table)

    def describe(self, index: int) -> str:
        """Names a mask for an error message."""
        return readable(self.files[index])


@dataclasses.dataclass(frozen=True)
class CocoMaps:
    """The objects of a split's images, drawn as maps; `feature` is their name in a batch.

    The first of the `names` of classes is for pixels without an object. `objects` has (class, polygons or run lengths,
    id) of the objects of each image.
    """

    feature: str
    path: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[tuple[tuple[int, Any, Any], ...], ...]

    def size(self, index: int) -> tuple[int, int]:
        """Returns height and width of a map."""
        return self.sizes[index]

    def read(self, index: int) -> Int32[np.ndarray, "height width"]:
        """Draws the objects of an image."""
        found = np.zeros(self.sizes[index], np.int32)
        for label, segmentation, number in self.objects[index]:
            try:
                inside = rasterise(segmentation, *self.sizes[index])
            except Exception as error:  # pycocotools raises anything on a damaged annotation
                raise CorruptExample(f"{readable(self.path)}: annotation {number} cannot be drawn: {error}") from error
            found[inside] = np.where((found[inside] == 0) | (found[inside] == label), label, VOID)
        return found

    def describe(self, index: int) -> str:
        """Names the file for an error message."""
        return readable(self.path)


def read_classes(file: Path, table: Table) -> Int32[np.ndarray, "height width"]:
    """Reads the classes of a mask's pixels.

    Raises a `CorruptExample` if it is unreadable, of colours where the table is not, or has a value without a class.
    """
    values = read_values(file)
    if (values.ndim == 3) != table.coloured:
        kinds = ("numbers", "colours") if table.coloured else ("colours", "numbers")
        raise CorruptExample(f"{readable(file)} holds {kinds[0]}, and its table of classes has {kinds[1]}")
    try:
        return table.classes(pack(values) if table.coloured else values)
    except ValueError as error:
        hint = "" if file.suffix.lower() not in (".jpg", ".jpeg") else " (JPEG changes values: masks should be PNG)"
        raise CorruptExample(f"{readable(file)}: {error}{hint}") from error


def read_values(file: Path) -> Integer[np.ndarray, "height width *colour"]:
    """Reads the numbers that a mask stores, [height, width], or the colours of a mask in colours, [height, width, 3].

    Raises a `CorruptExample` if it cannot be decoded.
    """
    with folder.opened(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "L", "1", "I") or image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.int32)
        if image.mode in ("LA", "PA"):
            return np.asarray(image)[..., 0].astype(np.int32)
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3].astype(np.int32)
        raise ValueError(f"pixels of type {image.mode!r} are no classes")


def open_maps(asked: ClassMap, root: Path, files: Sequence[Path | None]) -> MaskFiles | CocoMaps:
    """Finds the maps of a split's images, for an entry of `data.class_maps`.

    Raises a UserError if there is no such folder or file, an image has no map, or there is no table of the classes.
    """
    where = f"data.class_maps.{asked.feature}"
    if asked.source.endswith(".json"):
        if asked.table:
            raise UserError(f"{where}: COCO's json names its classes itself; leave out `classes` and `colours`")
        return open_coco(asked, root, files)
    there, found = folder.open_root(asked.source, where)
    table = asked.table or find_table((there, root))
    if table is None:
        raise UserError(
            f"{where}: no table says which values of the masks in {readable(there)} are which class. Write one into "
            f"that folder ({', '.join(TABLES)}), or give `classes` or `colours`"
        )
    return MaskFiles(asked.feature, folder.counterparts(files, root, there, found, where), table)


def find_table(folders: Sequence[Path]) -> Table | None:
    """Reads the table of classes that lies in one of some folders, None if there is none."""
    for place in folders:
        for name in TABLES:
            path = place / name
            if path.is_file():
                return read_table(path)
    return None


def read_table(path: Path) -> Table:
    """Reads a table of classes from a file of one of the names in `TABLES`."""
    try:
        text = read_text(path)
        given = json.loads(text) if path.suffix == ".json" else _lines(text)
    except ValueError as error:
        raise UserError(f"{readable(path)} cannot be read as a table of classes: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f'{readable(path)} must be an object such as {{"background": 0, "cat": 1}}')
    coloured = path.name == "colours.json" or (
        path.suffix == ".txt" and any(isinstance(v, list) for v in given.values())
    )
    return Table.of(given, readable(path), coloured)


def _lines(text: str) -> dict[str, Any]:
    """Reads lines of a name, or of a name and three numbers."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if all(len(row) > 3 and all(part.isdigit() for part in row[-3:]) for row in rows):
        given = {" ".join(row[:-3]): [int(part) for part in row[-3:]] for row in rows}
    else:
        given = {" ".join(row): number for number, row in enumerate(rows)}
    if len(given) < len(rows):
        raise ValueError("a name is there twice")
    return given


def open_coco(asked: ClassMap, root: Path, files: Sequence[Path | None]) -> CocoMaps:
    """Reads a json file in COCO's format.

    Raises a UserError if it cannot be read, is not in COCO's format, or lacks an image.
    """
    path = Path(asked.source).expanduser()
    try:
        content, where = json.loads(read_text(path)), f"{readable(path)} has two"
        categories = unique(content["categories"], "id", "name", f"{where} categories")
        categories = [categories[number] for number in sorted(categories)]
        images = unique(content["images"], "id", "file_name", f"{where} images")
        unique(images.values(), "file_name", "id", f"{where} images")
        names = tuple(str(category["name"]) for category in categories)
        classes = {category["id"]: number for number, category in enumerate(categories, start=1)}
        objects = {number: [] for number in images}
        for one in content["annotations"]:
            objects[one["image_id"]].append((classes[one["category_id"]], one["segmentation"], one.get("id")))
        by_name = {Path(image["file_name"]).as_posix(): number for number, image in images.items()}
        sizes = {number: (int(image["height"]), int(image["width"])) for number, image in images.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{readable(path)} is not in COCO's format: {error!r}") from error
    numbers = []
    for file in files:
        relative = file.relative_to(root).as_posix() if file else ""
        number = by_name.get(relative, by_name.get(Path(relative).name))
        if number is None:
            raise UserError(f"data.class_maps.{asked.feature}: {readable(path)} has no image {relative!r}")
        numbers.append(number)
    return CocoMaps(
        asked.feature,
        path,
        (BACKGROUND, *names),
        tuple(sizes[number] for number in numbers),
        tuple(tuple(objects[number]) for number in numbers),
    )
