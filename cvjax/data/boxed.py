"""A folder of images with boxes, masks and keypoints as a source of examples, and the checks of all of them."""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvjax.data import box_files, folder, objects, people, segmentations, splits
from cvjax.data.annotated import Box, Boxes, Picture, numbers_of
from cvjax.data.annotations import NONE, Annotations
from cvjax.data.coco_boxes import KEYPOINTS, SEGMENTATION
from cvjax.data.keypoints import Keypoints
from cvjax.data.named_images import parts_of
from cvjax.data.sources import CorruptExample, readable
from cvjax.data.splits import HELD_OUT, HeldOut
from cvjax.errors import UserError, number_of

SHOWN = 3  # faults of an image in a message


@dataclasses.dataclass(frozen=True)
class BoxedSplit:
    """One split of a folder of images with boxes.

    Attributes:
      channels: 1 if all images of the folder are grey, else 3.
      masks: whether the masks of objects are read.
      keypoints: those of each object that are read, and their number.
    """

    name: str
    root: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    channels: int
    masks: bool = False
    keypoints: tuple[Keypoints, int] | None = None

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
        read = {"boxes": boxes.astype(np.float32)} | {
            name: np.array(values, objects.TYPES[name]) for name, values in rows.items()
        }
        if self.masks:
            read["masks"] = np.zeros((len(boxes), *size), bool)
            for row, box in enumerate(picture.boxes):
                read["masks"][row] = segmentations.rasterise(outline(box, size), *size)
        if self.keypoints:
            keypoints, count = self.keypoints
            joints = np.array([joints_of(box, count) for box in picture.boxes], np.float64).reshape(-1, count, 3)
            joints[..., :2] += 0.5  # COCO numbers pixels
            read |= keypoints.read(joints, count, *size)
        return read

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        picture = self.pictures[index]
        return str(picture.where) if picture.file is None else readable(picture.file)

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
        found = list(faults(self.pictures[index], size, self.masks, self.keypoints[1] if self.keypoints else None))
        if found:
            more = f"; and {len(found) - SHOWN} more of this image" if len(found) > SHOWN else ""
            advice = f"python -m cvjax.annotations {readable(self.root)} lists all"
            raise CorruptExample(f"{'; '.join(found[:SHOWN])}{more}. {advice}")


def open_split(
    root: str | Path,
    split: str,
    setting: str = "split",
    held_out: HeldOut = HELD_OUT,
    annotations: Annotations = NONE,
) -> BoxedSplit:
    """Opens one split of a folder of images with boxes.

    Raises a UserError, which names `setting`, if there is no such folder or split, or it has no boxes, or none of the
    masks or keypoints that `annotations` asks for.
    """
    path, files = folder.open_root(root)
    keypoints, masks = annotations.keypoints, annotations.masks is not None
    details = [name for name, asked in ((SEGMENTATION, masks), (KEYPOINTS, keypoints)) if asked]
    boxes = box_files.read(path, files, details, joints_first=keypoints is not None)
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
    if masks and boxes.kind == "VOC":
        raise UserError(f"data.masks={annotations.masks!r}: VOC's xml in {readable(path)} has boxes alone, no masks")
    counted = keypoints and (keypoints, count_joints(path, boxes, keypoints))
    by_split = divide(path, boxes, held_out)
    chosen = splits.choose(by_split, split, path, setting)
    channels = folder.count_channels(files)
    return BoxedSplit(path.name, path, tuple(chosen), boxes.classes, channels, masks, counted)


def count_joints(root: Path, boxes: Boxes, keypoints: Keypoints) -> int:
    """Returns the number of keypoints of a folder's objects.

    Raises a UserError if they have none, those of two classes differ, or `keypoints` does not suit them.
    """
    names = tuple(dict.fromkeys(boxes.joints))
    if len(names) > 1:
        raise UserError(
            f"data.keypoints: {readable(root)} has classes with {len(names[0])} and {len(names[1])} keypoints, or of "
            "other names: leave those of one kind"
        )
    written = (box.keypoints for picture in boxes.pictures for box in picture.boxes if box.keypoints)
    count = len(names[0]) if names else len(next(written, ())) // 3
    if not count:
        raise UserError(
            f"data.keypoints: {readable(root)} has no keypoints, which COCO's json may have beside its boxes"
        )
    keypoints.check_count(count, names[0] if names else ())
    return count


def outline(box: Box, size: tuple[int, int]) -> Any:
    """Returns the polygons or run lengths of a box's object, in pixels of an image of this height and width."""
    return segmentations.scaled(box.segmentation, *size) if box.relative and box.segmentation else box.segmentation


def joints_of(box: Box, count: int) -> Sequence[float | int]:
    """Returns the keypoints of a box's object, zeros if it has none."""
    return box.keypoints or [0] * (3 * count)


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


def faults(
    picture: Picture,
    size: tuple[int, int] | None,
    masks: bool = False,
    joints: int | None = None,
    strict: bool = False,
) -> Iterator[str]:
    """Yields what is wrong with a picture and its boxes, with file and line.

    Args:
      size: height and width of the image, None if it is missing.
      masks: whether its masks are read.
      joints: how many keypoints of an object are read.
      strict: whether to yield what training copes with, too: boxes partly outside, which are clipped, keypoints
        outside, which count as not labelled, and duplicates.
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
        if masks and (fault := segmentations.fault(outline(box, size), *size)):
            yield f"{box.where}: {fault}"
        if joints is not None:
            yield from _faults_of_joints(box, joints, size, strict)
        first = seen.setdefault((box.name, corners), box.where)
        if strict and first != box.where:
            yield f"{box.where}: the same box as at {first}"


def _faults_of_joints(box: Box, count: int, size: tuple[int, int], strict: bool) -> Iterator[str]:
    if not box.keypoints:
        return
    numbers = numbers_of(box.keypoints) if isinstance(box.keypoints, list) else None
    if numbers is None or len(numbers) != 3 * count:
        found = len(box.keypoints) if isinstance(box.keypoints, list) else repr(box.keypoints)[:60]
        yield f"{box.where}: keypoints has {found} numbers, and x, y and visibility of {count} are {3 * count}"
        return
    for joint, (x, y, seen) in enumerate(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)):
        if seen not in (people.ABSENT, people.HIDDEN, people.VISIBLE):
            yield f"{box.where}: keypoint {joint} has the visibility {seen:g}, and there are 0, 1 and 2"
        elif strict and seen and not (-0.5 <= x <= size[1] - 0.5 and -0.5 <= y <= size[0] - 0.5):
            where = f"the image of {size[1]}x{size[0]} pixels"
            yield f"{box.where}: keypoint {joint} at {x:g}, {y:g} is outside {where}, and counts as not labelled"


def in_pixels(box: Box, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns a box's corners in pixels, to a thousandth, for an image of this height and width."""
    height, width = size if box.relative else (1, 1)
    scales = (width, height, width, height)
    return tuple(round(corner * scale, 3) for corner, scale in zip(box.corners, scales, strict=True))
