"""A user's folder of images: classes from its sub-folders, splits from `train/`, `test/`, `val/` if it has them.

    folder/a.png, folder/b.png              no classes; split by hash
    folder/cat/1.png, folder/dog/1.png      classes cat, dog; split by hash
    folder/train/cat/1.png, ...             classes; splits as they are

Split by hash: the tenth of the files whose paths below the folder have the lowest SHA-256 are `test`, the rest `train`.
With `data.unseen_classes` it is a tenth of the classes, by their names, so that training and test share none.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from cvjax.data.sources import CorruptExample
from cvjax.errors import UserError, suggest, suggest_beside

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("test", "train", "val")
HELD_OUT = 10  # one file in ten is held out if the folder has no splits
GREY = ("1", "L", "LA")  # and 16 bits: "I;16", ...
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and the values that exchange width and height


@dataclasses.dataclass(frozen=True)
class FolderSplit:
    """The images of one split of a folder.

    Attributes:
      name: name of the folder.
      root: its path.
      files: the images.
      labels: the class of each image, or ().
      classes: names of the classes.
      channels: 1 if all images of the folder are grey, else 3.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    channels: int

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        example = {"image": decode(self.files[index], self.channels)}
        return {**example, "label": np.asarray(self.labels[index], np.int32)} if self.classes else example

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return str(self.files[index])

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples."""
        return np.array(self.labels, np.int32)

    def shape(self, index: int) -> tuple[int, int, int]:
        """Reads the shape of an image from the file's header."""
        return (*read_size(self.files[index]), self.channels)

    @property
    def channels_of(self) -> dict[str, int]:
        """Channels of further images: a plain folder has none."""
        return {}


def read_size(file: Path) -> tuple[int, int]:
    """Returns height and width of an upright image from the file's header."""
    with _opened(file) as image:
        width, height = image.size
        # Of a TIFF, Pillow gives the size upright; of a PNG, it would decode all to look for an orientation.
        turned = image.format in ("JPEG", "MPO", "WEBP") and image.getexif().get(ORIENTATION) in TURNED
        return (width, height) if turned else (height, width)


def open_split(folder: str | Path, split: str, setting: str = "split", unseen_classes: bool = False) -> FolderSplit:
    """Opens one split of a folder.

    Args:
      folder: its path.
      split: one of its splits.
      setting: the setting to name in a message.
      unseen_classes: as `data.unseen_classes`; labels of unseen classes follow those of training.

    Raises:
      UserError: there is no such folder or split, it holds no images, or an image has no class, or one that training
        lacks.
    """
    root, files = open_root(folder)
    base, by_split = _by_split(root, files, by_class=unseen_classes)
    if not by_split.get(split):
        raise UserError(f"{setting}={split!r}: {folder} has no such split. {suggest(split, by_split)}")
    chosen = tuple(by_split[split])
    names = {file: _class_name(file.relative_to(root).parts[base:]) for file in files}
    learnt = by_split.get("train", files) if base or unseen_classes else files
    classes = sorted({names[file] for file in learnt if names[file]})
    if unseen_classes:
        classes += sorted({names[file] for file in chosen if names[file]} - set(classes))
    for file in chosen:
        if classes and not names[file]:
            raise UserError(f"{file} has no class: it belongs into one of the sub-folders {', '.join(classes)}")
        if names[file] and names[file] not in classes:
            there = suggest(names[file], classes)
            raise UserError(
                f"{file} is of class {names[file]!r}, which {root / 'train'} has no images of. {there} "
                "data.unseen_classes=True allows it"
            )
    return FolderSplit(
        name=root.name,
        root=root,
        files=chosen,
        labels=tuple(classes.index(names[file]) for file in chosen) if classes else (),
        classes=tuple(classes),
        channels=count_channels(files),
    )


def open_root(folder: str | Path, setting: str = "data.folder") -> tuple[Path, list[Path]]:
    """Returns a folder's path and all images below it.

    Args:
      folder: its path.
      setting: the setting to name in a message.

    Raises:
      UserError: there is no such folder, or it holds no images.
    """
    root = Path(folder).expanduser()
    try:
        if not root.is_dir():
            root.stat()
            raise UserError(f"{setting}={str(folder)!r} is not a folder but a file")
    except OSError as error:
        raise UserError(f"{setting}={str(folder)!r}: {error.strerror}. {suggest_beside(root)}".rstrip()) from error
    files = list_images(root)
    if not files:
        suffixes = ", ".join(SUFFIXES)
        raise UserError(f"{setting}={str(folder)!r} holds no images: no file in it or below it ends in {suffixes}")
    return root, files


def count_channels(files: Sequence[Path]) -> int:
    """Returns 1 if all images are grey, else 3."""
    return 1 if all(map(_is_grey, files)) else 3


def decode(file: Path, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image file, turned upright by its EXIF orientation, on white where it is transparent.

    Args:
      file: its path.
      channels: 1 (grey) or 3 (RGB).

    Raises:
      CorruptExample: it cannot be decoded.
    """
    with _opened(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"pixels of type {image.mode!r} have no range to map to [0, 1]")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Opens an image file; errors, also inside the `with`, name it."""
    try:
        with Image.open(file) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    except Exception as error:  # decoders raise anything on damaged bytes
        raise CorruptExample(f"{file} cannot be read as an image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "its content is in no known image format"
        case Image.DecompressionBombError():  # Pillow raises it above twice the limit
            return f"its header claims more than {Image.MAX_IMAGE_PIXELS:,} pixels, it may be a decompression bomb"
        case OSError(strerror=str(reason)):
            return reason
    return str(error).rstrip(".")


def list_images(root: Path) -> list[Path]:
    """Lists the image files below a folder in a fixed order, links followed, hidden files left out.

    Raises:
      UserError: a folder cannot be read.
    """
    found = []
    for parent, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        names = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES))
        found += [Path(parent) / name for name in names]
    return found


def _refuse(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def _by_split(root: Path, files: list[Path], by_class: bool) -> tuple[int, dict[str, list[Path]]]:
    """Assigns files to splits. Returns the number of leading folders that name the split, and each split's files."""
    parts = [file.relative_to(root).parts for file in files]
    if all(part[0] in SPLITS and len(part) > 1 for part in parts):
        by_split = {}
        for file, part in zip(files, parts, strict=True):
            by_split.setdefault(part[0], []).append(file)
        return 1, by_split
    # Units that are held out as a whole: a class, or a file.
    units = {
        file: part[0] if by_class and len(part) > 1 else "/".join(part) for file, part in zip(files, parts, strict=True)
    }
    by_hash = sorted(set(units.values()), key=lambda unit: hashlib.sha256(unit.encode()).digest())
    held_out = set(by_hash[: max(1, len(by_hash) // HELD_OUT)])
    return 0, {
        "train": [file for file in files if units[file] not in held_out],
        "test": [file for file in files if units[file] in held_out],
    }


def _class_name(parts: tuple[str, ...]) -> str | None:
    return parts[0] if len(parts) > 1 else None


def _is_grey(file: Path) -> bool:
    """Whether an image has one channel; True for files that cannot be read."""
    try:
        with _opened(file) as image:
            return image.mode in GREY or image.mode.startswith("I;16")
    except CorruptExample:
        return True
