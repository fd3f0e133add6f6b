"""Splits of a user's folder: by the names of its topmost folders, or by hash; `split_lists` has those by lists.

Folders of splits may have any of the names in `SPLIT_NAMES`, in any case, with affixes as in `train2017`, `test_set`
and `seg_train`. By hash, the tenth of the files (`data.held_out`) whose paths below the folder have the lowest SHA-256
are `test`, the rest `train`. With `data.unseen_classes` it is a tenth of the classes, at least two, by their names, so
that the splits share no class. Files whose paths differ only in what matches `data.together`, a regular expression,
stay together: frames of a film by `[0-9]+$`, where names end in the frame's number.
"""

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvjax.data.sources import readable
from cvjax.errors import UserError, suggest

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_AFFIXES = r"(?:sets?|splits?|images?|imgs?|pictures?|pics?|photos?|data|samples?|folders?|seg|[\W\d_])*"
_SPLIT = re.compile(rf"{_AFFIXES}({'|'.join(SPLIT_NAMES)}){_AFFIXES}")
_DOMAIN = re.compile(rf"({'|'.join(SPLIT_NAMES)})[\W_]?[ab]")  # one of CycleGAN's folders, such as trainA


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How a folder without splits is divided: `data.held_out`, `split_seed`, `unseen_classes` and `together`."""

    share: float = 0.1
    seed: int = 0
    by_class: bool = False
    together: str = ""


HELD_OUT = HeldOut()


def name_split(text: str) -> str | None:
    """Returns the split that a folder's name stands for, if any."""
    found = _SPLIT.fullmatch(text.lower())
    return SPLIT_NAMES[found[1]] if found else None


def mentioned_splits(text: str) -> list[str]:
    """Returns the splits that words of a name stand for, such as those of `instances_train2017` and `catsTest`."""
    return [split for word in _words(text) if (split := name_split(word))]


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)


def split_of(parts: Sequence[str]) -> str | None:
    """Returns the split that the topmost folder of a path names, such as `train` or `train2017`."""
    return name_split(parts[0]) if len(parts) > 1 else None


def choose(by_split: Mapping[str, list[Any]], split: str, root: Path, setting: str) -> list[Any]:
    """Returns the files or pictures of a split, which may be named by a synonym.

    Raises a UserError, which names `setting`, if there is no such split, or its folder holds no images.
    """
    name = SPLIT_NAMES.get(split.lower(), split)
    if by_split.get(name):
        return by_split[name]
    if name in by_split:
        raise UserError(f"{setting}={split!r}: data.held_out=1 leaves no image of {readable(root)} for it")
    for folder in (*root.glob("*"), *root.glob("*/*")):
        if folder.is_dir() and name_split(folder.name) == name:
            raise UserError(f"{setting}={split!r}: {readable(folder)} holds no images. {suggest(split, by_split)}")
    raise UserError(f"{setting}={split!r}: {readable(root)} has no such split. {suggest(split, by_split)}")


def find_splits(root: Path, parts: Mapping[Path, tuple[str, ...]], annotated: bool = False) -> dict[str, list[Path]]:
    """Returns the files of each split, by the names of the topmost folders; {} if none is the name of a split.

    `parts` are those of each file's path below the folder; `annotated`: files of boxes go with the images. Raises a
    UserError if there are files outside the splits, or two folders for one split, or names of splits where they would
    not count.
    """
    tops = {part[0]: split_of(part) for part in parts.values()}
    folders = {folder: split for folder, split in tops.items() if split}
    if not folders:
        _refuse_hidden_splits(root, parts, annotated)
        return {}
    by_split = {split: [] for split in folders.values()}
    for split in by_split:
        twins = [folder for folder, named in folders.items() if named == split]
        if len(twins) > 1:
            raise UserError(
                f"{readable(root)} has two folders for the split {split!r}: {' and '.join(twins)}. Join them or, if "
                "they are classes, move all classes into folders train/ and test/"
            )
    for file, part in parts.items():
        if part[0] not in folders:
            raise UserError(
                f"{readable(_place(root, file, part[0]))} is beside the splits {', '.join(sorted(folders))} and "
                f"belongs to none of them: move it into one or away. If {min(folders)!r} is a class, move all classes "
                "into folders train/ and test/"
            )
        by_split[folders[part[0]]].append(file)
    return by_split


def _place(root: Path, file: Path, name: str) -> Path:
    """Returns the topmost part below a folder, of a file's path, that has this name."""
    return next(place for place in (*reversed(file.parents), file) if place.name == name and root in place.parents)


def _refuse_hidden_splits(root: Path, parts: Mapping[Path, tuple[str, ...]], annotated: bool) -> None:
    """Raises a UserError if folders seem to be splits and would be classes, so that training saw what is held out."""
    folders = sorted({part[:-1] for part in parts.values() if len(part) > 1})
    tops = sorted({folder[0] for folder in folders})
    domains = [top for top in tops if _DOMAIN.fullmatch(top.lower())]
    if len(domains) > 1:
        raise UserError(
            f"{readable(root)} has the splits of two domains, {', '.join(domains)}. Move each domain into a folder of "
            'its own, such as A/train, A/test, B/train and B/test: data.folder="A", data.also=dict(folder="B")'
        )
    alike = {}  # the words that name no split -> the folders
    for top in tops:
        alike.setdefault(tuple(word for word in _words(top) if not name_split(word)), []).append(top)
    for several in alike.values():
        if len({split for top in several for split in mentioned_splits(top)}) > 1:
            raise UserError(
                f"{readable(root)} has the folders {', '.join(several)}: if they are splits, name them train/, test/ "
                "and val/; if they are classes, move all classes into folders train/ and test/"
            )
    for level in range(1, max(map(len, folders), default=0)):
        deep = [folder for folder in folders if len(folder) > level]
        splits = {name_split(folder[level]) for folder in deep}
        if None in splits and len(splits) < 3:
            continue
        above = {folder[:level] for folder in deep}
        first = next(folder for folder in deep if name_split(folder[level]))
        file = next(file for file, part in parts.items() if part[:-1] == first)
        shown = _place(root, file, first[level])
        advice = f"give data.folder={readable(shown.parent)!r}" if len(above) == 1 else "train/cat, not cat/train"
        if annotated:
            advice = f"move it up into {readable(root)}, and its annotations alike"
        raise UserError(
            f"{readable(shown)} has the name of a split, and would not count as one: splits are the topmost folders. "
            f"If it is one, {advice}; if it is none, rename it"
        )


def split_by_hash(root: Path, parts: Mapping[Path, tuple[str, ...]], held_out: HeldOut) -> dict[str, list[Path]]:
    """Returns {"train": files, "test": files} by the hashes of the files' names, or of their classes' names.

    `parts` are those of each file's path below the folder. If all are held out, "train" is empty; otherwise raises a
    UserError if there is only one file or class.
    """
    if held_out.share == 1:
        return {"train": [], "test": list(parts)}
    if held_out.together and parts and not any(re.search(held_out.together, _stem(part)) for part in parts.values()):
        raise UserError(
            f"data.together={held_out.together!r} matches no name in {readable(root)}, such as "
            f"{_stem(next(iter(parts.values())))!r}: paths below the folder, without their suffixes"
        )
    units = {}  # what is held out as a whole: a class, or a file and the links to it
    for file, part in parts.items():
        units[file] = part[0] if held_out.by_class and len(part) > 1 else _without(held_out.together, part)
    if not held_out.by_class:
        reals = {file: os.path.realpath(file) for file in parts if file.is_symlink()}
        names = {os.path.realpath(file): units[file] for file in parts if reals and file not in reals}
        units |= {file: names.setdefault(real, units[file]) for file, real in reals.items()}
    salt = f"{held_out.seed}:" if held_out.seed else ""
    by_hash = sorted(set(units.values()), key=lambda unit: hashlib.sha256(os.fsencode(salt + unit)).digest())
    if len(by_hash) < 2:
        kind = "class" if held_out.by_class else "image"
        if held_out.together and len(units) > 1:
            raise UserError(
                f"data.together={held_out.together!r} makes one of all {len(units)} images in {readable(root)}: none "
                "can be held out for evaluation. Let it match less of their names"
            )
        raise UserError(
            f"{readable(root)} has only one {kind}, too few to hold some out for evaluation. Add more, or divide them "
            "into the folders train/ and test/"
        )
    if held_out.by_class and len(by_hash) < 3:
        raise UserError(
            f"{readable(root)} has only two classes. Of unseen classes two are held out: among pictures of one, "
            "whatever is found is right. Add more, or divide them into the folders train/ and test/"
        )
    count = min(max(2 if held_out.by_class else 1, math.floor(len(by_hash) * held_out.share + 1e-9)), len(by_hash) - 1)
    test = set(by_hash[:count])
    return {
        "train": [file for file in parts if units[file] not in test],
        "test": [file for file in parts if units[file] in test],
    }


def _without(together: str, parts: Sequence[str]) -> str:
    """Returns a path below the folder; if files stay together, without its suffix and without what tells them apart."""
    return re.sub(together, "", _stem(parts)) if together else "/".join(parts)


def _stem(parts: Sequence[str]) -> str:
    """Returns a path below the folder without its suffix."""
    return os.path.splitext("/".join(parts))[0]
