"""Lists of the images of each split, as Pascal VOC's kits and YOLO's folders have them.

    ImageSets/Main/train.txt   a name without suffix in each line
    train.txt                  a path in each line, from the folder or the text; of another machine's the tail counts
    train: images/train        in the yaml with YOLO's `names`: a folder, a text or a list of these

So do those of `val` and `test`, which may share images; `trainval` is `train` if there is no `train.txt` beside it, and
else no split. Images in no list are left out, unless they are in the folder of a split that has no list.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from cvjax.data.folder import SUFFIXES, list_files
from cvjax.data.named_images import Images, parts_of
from cvjax.data.sources import read_text, readable
from cvjax.data.splits import SPLIT_NAMES
from cvjax.errors import UserError

TRAINVAL = "trainval"
_NOTHING = ("", "~", "null")  # yaml's None


@dataclasses.dataclass(frozen=True)
class Listed:
    """An image in the list of a split; `where` is file and line, `file` None if there is no image of this name.

    `explicit`: a yaml names the topmost folder of the image.
    """

    name: str
    split: str
    where: str
    file: Path | None
    explicit: bool = False

    @property
    def fault(self) -> str:
        """What is wrong with the line, or ""."""
        return "" if self.file else f"there is no image {self.name!r}, or more than one"


def read(images: Images, with_yaml: bool) -> list[Listed]:
    """Reads the lists of a folder, [] if it has none; `with_yaml`: also those that YOLO's yaml names.

    Raises a UserError for an empty list, one that names nothing in the folder, and contradictions.
    """
    entries = list(_yaml_entries(images)) if with_yaml else []
    named, listed, lost, first = [], [], [], {}
    for name, split, where, near in entries:
        if name.lower().endswith(".txt"):
            found = _find_text(images, name, near, where)
            named += [(found, split)] if found else []
        else:
            found, parts = tuple(images.below(name, near)), name.replace("\\", "/").split("/")
            tops = {file: parts_of(file, images.root)[0] for file in found}
            listed += [Listed(images.path(file), split, where, file, tops[file] in parts) for file in found]
        lost += [] if found else [f"{where}: {readable(images.root)} has no {name!r} for the split {split!r}"]
        for other, line in first.setdefault(found, {}).items() if found else ():
            if _contradict(other, split):
                shown = f"{line} and :{where.rpartition(':')[2]} name the same images for {other} and {split}"
                raise UserError(f"{shown}: remove one line")
        first.setdefault(found, {}).setdefault(split, where)
    for file, split in named:
        listed += read_list(images, file, split)
    texts = {file: split for file, split in _find_texts(images).items() if file not in dict(named)}
    found = {file: read_list(images, file, split, sure=False) for file, split in texts.items()}
    beside = {file.parent for file in (*dict(named), *filter(found.get, found))}
    for file, split in texts.items():
        empty = file.parent in beside and not read_text(file).strip()
        listed += read_list(images, file, split) if empty else found[file]
    if lost and not any(map(images.folder_split, images.files)):  # else there is a folder of each split that is there
        raise UserError(f"{lost[0]}: mend or remove the line")
    refuse_contradictions(images, listed)
    return listed


def read_list(images: Images, file: Path, split: str, sure: bool = True) -> list[Listed]:
    """Reads the list of a split; raises a UserError if it is empty or names no image of the folder.

    Unless `sure`, a text that is not in VOC's `ImageSets` and has no names of images is no list, and gives [].
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    where, kind = images.path(file), _image_set(images, file)
    if not lines and (sure or kind):
        raise UserError(f"{where}:1: the list of the split {split!r} is empty: name its images, or remove it")
    near = file.parents[2] if kind else file.parent
    listed = [Listed(name, split, f"{where}:{number}", images.find_listed(name, near)) for number, name in lines]
    if any(one.file for one in listed):
        return listed
    if not sure and not kind and not any(name.lower().endswith(SUFFIXES) for _, name in lines):
        return []
    first = listed[0]
    raise UserError(
        f"{first.where}: the list of the split {split!r} names no image of {readable(images.root)}, first "
        f"{first.name!r}: mend or remove it"
    )


def name_lists(files: Sequence[Path]) -> dict[Path, str]:
    """Returns the split of each text of a folder that is named like one."""
    found = {file: SPLIT_NAMES[file.stem.lower()] for file in files if file.stem.lower() in SPLIT_NAMES}
    if "train" not in found.values():
        found |= {file: "train" for file in files if file.stem.lower() == TRAINVAL}
    return found


def _find_texts(images: Images) -> dict[Path, str]:
    """Returns the texts that are named like splits, without YOLO's labels of an image of such a name."""
    by_folder = {}
    for file in list_files(images.root, (".txt",)):
        named = file.stem.lower() in (*SPLIT_NAMES, TRAINVAL)
        if named and _image_set(images, file) in (None, "main") and not images.find_beside(file):
            by_folder.setdefault(file.parent, []).append(file)
    return {file: split for files in by_folder.values() for file, split in name_lists(files).items()}


def _image_set(images: Images, file: Path) -> str | None:
    """Returns the task of a list in VOC's `ImageSets`, such as "main" or "segmentation"."""
    *_, sets, task, _ = ("", "", *file.relative_to(images.root).parts)
    return task.lower() if sets.lower() == "imagesets" else None


def _yaml_entries(images: Images) -> Iterator[tuple[str, str, str, Path]]:
    """Yields what the yaml with `names` says of splits: a path, the split, file and line, and the yaml's folder."""
    for file in list_files(images.root, (".yaml", ".yml")):
        try:
            node = yaml.compose(read_text(file), yaml.BaseLoader)
        except (ValueError, yaml.YAMLError):
            continue  # one that comes after that with the names
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        values = {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}
        if "names" not in values:
            continue
        for key in filter(SPLIT_NAMES.get, values):
            value = values[key]
            for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(item, yaml.ScalarNode) and item.value.strip() not in _NOTHING:
                    where = f"{images.path(file)}:{item.start_mark.line + 1}"
                    yield item.value.strip(), SPLIT_NAMES[key], where, file.parent
        return


def _find_text(images: Images, name: str, near: Path, where: str) -> Path | None:
    """Finds the text that a yaml names, at its path or, if there is none and only one has its name, elsewhere.

    Raises a UserError, which begins with `where`, if it is outside the folder.
    """
    name, texts = name.replace("\\", "/"), list_files(images.root, (".txt",))
    reals = {os.path.realpath(file): file for file in texts}
    for file in (near / name, images.root / name):
        if file.is_file():
            if found := reals.get(os.path.realpath(file)):
                return found
            raise UserError(f"{where}: the list {name!r} is outside {readable(images.root)}: move it into this folder")
    several = [file for file in texts if file.name == Path(name).name]
    return several[0] if len(several) == 1 else None


def refuse_contradictions(images: Images, listed: Sequence[Listed]) -> None:
    """Raises a UserError if an image of a list of `train` is held out by another, or in the folder of another split.

    A folder that a yaml names is of the split that the yaml says.
    """
    first = {}
    for one in listed:
        if one.file is None:
            continue
        other = first.setdefault(one.file, one)
        if _contradict(other.split, one.split):
            refuse_twice(images.path(one.file), (other.split, other.where), (one.split, one.where))
        folder = images.folder_split(one.file)
        if folder not in (None, one.split) and not one.explicit:
            raise UserError(
                f"{one.where}: {images.path(one.file)} is in the folder of the split {folder!r}, and this list is of "
                f"{one.split!r}: move the image, or take it off the list"
            )


def refuse_twice(image: str, first: tuple[str, str], second: tuple[str, str]) -> NoReturn:
    """Raises a UserError for an image of two splits, each with file and line."""
    (split, where), (other, there) = first, second
    raise UserError(
        f"{image} is of the split {split!r} by {where}, and of {other!r} by {there}: leave it in one of them"
    )


def _contradict(split: str, other: str) -> bool:
    """Whether what is held out would be trained on, if two splits shared images; `val` and `test` may."""
    return split != other and "train" in (split, other)
