"""Divides a folder of IDX files by class: classes to learn from, and classes that are held out.

    python -m cvjax.programs.hold_out --folder=fashion-mnist --classes=2,5,7,9 --output=fashion_unseen

The output has the training images of all other classes, and the test images of these classes, as IDX files again.
`data.folder=fashion_unseen` and `data.unseen_classes=True` read them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cvjax import command
from cvjax.data import idx
from cvjax.data.sources import readable
from cvjax.errors import UserError, number_of, suggest
from cvjax.rundir import explain_write_errors

PREFIXES = {"train": "train", "test": "t10k"}


def divide(folder: Path, classes: Sequence[int], output: Path) -> dict[str, int]:
    """Writes the files of the module's docstring.

    Returns the number of images of each split. Raises a UserError without labelled images of both splits, for a class
    that is not there, if none would be left to learn from, or if there are IDX files in the output already.
    """
    found = idx.find(folder)
    missing = [split for split in PREFIXES if not {"images", "labels"} <= found.get(split, {}).keys()]
    if missing:
        raise UserError(f"--folder={readable(folder)} has no IDX files of labelled images for {' and '.join(missing)}.")
    splits = {split: tuple(idx.read(found[split][part]) for part in ("images", "labels")) for split in PREFIXES}
    known = np.unique(splits["train"][1]).tolist()
    for number in classes:
        if number not in known or number not in splits["test"][1]:
            advice = suggest(str(number), map(str, known))
            raise UserError(f"--classes: {readable(folder)} has no class {number}. {advice}")
    if len(set(classes)) == len(known):
        raise UserError(f"--classes: these are all {number_of(len(known), 'class')}; leave some to learn from.")
    if idx.find(output):
        raise UserError(f"--output={readable(output)} has IDX files already; name a new folder.")
    counts = {}
    for split, (images, labels) in splits.items():
        chosen = np.isin(labels, classes) == (split == "test")
        counts[split] = int(chosen.sum())
        with explain_write_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            for part, array in (("images", images), ("labels", labels)):
                (output / f"{PREFIXES[split]}-{part}-idx{array.ndim}-ubyte").write_bytes(as_idx(array[chosen]))
    return counts


def as_idx(array: UInt8[np.ndarray, "..."]) -> bytes:
    """Returns the content of an IDX file."""
    header = bytes([0, 0, idx.UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + np.ascontiguousarray(array).tobytes()


def numbers(text: str) -> tuple[int, ...]:
    """Reads the numbers of classes, such as "2,5"; raises a UserError if one is none."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--classes={text}: expected numbers of classes, such as 2,5,7,9.") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the program with command-line arguments."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = command.Parser(prog="python -m cvjax.programs.hold_out", description=__doc__, formatter_class=formatter)
    parser.add_argument("--folder", type=Path, required=True, help="of IDX files")
    parser.add_argument("--classes", required=True, help="that are held out, by number: 2,5,7,9")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args(argv)
    counts = divide(arguments.folder, numbers(arguments.classes), arguments.output)
    train, test = (number_of(counts[split], "image") for split in PREFIXES)
    print(f"{train} to learn from and {test} of held-out classes are in {arguments.output}")


if __name__ == "__main__":
    command.run_main(main)
