"""The keys of `config.data` and their checks, which decode no image."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cvjax.data import catalogue, folder, idx, layouts, pipeline
from cvjax.data.annotations import Annotations
from cvjax.data.batches import disagreement
from cvjax.data.coco_boxes import KEYPOINTS, SEGMENTATION
from cvjax.data.sources import CorruptExample
from cvjax.data.splits import HeldOut
from cvjax.data.vocabulary import EMPTY
from cvjax.errors import UserError, number_of
from cvjax.signature import Count, Natural, Share, arguments_of, match


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keys of `config.data`. Either `name` or `folder` is set."""

    name: str | None = None  # "digits", "photos/128", or any TFDS dataset: "mnist", "coco/2017"
    folder: str | None = (
        None  # images, classes and splits from sub-folders such as train/, test_set/, or lists; IDX files
    )
    data_dir: str | None = None  # TFDS's folder; None: TFDS_DATA_DIR, else ~/tensorflow_datasets
    train_split: str = "train"  # or a slice, for TFDS: "train[:90%]"
    eval_split: str = "test"
    batch: Count = 64  # size of a training batch, over all devices and hosts
    eval_batch: Count | None = None  # None: as batch
    transforms: tuple = ()  # for training, in order: dict(op="random_crop", size=(64, 64)); see cvjax/data/transforms
    eval_transforms: tuple = ()  # for evaluation and figures
    workers: Natural = 0  # processes that decode a streamed dataset; 0: threads only
    in_memory: bool | None = None  # hold the decoded dataset in memory; None: when it takes less than 1 GiB
    on_corrupt: Literal["raise", "skip"] = "raise"  # "skip": examples that cannot be decoded are counted and named
    max_boxes: Count | None = None  # read boxes and what goes with them, padded to this number; of a folder too
    keep: tuple[str, ...] = ()  # further features: maps, which move with the image, and texts, for `tokenise`
    class_maps: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {"class_map": FEATURE}; see class_maps.py
    vocabulary: Count = 10_000  # largest number of tokens of `tokenise`, special ones included
    images: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {"target": FEATURE}; see layouts.py
    masks: str | None = None  # of each object: its feature, such as "mask"; "segmentation" in a folder's COCO json
    keypoints: Mapping[str, Any] | None = None  # of each object: dict() are COCO's joints; see keypoints.py
    points: Mapping[str, Any] | None = None  # dict(feature="landmarks", exchange=((0, 1),)); see landmarks.py
    derive: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # features computed once; see derive.py
    derive_dir: str | None = None  # the folder where they are kept; None: beside the dataset
    per_class: Count | None = None  # K: each training batch has batch / K classes and K examples of each
    unseen_classes: bool = False  # evaluation may have classes that training lacks
    held_out: Share = 0.1  # share of "test" in a folder without splits
    split_seed: Natural = 0  # seed of that share
    together: str = ""  # what matches it in names does not divide a folder: variants of a picture stay in one split
    also: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # a second source; see joint.py


DEFAULTS = dataclasses.asdict(Settings())
SHARED = ("batch", "eval_batch", "workers", "vocabulary", "also")  # a second source follows the first in these
HEADERS = 2000  # most files of a folder whose headers are read; the others are checked when they are decoded
SHAPES = 8  # most shapes on which the transforms are tried, besides the lowest and the narrowest


def complete(config_data: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the defaults of a config's `data` and of its second source; empty text counts as None."""
    chosen = {**DEFAULTS, **_without_empty(config_data)}
    if chosen["also"] and isinstance(chosen["also"], Mapping):
        own = {key: default for key, default in DEFAULTS.items() if key not in SHARED}
        chosen["also"] = {**own, **_without_empty(chosen["also"])}
    return chosen


def _without_empty(given: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the empty text of a flag such as `--config.data.name=` by None, where None is the default."""
    return {key: None if value == "" and DEFAULTS.get(key, "") is None else value for key, value in given.items()}


def second(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the complete settings of the second source."""
    return {**chosen["also"], **{key: chosen[key] for key in SHARED}, "also": {}}


def name_folders(config_data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with the last name of each folder in place of its path: what is the same wherever it lies."""
    named = {**config_data, "folder": config_data.get("folder") and Path(config_data["folder"]).name}
    return {**named, "also": name_folders(named["also"])} if named.get("also") else named


def check(config_data: Mapping[str, Any], devices: int = 1) -> tuple[str, ...]:
    """Refuses settings that cannot work, without decoding an image; `devices` share a batch.

    Returns the names of the training split's classes, or (). Raises a UserError if a setting is wrong.
    """
    chosen = complete(config_data)
    paths = {key: str(value) for key, value in chosen.items() if isinstance(value, Path)}
    match({**chosen, **paths}, arguments_of(Settings), "config.data")
    _check_ranges(chosen, devices)
    names = _check_source(chosen)
    if chosen["also"]:
        for key in chosen["also"]:
            if key in SHARED:
                raise UserError(f"data.also.{key} follows data.{key}: leave it out")
        try:
            check(second(chosen), devices)
        except UserError as error:
            raise UserError(f"data.also: {error}") from error
    return names


def _check_source(chosen: Mapping[str, Any]) -> tuple[str, ...]:
    pipelines = {
        key: pipeline.build(chosen[key], f"data.{key}", Annotations.of(chosen), EMPTY)
        for key in ("transforms", "eval_transforms")
    }
    names = (_check_name if chosen["folder"] is None else _check_folder)(chosen, pipelines)
    if chosen["per_class"] is not None:
        _check_per_class(chosen, names)
    return names


def _check_per_class(chosen: Mapping[str, Any], names: Sequence[str]) -> None:
    dataset = chosen["name"] or str(chosen["folder"])
    if chosen["class_maps"]:
        raise UserError(
            f"data.per_class={chosen['per_class']} is for labels of images; with data.class_maps leave it None"
        )
    boxed = chosen["name"] is None and chosen["max_boxes"] is not None  # the classes are those of the boxes
    if boxed or not (names if chosen["name"] is None else catalogue.labelled(chosen["name"], chosen["data_dir"])):
        raise UserError(f"data.per_class={chosen['per_class']}: the examples of {dataset} have no labels")
    if names and len(names) < chosen["batch"] // chosen["per_class"]:
        raise UserError(too_few_classes(chosen["per_class"], chosen["batch"], dataset, len(names)))


def too_few_classes(per_class: int, batch: int, dataset: str, classes: int) -> str:
    """Returns the message for a dataset that has fewer classes than a batch needs."""
    return (
        f"data.per_class={per_class}: a batch of {batch} would have {number_of(batch // per_class, 'class')}, but "
        f"{dataset} has {classes}. Set data.batch to {classes * per_class} or less, or data.per_class higher"
    )


def _check_ranges(chosen: Mapping[str, Any], devices: int) -> None:
    if (chosen["name"] is None) == (chosen["folder"] is None):
        given = "both are set" if chosen["name"] else "neither is set"
        raise UserError(f'set data.name="digits" (or any TFDS name) or data.folder="PATH", one of them: {given}')
    for key in ("batch", "eval_batch"):
        size = chosen[key]
        if size is not None and size % devices:
            raise UserError(
                f"data.{key}={size} cannot be divided among {devices} devices; the next that can is "
                f"{-(-size // devices) * devices}"
            )
    if chosen["folder"] is not None:
        if chosen["points"] is not None:
            raise UserError("data.points is for datasets by name: a folder of images has no points; see data.keypoints")
        if chosen["masks"] not in (None, SEGMENTATION):
            raise UserError(
                f"data.masks={chosen['masks']!r}: the masks of a folder are those of COCO's json or YOLO's polygons, "
                f"which data.masks={SEGMENTATION!r} reads"
            )
        asked = chosen["keypoints"] or {}
        if (given := asked.get("feature", KEYPOINTS)) != KEYPOINTS:
            raise UserError(
                f"data.keypoints.feature={given!r}: those of a folder are called {KEYPOINTS!r} in COCO's json"
            )
        if asked.get("normalised"):
            raise UserError("data.keypoints.normalised=True: those of COCO's json are in pixels")
        for name in chosen["keep"]:
            if name != layouts.CAPTION:
                raise UserError(f"data.keep: a folder of images has no {name!r}, only {layouts.CAPTION!r}")
    try:
        re.compile(chosen["together"])
    except re.error as error:
        raise UserError(f"data.together={chosen['together']!r} is no regular expression: {error}") from error
    if chosen["together"] and chosen["unseen_classes"]:
        raise UserError(
            f"data.together={chosen['together']!r} does nothing with data.unseen_classes=True, which holds out whole "
            "classes: leave one of them out"
        )
    if chosen["vocabulary"] <= len(EMPTY):
        raise UserError(f"data.vocabulary={chosen['vocabulary']} must be more than the {len(EMPTY)} special tokens")
    if chosen["per_class"] and chosen["batch"] % chosen["per_class"]:
        raise UserError(f"data.per_class={chosen['per_class']} must be a divisor of data.batch={chosen['batch']}")


def _check_name(chosen: Mapping[str, Any], pipelines: Mapping[str, pipeline.Pipeline]) -> tuple[str, ...]:
    for key in ("train_split", "eval_split"):
        catalogue.check_split(chosen["name"], chosen[key], chosen["data_dir"], f"data.{key}")
    most, texts = catalogue.check_annotations(chosen["name"], chosen["data_dir"], Annotations.of(chosen))
    _check_texts(texts, pipelines)
    for built in pipelines.values():
        built.check_room(most, f"the fullest example of {chosen['name']}")
    shape = catalogue.image_shape(chosen["name"], chosen["data_dir"])
    if shape is not None:
        channels = catalogue.image_channels(chosen["name"], chosen["data_dir"], chosen["images"])
        for key, built in pipelines.items():
            built.dry_run(shape, f"data.{key}", f"an image of {chosen['name']}", channels)
    return catalogue.classes(chosen["name"], chosen["data_dir"], Annotations.of(chosen))


def _check_folder(chosen: Mapping[str, Any], pipelines: Mapping[str, pipeline.Pipeline]) -> tuple[str, ...]:
    _check_texts(chosen["keep"], pipelines)
    parts = {
        split: layouts.open_split(
            chosen["folder"], chosen[split], f"data.{split}", Annotations.of(chosen), held_out(chosen)
        )
        for split in ("train_split", "eval_split")
    }
    for source, key in zip(parts.values(), ("transforms", "eval_transforms"), strict=True):
        if chosen["max_boxes"] is not None:
            pipelines[key].check_room(source.most_boxes, f"the fullest image of {source.name}")
        made = {}  # shape after the transforms -> the first file of that shape
        shapes, faults = {}, []  # shape -> the first file of that shape
        for index in range(min(len(source), HEADERS)):
            try:
                shapes.setdefault(source.shape(index), index)
            except CorruptExample as error:
                faults.append(error.fault)
        smallest = sorted(shapes)[:1] + sorted(shapes, key=lambda shape: shape[1])[:1]
        for shape in dict.fromkeys([*shapes][:SHAPES] + smallest):
            example, channels = source.describe(shapes[shape]), source.channels_of
            made.setdefault(pipelines[key].dry_run(shape, f"data.{key}", example, channels), shapes[shape])
            if len(made) > 1:
                (shape, first), (other, second) = made.items()
                raise UserError(disagreement("image", source.describe(first), shape, source.describe(second), other))
        if faults and chosen["on_corrupt"] == "raise":
            raise CorruptExample(folder.listed(faults, "; "))
    return parts["train_split"].classes


def refuse_workdir(config_data: Mapping[str, Any], workdir: Path) -> None:
    """Raises a UserError if the pictures of a run in this folder would become examples of its own dataset."""
    chosen = complete(config_data)
    also = chosen["also"] if isinstance(chosen["also"], Mapping) else {}  # `check` refuses what is none
    for root in (chosen["folder"], also.get("folder")):
        if isinstance(root, (str, Path)) and not idx.find(Path(root).expanduser()):
            folder.refuse_output(workdir, Path(root).expanduser(), "--workdir")


def held_out(chosen: Mapping[str, Any]) -> HeldOut:
    """Returns how settings divide a folder without splits."""
    return HeldOut(chosen["held_out"], chosen["split_seed"], chosen["unseen_classes"], chosen["together"])


def _check_texts(texts: Sequence[str], pipelines: Mapping[str, pipeline.Pipeline]) -> None:
    """Refuses texts that are not tokenised, and transforms of texts that the dataset does not have."""
    for key, built in pipelines.items():
        for name in built.texts:
            if name not in texts:
                raise UserError(f"data.{key}: {name!r} is no text")
        for name in texts:
            if name not in built.tokenised:
                entry = dict(op="tokenise", length=16) | ({} if name == layouts.CAPTION else dict(text=name))
                call = ", ".join(f"{argument}={value!r}" for argument, value in entry.items())
                raise UserError(
                    f"data.keep: {name!r} is text, and a batch holds numbers. Add dict({call}) to data.{key}"
                )
