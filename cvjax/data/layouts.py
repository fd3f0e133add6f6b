"""Layouts of a user's folder: images or IDX files, with a second image of each in another folder or side by side.

`data.images` names the further images and says where they come from:

    {"target": "photos/edges"}   the file of the same name below that folder; its suffix may differ
    {"target": "right"}          the files show both, `image` on the left and `target` on the right
    {"target": "left"}           the other direction: `image` is the right half
    {"target": "image"}          a copy of `image`, such as the colours of one that transforms make grey

Files that show one picture are halved as well: their shape does not tell, for both halves may be upright. `--preview`
draws the pairs.

`data.keep=("caption",)` reads `captions.json`, {file name below the folder: a caption or a list of captions}, and
`data.max_boxes` the files of `cvjax.data.box_files`. `data.class_maps` reads masks as `cvjax.data.mask_files` says; a
folder of VOC's development kit then has the splits of its segmentation, those of the lists in `ImageSets/Segmentation`,
whatever they are called: `trainval` and `trainaug` too.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from cvjax.data import box_files, boxed, folder, idx, mask_files, split_lists, splits
from cvjax.data.annotations import NONE, Annotations
from cvjax.data.boxed import BoxedSplit
from cvjax.data.folder import FolderSplit
from cvjax.data.idx import IdxSplit
from cvjax.data.mask_files import CocoMaps, MaskFiles
from cvjax.data.named_images import Images
from cvjax.data.sources import CorruptExample, read_text, readable
from cvjax.data.splits import HELD_OUT, HeldOut
from cvjax.errors import UserError, number_of, suggest, suggest_beside

COPY, SIDES = "image", ("left", "right")
CAPTION, CAPTIONS = "caption", "captions.json"
LISTS = Path("ImageSets", "Segmentation")  # VOC's files of splits


@dataclasses.dataclass(frozen=True)
class Accompanied:
    """A folder's images with further images, captions or maps of classes.

    `images` is as `data.images`; `files` are those of the further images that are in a folder of their own.
    """

    source: FolderSplit | BoxedSplit
    images: Mapping[str, str]
    files: Mapping[str, tuple[Path, ...]]
    channels_of: Mapping[str, int]
    captions: tuple[tuple[str, ...], ...] = ()
    maps: tuple[MaskFiles | CocoMaps, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.source.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, those of the first map if there is one."""
        return self.maps[0].names if self.maps else self.source.classes

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        example = self.source[index]
        if self._halved:
            left, right = np.split(example["image"], [self._half(example["image"].shape[1], index)], axis=1)
            example["image"], other = (right, left) if "left" in self.images.values() else (left, right)
        for name, given in self.images.items():
            if given in SIDES:
                example[name] = other
            elif given == COPY:
                example[name] = example["image"]
            else:
                example[name] = folder.decode(self.files[name][index], self.channels_of[name])
                self._check_size(index, example["image"].shape[:2], self.files[name][index], example[name].shape[:2])
        for one in self.maps:
            example[one.feature] = one.read(index)
            self._check_size(index, example["image"].shape[:2], one.describe(index), example[one.feature].shape)
        if self.captions:
            example[CAPTION] = np.array(self.captions[index], str)
        return example

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples."""
        return self.source.read_labels()

    def read_texts(self, name: str) -> list[tuple[str, ...]]:
        """Returns the captions of all examples."""
        return list(self.captions)

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return self.source.describe(index)

    def shape(self, index: int) -> tuple[int, int, int]:
        """Reads the shape of `image` from the file's header, and checks that the further images have the same size."""
        height, width, channels = self.source.shape(index)
        if self._halved:
            width = self._half(width, index)
        for files in self.files.values():
            self._check_size(index, (height, width), files[index], folder.read_size(files[index]))
        for one in self.maps:
            self._check_size(index, (height, width), one.describe(index), one.size(index))
        return height, width, channels

    @property
    def most_boxes(self) -> int:
        """The most boxes of any image."""
        return self.source.most_boxes

    @property
    def _halved(self) -> bool:
        return bool(set(SIDES) & set(self.images.values()))

    def _half(self, width: int, index: int) -> int:
        if width % 2:
            raise CorruptExample(f"{self.describe(index)} is {number_of(width, 'pixel')} wide, which cannot be halved")
        return width // 2

    def _check_size(self, index: int, size: tuple[int, int], file: Path | str, other: tuple[int, int]) -> None:
        if size != other:
            first, second = ("x".join(map(str, sides)) for sides in (size, other))
            raise CorruptExample(f"{self.describe(index)} is {first}, and {file}, which should move with it, {second}")


def open_split(
    root: str | Path,
    split: str,
    setting: str = "split",
    annotations: Annotations = NONE,
    held_out: HeldOut = HELD_OUT,
) -> FolderSplit | BoxedSplit | Accompanied | IdxSplit:
    """Opens one split of a folder of IDX files or images; errors name `setting`.

    Raises a UserError as `open_split` of `cvjax.data.folder`, `boxed` and `idx`, or if an image has no counterpart.
    """
    images = annotations.images
    if idx.find(Path(root).expanduser()):
        if images or annotations.keep or annotations.class_maps or annotations.max_boxes is not None:
            asked = "data.images, data.keep, data.class_maps and data.max_boxes"
            raise UserError(f"{asked} are for folders of image files, and {root} has IDX files")
        return idx.open_split(Path(root).expanduser(), split, setting, held_out.by_class)
    if annotations.max_boxes is None:
        devkit = annotations.class_maps and voc_split(Path(root).expanduser(), split, setting)
        source = devkit or folder.open_split(root, split, setting, held_out)
    else:
        source = boxed.open_split(root, split, setting, held_out, annotations)
        if set(SIDES) & set(images.values()):
            raise UserError(f"data.images={dict(images)}: boxes belong to whole files, not to their halves")
    if not images and not annotations.keep and not annotations.class_maps:
        return source
    if set(SIDES) <= set(images.values()):
        raise UserError(f'data.images={dict(images)}: `image` is one half, so name "left" or "right", not both')
    files, channels = {}, {}
    for name, given in images.items():
        channels[name] = source.channels
        if given not in (COPY, *SIDES):
            _refuse_misspelt(name, given)
            there, found = folder.open_root(given, f"data.images.{name}")
            files[name] = folder.counterparts(source.files, source.root, there, found, f"data.images.{name}")
            channels[name] = folder.count_channels(found)
    captions = _captions(source) if CAPTION in annotations.keep else ()
    maps = tuple(mask_files.open_maps(one, source.root, source.files) for one in annotations.class_maps)
    return Accompanied(source, images, files, channels, captions, maps)


def _refuse_misspelt(name: str, given: str) -> None:
    """Raises a UserError for a word of `data.images` that is neither a layout nor a folder."""
    path = Path(given).expanduser()
    if path.name != given or path.exists():
        return
    nearest = suggest_beside(path) or suggest(given, (COPY, *SIDES)).partition("Known:")[0].rstrip()
    fault = f'data.images.{name}={given!r} is neither a folder nor "left", "right" or "image". {nearest}'
    raise UserError(fault.rstrip())


def named_splits(root: str | Path, annotations: Annotations) -> list[str]:
    """Returns the splits that a folder itself has, [] if a share of it is held out instead.

    Raises a UserError if there is no such folder, or no image in it.
    """
    if found := idx.find(Path(root).expanduser()):
        return sorted(found)
    path, files = folder.open_root(root)
    if annotations.class_maps and (lists := _voc_lists(path)):
        named = split_lists.name_lists(lists)
        return sorted({named.get(file, file.stem) for file in lists})
    boxes = box_files.read(path, files) if annotations.max_boxes is not None else None
    if boxes is not None:
        return sorted(boxed.named_splits(path, boxes))
    return sorted(splits.find_splits(path, {file: file.relative_to(path).parts for file in files}))


def _voc_lists(root: Path) -> list[Path]:
    return sorted((root / LISTS).glob("*.txt"))


def voc_split(root: Path, split: str, setting: str = "split") -> FolderSplit | None:
    """Opens a split of VOC's segmentation, by its lists in `ImageSets/Segmentation`; None for any other folder.

    Raises a UserError, which names `setting`, if there is no such list, or as `cvjax.data.split_lists` does.
    """
    files = _voc_lists(root)
    if not files:
        return None
    images = Images(root, folder.list_images(root / "JPEGImages"))
    lists = split_lists.name_lists(files)
    listed = {name: split_lists.read_list(images, file, name) for file, name in lists.items()}
    split_lists.refuse_contradictions(images, [one for found in listed.values() for one in found])
    others = {file.stem: file for file in files if file.stem.lower() not in splits.SPLIT_NAMES}
    if split in others:
        listed[split] = split_lists.read_list(images, others[split], split)
    chosen = splits.choose({**{name: [] for name in others}, **listed}, split, root, setting)
    for one in chosen:
        if one.fault:
            raise UserError(f"{one.where}: {one.fault}, in {readable(images.root)}")
    return FolderSplit(root.name, root / "JPEGImages", tuple(one.file for one in chosen), (), (), 3)


def _captions(source: FolderSplit | BoxedSplit) -> tuple[tuple[str, ...], ...]:
    """Reads the captions of each image."""
    path = source.root / CAPTIONS
    try:
        written = json.loads(read_text(path))
    except UserError as error:
        raise UserError(f"data.keep={(CAPTION,)}: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(written, dict):
        raise UserError(
            f'{path} must be an object such as {{"cat/1.png": "A cat.", "cat/2.png": ["A cat.", "It sleeps."]}}'
        )
    captions = []
    for file in source.files:
        if file is None:
            captions.append(())
            continue
        name = file.relative_to(source.root).as_posix()
        if name not in written:
            raise UserError(f"{path} has no caption of {name!r}; its names are paths below {source.root}")
        several = [written[name]] if isinstance(written[name], str) else written[name]
        if not isinstance(several, list) or not several or not all(isinstance(caption, str) for caption in several):
            raise UserError(f"{path}: the caption of {name!r} must be text or a list of texts, not {written[name]!r}")
        captions.append(tuple(several))
    return tuple(captions)
