"""Boxes in files beside a folder's images: COCO's json, Pascal VOC's xml or YOLO's txt, recognised by their content.

    COCO   one or several json files with `images`, `annotations` and `categories`
    VOC    an xml file for each image, beside it or in `Annotations/`; its pixels count from 1, far edges included
    YOLO   a txt file for each image, beside it or in `labels/` for `images/`; names in a yaml file or `classes.txt`

What is wrong with a line is kept beside its box, for training and for `cvjax.annotations`. The images may be divided by
lists, of which `cvjax.data.split_lists` refuses those that contradict each other.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import yaml

from cvjax.data import coco_boxes, split_lists
from cvjax.data.annotated import Box, Boxes, Picture, numbers_of, size_of
from cvjax.data.coco_entries import without_collection
from cvjax.data.folder import list_files
from cvjax.data.named_images import Images, parts_of
from cvjax.data.sources import decode_text, read_text, readable
from cvjax.errors import UserError

UNNAMED = 10_000  # most classes without a file of their names, so that a damaged line does not make millions
NAMES = ("classes.txt", "obj.names", "labels.txt")  # YOLO's lists of classes, beside yaml files


@without_collection()
def read(root: Path, files: Sequence[Path], details: Sequence[str] = (), joints_first: bool = False) -> Boxes | None:
    """Reads the boxes of a folder's images, None without files of boxes; raises a UserError for several formats.

    `details` and `joints_first` are as for `cvjax.data.coco_boxes.read`.
    """
    images = Images(root, files)
    kinds = coco_boxes.read(images, details, joints_first), _read_voc(images), _read_yolo(images)
    found = [boxes for boxes in kinds if boxes]
    if len(found) > 1 and found[-1].kind == "YOLO" and not any(picture.file for picture in found[-1].pictures):
        found.pop()  # texts of numbers that belong to no image
    if len(found) > 1:
        kinds = " and ".join(boxes.kind for boxes in found)
        raise UserError(f"{readable(root)} has boxes in several formats, {kinds}: leave one of them")
    if not found:
        return None
    (boxes,) = found
    known, lost, pictures = {}, [], []
    for picture in boxes.pictures:
        if picture.file is None:
            lost.append(picture)
        elif picture.file in known:
            fault = f"{images.path(picture.file)} is annotated a second time, after {known[picture.file]}"
            lost.append(dataclasses.replace(picture, file=None, boxes=(), fault=fault))
        else:
            known[picture.file] = picture.where
            pictures.append(picture)
    others = tuple(file for file in files if file not in known)
    if boxes.kind == "YOLO":  # an image without a file of boxes has none
        pictures, others = [*pictures, *map(Picture, others)], ()
    pictures.sort(key=lambda picture: (parts_of(picture.file, root), picture.file))
    return _by_lists(dataclasses.replace(boxes, pictures=(*lost, *pictures), unannotated=others), images)


def _by_lists(boxes: Boxes, images: Images) -> Boxes:
    """Gives each image the split of the list that has it; without a list of a split, folders and COCO's files say it.

    A list of `train` alone that has all images divides nothing, and is as none.
    """
    listed = split_lists.read(images, boxes.kind == "YOLO")
    if not listed:
        return boxes
    lists, places = {one.split for one in listed}, {}
    for one in listed:
        places.setdefault(one.file, []).append(one)
    pictures = [Picture(None, (), one.where, fault=one.fault) for one in listed if not one.file]
    annotated = [picture for picture in boxes.pictures if picture.file]
    if lists == {"train"} and all(picture.file in places for picture in annotated):
        return dataclasses.replace(boxes, pictures=(*pictures, *boxes.pictures))
    several = len({picture.splits for picture in annotated}) > 1
    unlisted = []
    for picture in boxes.pictures:
        own = next(iter(picture.splits), "") if several else ""
        if picture.file is None:
            pictures.append(picture)
        elif ones := places.get(picture.file):
            for one in ones:
                if own not in ("", one.split):
                    split_lists.refuse_twice(
                        images.path(picture.file), (own, str(picture.where)), (one.split, one.where)
                    )
            pictures.append(dataclasses.replace(picture, splits=tuple(dict.fromkeys(one.split for one in ones))))
        elif (own := images.folder_split(picture.file) or own) and own not in lists:
            pictures.append(dataclasses.replace(picture, splits=(own,)))
        else:
            unlisted.append(picture.file)
    if annotated and len(unlisted) == len(annotated):
        raise UserError(f"{readable(images.root)}: no image with {boxes.kind} annotations is in a list of a split")
    return dataclasses.replace(boxes, pictures=tuple(pictures), listed=True, unlisted=tuple(unlisted))


# --- VOC ----------------------------------------------------------------------------------------------------------


def _read_voc(images: Images) -> Boxes | None:
    pictures, names, xml = [], set(), list_files(images.root, (".xml",))
    for file in xml:
        path = images.path(file)
        try:
            tree = _parse_xml(file)
        except (OSError, ValueError, LookupError, expat.ExpatError) as error:
            fault = f"it cannot be read as xml: {error}"
            pictures.append(Picture(None, where=f"{path}:{getattr(error, 'lineno', 1)}", fault=fault))
            continue
        if tree.tag != "annotation":
            continue
        boxes = tuple(_voc_box(item, f"{path}:{item.get('line')}") for item in tree.findall("object"))
        names |= {box.name for box in boxes if box.name}
        named = (tree.findtext("filename") or "").strip()
        found = images.find_beside(file) or (images.find(named, file.parent) if named else None)
        size = size_of(*(tree.findtext(f"size/{side}") for side in ("height", "width")))
        fault = "" if found else f"the image {named or file.stem!r} is missing"
        pictures.append(Picture(found, boxes if found else (), f"{path}:1", size, fault=fault))
    if not any(picture.size or picture.boxes or picture.file for picture in pictures):
        return None
    return Boxes("VOC", tuple(sorted(names)), tuple(pictures))


def _voc_box(item: ElementTree.Element, where: str) -> Box:
    name = (item.findtext("name") or "").strip()
    numbers = numbers_of([item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])
    if numbers is None:
        return Box(where, name, fault="its bndbox lacks a number xmin, ymin, xmax or ymax")
    left, top, right, bottom = numbers
    difficult = (item.findtext("difficult") or "0").strip() not in ("", "0")
    fault = "" if name else "it has no name of a class"
    return Box(where, name, (left - 1, top - 1, right, bottom), difficult=difficult, fault=fault)


def _parse_xml(file: Path) -> ElementTree.Element:
    """Reads an xml file; each element has its line as the attribute `line`."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda tag, _: builder.start(tag, {"line": str(parser.CurrentLineNumber)})
    parser.EndElementHandler, parser.CharacterDataHandler = builder.end, builder.data
    content = file.read_bytes()
    declared = re.match(rb"""\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.-]+)""", content)
    # Python knows encodings that expat does not, such as gb2312; given text, expat ignores the declaration.
    parser.Parse(content.decode(declared[1].decode()) if declared else content, True)
    return builder.close()


# --- YOLO ---------------------------------------------------------------------------------------------------------


def _read_yolo(images: Images) -> Boxes | None:
    texts = []
    for file in list_files(images.root, (".txt",)):
        if file.name.lower() in NAMES:
            continue
        found = images.find_beside(file)
        lines = decode_text(file.read_bytes())[0].splitlines()
        rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
        if not found and not (rows and all(len(row) >= 5 and numbers_of(row) for _, row in rows)):
            continue  # some other text
        texts.append((images.path(file), file.stem, found, rows))
    if not texts:
        return None
    names = _yolo_names(images.root)
    pictures, largest = [], -1
    for path, stem, found, rows in texts:
        boxes = [_yolo_box(row, f"{path}:{number}", names) for number, row in rows]
        largest = max([largest, *(int(box.name) for box in boxes if names is None and box.name)])
        fault = "" if found else f"there is no image {stem!r} for it"
        pictures.append(Picture(found, tuple(boxes) if found else (), f"{path}:1", fault=fault))
    classes = tuple(map(str, range(largest + 1))) if names is None else names
    return Boxes("YOLO", classes, tuple(pictures))


def _yolo_box(row: Sequence[str], where: str, names: Sequence[str] | None) -> Box:
    numbers = numbers_of(row)
    if numbers is None or not (len(row) == 5 or (len(row) >= 7 and len(row) % 2)) or numbers[0] % 1:
        shown = " ".join(row)
        return Box(where, fault=f"{shown[:60]!r} is not a class and x, y, width, height, or a class and a polygon")
    label = int(numbers[0])
    fault = ""
    if label < 0 or (names is not None and label >= len(names)):
        fault = f"there is no class {label}" + (f": names has {len(names)}, numbered from 0" if names else "")
    elif names is None and label >= UNNAMED:
        fault = f"the class {label} is beyond {UNNAMED - 1}, the most without a file of names"
    name = "" if fault else str(label) if names is None else names[label]
    if len(row) == 5:
        x, y, width, height = numbers[1:]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        across, down = numbers[1::2], numbers[2::2]
        corners = (min(across), min(down), max(across), max(down))
    polygons = [numbers[1:]] if len(row) > 5 else None
    return Box(where, name, corners, relative=True, fault=fault, segmentation=polygons)


def _yolo_names(root: Path) -> tuple[str, ...] | None:
    """Reads the names of the classes from a yaml file with `names`, or from a file of one name per line."""
    for file in list_files(root, (".yaml", ".yml")):
        try:
            written = yaml.load(read_text(file), yaml.BaseLoader)  # all values are text: `no` is a name
        except (ValueError, yaml.YAMLError) as error:
            raise UserError(f"{readable(file)} cannot be read as yaml: {' '.join(str(error).split())}") from error
        names = written.get("names") if isinstance(written, dict) else None
        if isinstance(names, dict):
            numbers = [str(label) for label in range(len(names))]
            if set(names) != set(numbers):
                raise UserError(
                    f"{readable(file)}: the keys of `names` are {', '.join(names)}, and have to be 0, 1, 2, ..."
                )
            names = [names[label] for label in numbers]
        if isinstance(names, list):
            return tuple(map(str, names))
    for file in list_files(root, (".txt", ".names")):
        if file.name.lower() in NAMES or file.suffix == ".names":
            return tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    return None
