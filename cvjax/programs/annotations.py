"""Checks a folder of images with boxes, masks and keypoints, and draws some of them as training will see them.

    python -m cvjax.annotations FOLDER --config=configs/own_boxes.py

The boxes are those of COCO's json, Pascal VOC's xml or YOLO's txt. Masks and keypoints are checked if the config reads
them or, without a config, if most boxes have some. Each fault is printed with its file and line, and the exit code is 1
if training would refuse one. Boxes partly outside, which training clips, keypoints outside, duplicates, classes without
boxes and images without annotations, or in no list of a split, are printed too.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvjax import command, config, data
from cvjax.data import box_files, boxed, folder, keypoints, pipeline
from cvjax.data.annotated import Box, Boxes
from cvjax.data.annotations import Annotations
from cvjax.data.coco_boxes import KEYPOINTS, SEGMENTATION
from cvjax.data.sources import CorruptExample, readable
from cvjax.data.vocabulary import EMPTY
from cvjax.display import format_columns, grid
from cvjax.errors import UserError, number_of
from cvjax.ops.instance_drawing import TRUE, draw_instances
from cvjax.programs.images import save_image

SAMPLES = 16  # images on the sheet
SIDE = 256  # their height and width without a config
LEGIBLE = 200  # least side at which they are drawn


def check(root: Path, boxes: Boxes, masks: bool = False, joints: int | None = None) -> tuple[list[str], list[str]]:
    """Returns what training refuses in a folder's boxes, and what it copes with, a message each.

    `masks` and `joints` are as for `cvjax.data.boxed.faults`.
    """
    refused, noted = [], []
    for picture in boxes.pictures:
        size = None
        if picture.file:
            try:
                size = folder.read_size(picture.file)
            except CorruptExample as error:
                refused.append(error.fault)
        found = list(boxed.faults(picture, size, masks, joints))
        refused += found
        noted += [fault for fault in boxed.faults(picture, size, masks, joints, strict=True) if fault not in found]
    counts = _count(boxes)
    noted += [f"the class {name!r} has no boxes" for name in boxes.classes if not counts[name]]
    noted += [f"{readable(file.relative_to(root))} is not annotated, and left out" for file in boxes.unannotated]
    noted += [f"{readable(file.relative_to(root))} is in no list of a split, and left out" for file in boxes.unlisted]
    return refused, noted


def _count(boxes: Boxes) -> Mapping[str, int]:
    return collections.Counter(box.name for picture in boxes.pictures for box in picture.boxes if not box.fault)


def draw(settings: Mapping[str, Any], classes: Sequence[str], skeleton: Sequence[tuple[int, int]] = ()) -> np.ndarray:
    """Draws some training images after the transforms, with their boxes, masks and keypoints."""
    loaded = data.load({**settings, "batch": SAMPLES, "workers": 0, "in_memory": False}, seed=0)
    batch = next(loaded.train())
    scale = -(-LEGIBLE // max(batch["image"].shape[1:3]))
    pictures = []
    for index in range(min(SAMPLES, loaded.info["examples"][settings["train_split"]])):
        mask = batch["mask"][index]
        objects = {name: batch[name][index][mask] for name in TRUE if name in batch}
        image = np.broadcast_to(batch["image"][index], (*batch["image"].shape[1:3], 3))
        pictures.append(draw_instances(image, objects, classes, scale, skeleton))
    return np.stack(pictures)


def _plain(boxes: Boxes) -> dict[str, Any]:
    """Returns data settings for a folder without a config: with masks and keypoints if most boxes have some."""
    square = ({"op": "letterbox", "size": SIDE},)
    every = _every(boxes)
    found = {"transforms": square, "eval_transforms": square, "max_boxes": 1, "masks": None, "keypoints": None}
    if 2 * sum(bool(box.segmentation) for box in every) > len(every):
        found["masks"] = SEGMENTATION
    if 2 * sum(bool(box.keypoints) for box in every) > len(every) and len(set(boxes.joints)) < 2:
        found["keypoints"] = {"exchange": keypoints.mirrored_pairs(boxes.joints[0] if boxes.joints else ())}
    return found


def _every(boxes: Boxes) -> list[Box]:
    return [box for picture in boxes.pictures for box in picture.boxes]


def _settings(root: Path, chosen: Mapping[str, Any], boxes: Boxes) -> dict[str, Any]:
    """Returns data settings of a config for a folder."""
    most = max(len(picture.boxes) for picture in boxes.pictures)
    # Room for all boxes that transforms may join, so that the sheet can be drawn even if `max_boxes` is too small.
    built = pipeline.build(chosen["transforms"], annotations=Annotations(max_boxes=1), vocabulary=EMPTY)
    room = max(chosen.get("max_boxes") or 1, built.growth * max(1, most))
    splits = boxed.divide(root, boxes)
    first = "train" if "train" in splits else min(splits)
    own = {"name": None, "folder": str(root), "train_split": first, "eval_split": first, "on_corrupt": "skip"}
    return {**data.DEFAULTS, **chosen, **own, "max_boxes": room}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what is wrong, and draws the sheet; returns 1 if training would refuse something."""
    parser = command.Parser(prog="python -m cvjax.annotations", description=__doc__)
    parser.add_argument("folder", type=Path, help="images with COCO's, VOC's or YOLO's files of boxes")
    parser.add_argument("--config", help="FILE[:VARIANT] whose transforms the samples get; default: a square of 256")
    parser.add_argument("--output", type=Path, help="the sheet of samples; by default annotations.png, not in FOLDER")
    arguments = parser.parse_args(argv)
    place = arguments.folder.expanduser().resolve()
    beside = place.parent if Path.cwd().is_relative_to(place) else Path()
    output = arguments.output.expanduser() if arguments.output else beside / "annotations.png"
    folder.refuse_output(output, place, "--output")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output}: the sheet is a PNG, such as {output.with_suffix('.png').name}")
    root, files = folder.open_root(arguments.folder, "FOLDER")
    chosen = config.as_dict(config.load(arguments.config))["data"] if arguments.config else None
    joints_first = bool(chosen) and chosen.get("keypoints") is not None
    boxes = box_files.read(root, files, (SEGMENTATION, KEYPOINTS), joints_first)
    if boxes is None:
        raise UserError(f"{readable(root)} has no boxes: neither COCO's json, nor VOC's xml, nor YOLO's txt")
    chosen = chosen or _plain(boxes)
    asked = Annotations.of({**chosen, "max_boxes": chosen.get("max_boxes") or 1})
    joints = boxed.count_joints(root, boxes, asked.keypoints) if asked.keypoints else None
    refused, noted = check(root, boxes, asked.masks is not None, joints)
    counts, every = _count(boxes), _every(boxes)
    try:
        splits = boxed.divide(root, boxes)
    except UserError as error:
        splits, refused = {}, [*refused, str(error)]
    parts = ", ".join(f"{len(pictures)} {split}" for split, pictures in sorted(splits.items()))
    print(
        f"{boxes.kind}: {number_of(len(boxes.pictures), 'image')} ({parts or 'no splits'}), "
        f"{number_of(sum(counts.values()), 'box')}"
        + (f", {sum(bool(box.segmentation) for box in every)} with masks" if asked.masks else "")
        + (f", {sum(bool(box.keypoints) for box in every)} with {joints} keypoints" if joints else "")
    )
    print(format_columns([("class", "boxes"), *((name, f"{counts[name]:,}") for name in boxes.classes)], "<>"))
    for title, found in (("training refuses", refused), ("training copes with", noted)):
        print(*([f"\n{title} {len(found)}:", *found] if found else []), sep="\n")
    if splits:
        pictures = draw(_settings(root, chosen, boxes), boxes.classes, boxes.skeleton)
        save_image(output, grid(pictures))
        print(f"\n{output} shows {number_of(len(pictures), 'training image')} after the transforms")
    return int(bool(refused))


if __name__ == "__main__":
    command.run_main(main)
