"""Splits of a user's folder: by the names of its topmost folders, or by hash.

Folders of splits may have any of the names in `SPLIT_NAMES`, in any case. By hash, the tenth of the files
(`data.held_out`) whose paths below the folder have the lowest SHA-256 are `test`, the rest `train`. With
`data.unseen_classes` it is a tenth of the classes, by their names, so that the splits share no class.
"""

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvjax.data.sources import readable
from cvjax.errors import UserError, suggest

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How a folder without splits is divided: `data.held_out`, `data.split_seed` and `data.unseen_classes`."""

    share: float = 0.1
    seed: int = 0
    by_class: bool = False


HELD_OUT = HeldOut()


def choose(by_split: Mapping[str, list[Any]], split: str, root: Path, setting: str) -> list[Any]:
    """Returns the files or pictures of a split, which may be named by a synonym.

    Raises a UserError, which names `setting`, if there is no such split.
    """
    name = SPLIT_NAMES.get(split.lower(), split)
    if name not in by_split:
        raise UserError(f"{setting}={split!r}: {readable(root)} has no such split. {suggest(split, by_split)}")
    if not by_split[name]:
        raise UserError(f"{setting}={split!r}: data.held_out=1 leaves no image of {readable(root)} for it")
    return by_split[name]


def find_splits(root: Path, parts: Mapping[Path, tuple[str, ...]]) -> dict[str, list[Path]]:
    """Returns the files of each split, by the names of the topmost folders; {} if none is the name of a split.

    `parts` are those of each file's path below the folder. Raises a UserError if there are files outside the splits, or
    two folders for one split.
    """
    folders = {part[0]: SPLIT_NAMES[part[0].lower()] for part in parts.values() if _names_split(part)}
    if not folders:
        return {}
    by_split = {split: [] for split in folders.values()}
    for split in by_split:
        twins = [folder for folder, named in folders.items() if named == split]
        if len(twins) > 1:
            raise UserError(f"{readable(root)} has two folders for the split {split!r}: {' and '.join(twins)}")
    for file, part in parts.items():
        if part[0] not in folders:
            raise UserError(
                f"{readable(root / part[0])} is beside the splits {', '.join(sorted(folders))} and belongs to none of "
                f"them: move it into one or away. If {min(folders)!r} is a class, move all classes into a folder train/"
            )
        by_split[folders[part[0]]].append(file)
    return by_split


def _names_split(parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and parts[0].lower() in SPLIT_NAMES


def split_by_hash(root: Path, parts: Mapping[Path, tuple[str, ...]], held_out: HeldOut) -> dict[str, list[Path]]:
    """Returns {"train": files, "test": files} by the hashes of the files' names, or of their classes' names.

    `parts` are those of each file's path below the folder. If all are held out, "train" is empty; otherwise raises a
    UserError if there is only one file or class.
    """
    if held_out.share == 1:
        return {"train": [], "test": list(parts)}
    units = {}  # what is held out as a whole: a class, or a file and the links to it
    for file, part in parts.items():
        units[file] = part[0] if held_out.by_class and len(part) > 1 else "/".join(part)
    if not held_out.by_class:
        reals = {file: os.path.realpath(file) for file in parts if file.is_symlink()}
        names = {os.path.realpath(file): units[file] for file in parts if reals and file not in reals}
        units |= {file: names.setdefault(real, units[file]) for file, real in reals.items()}
    salt = f"{held_out.seed}:" if held_out.seed else ""
    by_hash = sorted(set(units.values()), key=lambda unit: hashlib.sha256(os.fsencode(salt + unit)).digest())
    if len(by_hash) < 2:
        kind = "class" if held_out.by_class else "image"
        raise UserError(
            f"{readable(root)} has only one {kind}, too few to hold some out for evaluation. Add more, or divide them "
            "into the folders train/ and test/"
        )
    count = min(max(1, math.floor(len(by_hash) * held_out.share + 1e-9)), len(by_hash) - 1)
    test = set(by_hash[:count])
    return {
        "train": [file for file in parts if units[file] not in test],
        "test": [file for file in parts if units[file] in test],
    }
