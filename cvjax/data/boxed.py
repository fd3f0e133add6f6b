"""A folder of images with boxes as a source of examples, and the checks of its boxes."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cvjax.data import box_files, folder, objects, splits
from cvjax.data.box_files import Box, Boxes, Picture
from cvjax.data.named_images import parts_of
from cvjax.data.sources import CorruptExample, readable
from cvjax.data.splits import HELD_OUT, HeldOut
from cvjax.errors import UserError, number_of

SHOWN = 3  # faults of an image in a message


@dataclasses.dataclass(frozen=True)
class BoxedSplit:
    """One split of a folder of images with boxes; `channels` is 1 if all images of the folder are grey, else 3."""

    name: str
    root: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    channels: int

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        self._check_present(index)
        picture = self.pictures[index]
        image = folder.decode(picture.file, self.channels)
        self._check_boxes(index, image.shape[:2])
        return {"image": image, **self._rows(picture, image.shape[:2])}

    def _rows(self, picture: Picture, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Returns boxes and what goes with them, as `cvjax.data.objects.read`, clipped to the image."""
        corners = [in_pixels(box, size) for box in picture.boxes]
        boxes = np.clip(np.array(corners, np.float64).reshape(-1, 4), 0, [size[1], size[0]] * 2)
        areas = objects.box_areas(boxes)
        rows = {
            "area": [area if box.area is None else box.area for box, area in zip(picture.boxes, areas, strict=True)],
            "labels": [self.classes.index(box.name) for box in picture.boxes],
            "difficult": [box.difficult for box in picture.boxes],
            "crowd": [box.crowd for box in picture.boxes],
        }
        return {"boxes": boxes.astype(np.float32)} | {
            name: np.array(values, objects.TYPES[name]) for name, values in rows.items()
        }

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        picture = self.pictures[index]
        return picture.where if picture.file is None else readable(picture.file)

    @property
    def files(self) -> tuple[Path | None, ...]:
        """The file of each image."""
        return tuple(picture.file for picture in self.pictures)

    @property
    def most_boxes(self) -> int:
        """The most boxes of any image."""
        return max((len(picture.boxes) for picture in self.pictures), default=0)

    def shape(self, index: int) -> tuple[int, int, int]:
        """Reads the shape of an image from the file's header, and checks its boxes."""
        self._check_present(index)
        size = folder.read_size(self.pictures[index].file)
        self._check_boxes(index, size)
        return (*size, self.channels)

    @property
    def channels_of(self) -> dict[str, int]:
        """Channels of further images: a plain folder has none."""
        return {}

    def _check_present(self, index: int) -> None:
        picture = self.pictures[index]
        if picture.file is None:
            raise CorruptExample(f"{picture.where}: {picture.fault}")

    def _check_boxes(self, index: int, size: tuple[int, int]) -> None:
        found = list(faults(self.pictures[index], size))
        if found:
            more = f"; and {len(found) - SHOWN} more of this image" if len(found) > SHOWN else ""
            advice = f"python -m cvjax.annotations {readable(self.root)} lists all"
            raise CorruptExample(f"{'; '.join(found[:SHOWN])}{more}. {advice}")


def open_split(root: str | Path, split: str, setting: str = "split", held_out: HeldOut = HELD_OUT) -> BoxedSplit:
    """Opens one split of a folder of images with boxes.

    Raises a UserError, which names `setting`, if there is no such folder or split, or it has no boxes.
    """
    path, files = folder.open_root(root)
    boxes = box_files.read(path, files)
    if boxes is None:
        raise UserError(
            f"data.max_boxes asks for boxes, and {readable(path)} has none: neither COCO's json, nor VOC's xml, nor "
            "YOLO's txt that belong to its images"
        )
    if boxes.unlisted:
        shown = ", ".join(readable(file.relative_to(path)) for file in boxes.unlisted[:SHOWN])
        shown += ", ..." if len(boxes.unlisted) > SHOWN else ""
        total = len(boxes.unlisted) + sum(bool(one.file) for one in boxes.pictures)
        _say(
            f"Leaving out {len(boxes.unlisted)} of {number_of(total, 'image')} of {readable(path)}, which are "
            f"in no list of a split: {shown}"
        )
    by_split = divide(path, boxes, held_out)
    chosen = splits.choose(by_split, split, path, setting)
    return BoxedSplit(path.name, path, tuple(chosen), boxes.classes, folder.count_channels(files))


@functools.cache
def _say(line: str) -> None:
    """Prints a line, once although both splits are opened, and checked before."""
    print(line, file=sys.stderr, flush=True)


def divide(root: Path, boxes: Boxes, held_out: HeldOut = HELD_OUT) -> dict[str, list[Picture]]:
    """Returns the images of each split: by lists, by folders, by names of COCO's files, or by a seeded share.

    Annotations without an image go to the first split. Raises a UserError if none has an image.
    """
    pictures = {picture.file: picture for picture in boxes.pictures if picture.file}
    if not pictures:
        found = [f"{picture.where}: {picture.fault}" for picture in boxes.pictures]
        shown = "; ".join(found[:SHOWN]) + ("; ..." if len(found) > SHOWN else "")
        raise UserError(
            f"{readable(root)}: its {boxes.kind} annotations are of no image that is there. {shown}".rstrip()
        )
    parts = {file: parts_of(file, root) for file in pictures}
    by_split = named_splits(root, boxes) or splits.split_by_hash(root, parts, held_out)
    found = {split: [pictures[file] for file in files] for split, files in by_split.items()}
    first = "train" if found.get("train") else min(found)
    found[first] = [picture for picture in boxes.pictures if picture.file is None] + found[first]
    return found


def named_splits(root: Path, boxes: Boxes) -> dict[str, list[Path]]:
    """Returns the images of each split that a list, a topmost folder, or the name of a COCO file names, or {}."""
    pictures = {picture.file: picture for picture in boxes.pictures if picture.file}
    parts = {file: parts_of(file, root) for file in pictures}
    parts = {file: (splits.split_of(part) or part[0], *part[1:]) for file, part in parts.items()}
    named = {split for picture in pictures.values() for split in picture.splits}
    unnamed = [picture.where for picture in pictures.values() if not picture.splits]
    several = len(named) + bool(unnamed) > 1
    by_files = boxes.listed or (several and not unnamed and not any(map(splits.split_of, parts.values())))
    by_split = {} if by_files else splits.find_splits(root, parts, annotated=True)
    if by_files or (several and not by_split):
        if unnamed:
            raise UserError(
                f"{readable(root)} has files of boxes for the splits {', '.join(sorted(named))}, and {unnamed[0]} is "
                "in one whose name says no split: call it train.json, val.json or test.json"
            )
        for file, picture in pictures.items():
            for split in picture.splits:
                by_split.setdefault(split, []).append(file)
    return by_split


def faults(picture: Picture, size: tuple[int, int] | None, strict: bool = False) -> Iterator[str]:
    """Yields what is wrong with a picture and its boxes, with file and line; `size` is None if the image is missing.

    If `strict`, also what training copes with: boxes partly outside, which are clipped, and duplicates.
    """
    if picture.fault:
        yield f"{picture.where}: {picture.fault}"
    if size is None:
        return
    if picture.size and picture.size != size:
        (height, width), (rows, columns) = size, picture.size
        yield f"{picture.where}: the image is {width}x{height} pixels, and was annotated at {columns}x{rows}"
    seen = {}
    for box in picture.boxes:
        if box.fault:
            yield f"{box.where}: {box.fault}"
            continue
        left, top, right, bottom = corners = in_pixels(box, size)
        shown = ", ".join(f"{value:g}" for value in corners)
        if left > right or top > bottom:
            yield f"{box.where}: the corners {shown} are in the wrong order; x1, y1 come first"
        elif left == right or top == bottom:
            yield f"{box.where}: the box {shown} has no area"
        elif right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0]:
            yield f"{box.where}: the box {shown} is outside the image of {size[1]}x{size[0]} pixels"
        elif strict and (left < -0.5 or top < -0.5 or right > size[1] + 0.5 or bottom > size[0] + 0.5):
            yield f"{box.where}: the box {shown} is partly outside the image of {size[1]}x{size[0]} pixels"
        first = seen.setdefault((box.name, corners), box.where)
        if strict and first != box.where:
            yield f"{box.where}: the same box as at {first}"


def in_pixels(box: Box, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns a box's corners in pixels, to a thousandth, for an image of this height and width."""
    height, width = size if box.relative else (1, 1)
    scales = (width, height, width, height)
    return tuple(round(corner * scale, 3) for corner, scale in zip(box.corners, scales, strict=True))
