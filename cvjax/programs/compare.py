"""Compares two folders of images: FID, KID, precision, recall and Inception Score.

    python -m cvjax.programs.compare --samples=FOLDER --reference=FOLDER --features=pt_inception-2015-12-05.pth

--interval adds FID's confidence interval and its extrapolation to infinitely many samples (Chong and Forsyth, 2020).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvjax import command
from cvjax.data import folder
from cvjax.data.sources import CorruptExample
from cvjax.errors import UserError
from cvjax.metrics import extractors, generative

CHUNK = 256  # images read at a time


def read(path: Path, channels: int, setting: str) -> Iterator[Float[np.ndarray, "images height width channels"]]:
    """Yields the images of a folder and its sub-folders in chunks; all must have the same size.

    `channels` is 1 (grey) or 3; errors name the flag `setting`.
    """
    files = folder.list_images(path) if path.is_dir() else []
    if not files:
        raise UserError(f"{setting}={path} is not a folder of images ({', '.join(folder.SUFFIXES)}).")
    shape = None
    for start in range(0, len(files), CHUNK):
        images = []
        for file in files[start : start + CHUNK]:
            try:
                image = folder.decode(file, channels)
            except CorruptExample as error:
                raise UserError(error.fault) from error
            shape = shape or image.shape
            if image.shape != shape:
                one, other = (f"{size[1]} x {size[0]}" for size in (image.shape, shape))
                raise UserError(f"{setting}={path}: {file.name} is {one} pixels, {files[0].name} {other}: resize them.")
            images.append(image.astype(np.float32) / 255)
        yield np.stack(images)


def compare(samples: Path, reference: Path, features: str, interval: bool = False) -> dict[str, float]:
    """Measures a folder of samples against a folder of real images.

    Returns the numbers of images, and the figures of `cvjax.metrics.extractors.evaluate` with `features` as in its
    `make`; with `interval` also `fid_low` and `fid_high`, the 95 % interval of FID, and `fid_infinity`.
    """
    extract, channels = extractors.make(features), 1 if features == "digits" else 3
    found, probabilities = extractors.gather(read(samples, channels, "--samples"), extract)
    real, _ = extractors.gather(read(reference, channels, "--reference"), extract)
    if probabilities is not None:  # files may be sorted by class
        probabilities = np.random.default_rng(0).permutation(probabilities)
    figures = {"samples": float(len(found)), "reference": float(len(real))}
    figures |= extractors.evaluate(found, real, probabilities)
    if interval:
        figures["fid_low"], figures["fid_high"] = generative.fid_interval(found, real)
        figures["fid_infinity"] = generative.fid_infinity(found, real)
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one figure per line."""
    parser = command.Parser(prog="python -m cvjax.programs.compare", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="folder of generated images")
    parser.add_argument("--reference", type=Path, required=True, help="folder of real images")
    parser.add_argument("--features", default="pixels", help='"digits", "pixels" or a file of Inception\'s weights')
    parser.add_argument("--interval", action="store_true", help="FID's interval and limit too; takes longer")
    arguments = parser.parse_args(argv)
    folders = (path.expanduser() for path in (arguments.samples, arguments.reference))
    for name, value in compare(*folders, arguments.features, arguments.interval).items():
        print(f"{name:<16}{value:.6g}")


if __name__ == "__main__":
    command.run_main(main)
