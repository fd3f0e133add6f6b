"""Transforms of colours, on float32 images [height, width, channels]; saturation and hue need three channels."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32

from cvjax.errors import UserError

Image = Float32[np.ndarray, "height width channels"]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601
# Principal components of the colours of ImageNet's pixels in [0, 1]; the rows of VECTORS are red, green and blue.
# Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1;
# values as in facebook/fb.resnet.torch.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def adjust_brightness(image: Image, delta: float) -> Image:
    """Adds `delta`, in [-1, 1], to every channel, clipped to [0, 1]."""
    return _clipped(image + np.float32(delta))


def adjust_contrast(image: Image, factor: float) -> Image:
    """Scales each channel's distance from its mean by `factor`, clipped to [0, 1]."""
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return _clipped(np.float32(factor) * (image - mean) + mean)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Scales the saturation in HSV by `factor`; 0 makes the image grey."""
    hsv = cv2.cvtColor(_rgb(image, "adjust_saturation"), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor), 0, 1)
    return _clipped(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def adjust_hue(image: Image, delta: float) -> Image:
    """Shifts the hue in HSV by `delta` turns of the colour circle; 0.5 gives complementary colours."""
    hsv = cv2.cvtColor(_rgb(image, "adjust_hue"), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * delta)) % 360
    return _clipped(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def color_jitter(
    generator: np.random.Generator,
    image: Image,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Image:
    """Changes brightness, contrast, saturation and hue at random, in this order.

    Brightness b adds uniformly from [-b, b], contrast c scales uniformly from [1 - c, 1 + c], saturation s from [1 - s,
    1 + s], and hue h, at most 0.5, shifts uniformly from [-h, h], in turns.
    """
    draws = generator.uniform(-1, 1, 4)  # always four, so that switching one off does not change the others' numbers
    if brightness:
        image = adjust_brightness(image, brightness * draws[0])
    if contrast:
        image = adjust_contrast(image, max(0.0, 1 + contrast * draws[1]))
    if saturation:
        image = adjust_saturation(image, max(0.0, 1 + saturation * draws[2]))
    if hue:
        image = adjust_hue(image, hue * draws[3])
    return image


def lighting(generator: np.random.Generator, image: Image, std: float = 0.1) -> Image:
    """Shifts all pixels along the principal components of natural colours, clipped to [0, 1]; needs three channels.

    Krizhevsky et al., NIPS 2012, section 4.1: adds sum_i a_i l_i p_i, with a_i ~ N(0, std) drawn once per image.
    """
    shift = VECTORS @ (EIGENVALUES * generator.normal(0, std, 3))
    return _clipped(_rgb(image, "lighting") + shift.astype(np.float32))


def grayscale(image: Image, channels: int = 1) -> Float32[np.ndarray, "height width new_channels"]:
    """Converts an image to `channels` equal channels of Rec. 601's luma."""
    grey = image if image.shape[-1] == 1 else (_rgb(image, "grayscale") @ LUMA)[..., None]
    return np.repeat(grey, channels, axis=-1)


def normalise(image: Image, mean: float | Sequence[float], std: float | Sequence[float]) -> Image:
    """Subtracts a mean and divides by a standard deviation, of all channels or of each; the result is not in [0, 1]."""
    return (image - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def remove_background(
    image: Image, rect: Sequence[int] | None = None, iterations: int = 5, value: float = 1.0
) -> Image:
    """Paints over the background that GrabCut finds in one or three channels with `value`.

    Rother, Kolmogorov, Blake, "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts", SIGGRAPH 2004, as
    OpenCV implements it, with `iterations` estimations of the two colour models. All outside of `rect`, (left, top,
    right, bottom) in pixels with right and bottom exclusive, is background; None: a margin of a twentieth is.
    """
    height, width = image.shape[:2]
    margins = max(1, height // 20), max(1, width // 20)
    left, top, right, bottom = rect or (margins[1], margins[0], width - margins[1], height - margins[0])
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise UserError(f"rect {tuple(rect or ())} does not lie within an image of {height}x{width}")
    if image.shape[-1] not in (1, 3):
        raise UserError(f"remove_background needs an image of one or three channels, not {image.shape[-1]}")
    pixels = np.round(np.repeat(image, 3 // image.shape[-1], axis=-1) * 255).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)  # GrabCut starts from k-means with random centres
    cv2.grabCut(
        pixels,
        mask,
        (left, top, right - left, bottom - top),
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        iterations,
        cv2.GC_INIT_WITH_RECT,
    )
    foreground = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    return np.where(foreground[..., None], image, np.float32(value))


def _clipped(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 1, dtype=np.float32)


def _rgb(image: np.ndarray, name: str) -> np.ndarray:
    if image.shape[-1] != 3:
        raise UserError(f"{name} needs an image of three channels, not {image.shape[-1]}")
    return np.ascontiguousarray(image)
