"""Transforms that move the pixels of an image, or all of a `Scene`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32
from PIL import Image as PILImage

from cvjax.data.transforms.scene import Keep, Scene
from cvjax.errors import UserError, number_of

Image = Float32[np.ndarray, "height width channels"] | Scene
Resized = Float32[np.ndarray, "new_height new_width channels"] | Scene
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

    Overshoot of "bicubic" and "lanczos" is clipped to [0, 1]. `shorter` scales the shorter side to `size`, one number,
    and keeps the aspect.
    """
    height, width = sides(size)
    if shorter:
        if not isinstance(size, int):
            raise UserError(f"size={tuple(size)} must be one number if it is the shorter side's")
        old_height, old_width = image.shape[:2]
        scale = height / min(old_height, old_width)
        height, width = round(old_height * scale), round(old_width * scale)
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if isinstance(image, Scene):
        chosen = np.ix_(*(_nearest(old, new) for old, new in ((rows, height), (columns, width))))
        return image.moved(
            lambda pixels: resize(pixels, (height, width), method),
            lambda numbers, _: numbers[chosen],
            ((width / columns, 0), (0, height / rows)),
        )
    kernel = PILImage.Resampling[method.upper()]
    channels = [
        np.asarray(PILImage.fromarray(np.ascontiguousarray(channel)).resize((width, height), kernel))
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(channels, -1), min(0, image.min()), max(1, image.max()))


def letterbox(image: Image, size: Size, method: Method = "bilinear", value: float = 0.5) -> Resized:
    """Resizes an image to fit, keeping its aspect, and pads both sides evenly."""
    height, width = sides(size)
    rows, columns = image.shape[:2]
    scale = min(height / rows, width / columns)
    image = resize(image, (max(1, round(rows * scale)), max(1, round(columns * scale))), method)
    vertical, horizontal = height - image.shape[0], width - image.shape[1]
    margins = vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2
    return pad(image, margins, value=value)


def crop(image: Image, top: int, left: int, size: Size, keep: Keep = "centre") -> Resized:
    """Cuts out a rectangle from row `top` and column `left`; raises a UserError if it does not lie within the image.

    `keep` says which boxes stay, clipped: "centre", those with their centre in the rectangle; or the least share of a
    box's area that has to be in it.
    """
    height, width = sides(size)
    if top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise UserError(
            f"a crop of {height}x{width} at ({top}, {left}) does not lie within an image of "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    window = slice(top, top + height), slice(left, left + width)
    if isinstance(image, Scene):
        return image.moved(lambda pixels: pixels[window], lambda map, _: map[window], shift=(-left, -top)).clipped(keep)
    return image[window]


def center_crop(image: Image, size: Size, keep: Keep = "centre") -> Resized:
    """Cuts out the middle, not larger than the image."""
    height, width = sides(size)
    return crop(image, (image.shape[0] - height) // 2, (image.shape[1] - width) // 2, (height, width), keep)


def pad(image: Image, padding: Size, border: Border = "constant", value: float = 0.0) -> Resized:
    """Adds a border of `padding` pixels: one number, (vertical, horizontal), or (top, bottom, left, right).

    `border` is a mode of `numpy.pad`. The constant is `value`, in maps 0, and void in those of classes. Images with
    boxes take "constant" or "edge", and their maps the constant for both: the other modes would repeat objects without
    their boxes. Raises a UserError for these, and for a padding of another length.
    """
    given = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(given) not in (1, 2, 4):
        raise UserError(f"padding={given} must be one, two or four numbers")
    margins = top, bottom, left, right = np.repeat(given, 4 // len(given)).tolist()
    if isinstance(image, Scene):
        if image.boxed and border not in ("constant", "edge") and any((top, bottom, left, right)):
            raise UserError(f'border={border!r} repeats objects without their boxes; use "constant" or "edge"')
        return image.moved(
            lambda pixels: pad(pixels, padding, border, value),
            lambda numbers, fill: _padded(numbers, margins, "constant" if image.boxed else border, fill),
            shift=(left, top),
        )
    value = (float(value),) * 4
    return by_fours(
        lambda channels: cv2.copyMakeBorder(channels, top, bottom, left, right, BORDERS[border], value=value), image
    )


def canvas(image: Image, size: Size, name: str = "inside", value: float = 0.0, least: int = 1) -> Scene:
    """Puts an image into the upper left corner of a canvas, and adds a map `name`, 1 where the image is.

    Images of different sizes make a batch in this way, and none is resized; of larger ones, the middle is cut out. In a
    batch, the map is [batch, height, width, 1]. Raises a UserError if a side of the image is below `least`.
    """
    height, width = sides(size)
    if min(image.shape[:2]) < least:
        raise UserError(
            f"an image of {image.shape[0]}x{image.shape[1]} is too small, each side needs {number_of(least, 'pixel')}; "
            "leave it out"
        )
    rows, columns = min(height, image.shape[0]), min(width, image.shape[1])
    image = center_crop(image, (rows, columns))
    scene = image if isinstance(image, Scene) else Scene(image)
    scene = pad(scene, (0, height - rows, 0, width - columns), value=value)
    inside = np.zeros((height, width, 1), np.float32)
    inside[:rows, :columns] = 1
    return dataclasses.replace(scene, images={**scene.images, name: inside})


def by_fours(function: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Applies a function of OpenCV to four channels at a time: the value of a border has four numbers.

    Two channels are taken one by one, since OpenCV 5 interpolates them less exactly than one, three or four. The
    function may drop a single channel, as OpenCV does.
    """
    channels = image.shape[-1]
    starts = [*range(0, channels, 4), *([channels - 1] if channels % 4 == 2 else [])]
    parts = (np.ascontiguousarray(part) for part in np.split(image, starts[1:], axis=-1))
    results = [function(part) for part in parts]
    return np.concatenate([result.reshape(*result.shape[:2], -1) for result in results], axis=-1)


def sides(size: Size) -> tuple[int, int]:
    """Returns height and width of a size that is one number or two."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise UserError(f"a size must be positive, not {size}")
    return int(height), int(width)


def _padded(numbers: np.ndarray, margins: Sequence[int], border: str, fill: int) -> np.ndarray:
    top, bottom, left, right = margins
    constant = {"constant_values": fill} if border == "constant" else {}
    return np.pad(numbers, ((top, bottom), (left, right)), border, **constant)


def _nearest(old: int, new: int) -> np.ndarray:
    """Index of the nearest of `old` pixels to the middle of each of `new`."""
    return ((np.arange(new) + 0.5) * (old / new)).astype(int)
