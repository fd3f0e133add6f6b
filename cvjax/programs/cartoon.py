"""Photographs as cartoons, by filters: pairs to learn from, single pictures, and videos.

python -m cvjax.translation.cartoon --output=pairs                               of scikit-image's photographs
python -m cvjax.translation.cartoon --input=FOLDER --output=pairs --size=256     of your own
python -m cvjax.translation.cartoon --input=photo.jpg --output=cartoon.png --style=pencil
python -m cvjax.translation.cartoon --input=film.mp4 --output=cartoon.mp4

Pairs are written as `train/NAME.png` and `test/NAME.png`, the photograph on the left and its cartoon on the right, for
`data.folder=pairs`, `data.images={"target": "right"}`. With --layout=folders they are `photo/train/NAME.png` and
`cartoon/train/NAME.png`: `data.folder=pairs/photo`, `data.images={"target": "pairs/cartoon"}`.

A photograph is in one split: that of its folder, if the input has folders such as `train` and `test`, else that of its
name's hash. Copies of a file are left out, and so are pictures that cannot be read; both are listed.
"""

import argparse
import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from cvjax import command, runs
from cvjax.data import folder, splits, transforms
from cvjax.data.builders import photos
from cvjax.data.sources import CorruptExample, readable
from cvjax.data.splits import HeldOut
from cvjax.display import doing
from cvjax.errors import UserError, number_of, suggest_beside
from cvjax.programs import video
from cvjax.programs.apply import name_outputs
from cvjax.programs.images import save_image, to_bytes
from cvjax.programs.outputs import LeftOut, Outputs
from cvjax.translation.cartoon import STYLES

LAYOUTS = ("beside", "folders")
SIDES = ("photo", "cartoon")  # the folders of the second layout
SHARE = 0.1
OF_PAIRS = ("size", "share", "seed", "layout")  # flags that single pictures and videos do not take

Picture = Float32[np.ndarray, "height width 3"]


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph: the name of its pair, its split, and what reads it as bytes in RGB."""

    name: str
    split: str
    read: Callable[[], UInt8[np.ndarray, "height width 3"]]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = command.Parser(prog="python -m cvjax.translation.cartoon", description=__doc__, formatter_class=formatter)
    parser.add_argument("--input", type=Path, help="a folder of photographs, an image or a video")
    parser.add_argument("--output", type=Path, required=True, help="a folder; of an image a .png, of a video its path")
    parser.add_argument("--style", choices=STYLES, default="ink", help="how to paint; by default ink")
    parser.add_argument("--size", type=int, help="of pairs: side in pixels of the squares that are cut from the middle")
    parser.add_argument("--share", type=float, help=f"of pairs: share of the photographs for test, {SHARE} by default")
    parser.add_argument("--seed", type=command.seed, help="of pairs: seed of that share, 0 by default")
    parser.add_argument("--layout", choices=LAYOUTS, help="of pairs: side by side, the default, or in two folders")
    arguments = parser.parse_args(argv)
    source = arguments.input and arguments.input.expanduser()
    output, style = arguments.output.expanduser(), STYLES[arguments.style]
    if source is not None:
        try:
            source.stat()
        except OSError as error:
            raise UserError(f"--input={source}: {error.strerror}. {suggest_beside(source)}".rstrip()) from error
    if source is None or source.is_dir():
        check_ranges(arguments.size, arguments.share)
        make_pairs(source, output, style, arguments)
        return
    for name in OF_PAIRS:
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}={getattr(arguments, name)} is for pairs of a folder; {source} is a file.")
    (paint_video if source.suffix.lower() in video.SUFFIXES else paint_image)(source, output, style)


def check_ranges(size: int | None, share: float | None) -> None:
    """Raises a UserError if a flag is out of its range."""
    if size is not None and size < 1:
        raise UserError(f"--size={size}: squares have at least one pixel.")
    if share is not None and not 0 < share < 1:
        raise UserError(f"--share={share}: above 0 and below 1, so that either split has photographs.")


def make_pairs(
    source: Path | None,
    output: Path,
    style: Callable[[UInt8[np.ndarray, "height width 3"]], UInt8[np.ndarray, "height width 3"]],
    arguments: argparse.Namespace,
) -> None:
    """Writes the pairs of a folder, or of the embedded photographs, and prints how they are learnt.

    Raises a UserError if the output folder has pictures that are none of these pairs or nothing could be read for one
    of the splits, and a `LeftOut` if pictures were left out, after writing all the others.
    """
    layout = arguments.layout or LAYOUTS[0]
    if source is None:
        if arguments.share is not None or arguments.seed is not None:
            raise UserError("--share and --seed are for photographs of --input: the embedded ones have their splits.")
        found, faults = embedded(), []
    else:
        found, faults = list_photographs(source, output, arguments.share, arguments.seed)
    runs.make_folder(output, "--output")
    written = Outputs(output)
    check_folder(output, written, [file for one in found for file in name_files(one, layout)], layout)
    made = Counter()
    with doing(f"painting {number_of(len(found), 'photograph')}"):
        for one in found:
            try:
                photograph = one.read()
            except CorruptExample as error:
                faults.append(error.fault)
                continue
            photograph = photograph if arguments.size is None else fit(photograph, arguments.size)
            both = photograph, style(photograph)
            pictures = [np.concatenate(both, axis=1)] if layout == "beside" else both
            for file, picture in zip(name_files(one, layout), pictures, strict=True):
                save_image(written.claim(file), picture)
            made[one.split] += 1
    counts = ", ".join(f"{made[split]} in {split}" for split in sorted({one.split for one in found}))
    print(f"{number_of(made.total(), 'pair')} in {readable(output)}: {counts}")
    skipped = f"{number_of(len(faults), 'picture')} left out: {folder.listed(faults, '; ')}"
    for split in {one.split for one in found}:
        if not made[split]:
            raise UserError(f"{readable(output)} has no pair for {split}. {skipped}")
    print(f"To learn them: {advise(output, layout)}")
    if faults:
        raise LeftOut(skipped)


def embedded() -> list[Photograph]:
    """Lists the photographs that come with cvjax, in the splits of the dataset `photos`."""
    named = {"train": photos.TRAIN, "test": photos.TEST}
    return [Photograph(name, split, functools.partial(photos.read, name)) for split in named for name in named[split]]


def list_photographs(
    source: Path, output: Path, share: float | None, seed: int | None
) -> tuple[list[Photograph], list[str]]:
    """Returns (a folder's photographs with their splits, what is wrong with others).

    What an earlier call wrote to the output folder is none. Raises a UserError if there are fewer than two photographs,
    the output is the input, or as `cvjax.data.splits` does.
    """
    if output.resolve() == source.resolve():
        raise UserError(f"--output={readable(output)} is the input folder; pairs would lie among their photographs.")
    written = Outputs(output)
    files = [file for file in folder.list_images(source) if not written.wrote(file)]
    if not files:
        raise UserError(f"--input={readable(source)} holds no images ({', '.join(folder.SUFFIXES)}).")
    kept, faults = leave_out_copies(files)
    parts = {file: file.relative_to(source).parts for file in kept}
    by_split = splits.find_splits(source, parts)
    if by_split and (share is not None or seed is not None):
        named = ", ".join(sorted(by_split))
        raise UserError(f"--share and --seed: {readable(source)} has splits of its own, {named}. Leave them out.")
    if by_split:
        named = {split: name_pairs([Path(*parts[file][1:]) for file in files]) for split, files in by_split.items()}
        names = {
            file: name for split, files in by_split.items() for file, name in zip(files, named[split], strict=True)
        }
    else:
        by_split = splits.split_by_hash(source, parts, HeldOut(SHARE if share is None else share, seed or 0))
        names = dict(zip(kept, name_pairs([Path(*parts[file]) for file in kept]), strict=True))
    found = [
        Photograph(names[file], split, functools.partial(folder.decode, file, 3))
        for split, members in by_split.items()
        for file in members
    ]
    return found, faults


def leave_out_copies(files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Returns (the first file of each content, what is wrong with the others): a copy might be in the other split."""
    first, kept, faults = {}, [], []
    for file in files:
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError as error:
            faults.append(f"{readable(file)} cannot be read: {error.strerror}")
            continue
        if digest in first:
            faults.append(f"{readable(file)} is a copy of {readable(first[digest])}")
            continue
        first[digest] = file
        kept.append(file)
    return kept, faults


def name_pairs(paths: Sequence[Path]) -> list[str]:
    """Returns a name without folders for each path below the input: `sea/1.jpg` is `sea_1`; no two are the same."""
    names: dict[str, None] = {}
    for path in name_outputs(paths):
        name = path.replace("/", "_")
        while name in names:
            name += "_"
        names[name] = None
    return list(names)


def name_files(photograph: Photograph, layout: str) -> list[str]:
    """Returns the file of a pair below the output folder, or its two."""
    file = f"{photograph.split}/{photograph.name}.png"
    return [file] if layout == "beside" else [f"{side}/{file}" for side in SIDES]


def check_folder(output: Path, written: Outputs, planned: Sequence[str], layout: str) -> None:
    """Raises a UserError if a pair would overwrite somebody else's file, or pictures lie where pairs are looked for."""
    written.check(planned)
    expected = {output / file for file in planned}
    for root in [output] if layout == "beside" else [output / side for side in SIDES]:
        others = [file for file in folder.list_images(root) if file not in expected] if root.is_dir() else []
        if others:
            kind = "a pair of an earlier call" if written.wrote(others[0]) else "somebody else's"
            raise UserError(
                f"--output={readable(output)}: {readable(others[0])} is {kind} and would be read as one of these "
                f"{len(planned)}. Remove it, or give a new folder."
            )


def fit(photograph: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Scales a photograph's shorter side, and cuts a square from the middle."""
    scaled = transforms.resize(photograph.astype(np.float32) / 255, size=size, method="lanczos", shorter=True)
    return to_bytes(transforms.center_crop(scaled, size=size))


def advise(output: Path, layout: str) -> str:
    """Returns the command that learns from pairs."""
    command_line = "python train.py --config=configs/own_cartoon.py --workdir=runs/own_cartoon"
    if layout == "beside":
        return f"{command_line} --config.data.folder={readable(output)}"
    photo, cartoon = (readable(output / side) for side in SIDES)
    return f"{command_line} --config.data.folder={photo} --config.data.images.target={cartoon}"


def paint_image(source: Path, output: Path, style: Callable[[Picture], Picture]) -> None:
    """Writes one picture as a .png."""
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={readable(output)}: a picture is written as .png.")
    runs.make_folder(output.parent, "--output")
    written = Outputs(output.parent)
    written.check([output.name])
    try:
        photograph = folder.decode(source, channels=3)
    except CorruptExample as error:
        raise UserError(error.fault) from error
    save_image(written.claim(output.name), style(photograph))
    print(f"1 picture in {readable(output)}")


def paint_video(source: Path, output: Path, style: Callable[[Picture], Picture]) -> None:
    """Writes a video, .mp4 or .avi, each frame of which is painted by itself, at the source's frame rate."""
    video.check_output(source, output)
    capture = video.open_video(source)
    rate = video.nearest_rate(capture.get(cv2.CAP_PROP_FPS))
    frames: Iterator[Picture] = map(style, video.read_frames(capture))
    with doing(f"painting {source}"):
        count = video.write_video(output, map(to_bytes, frames), rate)
    if not count:
        raise UserError(f"--input={source} has no frames.")
    print(f"{number_of(count, 'frame')} in {output} at {rate:g} frames/s")


if __name__ == "__main__":
    command.run_main(main)
