"""Transforms that move the pixels of an image, or all of a `Scene`, at random."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
import scipy

from cvjax.data.transforms.geometry import (
    BORDERS,
    Border,
    Image,
    Method,
    Resized,
    Size,
    by_fours,
    center_crop,
    crop,
    pad,
    resize,
    sides,
)
from cvjax.data.transforms.scene import Keep, Scene, collage
from cvjax.errors import UserError


def random_crop(
    generator: np.random.Generator,
    image: Image,
    size: Size,
    padding: Size = 0,
    border: Border = "reflect",
    keep: Keep = "centre",
) -> Resized:
    """Cuts out a rectangle at a uniformly random place of an image that is padded first."""
    image = pad(image, padding, border) if np.any(padding) else image
    height, width = sides(size)
    if height > image.shape[0] or width > image.shape[1]:
        raise UserError(f"a crop of {height}x{width} is larger than the image, {image.shape[0]}x{image.shape[1]}")
    top = int(generator.integers(image.shape[0] - height + 1))
    left = int(generator.integers(image.shape[1] - width + 1))
    return crop(image, top, left, (height, width), keep)


def random_resized_crop(
    generator: np.random.Generator,
    image: Image,
    size: Size,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    method: Method = "bilinear",
    keep: Keep = "centre",
) -> Resized:
    """Cuts out a rectangle of random area and aspect, and resizes it.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6. After ten rectangles that do not fit, the
    largest central one of an allowed aspect is used.

    Args:
      scale: share of the image's area, drawn uniformly.
      ratio: width over height, drawn uniformly in its logarithm.
    """
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = generator.uniform(*scale) * rows * columns
        aspect = np.exp(generator.uniform(*np.log(ratio)))
        height, width = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 0 < height <= rows and 0 < width <= columns:
            top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
            return resize(crop(image, int(top), int(left), (height, width), keep), size, method)
    height = min(rows, max(1, round(columns / ratio[0])))
    width = min(columns, max(1, round(rows * ratio[1])))
    return resize(center_crop(image, (height, width), keep), size, method)


def random_shift(
    generator: np.random.Generator, image: Image, pixels: int = 1, border: Border = "edge", keep: Keep = "centre"
) -> Image:
    """Moves an image by whole pixels in both directions, `pixels` at most; all shifts are equally likely."""
    return random_crop(generator, image, image.shape[:2], pixels, border, keep)


def random_expand(
    generator: np.random.Generator, image: Image, ratio: Sequence[float] = (1.0, 4.0), value: float = 0.5
) -> Resized:
    """Puts an image anywhere on a larger canvas of the same aspect. Sizes differ, so `resize` afterwards.

    Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 3.6. The canvas's side over the image's,
    `ratio`, is at least 1 and drawn uniformly.
    """
    if min(ratio) < 1:
        raise UserError(f"ratio={tuple(ratio)} must be at least 1: a canvas holds the image")
    drawn = generator.uniform(*ratio)
    return _put(generator, image, *(round(side * drawn) for side in image.shape[:2]), value)


def random_scale(
    generator: np.random.Generator,
    image: Image,
    scale: Sequence[float] = (0.5, 2.0),
    aspect: Sequence[float] = (1.0, 1.0),
    value: float = 0.5,
    method: Method = "bilinear",
    keep: Keep = "centre",
) -> Image:
    """Enlarges an image and keeps a random window, or shrinks it to a random place; the shape stays.

    Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021,
    section 3.1 (large scale jittering); the detectors of Darknet jitter the aspect too.

    Args:
      scale: the factor, drawn uniformly in its logarithm.
      aspect: ratio of the factors of width and height, drawn uniformly in its logarithm.
    """
    old = np.array(image.shape[:2])
    factors = np.exp(generator.uniform(*np.log(scale)) + generator.uniform(*np.log(aspect)) * np.array([-0.5, 0.5]))
    window, size = (
        tuple(np.maximum(1, np.round(old * share)).astype(int).tolist())
        for share in (1 / np.maximum(factors, 1), np.minimum(factors, 1))
    )
    shown = resize(random_crop(generator, image, window, keep=keep), size, method)
    return _put(generator, shown, *image.shape[:2], value)


def random_scale_crop(
    generator: np.random.Generator,
    image: Image,
    size: Size,
    scale: Sequence[float] = (0.5, 2.0),
    step: float = 0.25,
    value: float = 0.5,
    method: Method = "bilinear",
    keep: Keep = "centre",
) -> Resized:
    """Resizes an image by a random factor and cuts out a rectangle at a random place, padded if it is too small.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018, with
    size=513: factors 0.5, 0.75, ..., 2.

    Args:
      scale: the factor.
      step: factors differ by multiples of it; 0: any factor, drawn uniformly.
      value: of the padding, which is below and to the right.
    """
    least, most = scale
    if step:
        factor = least + step * int(generator.integers(round((most - least) / step), endpoint=True))
    else:
        factor = generator.uniform(least, most)
    image = resize(image, [max(1, round(side * factor)) for side in image.shape[:2]], method)
    below, beside = (max(0, new - old) for new, old in zip(sides(size), image.shape[:2], strict=True))
    return random_crop(generator, pad(image, (0, below, 0, beside), value=value), size, keep=keep)


def mosaic(
    generator: np.random.Generator,
    image: Image,
    another: Callable[[], Image],
    p: float = 1.0,
    scale: Sequence[float] = (0.5, 1.0),
    keep: Keep = "centre",
) -> Image:
    """Joins random windows of four images with boxes at a random point in the middle half, with probability `p`.

    Bochkovskiy et al., "YOLOv4: Optimal Speed and Accuracy of Object Detection", 2020, section 3.3. The result has the
    first image's shape.

    Args:
      another: returns further scenes, already transformed by what precedes this transform.
      scale: factor by which each is resized first, drawn uniformly in its logarithm; larger if it would not fill its
        quarter.
    """
    if not isinstance(image, Scene) or image.boxes is None:
        raise UserError("mosaic joins examples with boxes, and these have none: data.max_boxes is None")
    if image.points is not None:
        raise UserError("mosaic cannot join the points of four images; leave data.points None")
    if generator.random() >= p:
        return image
    height, width = image.shape[:2]
    row = int(generator.integers(height // 4, height - height // 4, endpoint=True))
    column = int(generator.integers(width // 4, width - width // 4, endpoint=True))
    scenes = [image, another(), another(), another()]
    placed = []
    for index, scene in enumerate(scenes[turn] for turn in generator.permutation(4)):
        top, left = row * (index // 2), column * (index % 2)
        window = (row, height - row)[index // 2], (column, width - column)[index % 2]
        fill = max(side / old for side, old in zip(window, scene.shape[:2], strict=True))
        factor = max(fill, np.exp(generator.uniform(*np.log(scale))))
        size = [max(side, round(old * factor)) for side, old in zip(window, scene.shape[:2], strict=True)]
        placed.append((top, left, random_crop(generator, resize(scene, size), window, keep=keep)))
    return collage(placed, height, width)


def rotate(
    generator: np.random.Generator, image: Image, degrees: float | Sequence[float] = 10.0, value: float = 0.0
) -> Image:
    """Rotates an image counter-clockwise about its centre, bilinearly; raises a UserError if there are boxes.

    `degrees` is (least, most), drawn uniformly; d means (-d, d). At the corners, maps get 0, and those of classes void.
    """
    least, most = (-degrees, degrees) if isinstance(degrees, int | float) else degrees
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), generator.uniform(least, most), 1.0)

    def turned(pixels: np.ndarray, value: float | int, flags: int = cv2.INTER_LINEAR) -> np.ndarray:
        border = (float(value),) * 4
        size = width, height
        channels = pixels.reshape(height, width, -1)
        after = by_fours(lambda part: cv2.warpAffine(part, turn, size, flags=flags, borderValue=border), channels)
        return after.reshape(pixels.shape)

    if isinstance(image, Scene):
        if image.boxed:
            raise UserError("rotate cannot move boxes: a turned object's box does not follow from its box before")
        return image.moved(
            lambda pixels: turned(pixels, value),
            lambda numbers, fill: turned(numbers.astype(np.float32), fill, cv2.INTER_NEAREST).astype(numbers.dtype),
            turn[:, :2].tolist(),
            (turn @ (-0.5, -0.5, 1) + 0.5).tolist(),  # OpenCV counts from the middle of the first pixel
        )
    return turned(image, value)


def elastic(
    generator: np.random.Generator,
    image: Image,
    std: float = 10.0,
    grid: int = 3,
    border: Border = "reflect",
    value: float = 0.0,
) -> Image:
    """Deforms an image smoothly, with bilinear interpolation; raises a UserError if there are boxes or points.

    Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, section 3.1:
    random displacements on a coarse grid, from which those of the pixels follow by bicubic interpolation.

    Args:
      std: standard deviation of the grid's displacements, in pixels.
      grid: number of its rows and columns, of which the first and last lie on the image's border.
      border: what a pixel from outside of the image shows; constants are `value`, 0 in maps, void in those of classes.
    """
    height, width = image.shape[:2]
    if isinstance(image, Scene) and (image.boxed or image.points is not None):
        raise UserError("elastic cannot move boxes or points; use it with images, maps and masks alone")
    moves = generator.normal(0, std, (2, grid, grid))
    rows, columns = (_spline(height, grid) @ move @ _spline(width, grid).T for move in moves)
    places = columns + np.arange(width), rows + np.arange(height)[:, None]
    column, row = (np.ascontiguousarray(place, np.float32) for place in places)

    def deformed(pixels: np.ndarray, value: float | int, flags: int = cv2.INTER_LINEAR) -> np.ndarray:
        options = dict(borderMode=BORDERS[border], borderValue=(float(value),) * 4)
        channels = pixels.reshape(*pixels.shape[:2], -1)
        return by_fours(lambda part: cv2.remap(part, column, row, flags, **options), channels).reshape(pixels.shape)

    if isinstance(image, Scene):
        return image.moved(
            lambda pixels: deformed(pixels, value),
            lambda numbers, fill: deformed(numbers.astype(np.float32), fill, cv2.INTER_NEAREST).astype(numbers.dtype),
        )
    return deformed(image, value)


@functools.lru_cache(maxsize=16)
def _spline(size: int, grid: int) -> np.ndarray:
    """Weights of `grid` values, evenly spaced over a side of `size` pixels, in the cubic spline through them."""
    places = np.linspace(0, grid - 1, size)
    interpolate = scipy.ndimage.map_coordinates
    return np.stack([interpolate(unit, [places], order=3, mode="mirror") for unit in np.eye(grid)], -1)


def random_quarter_turn(
    generator: np.random.Generator, image: Image, quarters: Sequence[int] = (0, 1, 2, 3)
) -> Resized:
    """Rotates an image counter-clockwise by a random number of right angles among `quarters`.

    Odd numbers exchange height and width.
    """
    for _ in range(int(generator.choice(quarters)) % 4):
        width = image.shape[1]
        scene = isinstance(image, Scene)
        turn = ((0, 1), (-1, 0)), (0, width)
        image = image.moved(np.rot90, lambda numbers, _: np.rot90(numbers), *turn) if scene else np.rot90(image)
    return image


def flip(
    generator: np.random.Generator, image: Image, p: float = 0.5, axis: Literal["horizontal", "vertical"] = "horizontal"
) -> Image:
    """Mirrors an image with probability `p`; "horizontal" exchanges left and right."""
    if generator.random() >= p:
        return image

    def mirrored(pixels: np.ndarray, _: int = 0) -> np.ndarray:
        return np.flip(pixels, 1 if axis == "horizontal" else 0)

    if isinstance(image, Scene):
        height, width = image.shape[:2]
        if axis == "horizontal":
            return image.moved(mirrored, mirrored, ((-1, 0), (0, 1)), (width, 0))
        return image.moved(mirrored, mirrored, ((1, 0), (0, -1)), (0, height))
    return mirrored(image)


def _put(generator: np.random.Generator, image: Image, height: int, width: int, value: float) -> Resized:
    """Puts an image anywhere on a canvas."""
    rows, columns = image.shape[:2]
    top, left = (int(generator.integers(room, endpoint=True)) for room in (height - rows, width - columns))
    return pad(image, (top, height - rows - top, left, width - columns - left), value=value)
