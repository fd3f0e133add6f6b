"""Transforms that move pixels."""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32
from PIL import Image as PILImage

from cvjax.errors import UserError

Image = Float32[np.ndarray, "height width channels"]
Resized = Float32[np.ndarray, "new_height new_width channels"]
Size = int | Sequence[int]
Method = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Border = Literal["constant", "edge", "reflect", "symmetric", "wrap"]  # as in `numpy.pad`, which is 30 times slower
BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}


def resize(image: Image, size: Size, method: Method = "bilinear", shorter: bool = False) -> Resized:
    """Resamples an image with PIL's kernels, which are stretched when shrinking (antialiased).

    Args:
      image: float32 [height, width, channels].
      size: (height, width), or one number for both.
      method: the kernel; overshoot of "bicubic" and "lanczos" is clipped to [0, 1].
      shorter: scale the shorter side to `size`, one number, and keep the aspect.
    """
    height, width = _pair(size)
    if shorter:
        if not isinstance(size, int):
            raise UserError(f"size={tuple(size)} must be one number where it is the shorter side's")
        old_height, old_width = image.shape[:2]
        scale = height / min(old_height, old_width)
        height, width = round(old_height * scale), round(old_width * scale)
    if image.shape[:2] == (height, width):
        return image
    kernel = PILImage.Resampling[method.upper()]
    channels = [
        np.asarray(PILImage.fromarray(np.ascontiguousarray(channel)).resize((width, height), kernel))
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(channels, -1), min(0, image.min()), max(1, image.max()))


def crop(image: Image, top: int, left: int, size: Size) -> Resized:
    """Cuts out a rectangle.

    Args:
      image: float32 [height, width, channels].
      top: first row.
      left: first column.
      size: (height, width) of the rectangle, or one number for both.

    Raises:
      UserError: the rectangle does not lie within the image.
    """
    height, width = _pair(size)
    if top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise UserError(
            f"a crop of {height}x{width} at ({top}, {left}) does not lie within an image of "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    return image[top : top + height, left : left + width]


def center_crop(image: Image, size: Size) -> Resized:
    """Cuts out the middle.

    Args:
      image: float32 [height, width, channels].
      size: (height, width), or one number for both; not larger than the image.
    """
    height, width = _pair(size)
    return crop(image, (image.shape[0] - height) // 2, (image.shape[1] - width) // 2, (height, width))


def pad(image: Image, padding: Size, border: Border = "constant", value: float = 0.0) -> Resized:
    """Adds a border.

    Args:
      image: float32 [height, width, channels].
      padding: pixels on every side; or (vertical, horizontal); or (top, bottom, left, right).
      border: what it is filled with, as `numpy.pad` calls it.
      value: the constant, in [0, 1].
    """
    sides = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(sides) not in (1, 2, 4):
        raise UserError(f"padding={sides} must be one, two or four numbers")
    top, bottom, left, right = np.repeat(sides, 4 // len(sides)).tolist()
    value = (float(value),) * 4
    padded = cv2.copyMakeBorder(np.ascontiguousarray(image), top, bottom, left, right, BORDERS[border], value=value)
    return padded.reshape(*padded.shape[:2], -1)  # OpenCV drops a single channel


def random_crop(
    generator: np.random.Generator, image: Image, size: Size, padding: Size = 0, border: Border = "reflect"
) -> Resized:
    """Cuts out a rectangle anywhere, each place as likely.

    Args:
      generator: random numbers.
      image: float32 [height, width, channels].
      size: (height, width) of the rectangle, or one number for both.
      padding: of the image before, as for `pad`.
      border: of the padding.
    """
    image = pad(image, padding, border) if np.any(padding) else image
    height, width = _pair(size)
    if height > image.shape[0] or width > image.shape[1]:
        raise UserError(f"a crop of {height}x{width} is larger than the image, {image.shape[0]}x{image.shape[1]}")
    top = int(generator.integers(image.shape[0] - height + 1))
    left = int(generator.integers(image.shape[1] - width + 1))
    return crop(image, top, left, (height, width))


def random_resized_crop(
    generator: np.random.Generator,
    image: Image,
    size: Size,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    method: Method = "bilinear",
) -> Resized:
    """Cuts out a rectangle of random area and aspect, and resizes it.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6. After ten rectangles that do not fit, the
    largest middle one whose aspect is allowed.

    Args:
      generator: random numbers.
      image: float32 [height, width, channels].
      size: (height, width) that comes out, or one number for both.
      scale: (least, most) share of the image's area, drawn uniformly.
      ratio: (least, most) width over height, drawn uniformly in its logarithm.
      method: as for `resize`.
    """
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = generator.uniform(*scale) * rows * columns
        aspect = np.exp(generator.uniform(*np.log(ratio)))
        height, width = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 0 < height <= rows and 0 < width <= columns:
            top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
            return resize(crop(image, int(top), int(left), (height, width)), size, method)
    height = min(rows, max(1, round(columns / ratio[0])))
    width = min(columns, max(1, round(rows * ratio[1])))
    return resize(center_crop(image, (height, width)), size, method)


def random_shift(generator: np.random.Generator, image: Image, pixels: int = 1, border: Border = "edge") -> Image:
    """Moves an image by whole pixels in both directions.

    Args:
      generator: random numbers.
      image: float32 [height, width, channels].
      pixels: at most so many, each number as likely.
      border: what comes in at the sides, as for `pad`.
    """
    return random_crop(generator, image, image.shape[:2], pixels, border)


def rotate(
    generator: np.random.Generator, image: Image, degrees: float | Sequence[float] = 10.0, value: float = 0.0
) -> Image:
    """Turns an image about its middle, counter-clockwise, with bilinear interpolation.

    Args:
      generator: random numbers.
      image: float32 [height, width, channels].
      degrees: (least, most), drawn uniformly; d means (-d, d).
      value: of what comes in at the corners, in [0, 1].
    """
    least, most = (-degrees, degrees) if isinstance(degrees, int | float) else degrees
    height, width, channels = image.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), generator.uniform(least, most), 1.0)
    border = (float(value),) * 4
    turned = cv2.warpAffine(np.ascontiguousarray(image), turn, (width, height), borderValue=border)
    return turned.reshape(height, width, channels)


def flip(
    generator: np.random.Generator, image: Image, p: float = 0.5, axis: Literal["horizontal", "vertical"] = "horizontal"
) -> Image:
    """Mirrors an image with a probability.

    Args:
      generator: random numbers.
      image: float32 [height, width, channels].
      p: the probability.
      axis: "horizontal" exchanges left and right.
    """
    if generator.random() >= p:
        return image
    return image[:, ::-1] if axis == "horizontal" else image[::-1]


def _pair(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise UserError(f"a size must be positive, not {size}")
    return int(height), int(width)
