"""A user's folder of images: classes from its sub-folders, splits from `train/`, `test/`, `val/` if it has them.

    folder/a.png, folder/b.png              no classes; split by hash
    folder/cat/1.png, folder/dog/1.png      classes cat, dog; split by hash
    folder/train/cat/1.png, ...             classes; splits as they are

`cvjax.data.splits` says how, and with which affixes; `test_set/test_set/cat` is `test/cat`. Lists of files divide only
folders of boxes and VOC's development kit.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from cvjax.data.sources import CorruptExample, readable
from cvjax.data.splits import HELD_OUT, HeldOut, choose, find_splits, split_by_hash, split_of
from cvjax.errors import UserError, suggest, suggest_beside

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LISTED = 5  # most files that a message lists
GREY = ("1", "L", "LA", "I")  # and others of 16 bits: "I;16", ...
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and the values that exchange width and height


@dataclasses.dataclass(frozen=True)
class FolderSplit:
    """The images of one split of a folder; `channels` is 1 if all images of the folder are grey, else 3."""

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
        return readable(self.files[index])

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
    with opened(file) as image:
        width, height = image.size
        # Pillow returns the size of a TIFF upright, and decodes all of a PNG to look for an orientation.
        declared = image.format != "TIFF" and (image.format != "PNG" or _has_metadata(file))
        turned = declared and image.getexif().get(ORIENTATION) in TURNED
        return (width, height) if turned else (height, width)


def _has_metadata(file: Path) -> bool:
    """Whether any chunk of a PNG may hold an orientation: EXIF, or text such as XMP and ImageMagick's profiles."""
    with file.open("rb") as stream:
        stream.seek(8)
        while len(header := stream.read(8)) == 8:
            if header[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            stream.seek(int.from_bytes(header[:4]) + 4, os.SEEK_CUR)  # the content and its checksum
    return False


def open_split(folder: str | Path, split: str, setting: str = "split", held_out: HeldOut = HELD_OUT) -> FolderSplit:
    """Opens one split of a folder; labels of unseen classes follow those of training.

    Raises a UserError, which names `setting`, if there is no such folder or split, it holds no images, or an image has
    no class, or one that training lacks, or of unseen classes one that it has.
    """
    root, files = open_root(folder)
    parts = {file: file.relative_to(root).parts for file in files}
    by_split = find_splits(root, parts)
    base = int(bool(by_split))
    if base and all(split_of(parts[file][1:]) == name for name, found in by_split.items() for file in found):
        base = 2  # doubled, as archives of Kaggle's are: test_set/test_set/cat
    by_split = by_split or split_by_hash(root, parts, held_out)
    unseen_classes = held_out.by_class
    chosen = tuple(choose(by_split, split, root, setting))
    names = {file: _class_name(parts[file][base:]) for file in files}
    learnt = by_split.get("train", files) if base or unseen_classes else files
    classes = sorted({names[file] for file in learnt if names[file]})
    if unseen_classes:
        if base and not set(chosen) & set(learnt):
            refuse_shared(root, split, sorted({names[file] for file in chosen if names[file]} & set(classes)))
        classes += sorted({names[file] for file in chosen if names[file]} - set(classes))
    for file in chosen:
        if classes and not names[file]:
            raise UserError(
                f"{readable(file)} has no class: it belongs into one of the sub-folders {', '.join(classes)}"
            )
        if names[file] and names[file] not in classes:
            raise UserError(
                f"{readable(file)} is of class {names[file]!r}, of which the training images have none. "
                f"{suggest(names[file], classes)} data.unseen_classes=True allows it"
            )
    return FolderSplit(
        name=root.name,
        root=root,
        files=chosen,
        labels=tuple(classes.index(names[file]) for file in chosen) if classes else (),
        classes=tuple(classes),
        channels=count_channels(files),
    )


def refuse_shared(root: Path, split: str, shared: Sequence[str]) -> None:
    """Raises a UserError if classes of a split of unseen classes are `shared` with the training images."""
    if shared:
        raise UserError(
            f"{readable(root)} has the classes {listed(shared)} in the training images and in {split!r}: with "
            "data.unseen_classes=True these are different ones. Keep each class in one of them, or set it to False"
        )


def open_root(folder: str | Path, setting: str = "data.folder") -> tuple[Path, list[Path]]:
    """Returns a folder's path and all images below it; raises a UserError, naming `setting`, if there are none."""
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


def refuse_output(output: Path, root: Path, setting: str) -> None:
    """Raises a UserError, which names `setting`, if what is written to a path would count as images of a folder."""
    target, top = output.resolve(), root.resolve()
    if not target.is_relative_to(top) or any(map(_passed_over, target.relative_to(top).parts)):
        return
    raise UserError(
        f"{setting}={readable(output)} is in {readable(root)}, whose images are examples: pictures written there would "
        f"be examples too. Give another, such as {setting}={readable(top.parent / target.name)}"
    )


def counterparts(
    files: Sequence[Path | None], root: Path, there: Path, found: Sequence[Path], setting: str
) -> tuple[Path | None, ...]:
    """Returns the file of the same relative name below `there` for each image, preferring the same suffix.

    `found` are all files there. None, an annotation without an image, stays None. Raises a UserError, which names
    `setting` and lists the images, if any has no counterpart, or several.
    """
    by_name = {}
    for file in found:
        by_name.setdefault(file.relative_to(there).with_suffix(""), []).append(file)
    matched, faults = [], []
    for file in files:
        if file is None:
            matched.append(None)
            continue
        relative = file.relative_to(root)
        several = by_name.get(relative.with_suffix(""), [])
        same = [other for other in several if other.suffix == file.suffix] or several
        if len(same) != 1:
            names = ", ".join(map(readable, same))
            fault = f"there are several: {names}" if same else f"{readable(there)} has no {readable(relative)}"
            faults.append(f"{readable(file)} needs one counterpart, but {fault}")
        matched += same[:1]
    if faults:
        _refuse_folder_of_both(files, root, there, setting)
        known = {file.relative_to(root).with_suffix("") for file in list_images(root)}
        alone = sorted(readable(name) for name in by_name.keys() - known)
        beside = f". There, but of no image's name: {listed(alone)}" if alone else ""
        raise UserError(f"{setting}: {listed(faults, '; ')}{beside}")
    return tuple(matched)


def _refuse_folder_of_both(files: Sequence[Path | None], root: Path, there: Path, setting: str) -> None:
    """Raises a UserError if some of the images that need a counterpart are themselves in the counterparts' folder."""
    top, inner, beside = root.resolve(), there.resolve(), there.parent.resolve()
    if inner == top or not inner.is_relative_to(top):
        return
    paths = [top / file.relative_to(root) for file in files if file is not None]
    if not any(path.is_relative_to(inner) for path in paths):
        return
    below = [path.relative_to(beside).parts for path in paths if path.is_relative_to(beside)]
    others = sorted({parts[0] for parts in below if len(parts) > 1} - {inner.name})
    example = f", such as data.folder={readable(there.parent / others[0])}" if others else ""
    raise UserError(
        f"{setting}={str(there)!r} lies in data.folder={str(root)!r}, so that its files count as images too: give the "
        f"folder of the images alone{example}"
    )


def listed(texts: Iterable[str], separator: str = ", ") -> str:
    """Returns the first five texts, and the number of the others, for a message."""
    texts = list(texts)
    more = f" and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return separator.join(texts[:LISTED]) + more


def count_channels(files: Sequence[Path]) -> int:
    """Returns 1 if all images are grey, else 3."""
    return 1 if all(map(_is_grey, files)) else 3


def decode(file: Path, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image file, turned upright by its EXIF orientation, on white where it is transparent.

    `channels` is 1 (grey) or 3 (RGB). Raises a `CorruptExample` if the file cannot be decoded.
    """
    with opened(file) as image:
        kind = image.format
        image = ImageOps.exif_transpose(_with_alpha(file, image))
        if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
            levels = np.asarray(image)
            grey, opaque = levels >> 8, levels != image.info.get("transparency", -1)
            image = Image.fromarray(np.where(opaque, grey, 255).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"pixels of type {image.mode!r} have no range to map to [0, 1]")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def _with_alpha(file: Path, image: Image.Image) -> Image.Image:
    """Mends the transparent colour of a PNG, which Pillow compares with 8 bits: alpha for 16, scaled for 2 and 4."""
    if image.format != "PNG" or image.mode not in ("L", "RGB") or "transparency" not in image.info:
        return image
    content = file.read_bytes()
    bits = content[24]  # per channel
    if image.mode == "L" and bits < 8:
        image.info["transparency"] *= 255 // (2**bits - 1)
    if bits != 16:
        return image
    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if levels is None:
        raise ValueError("its 16-bit pixels are damaged")
    deep = Image.fromarray((cv2.cvtColor(levels, cv2.COLOR_BGRA2RGBA) >> 8).astype(np.uint8))
    deep.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return deep


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Opens an image file; errors inside the `with` become a `CorruptExample` that names it."""
    try:
        with Image.open(file) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    except Exception as error:  # decoders raise anything on damaged bytes
        raise CorruptExample(f"{readable(file)} cannot be read as an image: {_reason(error)}") from error


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
    """Lists the image files below a folder; see `list_files`."""
    return list_files(root, SUFFIXES)


def list_files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Lists the files below a folder in a fixed order, without hidden ones. Links are followed unless they lead up.

    `suffixes` are in lower case, those of files in any. Raises a UserError if a folder cannot be read, or is reached by
    two paths, so that its images would count twice.
    """
    found, paths = [], {}
    for parent, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        if paths.setdefault(real, parent) != parent:
            raise UserError(f"{readable(paths[real])} and {readable(parent)} are the same folder: remove the link")
        visible = sorted(name for name in folders if not _passed_over(name))
        folders[:] = [name for name in visible if not _leads_up(os.path.join(parent, name), paths)]
        names = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(suffixes))
        found += [Path(parent) / name for name in names]
    return found


def _passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder == "__MACOSX"


def _leads_up(path: str, paths: Mapping[str, str]) -> bool:
    """Whether a folder is a link to one that holds it, directly or by links: `paths` are those of visited folders."""
    if not os.path.islink(path):
        return False
    target, parent = os.path.realpath(path), os.path.dirname(path)
    above = os.path.commonpath([target, os.path.realpath(parent)]) == target
    return above or (target in paths and os.path.commonpath([paths[target], parent]) == paths[target])


def _refuse(error: OSError) -> None:
    raise UserError(f"the folder {readable(error.filename)} cannot be read: {error.strerror}") from error


def _class_name(parts: tuple[str, ...]) -> str | None:
    return readable(parts[0]) if len(parts) > 1 else None


def _is_grey(file: Path) -> bool:
    """Whether an image has one channel; True for files that cannot be read."""
    try:
        with opened(file) as image:
            return image.mode in GREY or image.mode.startswith("I;16")
    except CorruptExample:
        return True
