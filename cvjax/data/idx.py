"""A folder of IDX files, the format of MNIST and its successors, gzipped or not.

    folder/train-images-idx3-ubyte.gz   folder/train-labels-idx1-ubyte.gz   the split "train"
    folder/t10k-images-idx3-ubyte.gz    folder/t10k-labels-idx1-ubyte.gz    the split "test"

Prefixes are allowed, as in `emnist-letters-train-...`, and so is a dot in place of the dash before `idx`.
The format: http://yann.lecun.com/exdb/mnist (1998).
"""

import dataclasses
import functools
import gzip
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from cvjax.data.folder import refuse_shared
from cvjax.errors import UserError, number_of, suggest

NAME = re.compile(r"(?:.*-)?(train|test|t10k)-(images|labels)[-.]idx([13])-ubyte(?:\.gz)?")
SPLITS = {"train": "train", "test": "test", "t10k": "test"}
UNSIGNED_BYTE = 8  # the third byte of a file gives the type of its numbers


@dataclasses.dataclass(frozen=True)
class IdxSplit:
    """The images of one split of a folder of IDX files, which each process reads once.

    `classes` are the numbers from 0 to the largest in training; `size` is examples, height and width.
    """

    name: str
    images: Path
    labels: Path | None
    classes: tuple[str, ...]
    size: tuple[int, int, int]

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.size[0]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns an example."""
        example = {"image": read(self.images)[index][..., None]}
        return example if self.labels is None else {**example, "label": read(self.labels)[index].astype(np.int32)}

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples."""
        return read(self.labels).astype(np.int32)

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return f"image {index} of {self.images}"

    def shape(self, index: int) -> tuple[int, int, int]:
        """Returns the shape of an image."""
        return (*self.size[1:], 1)

    @property
    def channels_of(self) -> dict[str, int]:
        """Channels of further images: an IDX folder has none."""
        return {}


def find(root: Path) -> dict[str, dict[str, Path]]:
    """Returns the IDX files in a folder, {split: {"images": file, "labels": file}}, or {} if there are none.

    Raises a UserError if two files are the same part of a split.
    """
    found = {}
    try:
        files = sorted(root.iterdir())
    except OSError:  # `cvjax.data.folder` reports it
        return {}
    for file in files:
        if match := NAME.fullmatch(file.name):
            split, part, _ = match.groups()
            other = found.setdefault(SPLITS[split], {}).setdefault(part, file)
            if other != file:
                raise UserError(f"{root} has the {part} of {SPLITS[split]!r} twice: {other.name} and {file.name}")
    return found


def open_split(root: Path, split: str, setting: str = "split", unseen_classes: bool = False) -> IdxSplit:
    """Opens the split "train" or "test" of a folder of IDX files.

    Raises a UserError, naming `setting`, without such a split, for a damaged file, or if images and labels do not
    match.
    """
    found = find(root)
    parts = found.get(split, {})
    if "images" not in parts:
        there = [name for name, files in found.items() if "images" in files]
        raise UserError(f"{setting}={split!r}: {root} has no such images. {suggest(split, there)}")
    images = _read(parts["images"], 3)
    if len(images) == 0:
        raise UserError(f"{setting}={split!r}: there are no images in {parts['images']}")
    classes = _classes(root, found, split, len(images), unseen_classes)
    return IdxSplit(root.name, parts["images"], parts.get("labels"), classes, images.shape)


def _classes(
    root: Path, found: Mapping[str, Mapping[str, Path]], split: str, count: int, unseen_classes: bool
) -> tuple[str, ...]:
    """Checks labels against the images and against the labels of training; returns the names of the classes."""
    labelled = [name for name, files in found.items() if "labels" in files]
    if split not in labelled:
        if labelled:
            raise UserError(
                f"{root} has labels for {labelled[0]!r} but not for {split!r}: add the file or remove the other"
            )
        return ()
    labels = _read(found[split]["labels"], 1)
    if len(labels) != count:
        file, other = found[split]["images"], found[split]["labels"]
        raise UserError(
            f"{file} has {number_of(count, 'image')}, but {other} has {number_of(len(labels), 'label')}: they do "
            "not belong together"
        )
    learnt = found["train"]["labels"] if "train" in labelled else found[split]["labels"]
    classes = int(_read(learnt, 1).max()) + 1
    if unseen_classes:
        if learnt != found[split]["labels"]:
            shared = np.intersect1d(labels, _read(learnt, 1))
            refuse_shared(root, split, [str(label) for label in shared])
        classes = max(classes, int(labels.max()) + 1)
    if labels.max() >= classes:
        file = found[split]["labels"]
        raise UserError(f"{file} has the label {labels.max()}, but the largest in {learnt} is {classes - 1}")
    return tuple(map(str, range(classes)))


@functools.lru_cache(maxsize=4)
def read(file: Path) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file of unsigned bytes, gzipped if its name ends in `.gz`; the array is cached and read-only.

    Raises a UserError if it cannot be read, is in another format, or is cut short.
    """
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file} is no whole gzip file: {str(error).rstrip('.')}. Download it again") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE or content[3] == 0:
        raise UserError(f"{file} is no IDX file of unsigned bytes: it begins with {content[:4].hex(' ') or 'nothing'}")
    axes = content[3]
    shape = np.frombuffer(content[: 4 + 4 * axes], ">u4", offset=4).tolist() if len(content) >= 4 + 4 * axes else [0]
    expected, given = 4 + 4 * axes + math.prod(shape), len(content)
    if len(shape) != axes or given != expected:
        size = "x".join(map(str, shape))
        relation = "is cut short" if given < expected else "is too long"
        raise UserError(f"{file} {relation}: {size} need {expected:,} bytes, and it has {given:,}. Download it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read(file: Path, axes: int) -> np.ndarray:
    """Reads a file that must have `axes` axes."""
    array = read(file)
    if array.ndim != axes:
        raise UserError(f"{file} has {array.ndim} axes, where its name says {axes}")
    return array
