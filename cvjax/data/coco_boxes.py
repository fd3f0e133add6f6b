"""Boxes, masks and keypoints of COCO's json: one or several files with `images`, `annotations` and `categories`."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvjax.data import coco_entries, split_lists
from cvjax.data.annotated import Box, Boxes, Picture, numbers_of, size_of
from cvjax.data.coco_entries import Entries, Lines, Place, id_of
from cvjax.data.folder import list_files
from cvjax.data.named_images import Images
from cvjax.data.splits import mentioned_splits
from cvjax.errors import UserError

SEGMENTATION, KEYPOINTS = "segmentation", "keypoints"  # of an annotation


def read(images: Images, details: Sequence[str], joints_first: bool) -> Boxes | None:
    """Reads the boxes of all files in COCO's format below a folder, None if there are none.

    Args:
      details: those of `SEGMENTATION` and `KEYPOINTS` that are kept with each box.
      joints_first: whether an image in files with and without keypoints, as COCO's own `person_keypoints` and
        `instances`, has the boxes of those with.
    """
    by_file, categories, taken, kinds = {}, {}, set(), []
    for file, entries in _files(images.root, joints_first):
        own = _categories(file, entries, images)
        found = _pictures(file, entries, own, images, details)
        if _has_keypoints(entries) == joints_first:
            taken |= {picture.file for picture in found}
        else:
            found = [picture for picture in found if picture.file is None or picture.file not in taken]
            if joints_first and not any(picture.file for picture in found):
                continue  # its categories are not used
        for key, name in own.items():
            if name and categories.setdefault(key, name) != name:
                raise UserError(f"{images.path(file)}: category {key} is {name!r}, and {categories[key]!r} elsewhere")
        kinds += [category for category in entries["categories"] if _names(category)]
        by_file[file] = found
    if not any(by_file.values()) and not categories:
        return None
    if "train" not in map(_split, by_file):  # `trainval` is, as in lists
        for file in by_file:
            if split_lists.TRAINVAL in re.findall("[a-z]+", file.stem.lower()):
                by_file[file] = [dataclasses.replace(picture, splits=("train",)) for picture in by_file[file]]
    ordered = sorted(categories, key=lambda key: (isinstance(key, str), key))
    return Boxes(
        "COCO",
        tuple(dict.fromkeys(categories[key] for key in ordered)),
        tuple(itertools.chain.from_iterable(by_file.values())),
        joints=tuple(map(_names, kinds)),
        skeleton=_skeleton(kinds[0]) if kinds else (),
    )


def _files(root: Path, joints_first: bool) -> Iterator[tuple[Path, Entries]]:
    """Yields files with their entries as they are read, but last those with keypoints, or those without.

    These are held until then.
    """
    last = []
    for file in list_files(root, (".json",)):
        entries = coco_entries.read(file)
        if entries and _has_keypoints(entries) != joints_first:
            last.append((file, entries))
        elif entries:
            yield file, entries
    yield from last


def _split(file: Path) -> str:
    """Returns the first split that a file's name mentions, or ""."""
    return next(iter(mentioned_splits(file.stem)), "")


def _has_keypoints(entries: Entries) -> bool:
    """Whether a file has keypoints beside boxes."""
    return any("keypoints" in category for category in entries["categories"])


def _names(category: Mapping[str, Any]) -> tuple[str, ...]:
    names = category.get("keypoints")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _skeleton(category: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Returns pairs of keypoints, which COCO counts from 1; what is no such pair is left out."""
    count, pairs = len(_names(category)), category.get("skeleton")
    known = range(1, 1 + count)
    found = [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2] if isinstance(pairs, list) else []
    return tuple((one - 1, other - 1) for one, other in found if one in known and other in known)


def _categories(file: Path, entries: Entries, images: Images) -> dict[Any, str]:
    """Returns the names of a file's categories by id."""
    for index, category in enumerate(entries["categories"]):
        if id_of(category.get("id")) is None:
            where = Place(Lines(file, images.path(file)), "categories", index)
            raise UserError(f"{where}: the id of a category is a number, and not {category.get('id')!r}")
    found = coco_entries.unique(entries["categories"], "id", "name", f"{images.path(file)} has two categories")
    return {key: str(category.get("name") or "") for key, category in found.items()}


def _pictures(
    file: Path, entries: Entries, categories: Mapping[Any, str], images: Images, details: Sequence[str]
) -> list[Picture]:
    lines, split = Lines(file, images.path(file)), _split(file)
    boxes, named, lost = {}, {}, []
    for index, entry in enumerate(entries["images"]):
        if (key := id_of(entry.get("id"))) is not None:
            boxes[key] = []
            named.setdefault(key, {}).setdefault(str(entry.get("file_name")), index)
    for index, entry in enumerate(entries["annotations"]):
        where = Place(lines, "annotations", index, f", annotation {entry.get('id')}")
        if (key := id_of(entry.get("image_id"))) is None or key not in boxes:
            lost.append(Picture(None, where=where, fault=f"its image_id {entry.get('image_id')!r} is in no `images`"))
            continue
        boxes[key].append(_box(entry, where, categories, details))
    pictures, near, splits = [], file.parent, (split,) if split else ()
    for index, entry in enumerate(entries["images"]):
        name, where = str(entry.get("file_name", "")), Place(lines, "images", index)
        found = images.find(name, near, split)
        key, fault = id_of(entry.get("id")), "" if found else f"the image {name!r} is missing"
        if found and key is None:
            fault = f"the id of an image is a number, and not {entry.get('id')!r}"
        elif found and len(named[key]) > 1:
            other = next(other for known, other in named[key].items() if known != name)
            fault = f"its id {key!r} is that of another image too: {Place(lines, 'images', other)}"
        size = size_of(entry.get("height"), entry.get("width"))
        pictures.append(Picture(found, () if fault else tuple(boxes[key]), where, size, splits, fault))
    return [*lost, *pictures]


def _box(entry: Mapping[str, Any], where: Place, categories: Mapping[Any, str], details: Sequence[str]) -> Box:
    key = id_of(entry.get("category_id"))
    numbers = numbers_of(entry.get("bbox") or ())
    if numbers is None or len(numbers) != 4:
        return Box(where, fault=f"bbox={entry.get('bbox')!r} is not [x, y, width, height]")
    left, top, width, height = numbers
    name = categories.get(key, "")
    area = numbers_of((entry.get("area"),))
    return Box(
        where,
        name,
        (left, top, left + width, top + height),
        crowd=bool(entry.get("iscrowd")),
        area=area[0] if area else None,
        fault="" if name else f"category_id {entry.get('category_id')!r} is no category with a name",
        segmentation=entry.get(SEGMENTATION) if SEGMENTATION in details else None,
        keypoints=entry.get(KEYPOINTS) if KEYPOINTS in details else None,
    )
