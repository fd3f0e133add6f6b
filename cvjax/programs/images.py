"""Images written as files."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image

from cvjax.ops.palettes import voc_palette
from cvjax.rundir import write_atomically

STRIP = 256  # rows that are converted at a time: a large picture has no copies of its floats beside it
LEGIBLE = 256  # minimum side in pixels of images with class names drawn on them

Picture = Float[np.ndarray, "height width channels"] | UInt8[np.ndarray, "height width channels"]  # in [0, 1], or bytes


def save_image(path: Path, image: Picture) -> None:
    """Writes an image, grey or RGB, with or without opacity, as a PNG; creates its folder if necessary."""
    encoded = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(encoded, "png")
    write_atomically(path, encoded.getvalue())


def save_classes(path: Path, numbers: Integer[np.ndarray, "height width"]) -> None:
    """Writes a map of classes as a PNG of these numbers with VOC's palette; creates its folder if necessary."""
    encoded = io.BytesIO()
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette(voc_palette().tobytes())
    image.save(encoded, "png")
    write_atomically(path, encoded.getvalue())


def to_bytes(image: Picture) -> UInt8[np.ndarray, "height width _"]:
    """Converts an image to bytes, and grey to RGB; a second or fourth channel is opacity and stays."""
    levels = image if image.dtype == np.uint8 else np.empty(image.shape, np.uint8)
    for top in range(0, 0 if levels is image else len(image), STRIP):
        levels[top : top + STRIP] = np.round(np.clip(image[top : top + STRIP], 0, 1) * 255)
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels
